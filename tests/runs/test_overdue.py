"""Overdue parts of a run: its work, a step, the queue, an approval."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.northflank import Node
from dashboard.runs import overdue
from dashboard.runs.overdue import Finding, OverdueReason, Timer
from dashboard.runs.steps import key as step_key
from tests.support.factories import node

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def run(
    status: str = "running", *, created: float = 5, started: float | None = 4, **fields: Any
) -> Run:
    started_at = None if started is None else ago(started)
    defaults = {"created_at": ago(created), "started_at": started_at, "status_since": ago(1)}
    return Run(status=status, in_flight=True, concluded=False, **defaults | fields)


# A run usually takes ten minutes, queues for one, and migrates for three.
TIMING = StageTiming(
    observed_run_median=600,
    observed_run_p95=720,
    observed_queue_median=60,
    observed_queue_p95=90,
    observed_steps={"migrate": [180, 240]},
)
SIGN_OFF = {"label": "sign-off", "ref": "sign-off", "status": "approval_wait"}
TIMING_WITH_APPROVAL = StageTiming(observed_steps={"sign-off": [300, 600]})


def tree(*steps: Node) -> Node:
    return node("Workflow", steps=steps)


def step(minutes: float, **fields: Any) -> Node:
    defaults = {
        "label": "migrate",
        "ref": "migrate",
        "status": "waiting",
        "started_at": ago(minutes),
    }
    return node("JobRun", **defaults | fields)


FAR_OVERDUE_APPROVAL = Finding(Severity.CRITICAL, OverdueReason.APPROVAL)
OVERDUE_APPROVAL = Finding(Severity.WARNING, OverdueReason.APPROVAL)
OVERDUE_LAST_ATTEMPT = Finding(Severity.WARNING, OverdueReason.LAST_ATTEMPT)
OVERDUE_NO_PROGRESS = Finding(Severity.WARNING, OverdueReason.NO_PROGRESS)
OVERDUE_QUEUE = Finding(Severity.WARNING, OverdueReason.QUEUE)
OVERDUE_RUN = Finding(Severity.WARNING, OverdueReason.RUN)
FAR_OVERDUE_RUN = Finding(Severity.CRITICAL, OverdueReason.RUN)
OVERDUE_STEP = Finding(Severity.WARNING, OverdueReason.STEP)
FAR_OVERDUE_STEP = Finding(Severity.CRITICAL, OverdueReason.STEP)

CASES = {
    "run within its typical duration": (run(started=9), None, TIMING, None),
    "overdue run": (run(started=16), None, TIMING, OVERDUE_RUN),
    "critical run": (run(started=31), None, TIMING, FAR_OVERDUE_RUN),
    "run without typical duration": (run(started=59), None, None, None),
    "an hour without typical duration": (run(started=61), None, None, OVERDUE_RUN),
    "three hours without typical duration": (run(started=181), None, None, FAR_OVERDUE_RUN),
    "queued in time": (run("queued", created=1.5, started=None), None, TIMING, None),
    "overdue in the queue": (run("queued", created=3, started=None), None, TIMING, OVERDUE_QUEUE),
    "queued without typical duration": (
        run("pending", created=16, started=None),
        None,
        None,
        OVERDUE_QUEUE,
    ),
    "step within its typical duration": (run(), tree(step(4)), TIMING, None),
    "overdue step": (run(), tree(step(5)), TIMING, OVERDUE_STEP),
    "critical step": (run(started=12), tree(step(10)), TIMING, FAR_OVERDUE_STEP),
    "run and step equally overdue: the step": (
        run(started=16),
        tree(step(6)),
        TIMING,
        OVERDUE_STEP,
    ),
    "run and step: the worse": (run(started=31), tree(step(6)), TIMING, FAR_OVERDUE_RUN),
    "unknown step, unchanged for long": (
        run(started=17),
        tree(step(16, label="new", ref="new")),
        TIMING,
        OVERDUE_NO_PROGRESS,
    ),
    "unknown step of an overdue run": (
        run(started=31),
        tree(step(16, label="new", ref="new")),
        TIMING,
        FAR_OVERDUE_RUN,
    ),
    "new unknown step of an overdue run": (
        run(started=17),
        tree(step(2, label="new", ref="new")),
        TIMING,
        OVERDUE_RUN,
    ),
    "unknown step after fast ones": (
        run(started=14),
        tree(step(14, label="new", ref="new")),
        TIMING,
        None,
    ),
    "overdue approval": (
        run("approval_wait", started=50),
        tree(step(45, label="sign-off", ref="sign-off", status="approval_wait")),
        TIMING,
        None,
    ),
    "critical approval": (
        run("approval_wait", started=730),
        tree(step(725, label="sign-off", ref="sign-off", status="approval_wait")),
        TIMING,
        FAR_OVERDUE_APPROVAL,
    ),
    "approval beside an earlier step": (
        run("approval_wait", started=50),
        tree(step(45), step(45, **SIGN_OFF)),
        TIMING_WITH_APPROVAL,
        FAR_OVERDUE_APPROVAL,
    ),
    "approval in a group beside an earlier step": (
        run("approval_wait", started=50),
        tree(
            step(45),
            node(
                "Workflow",
                status="approval_wait",
                started_at=ago(48),
                steps=(step(45, **SIGN_OFF),),
            ),
        ),
        TIMING_WITH_APPROVAL,
        FAR_OVERDUE_APPROVAL,
    ),
    "later of two approvals": (
        run("approval_wait", started=50),
        tree(
            node("Approval", ref="sign-off", status="success", started_at=ago(45)),
            step(1, **SIGN_OFF),
        ),
        TIMING_WITH_APPROVAL,
        None,
    ),
    "group that waits for an approval which is not among its steps": (
        run("approval_wait", started=730),
        tree(node("Workflow", status="approval_wait", started_at=ago(725))),
        TIMING,
        FAR_OVERDUE_APPROVAL,
    ),
    "approval that is not among the steps, beside a step": (
        run("approval_wait", started=50, status_since=ago(45)),
        tree(step(1)),
        TIMING,
        None,
    ),
    "running without start time is not queued": (
        run("running", created=55, started=None),
        tree(step(5)),
        TIMING,
        FAR_OVERDUE_RUN,
    ),
    "parallel approvals count once": (
        run(started=60),
        tree(
            node("Approval", status="success", started_at=ago(59), ended_at=ago(15)),
            node("Approval", label="b", status="success", started_at=ago(59), ended_at=ago(15)),
            step(2),
        ),
        TIMING,
        OVERDUE_RUN,
    ),
    "approval time is not work": (
        run(started=100),
        tree(node("Approval", status="success", started_at=ago(99), ended_at=ago(3)), step(2)),
        TIMING,
        None,
    ),
    "attempt before the last": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=2, max_attempts=3)),
        TIMING,
        None,
    ),
    "last attempt in progress": (run(), tree(step(1, attempts=3, max_attempts=3)), TIMING, None),
    "unknown attempt": (
        run("retrying"),
        tree(step(1, status="retrying", max_attempts=3)),
        TIMING,
        None,
    ),
    "attempt without a maximum": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=3)),
        TIMING,
        None,
    ),
    "last attempt": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
        TIMING,
        OVERDUE_LAST_ATTEMPT,
    ),
    "last attempt of two": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=2, max_attempts=2)),
        TIMING,
        OVERDUE_LAST_ATTEMPT,
    ),
    "only attempt": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=1, max_attempts=1)),
        TIMING,
        None,
    ),
    "aborting run is judged as a whole": (
        run("aborting", started=500),
        None,
        TIMING,
        FAR_OVERDUE_RUN,
    ),
    "aborting run has the typical duration of its stage": (
        run("aborting", started=16),
        None,
        TIMING,
        OVERDUE_RUN,
    ),
    "aborting run without typical duration": (run("aborting", started=59), None, None, None),
    "approval time of an aborting run is not work": (
        run("aborting", started=100),
        tree(
            node("Approval", status="success", started_at=ago(99), ended_at=ago(3)),
            step(2, status="aborting"),
        ),
        TIMING,
        None,
    ),
    "aborting run without its step": (
        run("aborting", started=5),
        tree(step(5, started_at=ago(400))),
        TIMING,
        None,
    ),
    "aborting run without its approval": (
        run("aborting", started=500),
        tree(node("Approval", status="aborting", started_at=ago(499))),
        TIMING,
        None,
    ),
    "aborting run without its queue": (
        run("aborting", created=500, started=None),
        None,
        TIMING,
        None,
    ),
    "last attempt beside an approval": (
        run("approval_wait"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3), step(1, **SIGN_OFF)),
        TIMING,
        OVERDUE_LAST_ATTEMPT,
    ),
    "last attempt after an approval": (
        run("approval_wait"),
        tree(step(1, **SIGN_OFF), step(1, status="retrying", attempts=3, max_attempts=3)),
        TIMING,
        OVERDUE_LAST_ATTEMPT,
    ),
    "last attempt beside an earlier step": (
        run("retrying"),
        tree(step(1), step(1, status="retrying", attempts=3, max_attempts=3)),
        TIMING,
        OVERDUE_LAST_ATTEMPT,
    ),
    "last attempt inside a group": (
        run("retrying"),
        tree(
            node(
                "Workflow",
                status="waiting",
                steps=[step(1, status="retrying", attempts=3, max_attempts=3)],
            )
        ),
        TIMING,
        OVERDUE_LAST_ATTEMPT,
    ),
    "aborting run without its last attempt": (
        run("aborting"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
        TIMING,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_overdue_finding_of_each_case_matches(name: str) -> None:
    subject, root, baseline, expected = CASES[name]
    assert (
        overdue.worst_finding(subject, root, overdue.timers(subject, root, baseline), NOW)
        == expected
    )


def test_concluded_run_is_not_overdue() -> None:
    subject = run(started=500)
    subject.in_flight = False
    assert overdue.worst_finding(subject, None, overdue.timers(subject, None, TIMING), NOW) is None


@pytest.mark.parametrize(
    ("minutes", "level"),
    [
        (2.9, Severity.OK),
        (3, Severity.OK),
        (3.1, Severity.WARNING),
        (5, Severity.WARNING),
        (5.1, Severity.CRITICAL),
    ],
)
def test_clock_severity_changes_only_after_its_limits(minutes: float, level: Severity) -> None:
    since = ago(minutes)
    clock = Timer(
        OverdueReason.RUN, since, since + timedelta(minutes=3), since + timedelta(minutes=5), None
    )
    assert clock.severity_at(NOW) is level


@pytest.mark.parametrize(
    ("group", "has_duration"),
    [
        (node("Workflow", ref="checks", label="checks"), True),
        (node("Workflow", label="checks"), False),  # one key for all groups without a name
        (node("LoopWorkflow", label="checks"), False),
        (node("JobRun", label="checks"), True),
    ],
    ids=lambda node: f"{node.kind} {node.ref}" if isinstance(node, Node) else "",
)
def test_unnamed_step_group_has_no_typical_duration(group: Node, has_duration: bool) -> None:
    timing = StageTiming(observed_steps={step_key(group): [180, 240]})
    assert (overdue.typical_step_duration(group, timing) is not None) is has_duration


# --- overrides ----------------------------------------------------------------------------------


def timing_with_overrides(**seconds: int) -> StageTiming:
    """A learned baseline, with overrides."""
    observed = {
        "observed_run_median": 600,
        "observed_run_p95": 720,
        "observed_queue_median": 60,
        "observed_queue_p95": 90,
    }
    return StageTiming(
        **observed, observed_steps={"migrate": [180, 240], "sign-off": [300, 600]}, **seconds
    )


TWO_HOURS = timing_with_overrides(override_run_median=7200)
OVERRIDE_CASES = {
    "run": (run(started=40), None, TWO_HOURS, None),
    "run over its override": (run(started=181), None, TWO_HOURS, OVERDUE_RUN),
    "step of a run with override": (run(started=40), tree(step(35)), TWO_HOURS, None),
    "unknown step of a run with override": (
        run(started=40),
        tree(step(35, label="new", ref="new")),
        TWO_HOURS,
        None,
    ),
    "step over the run's override": (
        run(started=182),
        tree(step(181)),
        TWO_HOURS,
        OVERDUE_NO_PROGRESS,
    ),
    "last attempt of a run with override": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
        TWO_HOURS,
        OVERDUE_LAST_ATTEMPT,
    ),
    "approval of a run with override": (
        run("approval_wait", started=40),
        tree(step(35, **SIGN_OFF)),
        TWO_HOURS,
        FAR_OVERDUE_APPROVAL,
    ),
    "queue with override": (
        run("queued", created=30, started=None),
        None,
        timing_with_overrides(override_queue_median=1800),
        None,
    ),
    "queue over its override": (
        run("queued", created=46, started=None),
        None,
        timing_with_overrides(override_queue_median=1800),
        OVERDUE_QUEUE,
    ),
    "queue override does not change a step": (
        run(),
        tree(step(5)),
        timing_with_overrides(override_queue_median=1800),
        OVERDUE_STEP,
    ),
    "approval with override": (
        run("approval_wait", started=40),
        tree(step(35, **SIGN_OFF)),
        timing_with_overrides(override_approval_median=1800, override_approval_p95=3600),
        None,
    ),
    "approval over its override": (
        run("approval_wait", started=70),
        tree(step(61, **SIGN_OFF)),
        timing_with_overrides(override_approval_median=1800, override_approval_p95=3600),
        OVERDUE_APPROVAL,
    ),
    "approval of an unread step": (
        run("approval_wait", started=70, status_since=ago(61)),
        None,
        timing_with_overrides(override_approval_median=1800),
        OVERDUE_APPROVAL,
    ),
}


@pytest.mark.parametrize("name", OVERRIDE_CASES)
def test_override_duration_takes_precedence_over_observed(name: str) -> None:
    subject, root, baseline, expected = OVERRIDE_CASES[name]
    assert (
        overdue.worst_finding(subject, root, overdue.timers(subject, root, baseline), NOW)
        == expected
    )


# --- without a baseline -------------------------------------------------------------------------

LIMITS: dict[str, tuple[float, Callable[[float], Run]]] = {
    "run": (60, lambda minutes: run(started=minutes)),
    "queue": (15, lambda minutes: run("queued", created=minutes, started=None)),
    "approval": (240, lambda minutes: run("approval_wait", status_since=ago(minutes))),
}


@pytest.mark.parametrize(
    ("factor", "level"), [(0.9, Severity.OK), (1.1, Severity.WARNING), (2.1, Severity.CRITICAL)]
)
@pytest.mark.parametrize("name", LIMITS)
def test_run_without_typical_duration_is_overdue_after_a_limit_and_its_multiple(
    name: str, factor: float, level: Severity, settings: Settings
) -> None:
    settings.OVERDUE_CRITICAL_FACTOR = 2
    limit, run_after = LIMITS[name]
    of = run_after(factor * limit)
    finding = overdue.worst_finding(of, None, overdue.timers(of, None, None), NOW)
    assert (finding.severity if finding else Severity.OK) is level


def nodes() -> st.SearchStrategy[Node]:
    times = st.none() | st.integers(-(10**5), 10**5).map(
        lambda seconds: NOW + timedelta(seconds=seconds)
    )
    statuses = st.sampled_from(
        [None, "waiting", "retrying", "approval_wait", "async_wait", "success", "failure", "new"]
    )
    counts = st.none() | st.integers(-1, 9)
    leaf = st.builds(
        node,
        kind=st.sampled_from(["JobRun", "Approval", "Workflow", "LoopWorkflow", "Teleport"]),
        label=st.text(max_size=5),
        ref=st.none() | st.just("migrate"),
        status=statuses,
        started_at=times,
        ended_at=times,
        attempts=counts,
        max_attempts=counts,
    )
    return st.recursive(
        leaf,
        lambda children: st.builds(
            lambda steps: node("Workflow", steps=tuple(steps)), st.lists(children, max_size=4)
        ),
        max_leaves=20,
    )


@pytest.mark.slow
@given(
    nodes(),
    st.sampled_from(["running", "queued", "waiting", "approval_wait", "aborting", "hibernating"]),
    st.none() | st.floats(-100, 1000),
    st.booleans(),
)
def test_overdue_finding_of_any_step_tree_is_valid(
    root: Node, status: str, started: float | None, has_baseline: bool
) -> None:
    timing = TIMING if has_baseline else None
    subject = run(status, started=started)
    timers = overdue.timers(subject, root, timing)
    for clock in timers:
        assert clock.started_at <= clock.warning_at <= clock.critical_at
    finding = overdue.worst_finding(subject, root, timers, NOW)
    assert finding is None or finding.severity in {Severity.WARNING, Severity.CRITICAL}
