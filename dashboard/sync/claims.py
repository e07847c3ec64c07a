"""Who reads what: a claim is a conditional update of the row itself.

Any number of workers may claim from one database; the claim of one that died falls due again.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Q

from dashboard.models import Abort, Run, Stage
from dashboard.models.catalog import StageQuerySet
from dashboard.sync import schedule
from dashboard.sync.schedule import StageClass, StageFacts

# A claim lasts longer than the slowest answer we wait for, so that nobody reads beside us.
LEASE = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Plan:
    """How often each class of stage is read while the allowance is what it is."""

    stretch: float
    stages: Counter[StageClass]

    def interval(self, kind: StageClass) -> timedelta:
        return timedelta(seconds=kind.value * self.stretch)


def plan(requests_per_second: float, now: datetime) -> Plan:
    """Make the plan for all the stages there are."""
    kinds = Counter(_classes(Stage.objects.present(), now).values())
    watched = Run.objects.in_flight().filter(watched_at__gt=now - schedule.WATCHED_FOR).count()
    return Plan(schedule.stretch(kinds, requests_per_second, watched_runs=watched), kinds)


def stages(now: datetime, plan_: Plan, limit: int) -> Sequence[Stage]:
    """Claim up to `limit` stages that are due."""
    # Looking at a stage makes it due as early as its new class wants, counted from its last
    # reading. One that fails keeps its rest.
    hurried = Stage.objects.filter(
        watched_at__gt=now - schedule.WATCHED_FOR,
        synced_at__lt=now - plan_.interval(StageClass.WATCHED),
        next_sync_at__gt=now,
        runs__in_flight=True,
        failures=0,
    ).values_list("pk", flat=True)
    if keys := list(hurried.distinct()):  # an update that finds nothing would still lock SQLite
        Stage.objects.filter(pk__in=keys, next_sync_at__gt=now).update(next_sync_at=now)
    free = Q(claimed_until=None) | Q(claimed_until__lte=now)
    return [
        stage
        for stage in Stage.objects.due(now).select_related("pipeline__project")[:limit]
        if Stage.objects.filter(free, pk=stage.pk, next_sync_at=stage.next_sync_at).update(
            claimed_until=now + LEASE
        )
    ]


def runs(now: datetime, limit: int, *, aborting_only: bool = False) -> Sequence[Run]:
    """Claim up to `limit` runs whose detail is due."""
    due = Run.objects.due(now)
    if aborting_only:
        due = due.filter(aborts__in=Abort.objects.open())
    claimed = []
    for run in due.with_place().without_detail()[:limit]:
        lease = now + LEASE
        mine = Run.objects.filter(pk=run.pk, next_read_at=run.next_read_at)
        if mine.update(next_read_at=lease):
            run.next_read_at = lease
            claimed.append(run)
    return claimed


def release(claimed: Stage, now: datetime, plan_: Plan) -> None:
    """Give a stage back, and say when it is read next."""
    this = Stage.objects.filter(pk=claimed.pk)
    failures = this.values_list("failures", flat=True).get()
    wait = plan_.interval(_classes(this, now)[claimed.pk])
    if failures:
        wait = max(schedule.after_failure(failures), plan_.interval(StageClass.WATCHED))
    # Whoever changed the time meanwhile wants a reading of what came after our question; a stage
    # that fails rests all the same.
    ours = this if failures else this.filter(next_sync_at=claimed.next_sync_at)
    if not ours.update(next_sync_at=now + wait, claimed_until=None):
        this.update(claimed_until=None)


def release_run(claimed: Run, now: datetime, plan_: Plan | None) -> None:
    """Give a run back that was read, and say when it is read next, if at all."""
    run = Run.objects.only("in_flight", "status", "watched_at").get(pk=claimed.pk)
    asked_for = run.aborts.open().values_list("requested_at", flat=True).first()
    wait = None
    watched = run.watched_at is not None and now - run.watched_at < schedule.WATCHED_FOR
    if run.in_flight and asked_for is not None:
        wait = schedule.aborting_interval(now - asked_for)
    elif run.in_flight and watched:
        wait = plan_.interval(StageClass.WATCHED) if plan_ is not None else LEASE
    # Whoever changed the time meanwhile wants a reading of what came after our question.
    ours = Run.objects.filter(pk=run.pk, next_read_at=claimed.next_read_at)
    ours.update(next_read_at=now + wait if wait is not None else None)


def _classes(stages_: StageQuerySet, now: datetime) -> dict[int, StageClass]:
    flying = dict(
        Run.objects.in_flight().order_by().values_list("stage").annotate(runs=Count("pk"))
    )
    facts = stages_.values_list("pk", "has_flow", "watched_at", "active_at")
    return {
        pk: schedule.class_of(StageFacts(has_flow, flying.get(pk, 0), watched, active), now)
        for pk, has_flow, watched, active in facts
    }
