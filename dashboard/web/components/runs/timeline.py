"""The timeline on a run's page: its steps as a tree, with bars on a shared time axis."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext, pgettext_lazy

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.northflank.models import OMITTED
from dashboard.runs import overdue, statuses, steps
from dashboard.texts import durations

MAX_UNFOLDED = 20  # up to this number of steps, all groups are shown unfolded
MAX_DEPTH = 8  # levels; deeper steps are listed after their group instead of inside it

_KIND_LABELS: dict[str, Promise] = {
    "Workflow": pgettext_lazy("kind of step", "group"),
    "LoopWorkflow": pgettext_lazy("kind of step", "loop"),
    "Build": pgettext_lazy("kind of step", "build"),
    "JobRun": pgettext_lazy("kind of step", "job"),
    "Release": pgettext_lazy("kind of step", "deployment"),
    "AddonBackup": pgettext_lazy("kind of step", "backup"),
    "AddonImport": pgettext_lazy("kind of step", "import"),
    "Approval": pgettext_lazy("kind of step", "approval"),
    "RunTemplate": pgettext_lazy("kind of step", "nested run"),
    "Condition": pgettext_lazy("kind of step", "condition"),
    "Action": pgettext_lazy("kind of step", "action"),
    "Message": pgettext_lazy("kind of step", "message"),
    "SecretInheritance": pgettext_lazy("kind of step", "secrets"),
    "RolloutStrategy": pgettext_lazy("kind of step", "rollout strategy"),
}
# What a step in progress waits on, by its kind or, for a Condition or Action, its target's kind.
_WAIT_LABELS: dict[str, Promise] = {
    steps.EXTERNAL: gettext_lazy("waiting for an external response"),
    "Build": gettext_lazy("waiting for a build"),
    "JobRun": gettext_lazy("waiting for a job"),
    "Job": gettext_lazy("waiting for a job"),
    "Release": gettext_lazy("waiting for a deployment"),
    "AddonBackup": gettext_lazy("waiting for a backup"),
    "AddonImport": gettext_lazy("waiting for an import"),
    "RunTemplate": gettext_lazy("waiting for another run"),
    "Approval": gettext_lazy("waiting for approval"),
    "Service": gettext_lazy("waiting for a service"),
    "Addon": gettext_lazy("waiting for an addon"),
    "BYOCCluster": gettext_lazy("waiting for a cluster"),
    "VCS": gettext_lazy("waiting for a repository"),
}
# What a condition refers to, by kind, as the subject of a sentence: "a build" succeeds.
_SUBJECTS: dict[str, Promise] = {
    "Build": pgettext_lazy("subject", "a build"),
    "JobRun": pgettext_lazy("subject", "a job"),
    "Job": pgettext_lazy("subject", "a job"),
    "Release": pgettext_lazy("subject", "a deployment"),
    "AddonBackup": pgettext_lazy("subject", "a backup"),
    "AddonImport": pgettext_lazy("subject", "an import"),
    "RunTemplate": pgettext_lazy("subject", "another run"),
    "Approval": pgettext_lazy("subject", "people"),
    "Service": pgettext_lazy("subject", "a service"),
    "Addon": pgettext_lazy("subject", "an addon"),
    "BYOCCluster": pgettext_lazy("subject", "a cluster"),
    "VCS": pgettext_lazy("subject", "a repository"),
}
_WAITABLE_KINDS = {"Build", "JobRun", "Release", "AddonBackup", "AddonImport", "RunTemplate"}
_CONDITION_TEXTS: dict[str, Promise] = {
    "success": gettext_lazy("waits until %(subject)s succeeds"),
    "running": gettext_lazy("waits until %(subject)s runs"),
}


@dataclass(frozen=True, slots=True)
class StepBar:
    """A step's bar, in whole seconds; positions count from the start of the axis.

    `start`, `length` and `typical_seconds` do not extend beyond the end of the axis.
    """

    start: int
    length: int
    typical_seconds: int  # p95 of the typical duration; 0: unknown, or not shown
    overdue_at: int  # 0: unknown, or not in progress
    critical_at: int  # 0: unknown, or not in progress


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step, prepared for the template."""

    name: str
    description: str  # "job, waits until it succeeds"
    label: str  # of its status; empty: no status
    tooltip: str
    tone: str
    glyph: str
    wait_text: str  # what it waits on; empty: not in progress, or unknown
    attempts_text: str
    next_attempt_at: datetime | None  # when it is retried
    error: str
    started_at: datetime | None
    running_since: str  # start as ISO 8601; empty: not in progress
    duration: str
    typical_text: str
    overdue_severity: int  # a models.severity.Severity
    bar: StepBar | None
    is_current: bool  # the run is at this step
    is_unfolded: bool
    is_parallel: bool  # its child steps start at the same time
    is_relevant: bool  # it is current or has failed, or contains such a step
    steps: tuple["StepRow", ...]

    @property
    def has_duration(self) -> bool:
        """Whether the step's duration, or its elapsed time, is known."""
        return bool(self.duration or self.running_since)

    @property
    def may_be_overdue(self) -> bool:
        """Whether the step took longer than usual or, while it is in progress, may do so."""
        return bool(self.overdue_severity or (self.bar and self.bar.overdue_at))


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
        return _("The steps were never read, and Northflank no longer lists the run.")
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
    severity = typical.classify(duration) if typical and duration is not None else Severity.OK
    is_failed = node.status in {"failure", "invalid"}
    is_relevant = is_current or is_failed or any(row.is_relevant for row in children)
    is_pending = run.in_flight and node.status is None and node.ended_at is None
    display = _display(run, node)
    return StepRow(
        name=_name(node),
        description=_description(node),
        label=display.label,
        tooltip=display.description,
        tone=display.tone,
        glyph=display.glyph,
        wait_text=_wait_text(node) if is_running and not children else "",
        attempts_text=_attempts_text(node),
        next_attempt_at=node.next_attempt_at if is_running and node.status == "retrying" else None,
        error=_error_text(node),
        started_at=node.started_at,
        running_since=node.started_at.isoformat() if is_running and node.started_at else "",
        duration=durations.format_duration(duration)
        if duration is not None and not is_running
        else "",
        typical_text=durations.format_typical(typical)
        if typical and (run.in_flight or duration is not None)
        else "",
        overdue_severity=int(severity),
        bar=_build_bar(node, axis, duration, typical, is_running=is_running) if axis else None,
        is_current=is_current,
        is_unfolded=not is_long or is_relevant or is_running or is_pending,
        is_parallel=node.parallel and bool(children),
        is_relevant=is_relevant,
        steps=children,
    )


