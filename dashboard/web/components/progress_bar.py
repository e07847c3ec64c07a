"""A run's time against its usual, as rows show it: a bar that app.js lets grow."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.utils.translation import gettext as _

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import durations, overdue
from dashboard.runs.overdue import OverdueReason, Timer

# The clocks of a run that are about all of it; those of its steps are told in words.
_WHOLE_RUN_REASONS = {OverdueReason.QUEUE, OverdueReason.APPROVAL, OverdueReason.RUN}


@dataclass(frozen=True, slots=True)
class Progress:
    """What a bar is drawn from; the numbers are whole seconds."""

    started_at: datetime
    overdue_seconds: int
    critical_seconds: int  # the bar's end
    median_percent: int  # where the median is, in hundredths of the bar
    typical_text: str  # what is usual, for those who see no bar


def for_run(run: Run, clocks: Iterable[Timer]) -> Progress | None:
    """Return a run's pace; None where it is not in flight, or nobody knows what is usual."""
    clock = next((clock for clock in clocks if clock.reason in _WHOLE_RUN_REASONS), None)
    if clock is None or clock.typical is None:
        return None
    typical = clock.typical
    critical_seconds = max((clock.critical_at - clock.started_at).total_seconds(), 1)
    return Progress(
        started_at=clock.started_at,
        overdue_seconds=round((clock.warning_at - clock.started_at).total_seconds()),
        critical_seconds=round(critical_seconds),
        median_percent=min(round(100 * typical.median.total_seconds() / critical_seconds), 100),
        typical_text=_typical_text(run, clock, typical),
    )


def load_clocks(runs: Collection[Run]) -> dict[int, list[Timer]]:
    """Return the clocks of those runs that are in flight, by their keys; in two queries at most."""
    in_flight_runs = [run for run in runs if run.in_flight]
    if not in_flight_runs:
        return {}
    stage_timings = StageTiming.objects.filter(stage__in={run.stage_id for run in in_flight_runs})
    timings = {timing.stage_id: timing for timing in stage_timings}
    # Without anything usual no clock asks where in its steps a run is.
    trees = (
        _load_step_trees(run for run in in_flight_runs if run.stage_id in timings)
        if timings
        else {}
    )
    return {
        run.pk: overdue.timers(run, trees.get(run.pk), timings.get(run.stage_id))
        for run in in_flight_runs
    }


def _load_step_trees(runs: Iterable[Run]) -> Mapping[int, Node]:
    # Rows are loaded without it; of those in flight it tells how long they have waited for people.
    with_steps = Run.objects.filter(pk__in=[run.pk for run in runs], steps__isnull=False)
    return {pk: msgspec.convert(tree, Node) for pk, tree in with_steps.values_list("pk", "steps")}


def _typical_text(run: Run, clock: Timer, typical: TypicalDuration) -> str:
    if clock.reason is OverdueReason.QUEUE:
        templates = _("usually waits %(time)s"), _("usually waits about %(time)s")
    elif clock.reason is OverdueReason.APPROVAL:
        templates = _("people usually take %(time)s"), _("people usually take about %(time)s")
    elif run.started_at is not None and clock.started_at > run.started_at:  # people were waited for
        templates = _("usually %(time)s of work"), _("usually about %(time)s of work")
    else:
        return durations.format_typical(typical)
    return durations.format_typical_with(typical, *templates)
