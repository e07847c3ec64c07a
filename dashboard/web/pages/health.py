"""Health: sync health, rate limit, workers, webhook, and the data age of each stage."""

import secrets
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

from django.conf import settings
from django.db.models import Case, F, Q, When
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_safe

from dashboard.accounts.administration import administrators
from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import NOW, PreparedModels
from dashboard.models import CatalogSync, Lead, Pruning, Stage
from dashboard.notices import channel_states
from dashboard.sync import schedule
from dashboard.sync.reports.report import Report
from dashboard.sync.webhooks import status as webhook_status
from dashboard.sync.webhooks.status import WebhookStatus
from dashboard.texts import durations
from dashboard.texts.rich_text import MessageTable
from dashboard.upstream import access_hint
from dashboard.web.components import macros, tab_title
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import links, lookup
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.responses.htmx import is_htmx
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot

# What a run of a release flow sends; Northflank offers many more events.
EVENTS = ("start", "update", "success", "failure", "aborted")
MAX_STAGES = 100  # rows of the stage table; the other stages are only counted
_text = MessageTable(
    {
        "sooner": gettext_lazy("New runs show after 1 s instead of up to %(time)s."),
        "soon": gettext_lazy("New runs show after 1 s."),
        # Catalog lists.
        "projects": gettext_lazy("Projects"),
        "pipelines": gettext_lazy("Pipelines of %(project)s"),
    }
)


@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Show the state of the sync, with the stages in the worst state first."""
    page = HealthPage(Snapshot.for_request(request))
    response = page_response(request, page)
    response.holds_secret = page.holds_secret  # type: ignore[attr-defined]
    return response


class HealthPage(Page):
    name = "health"
    template = "pages/health.html"
    data_age = DataAge(None, is_stale=False)  # each row shows its own
    is_personal = True  # with the set-up of the webhook for administrators
    holds_secret = False  # that of the webhook

    @cached_property
    def status(self) -> dict[str, Any]:
        return _load_status(self.permissions, self.snapshot.report)

    @property
    def tab_title(self) -> TabTitle:
        report = self.snapshot.report
        return tab_title.build(
            _("Health"),
            upstream_down=self.upstream_down or not report.health.is_syncing,
            incomplete=not report.is_complete,
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        user = signed_in_user(request)
        # In no live part, which all who may view the same stages share.
        self.holds_secret = administrators.may_administer(user) and not is_htmx(request)
        return {
            "status": self.status,
            "webhook_setup": _webhook_setup(
                request, self.status["webhook"], self.snapshot.report.new_runs_within
            )
            if self.holds_secret
            else None,
        }

    def own_status_parts(self) -> list[LivePart]:
        return [render_part("status", "pages/health.html#status", status=self.status)]


def _webhook_setup(
    request: HttpRequest, status: WebhookStatus, new_runs_within: int | None
) -> dict[str, Any]:
    """Return what an administrator enters on Northflank; with the secret, so for nobody else.

    Without one in the settings, each time with a new one to set. `new_runs_within` are the seconds
    that the webhook spares (`Report.new_runs_within`).
    """
    path = reverse("northflank_webhook")
    known: list[str] = settings.NORTHFLANK_WEBHOOK_SECRET
    secret = known[-1] if known else secrets.token_hex(32)
    saving = _text("soon")
    if new_runs_within is not None:
        time = durations.format_rounded(timedelta(seconds=new_runs_within))
        saving = _text("sooner", time=time)
    address = links.absolute_url(path) if settings.BASE_URL else request.build_absolute_uri(path)
    return {
        "address": address,
        "secret": secret,
        "env_line": "" if known else f"NORTHFLANK_WEBHOOK_SECRET={secret}",  # for `.env`
        "saving": saving,
        "is_done": status.is_alive,  # Northflank's own events arrive
        "events": EVENTS,
    }


def _load_status(permissions: Permissions, report: Report) -> dict[str, Any]:
    """Return the status of the sync, and of the stages that the user may see, for the page."""
    queries, now = _queries(permissions), report.sync.now
    lists = queries.failing_lists.fetch()
    stages = queries.worst_stages.fetch(now=now)
    causes = {row.error for row in lists} | {stage.error for stage in stages}
    rows = [_stage_row(stage, now) for stage in stages]
    exceptions = [row for row in rows if not row["is_as_planned"]]
    others = [row for row in rows if row["is_as_planned"]]
    return {
        "report": report,
        "webhook": webhook_status.load(now),
        "failing_channels": [state for state in channel_states.load() if state.error],
        # The process that reads, or the last one that did.
        "leader": next(iter(queries.lead.fetch()), None),
        "catalog_errors": list(map(_catalog_error, lists)),
        "access_hint": access_hint.describe("forbidden") if "forbidden" in causes else "",
        "stages": rows,
        "hidden_stage_count": report.stages - len(rows),
        "exceptions": exceptions,
        "exception_rows": macros.render("sync_stages.html#rows", exceptions),
        "other_rows": macros.render("sync_stages.html#rows", others),
        # The last pass of pruning, for users who may view all runs.
        "pruning": next(iter(queries.pruning.fetch()), None) if permissions.can_view_all else None,
    }


class _Queries:
    """The composed queries for the users who may view the same stages."""

    def __init__(self, permissions: Permissions) -> None:
        visible = Stage.objects.listed().filter(permissions.stage_filter())
        stages = visible.select_related("pipeline__project")
        # Failing stages first, then stale and unread ones; without release flow last.
        is_stale = Q(fresh_until__isnull=False, fresh_until__lt=NOW - schedule.GRACE)
        without_flow = Q(has_flow__isnull=False, has_flow=False)
        order = [~Q(error=""), is_stale, ~without_flow, Q(synced_at=None)]
        self.worst_stages = PreparedModels(
            stages.order_by(
                *(Case(When(condition, then=0), default=1) for condition in order),
                F("fresh_until").asc(nulls_first=True),
                "pk",
            )[:MAX_STAGES]
        )
        lists = lookup.visible_catalog_lists(permissions).exclude(error="")
        self.failing_lists = PreparedModels(lists.select_related("project"))
        self.lead = PreparedModels(Lead.objects.exclude(holder="").order_by("pk"))
        self.pruning = PreparedModels(Pruning.objects.filter(pk=1).exclude(finished_at=None))


@lru_cache(maxsize=100)
def _queries(permissions: Permissions) -> _Queries:
    return _Queries(permissions)


def _catalog_error(catalog_list: CatalogSync) -> dict[str, Any]:
    project = catalog_list.project
    return {
        "name": _text("pipelines", project=str(project)) if project else _text("projects"),
        "text": catalog_list.error_message,
        "failing_since": catalog_list.error_since,
    }


def _stage_row(stage: Stage, now: datetime) -> dict[str, Any]:
    is_stale, interval = schedule.is_stale(stage.fresh_until, now), ""
    if stage.fresh_until and stage.synced_at:
        interval = durations.format_rounded(stage.fresh_until - stage.synced_at)
    return {
        "stage": stage,
        "url": links.stage_url(stage),
        "is_stale": is_stale,
        "refresh_interval": interval,
        "is_due": stage.next_sync_at <= now,
        "is_as_planned": not (stage.error_message or is_stale or stage.synced_at is None),
    }
