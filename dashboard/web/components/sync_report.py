"""The status page's data: rate limit, workers, webhook, catalog errors, and age of each stage."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from django.db.models import BooleanField, ExpressionWrapper, Q
from django.template.defaultfilters import filesizeformat
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import Keys, PreparedModels, PreparedQuery
from dashboard.models import CatalogSync, Lead, Pruning, RateBudget, Stage, Upstream
from dashboard.sync import lead, omitted_entries, run_lookup, schedule, stage_reader
from dashboard.sync.reports import freshness
from dashboard.sync.run_lookup import SearchUsage
from dashboard.sync.schedule import FIRST_READ_ORDER
from dashboard.sync.webhooks import status as webhook_status
from dashboard.sync.webhooks.status import WebhookStatus
from dashboard.texts import durations
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.upstream import access_hint, budget_store
from dashboard.upstream.rate_budget import WINDOW
from dashboard.web.components import macros
from dashboard.web.http import links, lookup

MAX_STAGES = 100  # rows of the stage table; the other stages are only counted
_SHORT_PAUSE = timedelta(minutes=2)  # too short to be reported
# Share of the requests that an even use of the hour would leave; with less, reading is slowed.
# First reads may leave a quarter of them (upstream/rate_budget.py).
_SLOW_SHARE = 0.15
_text = MessageTable(
    {
        # Catalog lists.
        "projects": gettext_lazy("Projects"),
        "pipelines": gettext_lazy("Pipelines of %(project)s"),
    }
)


@dataclass(frozen=True, slots=True)
class RateLimitUsage:
    """The use of the hourly rate limit, as of Northflank's last response."""

    limit: int  # requests per hour, as all counts here
    remaining: int
    own_requests: int
    other_requests: int
    reserve: int  # for aborts
    resets_at: datetime | None  # None: the window has ended, the next request starts a full one
    backoff_until: datetime | None
    refusals: int  # consecutive 429s, each after the pause of the previous one
    is_probing: bool  # the pause is over, but no request has been answered since
    synced_at: datetime


@dataclass(frozen=True, slots=True)
class WorkerRow:
    name: str
    started_at: datetime
    heartbeat_at: datetime
    is_alive: bool


@dataclass(frozen=True, slots=True)
class CatalogErrorRow:
    """A catalog list that can't be read, or only in part."""

    name: Message
    text: str
    failing_since: datetime | None
    next_attempt_at: datetime


@dataclass(frozen=True, slots=True)
class StageRow:
    """One stage: its data age, polling and errors."""

    project: str
    pipeline: str
    stage: str
    url: str
    synced_at: datetime | None
    is_stale: bool
    refresh_interval: str  # from `synced_at` to the stage's `fresh_until`, as text
    next_sync_at: datetime | None  # None: now
    omitted_text: str  # entries of its run list that could not be mirrored; empty: none
    error: str
    error_since: datetime | None
    failures: int


@dataclass(frozen=True, slots=True)
class StageNameRow:
    """The stages of one name, such as Production."""

    name: str
    stage_count: int
    longest_interval: str  # of those with a release flow: the longest time until a new run shows
    oldest_sync_at: datetime | None
    stale_count: int
    unread_count: int  # never read, or not since a long outage


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """The database as of the last pass of pruning, and what that deleted."""

    run_count: str
    size: str
    oldest_run_at: datetime | None
    pruned_at: datetime
    deleted_runs: str
    deleted_steps: str  # runs whose steps
    deleted_access_events: str


@dataclass(frozen=True, slots=True)
class SyncStatus:
    """All data of the status page."""

    health: freshness.SyncHealth
    incomplete_text: str  # what has not been read yet; empty: coverage is complete
    rate_limit: RateLimitUsage | None
    search_budget: SearchUsage
    webhook: WebhookStatus
    workers: list[WorkerRow]
    catalog_errors: list[CatalogErrorRow]
    access_hint: str  # what to check if Northflank refuses a list or a stage; empty: none refused
    stages: list[StageRow]
    stage_names: list[StageNameRow]
    hidden_stage_count: int
    database: DatabaseFacts | None  # None: not pruned yet, or the user may not view all runs

    @property
    def stage_rows(self) -> SafeString:
        """The rows of `stages` as markup."""
        return macros.render("sync_stages.html#rows", self.stages)


