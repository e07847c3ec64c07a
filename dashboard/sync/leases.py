"""Who reads what: a claim is a conditional update of the row itself.

Any number of workers may claim from one database. A worker renews the claims it holds with each
sign of life, so those of one that was killed fall due soon. Times are the database's
(db/threads.py).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import BooleanField, Count, Exists, ExpressionWrapper, F, OuterRef, Q
from django.db.models.expressions import Combinable
from django.db.models.functions import Coalesce

from dashboard.models import Abort, CatalogueSweep, Run, Stage
from dashboard.models.catalog import ListOrder, StageQuerySet
from dashboard.sync import schedule
from dashboard.sync.schedule import Demand, Place, Plan, StageClass, StageFacts

# Four signs of life, and longer than one question waits for its answer: a run, which is one
# question, needs no renewal.
LEASE = timedelta(seconds=20)
# A promise is looked at this long before it would be broken: two plans.
BEFORE = timedelta(seconds=10)


def plan(
    requests_per_second: float,
    now: datetime,
    *,
    push_alive: bool = False,
    learning: bool = False,
    held_up: timedelta = timedelta(),
) -> Plan:
    """Make the plan for all there is to read; make due, and promise anew, what it sees otherwise.

    `push_alive`: Northflank's webhooks tell of new runs at present. `learning`: details are to be
    read for what is usual. `held_up`: how long discovery waits until reading is no longer
    ahead of its rate.
    """
    present = Stage.objects.present()
    kinds = classes(present, now)
    demand = _demand(
        present, Counter(kinds.values()), now, push_alive=push_alive, learning=learning
    )
    plan_ = schedule.plan(demand, requests_per_second, push_alive=push_alive)
    # Each stage was booked under the plan of its last reading. When more may be spent (a new
    # window, say), nobody waits for what a poorer plan had booked. One that fails keeps its rest.
    waiting = present.filter(next_sync_at__gt=now, failures=0)
    late = [
        pk
        for kind in set(kinds.values())
        for pk in waiting.filter(synced_at__lt=now - plan_.every(kind)).values_list("pk", flat=True)
        if kinds.get(pk) is kind
    ]
    _make_due(late, now)
    # The other way round: what is only discovered is promised by the plan of the day. One of a
    # better hour would have pages turn amber although all goes as planned.
    for kind in {kind for kind in kinds.values() if not kind.followed}:
        every = plan_.every(kind) + held_up
        near = present.filter(promised_at__lt=now + BEFORE, synced_at__gt=now - every, failures=0)
        keys = [
            pk
            for pk, synced_at, promised_at in near.values_list("pk", "synced_at", "promised_at")
            if kinds.get(pk) is kind
            and synced_at
            and promised_at
            and promised_at - synced_at < every
        ]
        if keys:
            _update(Stage.objects.filter(pk__in=keys), promised_at=F("synced_at") + every)
    return plan_


def stages(
    now: datetime,
    plan_: Plan,
    limit: int,
    *,
    followed_only: bool = False,
    runs_only: bool = False,
) -> Sequence[Stage]:
    """Claim up to `limit` stages that are due: those that are followed, then the most overdue.

    `runs_only`: leave out those that are due for their release flow's definition alone.
    """
    # Looking at a stage makes it due as early as its new class wants, counted from its last
    # reading, and does not wait for the next plan. One that fails keeps its rest.
    hurried = Stage.objects.filter(
        watched_at__gt=now - schedule.WATCHED_FOR,
        synced_at__lt=now - plan_.watched,
        next_sync_at__gt=now,
        runs__in_flight=True,
        runs__gone_at=None,
        failures=0,
    ).values_list("pk", flat=True)
    _make_due(list(hurried.distinct()), now)
    # However many others wait after an outage, they don't hold up what is followed.
    flying = Exists(Run.objects.followed().filter(stage=OuterRef("pk")))
    watched = Q(watched_at__gt=now - schedule.WATCHED_FOR)
    rung = Q(rung_at__gt=F("synced_at"))
    followed = ExpressionWrapper(Q(flying) | watched | rung, BooleanField())
    due = Stage.objects.due(now).annotate(followed=Coalesce(followed, False))
    due = due.order_by("-followed", "next_sync_at", "pk")
    if followed_only:
        due = due.filter(followed=True)
    if runs_only:
        due = due.exclude(flow_seen_at=None, promised_at__gt=now)
    return _claimed(due.select_related("pipeline__project")[:limit], now)


def first(now: datetime, limit: int) -> Sequence[Stage]:
    """Claim up to `limit` stages that are due and of which something is not known, in order."""
    if limit <= 0:
        return []
    # The turns of projects are counted over all stages: those that were read have had theirs.
    present = Stage.objects.present().order_by("pipeline__project", "pipeline", "pk")
    known = present.select_related("pipeline").only(*_KNOWN, "pipeline__project_id")
    order = schedule.first_reads(
        (Place(stage.pk, stage.name, stage.pipeline.project_id), schedule.gap(stage, now))
        for stage in known
    )
    free = set(Stage.objects.due(now).filter(pk__in=order).values_list("pk", flat=True))
    keys = [key for key in order if key in free][:limit]
    found = Stage.objects.select_related("pipeline__project").in_bulk(keys)
    return _claimed([found[key] for key in keys if key in found], now)


_KNOWN = ("name", "has_flow", "synced_at", "promised_at", "in_flight_unread")


def _claimed(due: Iterable[Stage], now: datetime) -> list[Stage]:
    """Claim these stages; those that another was faster to take are left out."""
    return [
        stage
        for stage in due
        if Stage.objects.free(now)
        .filter(pk=stage.pk, next_sync_at=stage.next_sync_at)
        .update(claimed_until=now + LEASE)
    ]


def renew(stage_keys: Collection[int], now: datetime) -> None:
    """Go on holding these stages; one whose lease has run out meanwhile may be another's."""
    if stage_keys:
        held = Stage.objects.filter(pk__in=stage_keys, claimed_until__gt=now)
        _update(held, claimed_until=now + LEASE)


