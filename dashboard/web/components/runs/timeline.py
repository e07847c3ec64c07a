"""The timeline on a run's page: its steps as a tree, with bars on a shared time axis."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.northflank.models import OMITTED
from dashboard.runs import overdue, overdue_messages, statuses, steps
from dashboard.runs.statuses import StatusDisplay
from dashboard.texts import durations
from dashboard.web.components.runs import step_texts

MAX_UNFOLDED = 20  # up to this number of steps, all groups are shown unfolded
MAX_DEPTH = 8  # levels; deeper steps are listed after their group instead of inside it


@dataclass(frozen=True, slots=True)
class StepBar:
    """A step's bar, in whole seconds; positions count from the start of the axis.

    `start`, `length` and `typical_seconds` do not extend beyond the end of the axis.
    """

    start: int
    length: int
    typical_seconds: int  # p95 of the typical duration; 0: unknown, or not shown


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step and what follows from its run; the template does not apply rules of its own."""

    node: Node
    display: StatusDisplay  # of its status; without a label: no status
    name: str
    description: str  # "job, waits until it succeeds"
    wait_text: str  # what it waits on; empty: not in progress, or unknown
    attempts_text: str
    next_attempt_at: datetime | None  # when it is retried
    error: str
    is_running: bool
    duration: str  # empty: unknown, or in progress
    typical_text: str
    overdue_severity: int  # a models.severity.Severity
    bar: StepBar | None
    is_current: bool  # the run is at this step
    is_unfolded: bool
    is_relevant: bool  # it is current or has failed, or contains such a step
    steps: tuple["StepRow", ...]

    @property
    def is_counting(self) -> bool:
        """Whether times.js counts how long it has taken."""
        return self.is_running and self.node.started_at is not None

    @property
    def has_duration(self) -> bool:
        """Whether the step's duration, or its elapsed time, is known."""
        return bool(self.duration) or self.is_counting

    @property
    def overdue_text(self) -> str:
        """That the step takes, or took, longer than usual; empty: it did not."""
        if self.overdue_severity == Severity.CRITICAL:
            factor = overdue_messages.critical_factor()
            return _("over %(factor)s× as long as usual") % {"factor": factor}
        return _("longer than usual") if self.overdue_severity else ""


@dataclass(frozen=True, slots=True)
class Axis:
    """The time axis of all bars: from a run's start to its end, or to its expected end."""

    started_at: datetime
    ends_at: datetime
    seconds: int  # at least 1

    def position(self, time: datetime) -> int:
        """Return the position of a time in seconds from the axis's start, clamped to the axis."""
        return min(max(round((time - self.started_at).total_seconds()), 0), self.seconds)


@dataclass(frozen=True, slots=True)
class Timeline:
    """All steps of a run; `axis` is None if nothing has started."""

    steps: tuple[StepRow, ...] = ()
    axis: Axis | None = None
    is_running: bool = False

    @property
    def has_growing_axis(self) -> bool:
        """Whether times.js extends the axis."""
        return self.axis is not None and self.is_running


def build_timeline(
    run: Run, root: Node | None, timing: StageTiming | None, now: datetime
) -> Timeline:
    """Return the timeline of a run as of `now`, with typical durations from its stage's baseline.

    Empty if `root` is None.
    """
    if root is None:
        return Timeline()
    nodes = list(steps.walk(root))
    current = steps.current(root, run.status) if run.in_flight else None
    typical = {id(node): overdue.typical_step_duration(node, timing) for _, node in nodes}
    axis = _axis(run, [(node, typical[id(node)]) for _, node in nodes], now)
    is_long = len(nodes) > MAX_UNFOLDED
    # In reverse order, so that the rows inside a step are built before the step's own row.
    rows_by_level: defaultdict[int, list[StepRow]] = defaultdict(list)
    for depth, node in reversed(nodes):
        indent = min(depth, MAX_DEPTH)
        children = tuple(reversed(rows_by_level.pop(indent + 1, [])))
        row = _build_row(
            run,
            node,
            typical[id(node)],
            axis,
            now,
            children,
            is_current=node is current,
            is_long=is_long,
        )
        rows_by_level[indent].append(row)
    return Timeline(tuple(reversed(rows_by_level[0])), axis, is_running=_goes_on(run))


