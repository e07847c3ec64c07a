"""What Northflank says of runs -> rows. Writes only what changed; the only writer of runs.

Each question has a number (QuestionCounter), and a row keeps that of the question whose answer it
holds: an answer that was overtaken by one to a later question changes nothing, so a slow list can't
undo what an abort has already shown. No clock decides: `asked_at` is what pages tell. Without a
number, an answer is newer than all before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import structlog
from django.db import transaction
from django.db.models import Q

from dashboard.db.threads import now
from dashboard.models import (
    Abort,
    ChangeCounter,
    Dismissal,
    Looking,
    QuestionCounter,
    Run,
    Stage,
    StageTiming,
)
from dashboard.models.aborts import under_way
from dashboard.models.catalog import StageQuerySet
from dashboard.models.runs import RunQuerySet, touch
from dashboard.northflank import Node, NorthflankError, RunDetail
from dashboard.northflank import Run as ApiRun
from dashboard.runs import alerts, overdue, statuses, steps
from dashboard.sync import baselines, schedule

log = structlog.get_logger(__name__)

_FIELDS = (
    "name", "description", "status", "concluded", "created_at", "started_at", "concluded_at",
    "updated_at", "in_flight", "gone_at",
)  # fmt: skip
_UPSERT = [
    *_FIELDS,
    "seen_at",
    "asked_seq",
    "version",
    "next_read_at",
    "status_since",
    "aborting_since",
    "aborting_level",
    "overdue",
    "overdue_why",
]
# How often a run in flight that is gone is asked for again: twice as rarely each time.
GONE_EVERY, GONE_AT_LEAST_EVERY = timedelta(minutes=10), timedelta(hours=6)
_strange: set[str] = set()  # unknown statuses already logged by this process


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What a list of runs came to."""

    new: int
    changed: int


def runs(
    stage_id: int, said: Iterable[ApiRun], *, asked_at: datetime, asked_seq: int | None = None
) -> Mirrored:
    """Mirror the runs a list answered with; rows that say the same as before stay untouched."""
    by_id = {run.id: run for run in said}
    with transaction.atomic():
        # The counter's row is locked first: writers take turns, so none sees a row half old.
        ChangeCounter.reserve(0)
        number = _number(asked_seq)
        known = {
            run.run_id: run
            for run in Run.objects.filter(stage_id=stage_id, run_id__in=by_id).defer("steps", "raw")
        }
        rows: list[Run] = []
        unchanged: list[int] = []
        new = 0
        for run_id, api in by_id.items():
            old = known.get(run_id)
            if old is not None and old.asked_seq > number:
                continue
            row = _row(stage_id, api, old, asked_at)
            row.asked_seq = number
            if old is not None and old.overdue and old.status != row.status:
                root = msgspec.convert(old.steps, Node) if old.steps is not None else None
                row.overdue, row.overdue_why = _mark(row, root, asked_at)
            if old is None:
                new += 1
            elif all(getattr(old, field) == getattr(row, field) for field in _FIELDS):
                if old.in_flight:
                    unchanged.append(old.pk)
                continue
            rows.append(row)
        _count_from_presses(rows, known)
        _write(rows, known, asked_at)
        Run.objects.filter(pk__in=unchanged).update(seen_at=asked_at, asked_seq=number)
        if rows:
            Stage.objects.filter(pk=stage_id).update(active_at=asked_at)
    return Mirrored(new=new, changed=len(rows) - new)


def detail(
    stage_id: int, said: RunDetail, *, asked_at: datetime, asked_seq: int | None = None
) -> Run:
    """Mirror one run with its steps, and return its row."""
    with transaction.atomic():
        number = _number(asked_seq)
        runs(stage_id, [said.run], asked_at=asked_at, asked_seq=number)
        row = Run.objects.select_for_update().get(stage_id=stage_id, run_id=said.run.id)
        if row.detail_asked_seq <= number:
            # By way of JSON, so that it compares equal to what the column gives back.
            tree = msgspec.json.decode(msgspec.json.encode(said.steps))
            at = steps.current(said.steps) if said.steps is not None and row.in_flight else None
            step = (steps.describe(at), steps.key(at), at.started_at) if at else ("", "", None)
            read = {
                "steps": tree,
                "raw": said.raw,
                "step": step[0],
                "step_key": step[1],
                "step_since": step[2],
                "detail_seen_at": asked_at,
                "detail_asked_seq": number,
                "seen_at": asked_at if row.asked_seq <= number else row.seen_at,
                "asked_seq": max(number, row.asked_seq),
                "failures": 0,
            }
            # Steps that were read before the end have taught how far they had come by then.
            learned = row.status == "success" and tree is not None and tree != row.steps
            if (tree, step) != (row.steps, (row.step, row.step_key, row.step_since)):
                read["overdue"], read["overdue_why"] = _mark(row, said.steps, asked_at)
                touch([row.pk], **read)
            else:
                Run.objects.filter(pk=row.pk).update(**read)
            row.refresh_from_db()
            if learned:
                baselines.learn(stage_id, now())
    return row


