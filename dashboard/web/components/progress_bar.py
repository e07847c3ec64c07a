"""A run's time against its usual, as rows show it: a bar that app.js lets grow."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import msgspec
from django.utils.translation import gettext as _

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import Usual
from dashboard.northflank import Node
from dashboard.runs import durations, overdue
from dashboard.runs.overdue import Clock, Why

# The clocks of a run that are about all of it; those of its steps are told in words.
_OF_ALL = {Why.QUEUE, Why.APPROVAL, Why.RUN}


@dataclass(frozen=True, slots=True)
class Pace:
    """What a bar is drawn from; the numbers are whole seconds."""

    since: datetime
    late: int
    very_late: int  # the bar's end
    tick: int  # where the median is, in hundredths of the bar
    words: str  # what is usual, for those who see no bar


def of(run: Run, clocks: Iterable[Clock]) -> Pace | None:
    """Return a run's pace; None where it is not in flight, or nobody knows what is usual."""
    clock = next((clock for clock in clocks if clock.why in _OF_ALL), None)
    if clock is None or clock.usual is None:
        return None
    usual = clock.usual
    end = max((clock.very_late_at - clock.since).total_seconds(), 1)
    return Pace(
        since=clock.since,
        late=round((clock.late_at - clock.since).total_seconds()),
        very_late=round(end),
        tick=min(round(100 * usual.median.total_seconds() / end), 100),
        words=_words(run, clock, usual),
    )


def clocks_of(runs: Collection[Run]) -> dict[int, list[Clock]]:
    """Return the clocks of those runs that are in flight, by their keys; in two queries at most."""
    flying = [run for run in runs if run.in_flight]
    if not flying:
        return {}
    found = StageTiming.objects.filter(stage__in={run.stage_id for run in flying})
    timings = {timing.stage_id: timing for timing in found}
    # Without anything usual no clock asks where in its steps a run is.
    trees = _trees(run for run in flying if run.stage_id in timings) if timings else {}
    return {
        run.pk: overdue.clocks(run, trees.get(run.pk), timings.get(run.stage_id)) for run in flying
    }


def _trees(runs: Iterable[Run]) -> Mapping[int, Node]:
    # Rows are loaded without it; of those in flight it tells how long they have waited for people.
    stored = Run.objects.filter(pk__in=[run.pk for run in runs], steps__isnull=False)
    return {pk: msgspec.convert(tree, Node) for pk, tree in stored.values_list("pk", "steps")}


def _words(run: Run, clock: Clock, usual: Usual) -> str:
    if clock.why is Why.QUEUE:
        said = _("usually waits %(time)s"), _("usually waits about %(time)s")
    elif clock.why is Why.APPROVAL:
        said = _("people usually take %(time)s"), _("people usually take about %(time)s")
    elif run.started_at is not None and clock.since > run.started_at:  # people were waited for
        said = _("usually %(time)s of work"), _("usually about %(time)s of work")
    else:
        return durations.usually(usual)
    return durations.of_usual(usual, *said)
