"""How to set up Northflank's webhook, for administrators: what to enter, and what it saves."""

import secrets
from dataclasses import dataclass, field
from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext_lazy

from dashboard.sync.webhooks.status import WebhookStatus
from dashboard.texts import durations
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.http import links

# What a run of a release flow sends; Northflank offers many more events.
EVENTS = ("start", "update", "success", "failure", "aborted")
_text = MessageTable(
    {
        "sooner": gettext_lazy("New runs show after 1 s instead of up to %(time)s."),
        "soon": gettext_lazy("New runs show after 1 s."),
    }
)


@dataclass(frozen=True, slots=True)
class WebhookSetup:
    """What an administrator enters on Northflank; with the secret, so for nobody else."""

    address: str
    secret: str = field(repr=False)
    env_line: str = field(repr=False)  # for `.env`; empty: the secret is set
    saving: Message
    is_done: bool  # Northflank's own events arrive
    events: tuple[str, ...] = EVENTS


def build_setup(
    request: HttpRequest, status: WebhookStatus, new_runs_within: int | None
) -> WebhookSetup:
    """Return the set-up; without a secret in the settings, each time with a new one to set.

    `new_runs_within` are the seconds that the webhook spares (`Report.new_runs_within`).
    """
    path = reverse("northflank_webhook")
    known: list[str] = settings.NORTHFLANK_WEBHOOK_SECRET
    secret = known[-1] if known else secrets.token_hex(32)
    saving = _text("soon")
    if new_runs_within is not None:
        time = durations.format_rounded(timedelta(seconds=new_runs_within))
        saving = _text("sooner", time=time)
    return WebhookSetup(
        links.absolute_url(path) if settings.BASE_URL else request.build_absolute_uri(path),
        secret,
        "" if known else f"NORTHFLANK_WEBHOOK_SECRET={secret}",
        saving,
        is_done=status.is_alive,
    )
