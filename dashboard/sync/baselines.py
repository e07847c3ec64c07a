"""Learns what is usual in a stage from its latest successes, as they conclude; never on a view.

Steps take a request for each success. Those that nobody waits for are read one at a time, each some
time after the last (`book`): what is in flight is not read less often for them. The one that is
booked stands in the database, so that all workers together keep to this.
"""

from collections import defaultdict
from collections.abc import Iterable
from copy import copy
from datetime import datetime, timedelta

import msgspec
from django.db.models import Exists, OuterRef, Q, Subquery
from django.db.models.expressions import Combinable

from dashboard.models import Run, Stage, StageTiming, typical_duration
from dashboard.models.runs import RunQuerySet, touch
from dashboard.northflank import Node
from dashboard.runs import durations, overdue, steps
from dashboard.sync.leases import LEASE

# A success that nobody has looked at, and whose detail was never read, is read for this alone.
BOOKED = Q(
    status="success", concluded=True, detail_seen_at=None, watched_at=None, failures=0,
    next_read_at__isnull=False,
)  # fmt: skip


def learn(stage_id: int, at: datetime) -> None:
    """Look at a stage's latest successes again, and keep what is usual now.

    The stage's runs in flight of which something else is said now get a new version with it: call
    inside the transaction that writes what was heard.
    """
    successes = _successes(stage_id)
    of_each = ("created_at", "started_at", "concluded_at", "steps")
    latest = list(_undisturbed(stage_id).only(*of_each)[: typical_duration.MOST])
    roots = {run.pk: root for run in latest if (root := _root(run)) is not None}
    kept, _ = StageTiming.objects.get_or_create(stage_id=stage_id)
    before = copy(kept)
    kept.successes, kept.details = len(latest), len(roots)
    kept.last_good = successes.without_detail().first()
    # With the successes their details slide by: until enough of them are at hand again, what
    # was last learned from enough still holds.
    enough = len(roots) >= typical_duration.LEAST
    run = typical_duration.usual(_worked(latest, roots))
    kept.learn(
        run=kept.learned_run if kept.approvals and not enough else run,
        queue=typical_duration.usual(
            run.started_at - run.created_at for run in latest if run.started_at
        ),
        steps=_of_steps(roots.values()) if enough else None,
        approvals=_approvals(roots.values()) if enough else kept.approvals,
        at=at,
    )
    _tell_rows(before, kept)


def ask_for_details(stage_id: int, now: datetime) -> None:
    """Have as many of a stage's latest successes read now as it takes to know its steps."""
    keys = list(_undisturbed(stage_id).values_list("pk", flat=True)[: typical_duration.LEAST])
    unread = Run.objects.filter(pk__in=keys, gone_at=None, detail_seen_at=None, failures=0)
    # The one that is booked may be among them; one that is just being read is left alone.
    not_now = Q(next_read_at=None) | Q(next_read_at__gt=now + LEASE)
    unread.filter(not_now).update(next_read_at=now)


def book(now: datetime, every: timedelta) -> bool:
    """Have one more success read after `every`, unless one is booked; say whether one is then.

    First where a run is overdue, then where steps were never known, what is begun before what is
    not, and of these where nothing has been learned for longest.
    """
    booked = Run.objects.filter(BOOKED)
    if booked.exists():
        return True
    flying = Run.objects.in_flight().filter(stage=OuterRef("stage"))
    readable = Run.objects.filter(
        pk__in=_undisturbed(OuterRef(OuterRef("stage"))).values("pk")[: typical_duration.MOST],
        gone_at=None, detail_seen_at=None, next_read_at=None, failures=0,
    ).order_by("-concluded_at", "-pk")  # fmt: skip
    wanting = StageTiming.objects.filter(
        stage__in=Stage.objects.present(),
        details__lt=typical_duration.LEAST,
        successes__gte=typical_duration.LEAST,
    ).annotate(
        awaited=Exists(flying.filter(overdue__gt=typical_duration.Overdue.NO)),
        known=~Q(steps={}),
        next=Subquery(readable.values("pk")[:1]),
    )
    first = wanting.exclude(next=None).order_by(
        "-awaited", "known", "-details", "learned_at", "stage"
    )
    key = first.values_list("next", flat=True).first()
    if key is None:
        return False
    # Another worker may have booked meanwhile; one that looked at the same moment found this run.
    free = Run.objects.filter(~Exists(booked), pk=key, next_read_at=None)
    free.update(next_read_at=now + every)
    return True


def _undisturbed(stage_id: int | Combinable) -> RunQuerySet:
    """Return the successes that say how long the work takes: nobody tried to abort them."""
    return _successes(stage_id).exclude(aborts__isnull=False)


def _successes(stage_id: int | Combinable) -> RunQuerySet:
    """Return a stage's successes, the latest first."""
    ended = Run.objects.filter(status="success", concluded=True, concluded_at__isnull=False)
    return ended.filter(stage=stage_id).order_by("-concluded_at", "-pk")


def _worked(latest: list[Run], roots: dict[int, Node]) -> list[timedelta]:
    """Return how long each run worked: what it waited for people is left out."""
    with_people = [run for run in latest if run.pk in roots and steps.waited(roots[run.pk])]
    if with_people:
        # Of the others nobody knows how long they waited.
        latest = [run for run in latest if run.pk in roots]
    return [
        run.concluded_at - run.started_at - steps.waited(roots[run.pk])
        if run.pk in roots
        else run.concluded_at - run.started_at
        for run in latest
        if run.concluded_at and run.started_at
    ]


def _of_steps(roots: Iterable[Node]) -> dict[str, typical_duration.Usual]:
    took: dict[str, list[timedelta]] = defaultdict(list)
    for root in roots:
        for _, node in steps.walk(root):
            if node.status == "success" and node.started_at and node.ended_at:
                took[steps.key(node)].append(node.ended_at - node.started_at)
    usual = {key: typical_duration.usual(spans) for key, spans in took.items()}
    return {key: one for key, one in usual.items() if one is not None}


def _approvals(roots: Iterable[Node]) -> set[str]:
    every = (node for root in roots for _, node in steps.walk(root))
    return {steps.key(node) for node in every if steps.for_people(node)}


def _tell_rows(before: StageTiming, after: StageTiming) -> None:
    """Have the rows of the stage's runs in flight made anew of which something else is said now."""
    flying = Run.objects.in_flight().filter(stage=after.stage_id).defer("raw", "description")
    touch(run.pk for run in flying if _said(run, before) != _said(run, after))


def _said(run: Run, known: StageTiming) -> list[tuple[overdue.Why, str]]:
    # As it reads: what comes to the same words is no news, and a success a minute no storm.
    clocks = overdue.clocks(run, _root(run), known)
    return [(each.why, durations.usually(each.usual) if each.usual else "") for each in clocks]


def _root(run: Run) -> Node | None:
    return msgspec.convert(run.steps, Node) if run.steps is not None else None