def missing_text(run: Run, root: Node | None) -> str:
    """Return the reason why no steps are shown."""
    if root is not None:
        return _("Northflank lists no steps for this run.")
    if run.steps_removed_at is not None and run.ended_at is not None:
        days = (run.steps_removed_at - run.ended_at).days
        text = ngettext(
            "Steps were removed after %(n)d day.", "Steps were removed after %(n)d days.", days
        )
        return text % {"n": days}
    if run.removed_at is not None:
        return _("The steps were never read, and the run was removed from Northflank.")
    if run.failures:
        return _("The steps could not be read from Northflank. Retrying.")
    if run.detail_synced_at is not None:
        return _("Northflank did not report this run’s steps.")
    return _("The steps are being read from Northflank.")


def _goes_on(run: Run) -> bool:
    """Return whether the run is in flight as far as is known: a removed one may have ended."""
    return run.in_flight and run.removed_at is None


def _axis(
    run: Run, node_durations: list[tuple[Node, TypicalDuration | None]], now: datetime
) -> Axis | None:
    starts = [node.started_at for node, _ in node_durations if node.started_at]
    started_at = run.started_at or min(starts, default=None)
    if started_at is None:
        return None
    if _goes_on(run):
        # Up to the expected end of the steps in progress, so that the remaining time is visible.
        end_times = [now] + [
            node.started_at + typical.p95
            for node, typical in node_durations
            if typical and steps.is_in_progress(node) and steps.awaited_kind(node) != steps.APPROVAL
            if node.started_at and node.started_at <= now
        ]
    elif run.concluded_at is not None and run.concluded_at > started_at:
        end_times = [run.concluded_at]
    else:
        end_times = [*starts, *(node.ended_at for node, _ in node_durations if node.ended_at)]
    seconds = max(round((max(end_times, default=started_at) - started_at).total_seconds()), 1)
    return Axis(started_at, started_at + timedelta(seconds=seconds), seconds)


def _build_row(
    run: Run, node: Node, typical: TypicalDuration | None, axis: Axis | None, now: datetime,
    children: tuple[StepRow, ...], *, is_current: bool, is_long: bool,
) -> StepRow:  # fmt: skip
    is_running = _goes_on(run) and steps.is_in_progress(node)
    duration = _duration(node, is_running=is_running, now=now)
    # A step around a late one, or around one in progress, is not judged itself.
    is_judged = not any(row.is_running or row.overdue_severity for row in children)
    judged = typical if is_judged else None
    severity = judged.classify(duration) if judged and duration is not None else Severity.OK
    is_failed = node.status in {"failure", "invalid"}
    is_relevant = is_current or is_failed or any(row.is_relevant for row in children)
    is_pending = run.in_flight and node.status is None and node.ended_at is None
    return StepRow(
        node,
        _display(run, node),
        name=step_texts.name(node),
        description=step_texts.description(node),
        wait_text=step_texts.wait_text(node) if is_running and not children else "",
        attempts_text=steps.attempt_text(node),
        next_attempt_at=node.next_attempt_at if is_running and node.status == "retrying" else None,
        error=step_texts.error_text(node),
        is_running=is_running,
        duration=durations.format_duration(duration)
        if duration is not None and not is_running
        else "",
        typical_text=durations.format_typical(typical)
        if typical and (run.in_flight or duration is not None)
        else "",
        overdue_severity=int(severity),
        bar=_build_bar(node, axis, duration, typical) if axis else None,
        is_current=is_current,
        is_unfolded=not is_long or is_relevant or is_running or is_pending,
        is_relevant=is_relevant,
        steps=children,
    )


def _display(run: Run, node: Node) -> StatusDisplay:
    if node.kind == OMITTED:
        return StatusDisplay("", "", "neutral", "")
    return statuses.for_step(
        node.status,
        started=node.started_at is not None,
        ended=node.ended_at is not None,
        run_in_flight=run.in_flight,
    )


def _duration(node: Node, *, is_running: bool, now: datetime) -> timedelta | None:
    """Return how long a step took, or has taken so far if it is in progress; None: unknown."""
    end = now if is_running else node.ended_at
    if node.started_at is None or end is None:
        return None
    # Northflank may report an end before the start: the duration is then unknown.
    return end - node.started_at if end >= node.started_at else None


def _build_bar(
    node: Node, axis: Axis, duration: timedelta | None, typical: TypicalDuration | None
) -> StepBar | None:
    if node.started_at is None:
        return None
    # At least one second, so that the bar is visible.
    start = min(axis.position(node.started_at), axis.seconds - 1)
    end = axis.position(node.started_at + (duration or timedelta()))
    typical_seconds = 0
    if typical and steps.awaited_kind(node) != steps.APPROVAL:
        whole_seconds = max(round(typical.p95.total_seconds()), 1)
        typical_seconds = min(whole_seconds, axis.seconds - start)
    return StepBar(start, max(end - start, 1), typical_seconds)