def give_back(stage_pk: int, now: datetime) -> None:
    """Give a stage back unread, behind all that waits longer."""
    Stage.objects.filter(pk=stage_pk).update(next_sync_at=now, claimed_until=None)


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
    failures, cause = this.values_list("failures", "error").get()
    wait = plan_.interval(_facts(this)[claimed.pk], now)
    if failures:
        wait = max(schedule.after_failure(failures, cause), plan_.watched)
        this.update(next_sync_at=now + wait, claimed_until=None)
        return
    this.update(promised_at=now + wait, claimed_until=None)
    # Whoever changed the time meanwhile wants a reading of what came after our question.
    ours = this.filter(next_sync_at=claimed.next_sync_at)
    # A first read leaves older runs in flight and the definition: they are due at once.
    incomplete = Q(in_flight_unread=True, has_flow=True) | Q(flow_seen_at=None)
    ours.exclude(incomplete).update(next_sync_at=now + wait)
    ours.filter(incomplete).update(next_sync_at=now)


def release_defined(claimed: Stage) -> None:
    """Give a stage back of which the definition alone was read: its runs are read as promised."""
    this = Stage.objects.filter(pk=claimed.pk)
    this.update(claimed_until=None)
    ours = this.filter(next_sync_at=claimed.next_sync_at).exclude(in_flight_unread=True)
    ours.update(next_sync_at=F("promised_at"))


def release_run(claimed: Run, now: datetime, plan_: Plan | None) -> None:
    """Give a run back that was read, and say when it is read next, if at all."""
    run = Run.objects.only("in_flight", "status", "watched_at").get(pk=claimed.pk)
    asked_for = run.aborts.open().values_list("requested_at", flat=True).first()
    wait = None
    watched = run.watched_at is not None and now - run.watched_at < schedule.WATCHED_FOR
    if run.in_flight and asked_for is not None:
        wait = schedule.aborting_interval(now - asked_for)
    elif run.in_flight and watched:
        wait = plan_.watched if plan_ is not None else LEASE
    # Whoever changed the time meanwhile wants a reading of what came after our question.
    ours = Run.objects.filter(pk=run.pk, next_read_at=claimed.next_read_at)
    ours.update(next_read_at=now + wait if wait is not None else None)


def _make_due(stage_keys: Collection[int], now: datetime) -> None:
    if stage_keys:  # an update that finds nothing would still lock SQLite
        late = Stage.objects.filter(pk__in=stage_keys, next_sync_at__gt=now)
        _update(late, next_sync_at=now)


def _update(stages_: StageQuerySet, **changes: datetime | Combinable) -> None:
    """Change several stages, locked in the order of their keys, as the doorbell does too."""
    with transaction.atomic():
        keys = stages_.order_by("pk").select_for_update().values_list("pk", flat=True)
        Stage.objects.filter(pk__in=list(keys)).update(**changes)


def classes(stages_: StageQuerySet, now: datetime) -> dict[int, StageClass]:
    """Return why, and so how often, each of these stages is read, by its key."""
    return {pk: schedule.class_of(facts, now) for pk, facts in _facts(stages_).items()}


def gaps(stages_: StageQuerySet, now: datetime) -> set[int]:
    """Return the keys of those stages of which something is not known."""
    known = stages_.only(*_KNOWN)
    return {stage.pk for stage in known if schedule.gap(stage, now) is not None}


def _facts(stages_: StageQuerySet) -> dict[int, StageFacts]:
    flying = dict(Run.objects.followed().order_by().values_list("stage").annotate(runs=Count("pk")))
    known = stages_.values_list("pk", "has_flow", "watched_at", "active_at", "missing_at")
    return {
        pk: StageFacts(has_flow, flying.get(pk, 0), watched, active, missing)
        for pk, has_flow, watched, active, missing in known
    }


def _demand(
    present: StageQuerySet,
    kinds: Counter[StageClass],
    now: datetime,
    *,
    push_alive: bool,
    learning: bool,
) -> Demand:
    following = sum(count / kind.value for kind, count in kinds.items() if kind.followed)
    discovery = sum(count / kind.value for kind, count in kinds.items() if not kind.followed)
    watched = Run.objects.followed().filter(watched_at__gt=now - schedule.WATCHED_FOR).count()
    lists = CatalogueSweep.objects.filter(Q(project=None) | Q(project__gone_at=None)).count()
    flows = present.filter(has_flow=True).count()
    hour = timedelta(hours=1)
    concluded = Run.objects.filter(concluded_at__gt=now - hour).count() if push_alive else 0
    past = present.filter(has_flow=True).exclude(order=ListOrder.NEWEST, history_page=None).count()
    return Demand(
        following + watched / StageClass.WATCHED.value,
        discovery
        + lists / schedule.CATALOGUE_EVERY.total_seconds()
        + flows / schedule.FLOW_EVERY.total_seconds()
        + past / schedule.PAST_EVERY.total_seconds(),
        rung=schedule.READINGS_A_RUN * concluded / hour.total_seconds(),
        unread=CatalogueSweep.objects.never_read().filter(failures=0).exists()
        or bool(gaps(present.filter(failures=0), now)),
        learning=learning,
    )
