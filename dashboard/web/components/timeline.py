"""A run's steps as its page shows them: a tree, on one axis of time."""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext, pgettext_lazy

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import Overdue, Usual
from dashboard.northflank import Node
from dashboard.northflank.models import OMITTED
from dashboard.runs import durations, overdue, statuses, steps

FEW = 20  # steps that are shown unfolded, all of them
DEEPEST = 8  # levels; what lies deeper follows its group instead of being in it

_KINDS: dict[str, Promise] = {
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
# What a step under way waits on, by its kind or, of a Condition or an Action, by its subject's.
_WAITS_ON: dict[str, Promise] = {
    steps.OUTSIDE: gettext_lazy("waits on an external answer"),
    "Build": gettext_lazy("waits on a build"),
    "JobRun": gettext_lazy("waits on a job"),
    "Job": gettext_lazy("waits on a job"),
    "Release": gettext_lazy("waits on a deployment"),
    "AddonBackup": gettext_lazy("waits on a backup"),
    "AddonImport": gettext_lazy("waits on an import"),
    "RunTemplate": gettext_lazy("waits on another run"),
    "Approval": gettext_lazy("waits on people"),
    "Service": gettext_lazy("waits on a service"),
    "Addon": gettext_lazy("waits on an addon"),
    "BYOCCluster": gettext_lazy("waits on a cluster"),
    "VCS": gettext_lazy("waits on a repository"),
}
# Of whom it is said that it “succeeds”, “runs” or “is” something.
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
_CAN_WAIT = {"Build", "JobRun", "Release", "AddonBackup", "AddonImport", "RunTemplate"}
_UNTIL: dict[str, Promise] = {
    "success": gettext_lazy("waits until %(subject)s succeeds"),
    "running": gettext_lazy("waits until %(subject)s runs"),
}


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a step is on the axis; whole seconds since the axis begins, never beyond its end."""

    start: int
    length: int
    usual: int  # how long it usually takes at most; 0: not known, or not shown
    late_at: int  # when it takes longer than usual; 0: not known
    very_late_at: int


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step, ready for the template."""

    name: str
    about: str  # what it is and does: "job, until it succeeds"
    word: str  # empty: it has no status
    sentence: str
    tone: str
    glyph: str
    wait: str  # what it waits on, while it is under way
    attempts: str
    next_at: datetime | None  # when it is tried again
    error: str
    started_at: datetime | None
    since: str  # when it started, ISO, while it is under way
    took: str
    usual: str
    late: int  # how far it takes longer than usual: a level of timing.Overdue
    bar: Bar | None
    open: bool  # it is the one the run is at
    unfolded: bool
    parallel: bool  # its steps start all at once
    telling: bool  # the one the run is at, or one that failed, is it or in it
    steps: tuple["StepRow", ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """The time that all bars share: from a run's start to its end, or to what is expected."""

    began: datetime
    ends: datetime
    seconds: int  # 1 at least

    def at(self, when: datetime) -> int:
        """Return a time's place on the axis, in seconds; what lies beyond an end is at that end."""
        return min(max(round((when - self.began).total_seconds()), 0), self.seconds)


@dataclass(frozen=True, slots=True)
class Timeline:
    """All steps of a run; `axis` is None where nothing has begun."""

    steps: tuple[StepRow, ...] = ()
    axis: Axis | None = None
    going: bool = False  # the axis goes on


def root_of(run: Run) -> Node | None:
    """Return the tree of a run's steps, or None where it was not read."""
    return msgspec.convert(run.steps, Node) if run.steps is not None else None


def timeline(run: Run, root: Node | None, timing: StageTiming | None, now: datetime) -> Timeline:
    """Return the steps of a run as they stand now, against what is usual in its stage."""
    if root is None:
        return Timeline()
    walked = list(steps.walk(root))
    at = steps.current(root) if run.in_flight else None
    usual = {id(node): overdue.usual_of(node, timing) for _, node in walked}
    axis = _axis(run, [(node, usual[id(node)]) for _, node in walked], now)
    many = len(walked) > FEW
    # From the last to the first: whatever is inside a step is there before it.
    inside: defaultdict[int, list[StepRow]] = defaultdict(list)
    for depth, node in reversed(walked):
        level = min(depth, DEEPEST)
        within = tuple(reversed(inside.pop(level + 1, [])))
        row = _row(run, node, usual[id(node)], axis, now, within, here=node is at, many=many)
        inside[level].append(row)
    return Timeline(tuple(reversed(inside[0])), axis, going=run.in_flight)


def missing(run: Run, root: Node | None) -> str:
    """Say why no steps are shown."""
    if root is not None:
        return _("Northflank lists no steps for this run.")
    if run.gone_at is not None:
        return _("Its steps were never read, and Northflank no longer knows it.")
    if run.detail_seen_at is not None:
        return _("Northflank did not say which steps this run has.")
    return _("Its steps are being read from Northflank.")


def _axis(run: Run, known: list[tuple[Node, Usual | None]], now: datetime) -> Axis | None:
    starts = [node.started_at for node, _ in known if node.started_at]
    began = run.started_at or min(starts, default=None)
    if began is None:
        return None
    if run.in_flight:
        # As far as the work under way usually takes, so that it is seen how much of it is left.
        ends = [now] + [
            node.started_at + usual.p95
            for node, usual in known
            if usual and steps.under_way(node) and steps.waits_on(node) != steps.APPROVAL
            if node.started_at and node.started_at <= now
        ]
    elif run.concluded_at is not None and run.concluded_at > began:
        ends = [run.concluded_at]
    else:
        ends = [*starts, *(node.ended_at for node, _ in known if node.ended_at)]
    seconds = max(round((max(ends, default=began) - began).total_seconds()), 1)
    return Axis(began, began + timedelta(seconds=seconds), seconds)


def _row(
    run: Run, node: Node, usual: Usual | None, axis: Axis | None, now: datetime,
    within: tuple[StepRow, ...], *, here: bool, many: bool,
) -> StepRow:  # fmt: skip
    going = run.in_flight and steps.under_way(node)
    took = _took(node, going=going, now=now)
    late = usual.judge(took) if usual and took is not None else Overdue.NO
    failed = node.status in {"failure", "invalid"}
    telling = here or failed or any(row.telling for row in within)
    to_come = run.in_flight and node.status is None and node.ended_at is None
    look = _look(run, node)
    return StepRow(
        name=_name(node),
        about=_about(node),
        word=look.word,
        sentence=look.sentence,
        tone=look.tone,
        glyph=look.glyph,
        wait=_wait(node) if going and not within else "",
        attempts=_attempts(node),
        next_at=node.next_attempt_at if going and node.status == "retrying" else None,
        error=_error(node),
        started_at=node.started_at,
        since=node.started_at.isoformat() if going and node.started_at else "",
        took=durations.in_words(took) if took is not None and not going else "",
        usual=durations.usually(usual) if usual and (run.in_flight or took is not None) else "",
        late=int(late),
        bar=_bar(node, axis, took, usual, going=going) if axis else None,
        open=here,
        unfolded=not many or telling or going or to_come,
        parallel=node.parallel and bool(within),
        telling=telling,
        steps=within,
    )


def _look(run: Run, node: Node) -> statuses.Look:
    if node.kind == OMITTED:
        return statuses.Look("", "", "neutral", "")
    return statuses.of_step(
        node.status,
        started=node.started_at is not None,
        ended=node.ended_at is not None,
        run_in_flight=run.in_flight,
    )


def _took(node: Node, *, going: bool, now: datetime) -> timedelta | None:
    """Return how long a step took or, while it is under way, has taken so far."""
    end = now if going else node.ended_at
    if node.started_at is None or end is None:
        return None
    # A step that ended before it started took nobody knows how long.
    return end - node.started_at if end >= node.started_at else None


def _bar(
    node: Node, axis: Axis, took: timedelta | None, usual: Usual | None, *, going: bool
) -> Bar | None:
    if node.started_at is None:
        return None
    # One second at least: it could not be seen otherwise.
    start = min(axis.at(node.started_at), axis.seconds - 1)
    end = axis.at(node.started_at + (took or timedelta()))
    people = steps.waits_on(node) == steps.APPROVAL
    late_at, very_late_at = usual.since(node.started_at) if going and usual else (None, None)
    return Bar(
        start=start,
        length=max(end - start, 1),
        usual=min(_whole(usual.p95), axis.seconds - start) if usual and not people else 0,
        late_at=_whole(late_at - axis.began) if late_at else 0,
        very_late_at=_whole(very_late_at - axis.began) if very_late_at else 0,
    )


def _whole(span: timedelta) -> int:
    return max(round(span.total_seconds()), 1)


def _name(node: Node) -> str:
    if node.kind not in steps.CONTAINERS or node.label != node.kind:
        return node.label
    if node.kind == "LoopWorkflow":
        return _("Loop")
    return _("Parallel steps") if node.parallel else _("Steps")


def _about(node: Node) -> str:
    """Say what a step is, and when the run goes on behind it."""
    if node.kind == OMITTED:
        return ""
    said = []
    within = len(node.steps)
    if node.kind in steps.CONTAINERS or within:
        if node.kind != "Workflow":
            said.append(str(_KINDS.get(node.kind, node.kind)))
        if node.iterations is not None:
            rounds = ngettext("%(n)d round", "%(n)d rounds", node.iterations)
            said.append(rounds % {"n": node.iterations})
        many = ngettext("%(n)d step", "%(n)d steps", within) % {"n": within}
        said.append(many if within else _("no steps"))
        if node.parallel:
            said.append(_("in parallel"))
    elif not node.label.startswith(node.kind):
        said.append(str(_KINDS.get(node.kind, node.kind)))
    if node.kind == "Approval" and node.approvals is not None and node.approvals > 1:
        said.append(_("by %(n)d people") % {"n": node.approvals})
    if node.condition is not None:
        said.append(_until(node, node.condition))
    elif node.kind in _CAN_WAIT:
        said.append(_("does not wait for its end"))
    if node.skip:
        said.append(_("told not to run"))
    return ", ".join(said)


def _until(node: Node, condition: str) -> str:
    known = _SUBJECTS.get(node.about or "") if node.kind == "Condition" else None
    subject = str(known) if known else pgettext("subject", "it")
    template = str(_UNTIL.get(condition, _("waits until %(subject)s is “%(condition)s”")))
    return template % {"subject": subject, "condition": condition}


def _wait(node: Node) -> str:
    said = str(_WAITS_ON.get(steps.waits_on(node), ""))
    if node.timeout_seconds is None or node.timeout_seconds <= 0:
        return said
    patience = _("gives up after %(time)s")
    patience %= {"time": durations.roughly(timedelta(seconds=node.timeout_seconds))}
    return f"{said}, {patience}" if said else patience


def _attempts(node: Node) -> str:
    if not node.attempts or node.attempts < (1 if node.status == "retrying" else 2):
        return ""
    known = (node.max_attempts or 0) >= node.attempts
    said = _("attempt %(n)d of %(most)d") if known else _("attempt %(n)d")
    return said % {"n": node.attempts, "most": node.max_attempts}


def _error(node: Node) -> str:
    if node.error_code is None:
        return node.error_message or ""
    said = _("%(error)s (code %(code)s)") if node.error_message else _("Failed (code %(code)s)")
    return said % {"error": node.error_message, "code": node.error_code}