def gone(run_pk: int, *, asked_at: datetime, asked_seq: int | None = None) -> None:
    """Note that Northflank does not know the run any more; what it said before is kept.

    One that had not concluded stays in flight until somebody dismisses it, and is asked for again
    now and then: the longer it is gone, the more rarely.
    """
    number = _number(asked_seq)
    this = Run.objects.filter(pk=run_pk)
    _gone(this, asked_at, number)
    going = this.in_flight().filter(asked_seq__lte=number)
    since = going.values_list("gone_at", flat=True).first()
    if since is not None:
        wait = min(max(GONE_EVERY, asked_at - since), GONE_AT_LEAST_EVERY)
        this.update(next_read_at=asked_at + wait, failures=0)
    else:  # it had concluded, or was dismissed: nobody waits for it
        this.filter(in_flight=False).update(next_read_at=None, failures=0)


def gone_with_its_place(asked_at: datetime, asked_seq: int | None = None) -> None:
    """Note that Northflank lists the pipelines of some runs in flight no more."""
    lost = Run.objects.in_flight().exclude(stage__in=Stage.objects.present())
    _gone(lost, asked_at, _number(asked_seq))


def _gone(runs_: RunQuerySet, asked_at: datetime, number: int) -> None:
    with transaction.atomic():
        ChangeCounter.reserve(0)  # the counter first, as all writers: no list comes between
        heard_before = list(runs_.filter(asked_seq__lte=number).values_list("pk", "gone_at"))
        still = [pk for pk, gone_at in heard_before if gone_at is None]
        # Nothing is known to go on any more, so nothing of it is overdue.
        touch(
            still, gone_at=asked_at, asked_seq=number, next_read_at=None,
            overdue=0, overdue_why="", aborting_level=0,
        )  # fmt: skip
        _end([pk for pk, _ in heard_before])


def _end(runs_: Iterable[int]) -> None:
    ended = Run.objects.filter(pk__in=runs_, in_flight=False).values_list("pk", flat=True)
    Looking.objects.all().over(list(ended), now())
    for run_pk in runs_:
        Abort.objects.all().lost(run_pk, now())


def leave(runs_: RunQuerySet, at: datetime) -> None:
    """Follow runs in flight no more, of which the settings have nothing shown any more."""
    with transaction.atomic():
        left = list(runs_.in_flight().values_list("pk", flat=True))
        touch(left, gone_at=at, in_flight=False, next_read_at=None)
        _end(left)


def look_again(stages: StageQuerySet, at: datetime) -> None:
    """Have the runs of some stages read one by one that are not known to have concluded."""
    going = Run.objects.filter(stage__in=stages, concluded=False, next_read_at=None)
    going.filter(Q(in_flight=True) | Q(gone_at__isnull=False)).update(next_read_at=at)


def rest(run_pk: int, error: NorthflankError, at: datetime) -> None:
    """Have a run that could not be read tried again after a rest, longer each time.

    One that was read only for what is usual is not: the next success will do.
    """
    if Run.objects.filter(baselines.BOOKED, pk=run_pk).update(failures=1, next_read_at=None):
        return
    failures = Run.objects.values_list("failures", flat=True).get(pk=run_pk) + 1
    next_read_at = at + schedule.after_failure(failures, error.cause)
    Run.objects.filter(pk=run_pk).update(failures=failures, next_read_at=next_read_at)


def wait(run_pk: int, at: datetime) -> None:
    """Have a run read as soon as Northflank answers anything again."""
    Run.objects.filter(pk=run_pk).update(next_read_at=at)


def missing_from(
    stage_id: int, said: Iterable[ApiRun], *, asked_at: datetime, asked_seq: int | None = None
) -> None:
    """Have the in-flight runs read one by one that a stage's list no longer shows."""
    ids = [run.id for run in said]
    number = QuestionCounter.take() if asked_seq is None else asked_seq
    lost = Run.objects.followed().filter(stage_id=stage_id, asked_seq__lt=number)
    lost.exclude(run_id__in=ids).filter(next_read_at=None).update(next_read_at=asked_at)


def _number(asked_seq: int | None) -> int:
    if asked_seq is not None:
        return asked_seq
    ChangeCounter.reserve(0)  # the counters in this order, in each transaction
    return QuestionCounter.take()


