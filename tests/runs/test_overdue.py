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
    defaults["turn_since"] = defaults["created_at"]
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

type Case = tuple[Run, Node | None, StageTiming | None, Finding | None]


def case(
    finding: Finding | None,
    subject: Run,
    root: Node | None = None,
    *,
    baseline: StageTiming | None = TIMING,
) -> Case:
    return subject, root, baseline, finding


CASES = {
    "run within its typical duration": case(None, run(started=9)),
    "overdue run": case(OVERDUE_RUN, run(started=16)),
    "critical run": case(FAR_OVERDUE_RUN, run(started=31)),
    "run without typical duration": case(None, run(started=59), baseline=None),
    "an hour without typical duration": case(OVERDUE_RUN, run(started=61), baseline=None),
    "three hours without typical duration": case(FAR_OVERDUE_RUN, run(started=181), baseline=None),
    "queued in time": case(None, run("queued", created=1.5, started=None)),
    "overdue in the queue": case(OVERDUE_QUEUE, run("queued", created=3, started=None)),
    "queued without typical duration": case(
        OVERDUE_QUEUE, run("pending", created=16, started=None), baseline=None
    ),
    "step within its typical duration": case(None, run(), tree(step(4))),
    "overdue step": case(OVERDUE_STEP, run(), tree(step(5))),
    "critical step": case(FAR_OVERDUE_STEP, run(started=12), tree(step(10))),
    "run and step equally overdue: the step": case(OVERDUE_STEP, run(started=16), tree(step(6))),
    "run and step: the worse": case(FAR_OVERDUE_RUN, run(started=31), tree(step(6))),
    "unknown step, unchanged for long": case(
        OVERDUE_NO_PROGRESS, run(started=17), tree(step(16, label="new", ref="new"))
    ),
    "unknown step of an overdue run": case(
        FAR_OVERDUE_RUN, run(started=31), tree(step(16, label="new", ref="new"))
    ),
    "new unknown step of an overdue run": case(
        OVERDUE_RUN, run(started=17), tree(step(2, label="new", ref="new"))
    ),
    "unknown step after fast ones": case(
        None, run(started=14), tree(step(14, label="new", ref="new"))
    ),
    "overdue approval": case(
        None,
        run("approval_wait", started=50),
        tree(step(45, label="sign-off", ref="sign-off", status="approval_wait")),
    ),
    "critical approval": case(
        FAR_OVERDUE_APPROVAL,
        run("approval_wait", started=730),
        tree(step(725, label="sign-off", ref="sign-off", status="approval_wait")),
    ),
    "approval beside an earlier step": case(
        FAR_OVERDUE_APPROVAL,
        run("approval_wait", started=50),
        tree(step(45), step(45, **SIGN_OFF)),
        baseline=TIMING_WITH_APPROVAL,
    ),
    "approval in a group beside an earlier step": case(
        FAR_OVERDUE_APPROVAL,
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
        baseline=TIMING_WITH_APPROVAL,
    ),
    "later of two approvals": case(
        None,
        run("approval_wait", started=50),
        tree(
            node("Approval", ref="sign-off", status="success", started_at=ago(45)),
            step(1, **SIGN_OFF),
        ),
        baseline=TIMING_WITH_APPROVAL,
    ),
    "group that waits for an approval which is not among its steps": case(
        FAR_OVERDUE_APPROVAL,
        run("approval_wait", started=730),
        tree(node("Workflow", status="approval_wait", started_at=ago(725))),
    ),
    "approval that is not among the steps, beside a step": case(
        None, run("approval_wait", started=50, status_since=ago(45)), tree(step(1))
    ),
    "running without start time is not queued": case(
        FAR_OVERDUE_RUN, run("running", created=55, started=None), tree(step(5))
    ),
    "parallel approvals count once": case(
        OVERDUE_RUN,
        run(started=60),
        tree(
            node("Approval", status="success", started_at=ago(59), ended_at=ago(15)),
            node("Approval", label="b", status="success", started_at=ago(59), ended_at=ago(15)),
            step(2),
        ),
    ),
    "approval time is not work": case(
        None,
        run(started=100),
        tree(node("Approval", status="success", started_at=ago(99), ended_at=ago(3)), step(2)),
    ),
    "attempt before the last": case(
        None, run("retrying"), tree(step(1, status="retrying", attempts=2, max_attempts=3))
    ),
    "last attempt in progress": case(None, run(), tree(step(1, attempts=3, max_attempts=3))),
    "unknown attempt": case(
        None, run("retrying"), tree(step(1, status="retrying", max_attempts=3))
    ),
    "attempt without a maximum": case(
        None, run("retrying"), tree(step(1, status="retrying", attempts=3))
    ),
    "last attempt": case(
        OVERDUE_LAST_ATTEMPT,
        run("retrying"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
    ),
    "last attempt of two": case(
        OVERDUE_LAST_ATTEMPT,
        run("retrying"),
        tree(step(1, status="retrying", attempts=2, max_attempts=2)),
    ),
    "only attempt": case(
        None, run("retrying"), tree(step(1, status="retrying", attempts=1, max_attempts=1))
    ),
    "aborting run is judged as a whole": case(FAR_OVERDUE_RUN, run("aborting", started=500)),
    "aborting run has the typical duration of its stage": case(
        OVERDUE_RUN, run("aborting", started=16)
    ),
    "aborting run without typical duration": case(None, run("aborting", started=59), baseline=None),
    "approval time of an aborting run is not work": case(
        None,
        run("aborting", started=100),
        tree(
            node("Approval", status="success", started_at=ago(99), ended_at=ago(3)),
            step(2, status="aborting"),
        ),
    ),
    "aborting run without its step": case(
        None, run("aborting", started=5), tree(step(5, started_at=ago(400)))
    ),
    "aborting run without its approval": case(
        None,
        run("aborting", started=500),
        tree(node("Approval", status="aborting", started_at=ago(499))),
    ),
    "aborting run without its queue": case(None, run("aborting", created=500, started=None)),
    "last attempt beside an approval": case(
        OVERDUE_LAST_ATTEMPT,
        run("approval_wait"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3), step(1, **SIGN_OFF)),
    ),
    "last attempt after an approval": case(
        OVERDUE_LAST_ATTEMPT,
        run("approval_wait"),
        tree(step(1, **SIGN_OFF), step(1, status="retrying", attempts=3, max_attempts=3)),
    ),
    "last attempt beside an earlier step": case(
        OVERDUE_LAST_ATTEMPT,
        run("retrying"),
        tree(step(1), step(1, status="retrying", attempts=3, max_attempts=3)),
    ),
    "last attempt inside a group": case(
        OVERDUE_LAST_ATTEMPT,
        run("retrying"),
        tree(
            node(
                "Workflow",
                status="waiting",
                steps=[step(1, status="retrying", attempts=3, max_attempts=3)],
            )
        ),
    ),
    "aborting run without its last attempt": case(
        None, run("aborting"), tree(step(1, status="retrying", attempts=3, max_attempts=3))
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
    "run": case(None, run(started=40), baseline=TWO_HOURS),
    "run over its override": case(OVERDUE_RUN, run(started=181), baseline=TWO_HOURS),
    "step of a run with override": case(None, run(started=40), tree(step(35)), baseline=TWO_HOURS),
    "unknown step of a run with override": case(
        None, run(started=40), tree(step(35, label="new", ref="new")), baseline=TWO_HOURS
    ),
    "step over the run's override": case(
        OVERDUE_NO_PROGRESS, run(started=182), tree(step(181)), baseline=TWO_HOURS
    ),
    "last attempt of a run with override": case(
        OVERDUE_LAST_ATTEMPT,
        run("retrying"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
        baseline=TWO_HOURS,
    ),
    "approval of a run with override": case(
        FAR_OVERDUE_APPROVAL,
        run("approval_wait", started=40),
        tree(step(35, **SIGN_OFF)),
        baseline=TWO_HOURS,
    ),
    "queue with override": case(
        None,
        run("queued", created=30, started=None),
        baseline=timing_with_overrides(override_queue_median=1800),
    ),
    "queue over its override": case(
        OVERDUE_QUEUE,
        run("queued", created=46, started=None),
        baseline=timing_with_overrides(override_queue_median=1800),
    ),
    "queue override does not change a step": case(
        OVERDUE_STEP,
        run(),
        tree(step(5)),
        baseline=timing_with_overrides(override_queue_median=1800),
    ),
    "approval with override": case(
        None,
        run("approval_wait", started=40),
        tree(step(35, **SIGN_OFF)),
        baseline=timing_with_overrides(override_approval_median=1800, override_approval_p95=3600),
    ),
    "approval over its override": case(
        OVERDUE_APPROVAL,
        run("approval_wait", started=70),
        tree(step(61, **SIGN_OFF)),
        baseline=timing_with_overrides(override_approval_median=1800, override_approval_p95=3600),
    ),
    "approval of an unread step": case(
        OVERDUE_APPROVAL,
        run("approval_wait", started=70, status_since=ago(61)),
        baseline=timing_with_overrides(override_approval_median=1800),
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
