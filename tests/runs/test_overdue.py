"""Overdue parts of a run: its work, a step, the queue, an approval."""

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
    status: str = "running", *, created: float = 5, started: float | None = 4, **more: Any
) -> Run:
    began = None if started is None else ago(started)
    defaults = {"created_at": ago(created), "started_at": began, "status_since": ago(1)}
    return Run(status=status, in_flight=True, concluded=False, **defaults | more)


# A run usually takes ten minutes, waits one for its turn, and migrates for three.
TIMING = StageTiming(
    observed_run_median=600,
    observed_run_p95=720,
    observed_queue_median=60,
    observed_queue_p95=90,
    observed_steps={"migrate": [180, 240]},
)


def tree(*steps: Node) -> Node:
    return node("Workflow", steps=steps)


def step(minutes: float, **more: Any) -> Node:
    defaults = {
        "label": "migrate",
        "ref": "migrate",
        "status": "waiting",
        "started_at": ago(minutes),
    }
    return node("JobRun", **defaults | more)


CASES = {
    "a run within its usual": (run(started=9), None, TIMING, None),
    "a run past its usual": (
        run(started=16),
        None,
        TIMING,
        Finding(Severity.WARNING, OverdueReason.RUN),
    ),
    "a run far past its usual": (
        run(started=31),
        None,
        TIMING,
        Finding(Severity.CRITICAL, OverdueReason.RUN),
    ),
    "a run of which nothing is known": (run(started=59), None, None, None),
    "an hour, and nothing is known": (
        run(started=61),
        None,
        None,
        Finding(Severity.WARNING, OverdueReason.RUN),
    ),
    "three hours, and nothing is known": (
        run(started=181),
        None,
        None,
        Finding(Severity.CRITICAL, OverdueReason.RUN),
    ),
    "a turn that comes": (run("queued", created=1.5, started=None), None, TIMING, None),
    "a turn that does not come": (
        run("queued", created=3, started=None),
        None,
        TIMING,
        Finding(Severity.WARNING, OverdueReason.QUEUE),
    ),
    "a turn of which nothing is known": (
        run("pending", created=16, started=None),
        None,
        None,
        Finding(Severity.WARNING, OverdueReason.QUEUE),
    ),
    "a step within its usual": (run(), tree(step(4)), TIMING, None),
    "a step past its usual": (
        run(),
        tree(step(5)),
        TIMING,
        Finding(Severity.WARNING, OverdueReason.STEP),
    ),
    "a step far past its usual": (
        run(started=12),
        tree(step(10)),
        TIMING,
        Finding(Severity.CRITICAL, OverdueReason.STEP),
    ),
    "of two that are as bad, the step says more": (
        run(started=16),
        tree(step(6)),
        TIMING,
        Finding(Severity.WARNING, OverdueReason.STEP),
    ),
    "the worse of two is told": (
        run(started=31),
        tree(step(6)),
        TIMING,
        Finding(Severity.CRITICAL, OverdueReason.RUN),
    ),
    "a step nobody knows, and nothing has changed for long": (
        run(started=17),
        tree(step(16, label="new", ref="new")),
        TIMING,
        Finding(Severity.WARNING, OverdueReason.NO_PROGRESS),
    ),
    "a step nobody knows, of a run that is worse": (
        run(started=31),
        tree(step(16, label="new", ref="new")),
        TIMING,
        Finding(Severity.CRITICAL, OverdueReason.RUN),
    ),
    "a step nobody knows that has begun lately, of a run that is late": (
        run(started=17),
        tree(step(2, label="new", ref="new")),
        TIMING,
        Finding(Severity.WARNING, OverdueReason.RUN),
    ),
    "a step nobody knows, after others that were quick": (
        run(started=14),
        tree(step(14, label="new", ref="new")),
        TIMING,
        None,
    ),
    "an approval that people take their time for": (
        run("approval_wait", started=50),
        tree(step(45, label="sign-off", ref="sign-off", status="approval_wait")),
        TIMING,
        None,
    ),
    "an approval that was forgotten": (
        run("approval_wait", started=730),
        tree(step(725, label="sign-off", ref="sign-off", status="approval_wait")),
        TIMING,
        Finding(Severity.CRITICAL, OverdueReason.APPROVAL),
    ),
    "work of which nobody says when it began is no wait for a turn": (
        run("running", created=55, started=None),
        tree(step(5)),
        TIMING,
        Finding(Severity.CRITICAL, OverdueReason.RUN),
    ),
    "people who approve side by side take their time once": (
        run(started=60),
        tree(
            node("Approval", status="success", started_at=ago(59), ended_at=ago(15)),
            node("Approval", label="b", status="success", started_at=ago(59), ended_at=ago(15)),
            step(2),
        ),
        TIMING,
        Finding(Severity.WARNING, OverdueReason.RUN),
    ),
    "time that people took does not count as work": (
        run(started=100),
        tree(
            node("Approval", status="success", started_at=ago(99), ended_at=ago(3)),
            step(2),
        ),
        TIMING,
        None,
    ),
    "an attempt among several": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=2, max_attempts=3)),
        TIMING,
        None,
    ),
    "the last attempt": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
        TIMING,
        Finding(Severity.WARNING, OverdueReason.LAST_ATTEMPT),
    ),
    "the last attempt of two": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=2, max_attempts=2)),
        TIMING,
        Finding(Severity.WARNING, OverdueReason.LAST_ATTEMPT),
    ),
    "the only attempt there is": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=1, max_attempts=1)),
        TIMING,
        None,
    ),
    "a run that is being aborted is judged as a whole": (
        run("aborting", started=500),
        None,
        TIMING,
        Finding(Severity.CRITICAL, OverdueReason.RUN),
    ),
    "no step is waited for any more": (
        run("aborting", started=5),
        tree(step(5, started_at=ago(400))),
        TIMING,
        None,
    ),
    "neither are people": (
        run("aborting", started=500),
        tree(node("Approval", status="aborting", started_at=ago(499))),
        TIMING,
        None,
    ),
    "nor its turn": (
        run("aborting", created=500, started=None),
        None,
        TIMING,
        None,
    ),
    "even on its last attempt": (
        run("aborting"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
        TIMING,
        None,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_overdue_finding_of_each_case_matches(name: str) -> None:
    of, root, known, found = CASES[name]
    assert overdue.worst_finding(of, root, overdue.timers(of, root, known), NOW) == found


def test_concluded_run_is_not_overdue() -> None:
    of = run(started=500)
    of.in_flight = False
    assert overdue.worst_finding(of, None, overdue.timers(of, None, TIMING), NOW) is None


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
    ("of", "known"),
    [
        (node("Workflow", ref="checks", label="checks"), True),
        (node("Workflow", label="checks"), False),  # one key for all groups without a name
        (node("LoopWorkflow", label="checks"), False),
        (node("JobRun", label="checks"), True),
    ],
    ids=lambda of: f"{of.kind} {of.ref}" if isinstance(of, Node) else "",
)
def test_unnamed_step_group_has_no_typical_duration(of: Node, known: bool) -> None:
    timing = StageTiming(observed_steps={step_key(of): [180, 240]})
    assert (overdue.typical_step_duration(of, timing) is not None) is known


# --- as people say ------------------------------------------------------------------------------


def timing_with_overrides(**seconds: int) -> StageTiming:
    """What was learned, and what people say of it."""
    learned = {
        "observed_run_median": 600,
        "observed_run_p95": 720,
        "observed_queue_median": 60,
        "observed_queue_p95": 90,
    }
    return StageTiming(
        **learned, observed_steps={"migrate": [180, 240], "sign-off": [300, 600]}, **seconds
    )


TWO_HOURS = timing_with_overrides(override_run_median=7200)
SIGN_OFF = {"label": "sign-off", "ref": "sign-off", "status": "approval_wait"}
OVERRIDE_CASES = {
    "a run": (run(started=40), None, TWO_HOURS, None),
    "a run that takes longer than they say": (
        run(started=181),
        None,
        TWO_HOURS,
        Finding(Severity.WARNING, OverdueReason.RUN),
    ),
    "a step of it, whatever was learned of it": (run(started=40), tree(step(35)), TWO_HOURS, None),
    "a step of it that nobody knows": (
        run(started=40),
        tree(step(35, label="new", ref="new")),
        TWO_HOURS,
        None,
    ),
    "a step that takes longer than all of it": (
        run(started=182),
        tree(step(181)),
        TWO_HOURS,
        Finding(Severity.WARNING, OverdueReason.NO_PROGRESS),
    ),
    "the last attempt is the last all the same": (
        run("retrying"),
        tree(step(1, status="retrying", attempts=3, max_attempts=3)),
        TWO_HOURS,
        Finding(Severity.WARNING, OverdueReason.LAST_ATTEMPT),
    ),
    "an approval of it": (
        run("approval_wait", started=40),
        tree(step(35, **SIGN_OFF)),
        TWO_HOURS,
        Finding(Severity.CRITICAL, OverdueReason.APPROVAL),
    ),
    "a wait for its turn": (
        run("queued", created=30, started=None),
        None,
        timing_with_overrides(override_queue_median=1800),
        None,
    ),
    "a wait for its turn that takes longer": (
        run("queued", created=46, started=None),
        None,
        timing_with_overrides(override_queue_median=1800),
        Finding(Severity.WARNING, OverdueReason.QUEUE),
    ),
    "of the wait for its turn, and a step is judged as it was learned": (
        run(),
        tree(step(5)),
        timing_with_overrides(override_queue_median=1800),
        Finding(Severity.WARNING, OverdueReason.STEP),
    ),
    "an approval, whatever was learned of it": (
        run("approval_wait", started=40),
        tree(step(35, **SIGN_OFF)),
        timing_with_overrides(override_approval_median=1800, override_approval_p95=3600),
        None,
    ),
    "an approval that takes longer": (
        run("approval_wait", started=70),
        tree(step(61, **SIGN_OFF)),
        timing_with_overrides(override_approval_median=1800, override_approval_p95=3600),
        Finding(Severity.WARNING, OverdueReason.APPROVAL),
    ),
    "an approval of a step that was never read": (
        run("approval_wait", started=70, status_since=ago(61)),
        None,
        timing_with_overrides(override_approval_median=1800),
        Finding(Severity.WARNING, OverdueReason.APPROVAL),
    ),
}


@pytest.mark.parametrize("name", OVERRIDE_CASES)
def test_override_duration_takes_precedence_over_observed(name: str) -> None:
    of, root, known, found = OVERRIDE_CASES[name]
    assert overdue.worst_finding(of, root, overdue.timers(of, root, known), NOW) == found


# --- by the settings, where nothing is known ----------------------------------------------------

LIMITS = {
    "OVERDUE_RUN_AFTER": run(started=4),
    "OVERDUE_QUEUED_AFTER": run("queued", created=4, started=None),
    "OVERDUE_APPROVAL_AFTER": run("approval_wait", status_since=ago(4)),
}


@pytest.mark.parametrize(
    ("minutes", "level"), [(5, Severity.OK), (3, Severity.WARNING), (1, Severity.CRITICAL)]
)
@pytest.mark.parametrize("name", LIMITS)
def test_run_without_typical_duration_is_overdue_by_setting_and_factor(
    name: str, minutes: int, level: Severity, settings: Settings
) -> None:
    settings.OVERDUE_CRITICAL_FACTOR = 2
    setattr(settings, name, minutes * 60)
    of = LIMITS[name]
    found = overdue.worst_finding(of, None, overdue.timers(of, None, None), NOW)
    assert (found.severity if found else Severity.OK) is level


def nodes() -> st.SearchStrategy[Node]:
    times = st.none() | st.integers(-(10**5), 10**5).map(lambda s: NOW + timedelta(seconds=s))
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
        lambda inner: st.builds(
            lambda steps: node("Workflow", steps=tuple(steps)), st.lists(inner, max_size=4)
        ),
        max_leaves=20,
    )


@given(
    nodes(),
    st.sampled_from(["running", "queued", "waiting", "approval_wait", "aborting", "hibernating"]),
    st.none() | st.floats(-100, 1000),
    st.booleans(),
)
def test_overdue_finding_of_any_step_tree_is_valid(
    root: Node, status: str, started: float | None, known: bool
) -> None:
    timing = TIMING if known else None
    of = run(status, started=started)
    timers = overdue.timers(of, root, timing)
    for clock in timers:
        assert clock.started_at <= clock.warning_at <= clock.critical_at
    found = overdue.worst_finding(of, root, timers, NOW)
    assert found is None or found.severity in {Severity.WARNING, Severity.CRITICAL}