def _row(stage_id: int, api: ApiRun, old: Run | None, asked_at: datetime) -> Run:
    if api.status not in statuses.RUN and api.status not in _strange:
        _strange.add(api.status)
        log.warning("run.status_unknown", status=api.status[:100])
    return Run(
        stage_id=stage_id,
        run_id=api.id,
        name=api.name or "",
        description=api.description or "",
        status=api.status,
        concluded=api.concluded,
        created_at=api.created_at or (old.created_at if old else asked_at),
        started_at=api.started_at,
        concluded_at=api.concluded_at,
        updated_at=api.updated_at,
        in_flight=not api.concluded,
        gone_at=None,
        first_seen_at=old.first_seen_at if old else asked_at,
        seen_at=asked_at,
        next_read_at=old.next_read_at if old else None,
        status_since=old.status_since if old and old.status == api.status else asked_at,
        aborting_since=_aborting_since(api, old, asked_at),
        aborting_level=old.aborting_level if old and not api.concluded else 0,
        overdue=old.overdue if old else 0,
        overdue_why=old.overdue_why if old else "",
    )


def _aborting_since(api: ApiRun, old: Run | None, asked_at: datetime) -> datetime | None:
    """Return when a run's abort began, as far as Northflank's `updatedAt` can tell.

    It may not mean the last change. It is believed only of a run that is aborting, and where it is
    later than the run's creation and than our last sight of the run without that status.
    """
    if api.status != "aborting":
        return None
    before, known = api.created_at or (old.created_at if old else None), None
    if old is not None and old.status == "aborting":
        if old.status_since > old.first_seen_at:
            return old.aborting_since  # the answer that first said so had the earliest word
        known = old.aborting_since
    elif old is not None:
        before = max(before or old.seen_at, old.seen_at)
    said = api.updated_at
    if said is None or said > asked_at or (before is not None and said <= before):
        return known
    return min(said, known or said)


def _count_from_presses(rows: list[Run], known: dict[str, Run]) -> None:
    """Have the clocks of runs that have become aborting count from a press here that did it."""
    begun = {
        known[row.run_id].pk: row
        for row in rows
        if row.status == "aborting"
        and row.run_id in known
        and known[row.run_id].status != "aborting"
    }
    for run_pk, act in under_way(begun).items() if begun else ():
        pressed_at = act.begun_at or act.requested_at
        row = begun[run_pk]
        row.aborting_since = min(pressed_at, row.aborting_since or pressed_at)


def _mark(run: Run, root: Node | None, at: datetime) -> tuple[int, str]:
    """Judge a mark anew by what was just heard: it neither outlives its cause nor blinks.

    Runs that have none get theirs by the chore (marking.py).
    """
    if not run.overdue:
        return 0, ""
    known = StageTiming.objects.filter(stage=run.stage_id).first()
    found = overdue.finding(run, root, known, at)
    return (found.level, str(found.why)) if found else (0, "")


def _write(rows: list[Run], known: dict[str, Run], asked_at: datetime) -> None:
    if not rows:
        return
    first = ChangeCounter.reserve(len(rows))
    # Lists come newest first; the oldest change gets the smallest number.
    for offset, row in enumerate(reversed(rows)):
        row.version = first + offset
    just_concluded = [
        row for row in rows if row.concluded and row.run_id in known and known[row.run_id].in_flight
    ]
    notable = _worth_a_last_reading([known[row.run_id].pk for row in just_concluded])
    for row in just_concluded:
        worth = row.run_id in notable or row.status == "failure"
        row.next_read_at = asked_at if worth else None
    Run.objects.bulk_create(
        rows, update_conflicts=True, unique_fields=["stage", "run_id"], update_fields=_UPSERT
    )
    _tell_aborts(rows, known)
    before = [known[row.run_id] for row in rows if row.run_id in known]
    back = [old.pk for old in before if old.gone_at is not None]
    Dismissal.objects.all().over(back, now())
    over = [known[row.run_id].pk for row in just_concluded if alerts.is_over(row)]
    Looking.objects.all().over(over, now())
    if any(row.status == "success" and row.concluded for row in rows):
        baselines.learn(rows[0].stage_id, now())


def _tell_aborts(rows: list[Run], known: dict[str, Run]) -> None:
    """Have the aborts of runs whose status has changed, or that are back, hear of it."""
    became = {
        known[row.run_id].pk: row
        for row in rows
        if row.run_id in known and _says(row) != _says(known[row.run_id])
    }
    for run_pk in (
        Run.objects.filter(pk__in=became, aborts__isnull=False).values_list("pk").distinct()
    ):
        row = became[run_pk[0]]
        Abort.objects.all().hear(run_pk[0], row.status, concluded=row.concluded, at=now())


def _says(run: Run) -> tuple[str, bool, bool]:
    return run.status, run.concluded, run.gone_at is not None  # one that was gone may be back


def _worth_a_last_reading(keys: list[int]) -> set[str]:
    # For the end of each step: of runs that somebody looked at, aborted, or that show their steps.
    notable = Q(watched_at__isnull=False) | Q(detail_seen_at__isnull=False) | Q(aborts__gt=0)
    return set(Run.objects.filter(notable, pk__in=keys).values_list("run_id", flat=True))