def load_status(permissions: Permissions, now: datetime) -> SyncStatus:
    """Return the status of the sync, and of the stages that the user may see."""
    queries = _queries(permissions)
    stages = [_StageState(*values) for values in queries.stages.fetch()]
    gaps = {stage.pk for stage in stages if schedule.find_gap(stage, now) is not None}
    stale = {
        stage.pk
        for stage in stages
        if freshness.is_stale(stage.fresh_until, now) and stage.pk not in gaps
    }
    worst_first = sorted(
        stages, key=lambda stage: _sort_key(stage, is_stale=stage.pk in stale, now=now)
    )
    totals = lookup.read_totals_query(permissions).load(now)
    lists = queries.defective_lists.fetch()
    failing_lists = [catalog_list for catalog_list in lists if catalog_list.error]
    partial_lists = [catalog_list for catalog_list in lists if not catalog_list.error]
    causes = {row.error for row in failing_lists} | {stage.error for stage in stages}
    workers = _worker_rows(queries.workers.fetch(), now)
    rate_limit = _rate_limit_usage(queries.rate_budget.fetch(), now)
    upstream_error = next(iter(queries.upstream_error.fetch()), None)
    facts = freshness.SyncState(
        # As on other pages: without those that have no release flow, unless there are only those.
        stages=totals.with_flow or totals.stages,
        stale=totals.stale,
        incomplete=totals.coverage.text,
        failing=totals.failing,
        failing_lists=totals.failing_lists,
        partial_lists=totals.partial + totals.partial_lists,
        workers=sum(worker.is_alive for worker in workers),
        last_heartbeat_at=max((worker.heartbeat_at for worker in workers), default=None),
        upstream_error=upstream_error.error_message if upstream_error else "",
        upstream_error_since=upstream_error.error_since if upstream_error else None,
        backoff_until=rate_limit.backoff_until if rate_limit else None,
        remaining=rate_limit.remaining if rate_limit else 0,
        limit=rate_limit.limit if rate_limit else 0,
        is_probing=rate_limit.is_probing if rate_limit else False,
        used_up_until=_used_up_until(rate_limit, now) if rate_limit else None,
        slowed_until=_slowed_until(rate_limit, now) if rate_limit else None,
        is_restricted=not permissions.can_view_all,
    )
    listed_keys = [stage.pk for stage in worst_first[:MAX_STAGES]]
    return SyncStatus(
        health=freshness.assess(facts),
        incomplete_text=facts.incomplete,
        rate_limit=rate_limit,
        search_budget=run_lookup.load_usage(),
        webhook=webhook_status.load(now),
        workers=workers,
        catalog_errors=list(map(_catalog_error_row, (*failing_lists, *partial_lists))),
        access_hint=access_hint.describe("forbidden") if "forbidden" in causes else "",
        stages=_stage_rows(
            queries.listed_stages.fetch(stages=listed_keys), listed_keys, stale, now
        ),
        stage_names=_stage_name_rows(stages, stale, gaps),
        hidden_stage_count=len(stages) - len(listed_keys),
        database=_database_facts(queries.pruning.fetch()) if permissions.can_view_all else None,
    )


class _StageState(NamedTuple):
    """What is loaded of all stages: there may be thousands."""

    pk: int
    name: str
    has_flow: bool | None
    synced_at: datetime | None
    fresh_until: datetime | None
    in_flight_incomplete: bool
    error: str
    has_omissions: bool


_ROW_FIELDS = (
    "name", "synced_at", "fresh_until", "next_sync_at", "omitted_by_page",
    "error_message", "error_since", "failures",
    "pipeline__name", "pipeline__slug", "pipeline__project__name", "pipeline__project__slug",
)  # fmt: skip


class _Queries:
    """The composed queries for the users who may view the same stages."""

    def __init__(self, permissions: Permissions) -> None:
        has_omissions = ExpressionWrapper(~Q(omitted_by_page={}), BooleanField())
        visible = Stage.objects.listed().filter(permissions.stage_filter())
        self.stages = PreparedQuery(
            visible.annotate(has_omissions=has_omissions).values_list(*_StageState._fields)
        )
        stages = Stage.objects.filter(pk__in=Keys("stages")).select_related("pipeline__project")
        self.listed_stages = PreparedModels(stages.only(*_ROW_FIELDS))
        lists = lookup.visible_catalog_lists(permissions).exclude(error="", omitted_by_page={})
        self.defective_lists = PreparedModels(lists.select_related("project"))
        self.workers = PreparedModels(Lead.objects.exclude(holder=""))
        self.rate_budget = PreparedModels(RateBudget.objects.order_by("pk")[:1])
        self.upstream_error = PreparedModels(Upstream.objects.exclude(error="").order_by("pk")[:1])
        self.pruning = PreparedModels(Pruning.objects.filter(pk=1))


@lru_cache(maxsize=100)
def _queries(permissions: Permissions) -> _Queries:
    return _Queries(permissions)


def _sort_key(
    stage: _StageState, *, is_stale: bool, now: datetime
) -> tuple[bool, bool, bool, bool, bool, datetime]:
    """Sort failing stages first, then stale, partial and unread ones; without release flow last."""
    return (
        not stage.error,
        not is_stale,
        not stage.has_omissions,
        stage.has_flow is False,
        stage.synced_at is not None,
        stage.fresh_until or now,
    )


