"""Make the plan of reads from the database, and keep the schedule of each stage in line with it."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from django.db import transaction
from django.db.models import (
    BigIntegerField,
    DateTimeField,
    F,
    FilteredRelation,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
)
from django.db.models.expressions import Combinable

from dashboard.db import expressions
from dashboard.db.prepared import NOW, Parameter, PreparedQuery
from dashboard.models import CatalogSync, Run, Stage
from dashboard.models.catalog import StageQuerySet
from dashboard.sync import plan as rules
from dashboard.sync import schedule
from dashboard.sync.plan import Plan, RunFacts

# `fresh_until` is extended this long before it expires: two plans.
FRESHNESS_LOOKAHEAD = timedelta(seconds=10)
MAX_CUTS = 50  # of `fresh_until` a plan: each takes a statement, and the next plan goes on
MIN_LISTS_INTERVAL = timedelta(minutes=1)  # a list of projects or pipelines hardly changes


class StageFacts(NamedTuple):
    """The fields of a stage that decide how often it is read."""

    pk: int
    name: str
    has_flow: bool | None
    missing_since: datetime | None
    last_viewed_at: datetime | None
    watched_since: datetime | None
    pipeline_viewed_at: datetime | None
    pipeline_watched_since: datetime | None
    synced_at: datetime | None
    fresh_until: datetime | None
    in_flight_incomplete: bool
    flow_synced_at: datetime | None
    next_sync_at: datetime
    failures: int
    error: str

    def watch(self, now: datetime) -> tuple[float, timedelta]:
        """Return the stage's share of what is watched, and for how long it has been watched."""
        if self.watched_since and schedule.is_watched(self.last_viewed_at, now):
            return 1.0, now - self.watched_since
        if self.pipeline_watched_since and schedule.is_watched(self.pipeline_viewed_at, now):
            return rules.PIPELINE_SHARE, now - self.pipeline_watched_since
        return 0.0, timedelta()