def _display(run: Run, node: Node) -> statuses.StatusDisplay:
    if node.kind == OMITTED:
        return statuses.StatusDisplay("", "", "neutral", "")
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
    node: Node,
    axis: Axis,
    duration: timedelta | None,
    typical: TypicalDuration | None,
    *,
    is_running: bool,
) -> StepBar | None:
    if node.started_at is None:
        return None
    # At least one second, so that the bar is visible.
    start = min(axis.position(node.started_at), axis.seconds - 1)
    end = axis.position(node.started_at + (duration or timedelta()))
    is_approval = steps.awaited_kind(node) == steps.APPROVAL
    overdue_at, critical_at = (
        typical.deadlines(node.started_at) if is_running and typical else (None, None)
    )
    return StepBar(
        start=start,
        length=max(end - start, 1),
        typical_seconds=min(_whole_seconds(typical.p95), axis.seconds - start)
        if typical and not is_approval
        else 0,
        overdue_at=_whole_seconds(overdue_at - axis.started_at) if overdue_at else 0,
        critical_at=_whole_seconds(critical_at - axis.started_at) if critical_at else 0,
    )


def _whole_seconds(duration: timedelta) -> int:
    return max(round(duration.total_seconds()), 1)


def _name(node: Node) -> str:
    if node.kind not in steps.CONTAINER_KINDS or node.label != node.kind:
        return node.label
    if node.kind == "LoopWorkflow":
        return _("Loop")
    return _("Parallel steps") if node.parallel else _("Steps")


def _description(node: Node) -> str:
    """Return what kind of step it is, and what the run waits for before it continues."""
    if node.kind == OMITTED:
        return ""
    parts = []
    step_count = len(node.steps)
    if node.kind in steps.CONTAINER_KINDS or step_count:
        if node.kind != "Workflow":
            parts.append(str(_KIND_LABELS.get(node.kind, node.kind)))
        if node.iterations is not None:
            rounds_text = ngettext("%(n)d round", "%(n)d rounds", node.iterations)
            parts.append(rounds_text % {"n": node.iterations})
        steps_text = ngettext("%(n)d step", "%(n)d steps", step_count) % {"n": step_count}
        parts.append(steps_text if step_count else _("no steps"))
        if node.parallel:
            parts.append(_("in parallel"))
    elif not node.label.startswith(node.kind):
        parts.append(str(_KIND_LABELS.get(node.kind, node.kind)))
    if (
        node.kind == "Approval"
        and node.required_approvals is not None
        and node.required_approvals > 1
    ):
        parts.append(_("%(n)d approvals required") % {"n": node.required_approvals})
    if node.condition is not None:
        parts.append(_condition_text(node, node.condition))
    elif _goes_on_at_once(node):
        parts.append(_("does not wait for completion"))
    if node.skip:
        parts.append(_("set to skip"))
    return ", ".join(parts)


def _condition_text(node: Node, condition: str) -> str:
    label = _SUBJECTS.get(node.target_kind or "") if node.kind == "Condition" else None
    subject = str(label) if label else pgettext("subject", "it")
    template = str(_CONDITION_TEXTS.get(condition, _("waits until %(subject)s is “%(condition)s”")))
    return template % {"subject": subject, "condition": condition}


def _goes_on_at_once(node: Node) -> bool:
    """Return whether the run only starts the step's work, and does not wait for it."""
    return node.condition is None and node.kind in _WAITABLE_KINDS


def _wait_text(node: Node) -> str:
    awaited = steps.awaited_kind(node)
    if _goes_on_at_once(node) and awaited not in {steps.APPROVAL, steps.EXTERNAL}:
        awaited = ""
    wait_text = str(_WAIT_LABELS.get(awaited, ""))
    if node.timeout_seconds is None or node.timeout_seconds <= 0:
        return wait_text
    timeout_text = _("times out after %(time)s")
    timeout_text %= {"time": durations.format_rounded(timedelta(seconds=node.timeout_seconds))}
    return f"{wait_text}, {timeout_text}" if wait_text else timeout_text


def _attempts_text(node: Node) -> str:
    if not node.attempts or node.attempts < (1 if node.status == "retrying" else 2):
        return ""
    is_total_known = (node.max_attempts or 0) >= node.attempts
    template = _("attempt %(n)d of %(most)d") if is_total_known else _("attempt %(n)d")
    return template % {"n": node.attempts, "most": node.max_attempts}


def _error_text(node: Node) -> str:
    if node.error_code is None:
        return node.error_message or ""
    template = _("%(error)s (code %(code)s)") if node.error_message else _("Failed (code %(code)s)")
    return template % {"error": node.error_message, "code": node.error_code}
