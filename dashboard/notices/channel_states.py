"""What came of the last messages to each channel; a channel is told by its name only."""

from datetime import datetime
from typing import NamedTuple

from django.conf import settings

from dashboard.models import NoticeMessage


class ChannelState(NamedTuple):
    """A channel in NOTIFY_URLS."""

    name: str
    sent_at: datetime | None  # of its last message that has arrived
    failed_at: datetime | None  # the last attempt, if it failed; None: it did not
    error: str  # why it failed
    waiting: int  # messages that have not arrived yet, and are not given up


def load() -> list[ChannelState]:
    """Return the state of each channel, in the order of the setting."""
    return list(map(_state, settings.NOTIFY_URLS))


def _state(name: str) -> ChannelState:
    messages = NoticeMessage.objects.filter(channel=name).order_by("-pk")
    sent = messages.exclude(sent_at=None).first()
    tried = messages.exclude(attempts=0).first()
    failing = tried if tried and not tried.sent_at and tried.error else None
    return ChannelState(
        name,
        sent.sent_at if sent else None,
        failing.claimed_at if failing else None,
        failing.error if failing else "",
        messages.exclude(next_try_at=None).count(),
    )
