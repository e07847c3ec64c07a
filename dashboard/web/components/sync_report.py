"""The content of the page Health."""

from datetime import datetime
from functools import lru_cache
from typing import Any

from django.db.models import Case, F, Q, When
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import NOW, PreparedModels
from dashboard.models import CatalogSync, Lead, Pruning, Stage
from dashboard.sync import search
from dashboard.sync.reports import freshness
from dashboard.sync.reports.report import Report
from dashboard.sync.webhooks import status as webhook_status
from dashboard.texts import durations
from dashboard.texts.rich_text import MessageTable
from dashboard.upstream import access_hint
from dashboard.web.components import macros
from dashboard.web.http import links, lookup

MAX_STAGES = 100  # rows of the stage table; the other stages are only counted
_text = MessageTable(
    {
        # Catalog lists.
        "projects": gettext_lazy("Projects"),
        "pipelines": gettext_lazy("Pipelines of %(project)s"),
    }
)


def load_status(permissions: Permissions, report: Report) -> dict[str, Any]:
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
        "search_budget": search.load_usage(now),
        "webhook": webhook_status.load(now),
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


_ROW_FIELDS = (
    "name", "synced_at", "fresh_until", "next_sync_at",
    "error", "error_message", "error_since", "failures",
    "pipeline__name", "pipeline__slug", "pipeline__project__name", "pipeline__project__slug",
)  # fmt: skip


class _Queries:
    """The composed queries for the users who may view the same stages."""

    def __init__(self, permissions: Permissions) -> None:
        visible = Stage.objects.listed().filter(permissions.stage_filter())
        stages = visible.select_related("pipeline__project").only(*_ROW_FIELDS)
        # Failing stages first, then stale and unread ones; without release flow last.
        is_stale = Q(fresh_until__isnull=False, fresh_until__lt=NOW - freshness.GRACE)
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
    is_stale, interval = freshness.is_stale(stage.fresh_until, now), ""
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