def _rate_limit_usage(rows: Sequence[RateBudget], now: datetime) -> RateLimitUsage | None:
    if not rows:
        return None
    (budget_row,) = rows
    has_window_ended = budget_row.resets_at <= now
    paused_until = (
        budget_row.backoff_until
        if budget_row.backoff_until and budget_row.backoff_until > now
        else None
    )
    remaining = budget_row.limit if has_window_ended else budget_row.remaining
    own_requests = 0 if has_window_ended else budget_row.own_requests
    return RateLimitUsage(
        limit=budget_row.limit,
        remaining=remaining,
        own_requests=own_requests,
        other_requests=max(budget_row.limit - remaining - own_requests, 0),
        reserve=budget_store.abort_reserve(budget_row.limit),
        resets_at=None if has_window_ended else budget_row.resets_at,
        backoff_until=paused_until,
        refusals=budget_row.refusals,
        is_probing=budget_row.refusals > 0 and paused_until is None,
        synced_at=budget_row.synced_at,
    )


def _used_up_until(usage: RateLimitUsage, now: datetime) -> datetime | None:
    """Return until when the worker reads nothing, since too few requests are left for a read.

    None near the end of the hour, when they are used up as planned.
    """
    is_used_up = usage.remaining - usage.reserve < stage_reader.MAX_REQUESTS_PER_READ
    if not is_used_up or usage.resets_at is None or usage.resets_at - now < _SHORT_PAUSE:
        return None
    return usage.resets_at


def _slowed_until(usage: RateLimitUsage, now: datetime) -> datetime | None:
    """Return until when reads are far apart, since few requests are left for them."""
    if usage.resets_at is None or usage.resets_at - now < _SHORT_PAUSE:
        return None
    usual_requests = (usage.limit - usage.reserve) * ((usage.resets_at - now) / WINDOW)
    is_slowed = usage.remaining - usage.reserve < _SLOW_SHARE * usual_requests
    return usage.resets_at if is_slowed else None


def _worker_rows(rows: Iterable[Lead], now: datetime) -> list[WorkerRow]:
    return [
        WorkerRow(row.holder, row.taken_at, row.renewed_at, lead.is_alive(row, now))
        for row in rows
        if row.taken_at is not None and row.renewed_at is not None
    ]


def _database_facts(passes: Sequence[Pruning]) -> DatabaseFacts | None:
    last = passes[0] if passes else None
    if last is None or last.finished_at is None:
        return None
    return DatabaseFacts(
        run_count=f"{last.run_count:,}",
        size=filesizeformat(last.database_bytes),
        oldest_run_at=last.oldest_run_at,
        pruned_at=last.finished_at,
        deleted_runs=f"{last.deleted_runs:,}",
        deleted_steps=f"{last.deleted_steps:,}",
        deleted_access_events=f"{last.deleted_access_events:,}",
    )


def _catalog_error_row(catalog_list: CatalogSync) -> CatalogErrorRow:
    project = catalog_list.project
    name = _text("pipelines", project=str(project)) if project else _text("projects")
    text = catalog_list.error_message or omitted_entries.message(catalog_list.omitted)
    return CatalogErrorRow(name, text, catalog_list.error_since, catalog_list.next_sync_at)


def _stage_rows(
    loaded: Iterable[Stage],
    keys: Sequence[int],
    stale: set[int],
    now: datetime,
) -> list[StageRow]:
    """Return the rows of stages in the order of `keys`."""
    stages = {stage.pk: stage for stage in loaded}
    return [
        StageRow(
            project=stage.pipeline.project.name,
            pipeline=stage.pipeline.name,
            stage=stage.name,
            url=links.stage_url(stage),
            synced_at=stage.synced_at,
            is_stale=stage.pk in stale,
            refresh_interval=durations.format_rounded(stage.fresh_until - stage.synced_at)
            if stage.fresh_until and stage.synced_at
            else "",
            next_sync_at=stage.next_sync_at if stage.next_sync_at > now else None,
            omitted_text=omitted_entries.message(stage.omitted),
            error=stage.error_message,
            error_since=stage.error_since,
            failures=stage.failures,
        )
        for stage in (stages[key] for key in keys if key in stages)
    ]


def _stage_name_rows(
    stages: Sequence[_StageState], stale: set[int], gaps: set[int]
) -> list[StageNameRow]:
    by_name = {name: [stage for stage in stages if stage.name == name] for name in FIRST_READ_ORDER}
    return [
        StageNameRow(
            name=name,
            stage_count=len(named),
            longest_interval=_longest_interval(named),
            oldest_sync_at=min((s.synced_at for s in named if s.synced_at), default=None),
            stale_count=sum(stage.pk in stale for stage in named),
            unread_count=sum(stage.pk in gaps for stage in named),
        )
        for name, named in by_name.items()
        if named
    ]


def _longest_interval(stages: Iterable[_StageState]) -> str:
    intervals = (
        stage.fresh_until - stage.synced_at
        for stage in stages
        if stage.has_flow and stage.fresh_until and stage.synced_at
    )
    longest = max(intervals, default=None)
    return durations.format_rounded(longest) if longest is not None else ""
