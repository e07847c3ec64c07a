"""The progress bar of a run: elapsed time against the typical duration. times.js extends it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.utils.translation import gettext as _

from dashboard.db.prepared import Keys, PreparedModels
from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import overdue, steps
from dashboard.runs.overdue import OverdueReason, Timer
from dashboard.texts import durations

# Reasons that concern the whole run. Overdue steps are described in text instead.
_WHOLE_RUN_REASONS = {OverdueReason.QUEUE, OverdueReason.APPROVAL, OverdueReason.RUN}


@dataclass(frozen=True, slots=True)
class Progress:
    """The data of a progress bar; durations are in whole seconds from `started_at`."""

    started_at: datetime
    overdue_seconds: int
    critical_seconds: int  # the bar's end
    median_percent: int  # the median's position, as a percentage of the bar's length
    typical_text: str  # the typical duration as text, so that reading the bar is not required


def for_run(run: Run, timers: Iterable[Timer]) -> Progress | None:
    """Return a run's progress; None: not in flight, no typical duration, or it is not its own.

    `timers` are the run's timers (see runs/overdue.py).
    """
    timer = next((timer for timer in timers if timer.reason in _WHOLE_RUN_REASONS), None)
    if timer is None or timer.typical is None or run.overdue_reason == OverdueReason.BLOCKED:
        return None
    typical = timer.typical
    critical_seconds = max((timer.critical_at - timer.started_at).total_seconds(), 1)
    return Progress(
        started_at=timer.started_at,
        overdue_seconds=round((timer.warning_at - timer.started_at).total_seconds()),
        critical_seconds=round(critical_seconds),
        median_percent=min(round(100 * typical.median.total_seconds() / critical_seconds), 100),
        typical_text=_typical_text(run, timer, typical),
    )


def load_timers(runs: Collection[Run]) -> dict[int, list[Timer]]:
    """Return the timers of the runs in flight among `runs`, by run key; at most two queries."""
    in_flight_runs = [run for run in runs if run.in_flight]
    if not in_flight_runs:
        return {}
    stage_timings = _timings_query().fetch(stages={run.stage_id for run in in_flight_runs})
    timings = {timing.stage_id: timing for timing in stage_timings}
    # Without a baseline the timers need the steps only to find an approval.
    trees = _load_step_trees(
        run
        for run in in_flight_runs
        if run.stage_id in timings or (run.approval_since is not None and run.removed_at is None)
    )
    return {
        run.pk: overdue.timers(run, trees.get(run.pk), timings.get(run.stage_id))
        for run in in_flight_runs
    }


@cache
def _timings_query() -> PreparedModels[StageTiming]:
    return PreparedModels(StageTiming.objects.filter(stage__in=Keys("stages")))


def _load_step_trees(runs: Iterable[Run]) -> Mapping[int, Node]:
    # They yield the time spent on approvals. Runs are usually loaded without them.
    trees: dict[int, Any] = {}
    missing = []
    for run in runs:
        if "steps" in run.get_deferred_fields():
            missing.append(run.pk)
        else:
            trees[run.pk] = run.steps
    if missing:
        trees |= Run.objects.filter(pk__in=missing).values_list("pk", "steps")
    return {pk: root for pk, tree in trees.items() if (root := steps.decode(tree)) is not None}


def _typical_text(run: Run, timer: Timer, typical: TypicalDuration) -> str:
    if timer.reason is OverdueReason.QUEUE:
        template = _("usually waits %(time)s")
    elif timer.reason is OverdueReason.APPROVAL:
        template = _("usually approved in %(time)s")
    elif run.started_at is not None and timer.started_at > run.started_at:  # had approval waits
        template = _("usually %(time)s excl. approvals")
    else:
        template = _("usually %(time)s")
    return template % {"time": durations.format_typical_range(typical)}