_FACTS = (
    *StageFacts._fields[:6], "pipeline__last_viewed_at", "pipeline__watched_since",
    *StageFacts._fields[8:],
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """The plan for all stages, and what it has learned of them."""

    plan: Plan
    starts: Mapping[int, int]  # by the key of a stage: its runs of `plan.HISTORY`
    account_rate: float = 0.0  # new runs a second of a stage, on average
    has_gaps: bool = False  # some stages have a gap: first reads come first

    @property
    def lists_interval(self) -> timedelta:
        """The time between two reads of a list of projects or pipelines."""
        return max(timedelta(seconds=self.plan.interval(rules.LIST_URGENCY)), MIN_LISTS_INTERVAL)

    def urgency(self, stage: StageFacts, runs: Sequence[RunFacts]) -> float:
        """Return the urgency of a stage with these runs in flight."""
        starts = self.starts.get(stage.pk, 0) + len(runs)
        new_runs = rules.start_rate(starts, self.account_rate)
        return rules.urgency(stage.name, new_runs, runs)

    def steps_interval(self, stage: StageFacts, runs: Sequence[RunFacts]) -> timedelta:
        """Return the time from a read of a stage's runs to that of the detail of one of them."""
        return timedelta(seconds=self.plan.interval(self.urgency(stage, runs)))

    def stage_interval(
        self, stage: StageFacts, runs: Sequence[RunFacts], now: datetime
    ) -> timedelta:
        """Return the time between two reads of the runs of a stage, which has these in flight."""
        if schedule.is_idle_without_flow(stage.has_flow, stage.missing_since, now):
            return schedule.NO_FLOW_INTERVAL
        interval = self.steps_interval(stage, runs)
        if any(run.is_started for run in runs) and interval >= rules.MIN_STEPS_AGE:
            interval *= 2  # the reads between are of details
        share, watched_for = stage.watch(now)
        if share:
            watched = timedelta(seconds=self.plan.watched_interval(share, watched_for))
            interval = min(interval, watched)
        return interval

    def watched_run_interval(self, watched_since: datetime | None, now: datetime) -> timedelta:
        """Return the time between two reads of a run that is watched."""
        watched_for = now - watched_since if watched_since else timedelta()
        return timedelta(seconds=self.plan.watched_interval(1.0, watched_for))


# Until there is a plan, what is watched is read as often as it can be.
NO_PLAN = ReadPlan(Plan(rules.LONGEST_INTERVAL, rules.LONGEST_INTERVAL), {}, has_gaps=True)


def count_starts(now: datetime) -> dict[int, int]:
    """Return the number of runs created in the last `plan.HISTORY`, without those in flight, by the
    key of their stage.
    """
    return dict(_starts_query().fetch(since=now - rules.HISTORY))


@cache
def _starts_query() -> PreparedQuery:
    since = Parameter("since", DateTimeField())
    recent = Run.objects.with_in_flight(False).filter(stage=OuterRef("pk"), created_at__gt=since)
    starts = Subquery(recent.order_by().values_list(expressions.Count()))  # by index, of each stage
    return PreparedQuery(Stage.objects.listed().values_list("pk", starts))


def make_plan(
    requests_per_second: float,
    now: datetime,
    starts: Mapping[int, int],
    *,
    other_reads: float = 0.0,
) -> ReadPlan:
    """Return a plan for all listed stages, and reschedule stages planned differently before.

    `starts` as by `count_starts`; `other_reads`, a second, are those that are not planned here.
    """
    stages = load_stages(now)
    gaps = any(not stage.failures and schedule.has_gap(stage, now) for stage, _ in stages)
    counts = dict(_counts_query().fetch(now=now))
    lists, unread_lists, watched_runs = counts[0], counts[1], counts[2]
    has_gaps = gaps or unread_lists > 0
    if has_gaps:
        other_reads = max(other_reads, schedule.GAPS_SHARE * requests_per_second)
    account_rate = sum(starts.values()) / max(len(stages), 1) / rules.HISTORY.total_seconds()
    learned = ReadPlan(Plan(0.0, 0.0), starts, account_rate, has_gaps)
    planned = [
        (stage, runs)
        for stage, runs in stages
        if not schedule.is_idle_without_flow(stage.has_flow, stage.missing_since, now)
    ]
    urgencies = [learned.urgency(stage, runs) for stage, runs in planned]
    plan = rules.make_plan(
        urgencies + [rules.LIST_URGENCY] * lists,
        requests_per_second,
        other_reads=other_reads,
        watched_shares=watched_runs + sum(stage.watch(now)[0] for stage, _ in planned),
    )
    read_plan = ReadPlan(plan, starts, account_rate, has_gaps)
    _reschedule({stage: read_plan.stage_interval(stage, runs, now) for stage, runs in stages}, now)
    return read_plan


@cache
def _counts_query() -> PreparedQuery:
    """Return the numbers of catalog lists, of those never read, and of watched runs, in order."""
    lists = CatalogSync.objects.listed()
    watched_since = NOW - schedule.WATCHED_FOR
    counts = (
        lists,
        CatalogSync.objects.never_synced().filter(failures=0),
        Run.objects.tracked().filter(last_viewed_at__gt=watched_since),
    )
    first, *others = (
        rows.order_by().values_list(Value(position), expressions.Count())
        for position, rows in enumerate(counts)
    )
    return PreparedQuery(first.union(*others, all=True))


def load_stages(now: datetime, key: int | None = None) -> list[tuple[StageFacts, list[RunFacts]]]:
    """Return the facts of all listed stages, or of the one of this key, and of their tracked runs.

    One statement, as a stage has few runs in flight.
    """
    query = _stages_query() if key is None else _stage_query()
    facts: dict[int, tuple[StageFacts, list[RunFacts]]] = {}
    for *stage, override, observed, status, severity, created_at, started_at in query.fetch(
        stage=key
    ):
        _, runs = facts.setdefault(stage[0], (StageFacts(*stage), []))
        if created_at is not None:
            median = override or observed
            runs.append(
                RunFacts(
                    now - (started_at or created_at),
                    timedelta(seconds=median) if median else None,
                    is_urgent=severity > 0 or status == "aborting",
                    is_started=started_at is not None,
                )
            )
    return list(facts.values())


@cache
def _stages_query() -> PreparedQuery:
    return PreparedQuery(_with_runs(Stage.objects.listed()))


@cache
def _stage_query() -> PreparedQuery:
    return PreparedQuery(_with_runs(Stage.objects.filter(pk=Parameter("stage", BigIntegerField()))))


def _with_runs(stages: StageQuerySet) -> QuerySet[Stage, tuple[Any, ...]]:
    """Select a row for each tracked run, and one for each stage without any."""
    tracked = FilteredRelation("runs", condition=Q(runs__in_flight=True, runs__removed_at=None))
    return stages.annotate(tracked=tracked).values_list(
        *_FACTS,
        "timing__override_run_median",
        "timing__observed_run_median",
        "tracked__status",
        "tracked__overdue_severity",
        "tracked__created_at",
        "tracked__started_at",
    )


def _reschedule(intervals: Mapping[StageFacts, timedelta], now: datetime) -> None:
    """Make stages due that are older than their intervals; fresh ones stay fresh for as long.

    A stage was scheduled under the plan of its last read; if its interval is less than half as long
    now, as after the first reads, it is fresh for that long only. Failing stages stay backed off.
    """
    due_early, fresh, cuts = [], defaultdict(list), 0
    for stage, interval in intervals.items():
        if stage.synced_at is None or stage.failures:
            continue
        fresh_until = stage.synced_at + interval
        if stage.next_sync_at > now > fresh_until:
            due_early.append(stage.pk)
        ends_at = stage.fresh_until or fresh_until
        is_extended = ends_at < now + FRESHNESS_LOOKAHEAD and ends_at < fresh_until
        is_cut = cuts < MAX_CUTS and ends_at - stage.synced_at > 2 * interval
        if (is_extended or is_cut) and fresh_until > now:
            cuts += is_cut
            fresh[interval].append(stage.pk)
    make_due(due_early, now)
    for interval, keys in fresh.items():
        update_stages(Stage.objects.filter(pk__in=keys), fresh_until=F("synced_at") + interval)


def make_due(stage_keys: Collection[int], now: datetime) -> None:
    """Make these stages due now, if they are scheduled later."""
    if stage_keys:  # an empty update would still lock SQLite
        scheduled_later = Stage.objects.filter(pk__in=stage_keys, next_sync_at__gt=now)
        update_stages(scheduled_later, next_sync_at=now)


def update_stages(stages: StageQuerySet, **changes: datetime | Combinable) -> None:
    """Update several stages, locked in order of key, as webhooks/events.py does."""
    with transaction.atomic():
        keys = stages.order_by("pk").select_for_update().values_list("pk", flat=True)
        Stage.objects.filter(pk__in=list(keys)).update(**changes)
