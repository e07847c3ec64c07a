"""Keep the sums that trends are made of (models/day_sums.py): each run counts once, as it ended.

A run has what it is counted as (`Run.counted_as`), so that a corrected end moves it, and nothing is
counted twice, whoever reads it.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db.models import BigIntegerField, DateTimeField, OuterRef, Subquery, Value
from django.db.models.functions import Coalesce

from dashboard.db.prepared import Parameter, PreparedQuery, update_row
from dashboard.models import Abort, ProjectDay, Run, Stage, StageDay
from dashboard.models.abort_lifecycle import NO_EFFECT_STATES
from dashboard.runs import abort_reasons, trends
from dashboard.sync import run_counters

_STAGE = Parameter("stage", BigIntegerField())
_EARLIEST = datetime(1, 1, 1, tzinfo=UTC)


def update(runs: Iterable[Run]) -> None:
    """Count runs of one stage as they are; call it in the transaction that has stored them."""
    ended = [run for run in runs if run.concluded or run.counted_as]
    reasons = _abort_reasons([run for run in ended if run.status == "aborted"])
    counted: dict[int, tuple[list[str], list[str]]] = {}  # by run: before and now
    run_counters.count([run for run in ended if not run.counted_as])
    for run in ended:
        before = (run.counted_as or "").split()
        words = trends.words(run, before, reasons.get(run.pk, ""))
        if words != before:
            counted[run.pk] = before, words
    for pk, words, failed_at, ended_at in _successes_after(ended):
        before, now = counted.get(pk, (words, words))
        if now:  # else it is yet to be counted
            counted[pk] = before, trends.recovered(now, failed_at, ended_at)
    for run in ended:
        if run.pk in counted:
            run.counted_as = " ".join(counted[run.pk][1]) or None
    if ended:
        _store(ended[0].stage_id, counted)


def _abort_reasons(runs: Collection[Run]) -> dict[int, str]:
    """Return why runs were aborted, by their keys."""
    if not runs:
        return {}
    aborts = Abort.objects.exclude(state__in=NO_EFFECT_STATES).latest_by_run(r.pk for r in runs)
    reasons = {pk: abort_reasons.find(abort.reason) for pk, abort in aborts.items()}
    return {run.pk: reasons.get(run.pk, abort_reasons.ELSEWHERE) for run in runs}


def _successes_after(
    runs: Iterable[Run],
) -> Iterator[tuple[int, list[str], datetime | None, datetime]]:
    """Yield the successes whose time since a failure may have changed with these runs.

    Each with what it is counted as, the end of the first failure since the success before, and its
    own. Which run follows another is by their creation.
    """
    found = {}
    for run in runs:
        for row in _successes_query().fetch(stage=run.stage_id, created_at=run.created_at):
            found[row[0]] = row
    for pk, counted_as, failed_at, ended_at in found.values():
        yield pk, (counted_as or "").split(), failed_at, ended_at


@cache
def _successes_query() -> PreparedQuery:
    ended = Run.objects.filter(stage=_STAGE, concluded=True).with_in_flight(False)
    successes = ended.with_status("success")
    earlier = successes.filter(created_at__lt=OuterRef(OuterRef("created_at")))
    latest = earlier.order_by("-created_at").values("created_at")[:1]
    failures = ended.with_status("failure").filter(
        created_at__lt=OuterRef("created_at"),
        created_at__gt=Coalesce(Subquery(latest), Value(_EARLIEST)),
    )
    failed_at = Subquery(failures.order_by("created_at").values("ended_at")[:1])
    # The run itself, and the next: no other depends on it.
    following = successes.filter(created_at__gte=Parameter("created_at", DateTimeField()))
    rows = following.order_by("created_at", "pk").values_list(
        "pk", "counted_as", failed_at, "ended_at"
    )
    return PreparedQuery(rows[:2])


def _store(stage_id: int, counted: dict[int, tuple[list[str], list[str]]]) -> None:
    """Store what runs of a stage are counted as now, and the difference in the sums."""
    changes: dict[str, Counter[str]] = defaultdict(Counter)  # by day
    for pk, (before, now) in counted.items():
        if before != now:
            update_row(Run, pk, counted_as=" ".join(now) or None)
            changes["".join(before[:1])].subtract(before[1:])
            changes["".join(now[:1])].update(now[1:])
    changes.pop("", None)
    if not changes:
        return
    [(project_id, stage_name)] = _place_query().fetch(stage=stage_id)
    _add(StageDay, {"stage_id": stage_id}, changes)
    _add(ProjectDay, {"project_id": project_id, "stage_name": stage_name}, changes)


@cache
def _place_query() -> PreparedQuery:
    places = Stage.objects.filter(pk=_STAGE).values_list("pipeline__project", "name")
    return PreparedQuery(places)


def _add[M: (StageDay, ProjectDay)](
    model: type[M], owner: dict[str, Any], changes: dict[str, Counter[str]]
) -> None:
    stored = model.objects.filter(day__in=changes, **owner).values_list("day", "counts")
    sums = {str(day): Counter[str](counts) for day, counts in stored}
    for day, counts in changes.items():
        sums.setdefault(day, Counter()).update(counts)
    rows = [
        model(day=day, counts={word: n for word, n in counts.items() if n}, **owner)
        for day, counts in sums.items()
    ]
    model.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=[*owner, "day"],
        update_fields=["counts"],
    )
