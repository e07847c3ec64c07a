"""The run summary: in every status, for arbitrary steps and clocks."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.northflank import Node
from dashboard.runs import overdue
from dashboard.runs import summary as run_summary
from dashboard.runs.overdue import OverdueReason
from dashboard.runs.summary import Countdown, Elapsed, ExternalText
from tests.support.arbitrary import STAGE, TIMES, runs, trees
from tests.support.factories import node

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def run(status: str = "running", *, started: float | None = 20, **fields: Any) -> Run:
    """A run created 21 minutes ago and first seen a minute later."""
    defaults = {
        "concluded": False,
        "in_flight": True,
        "created_at": ago(21),
        "started_at": None if started is None else ago(started),
        "first_synced_at": ago(20),
        "status_since": ago(5),
    }
    return Run(stage=STAGE, status=status, **defaults | fields)


def concluded_run(status: str, *, after: float | None = 20, **fields: Any) -> Run:
    """A run that ended `after` minutes after its start."""
    concluded_at = None if after is None else ago(20 - after)
    return run(status, concluded=True, in_flight=False, concluded_at=concluded_at, **fields)


def removed_run(status: str, **fields: Any) -> Run:
    return run(status, in_flight=False, removed_at=NOW, **fields)


def overdue_fields(
    overdue_reason: OverdueReason, level: Severity = Severity.WARNING
) -> dict[str, Any]:
    return {"overdue_severity": level, "overdue_reason": str(overdue_reason)}


def tree(*steps: Node) -> Node:
    return node("Workflow", steps=steps)


def step(minutes: float | None = 18, **fields: Any) -> Node:
    started_at = None if minutes is None else ago(minutes)
    defaults = {"label": "migrate", "ref": "migrate", "status": "waiting", "started_at": started_at}
    return node("JobRun", **defaults | fields)


def approval(minutes: float = 360, **fields: Any) -> Node:
    defaults = {"label": "sign-off", "ref": "sign-off", "status": "approval_wait"}
    return node("Approval", started_at=ago(minutes), **defaults | fields)


def retried(attempts: int, *, in_seconds: float | None = 40, **fields: Any) -> Node:
    next_attempt_at = None if in_seconds is None else NOW + timedelta(seconds=in_seconds)
    defaults = {
        "status": "retrying",
        "attempts": attempts,
        "max_attempts": 3,
        "next_attempt_at": next_attempt_at,
    }
    return step(**defaults | fields)


def failed(label: str = "migrate", **fields: Any) -> Node:
    return node("JobRun", label=label, **{"status": "failure"} | fields)


# A run usually takes 8 to 10 minutes, queues for about one, migrates for 2 to 4.
TIMING = StageTiming(
    observed_run_median=480,
    observed_run_p95=600,
    observed_queue_median=60,
    observed_queue_p95=60,
    observed_steps={"migrate": [120, 240], "sign-off": [600, 5400]},
)
FAILED_STEP = failed(error_message="exit code 1")

# The text after "checkout / Production: " of a run, its steps, and a baseline.
CASES: dict[str, tuple[Run, Node | None, StageTiming | None, str]] = {
    # At a step
    "step with typical duration": (
        run(),
        tree(step(3)),
        TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min).",
    ),
    "step without typical duration": (run(), tree(step()), None, "step “migrate” for 18 min."),
    "step just started": (run(), tree(step(0.5)), None, "step “migrate” for 30 s."),
    "step without start time": (run(), tree(step(None)), TIMING, "at step “migrate”."),
    "step without a name": (run(), tree(step(label=" ")), None, "step “JobRun” for 18 min."),
    "parallel steps": (
        run(),
        tree(step(3), step(3, label="b"), step(3, label="c")),
        TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min), and 2 more in parallel.",
    ),
    "step in a group": (
        run(),
        tree(node("Workflow", label="group", status="waiting", steps=(step(3),))),
        TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min).",
    ),
    # Retried
    "retrying step": (
        run("retrying"),
        tree(retried(2, error_message="exit code 1")),
        TIMING,
        (
            "step “migrate” for 18 min (usually 2 to 4 min). Attempt 2 of 3, next in 40 s. "
            "Last error: “exit code 1”."
        ),
    ),
    "retrying step after one attempt": (
        run("retrying"),
        tree(retried(1)),
        None,
        "step “migrate” for 18 min. Attempt 1 of 3, next in 40 s.",
    ),
    "retrying step with its attempt due": (
        run("retrying"),
        tree(retried(2, in_seconds=-9)),
        None,
        "step “migrate” for 18 min. Attempt 2 of 3, next due now.",
    ),
    "step at its second attempt": (
        run(),
        tree(retried(2, status="waiting", in_seconds=-60)),
        None,
        "step “migrate” for 18 min. Attempt 2 of 3.",
    ),
    "step at its last attempt": (
        run("retrying"),
        tree(retried(3, in_seconds=None, error_code=137)),
        None,
        "step “migrate” for 18 min. Attempt 3 of 3 (last). Last error: code 137.",
    ),
    "invalid attempts": (
        run("retrying"),
        tree(retried(4, in_seconds=None)),
        None,
        "step “migrate” for 18 min. Attempt 4 (last).",
    ),
    "attempts without a maximum": (
        run(),
        tree(retried(2, status="waiting", max_attempts=None)),
        None,
        "step “migrate” for 18 min. Attempt 2.",
    ),
    # Waits
    "queued": (
        run("queued", started=None),
        None,
        TIMING,
        "queued for 21 min (usually about 1 min).",
    ),
    "pending": (run("pending", started=None), None, None, "waiting to start for 21 min."),
    "approval": (
        run("approval_wait"),
        tree(approval()),
        TIMING,
        "needs approval at step “sign-off” for 6 h (usually 10 to 90 min).",
    ),
    "approval of a run with status running": (
        run(),
        tree(approval()),
        None,
        "needs approval at step “sign-off” for 6 h.",
    ),
    "approval of an unread step": (
        run("approval_wait"),
        tree(step()),
        TIMING,
        "needs approval for 5 min.",
    ),
    "approval without steps": (
        run("approval_wait"),
        None,
        TIMING,
        "needs approval for 5 min.",
    ),
    "approval with unknown start": (
        run("approval_wait", status_since=ago(20)),
        None,
        None,
        "needs approval.",
    ),
    "async wait": (
        run("async_wait"),
        tree(step(status="async_wait")),
        TIMING,
        (
            "step “migrate” is waiting for a response from outside Northflank for 18 min "
            "(usually 2 to 4 min)."
        ),
    ),
    "async wait without steps": (
        run("async_wait"),
        None,
        TIMING,
        "a step is waiting for a response from outside Northflank for 5 min.",
    ),
    # Steps unknown
    "running": (run(), None, TIMING, "running for 20 min (usually 8 to 10 min)."),
    "running without typical duration": (run(), None, None, "running for 20 min."),
    "running without start time": (run(started=None), None, None, "running."),
    "waiting": (run("waiting"), None, None, "running for 20 min."),
    "between two steps": (
        run(),
        tree(step(status="success"), step(None, status=None)),
        TIMING,
        "running for 20 min (usually 8 to 10 min).",
    ),
    "retrying": (
        run("retrying"),
        None,
        TIMING,
        "a step failed and is being retried for 5 min.",
    ),
    # Overdue
    "overdue step": (
        run(**overdue_fields(OverdueReason.STEP)),
        tree(step()),
        TIMING,
        "step “migrate” for 18 min (usually 2 to 4 min), longer than usual.",
    ),
    "critical step": (
        run(**overdue_fields(OverdueReason.STEP, Severity.CRITICAL)),
        tree(step()),
        TIMING,
        "step “migrate” for 18 min (usually 2 to 4 min), far longer than usual.",
    ),
    "step on time of an overdue run": (
        run(**overdue_fields(OverdueReason.RUN, Severity.CRITICAL)),
        tree(step(3)),
        TIMING,
        (
            "step “migrate” for 3 min (usually 2 to 4 min). The run takes far longer than "
            "usual (usually 8 to 10 min)."
        ),
    ),
    "overdue run": (
        run(**overdue_fields(OverdueReason.RUN)),
        None,
        TIMING,
        "running for 20 min (usually 8 to 10 min), longer than usual.",
    ),
    "run over the fixed limit": (
        run(**overdue_fields(OverdueReason.RUN)),
        None,
        None,
        "running for 20 min. Running for more than 1 h.",
    ),
    "overdue in the queue": (
        run("queued", started=None, **overdue_fields(OverdueReason.QUEUE)),
        None,
        TIMING,
        "queued for 21 min (usually about 1 min), longer than usual.",
    ),
    "overdue approval": (
        run("approval_wait", **overdue_fields(OverdueReason.APPROVAL)),
        tree(approval()),
        None,
        ("needs approval at step “sign-off” for 6 h. Waiting for approval for more than 4 h."),
    ),
    "unchanged for long": (
        run(**overdue_fields(OverdueReason.NO_PROGRESS)),
        tree(step(18, label="new", ref="new")),
        TIMING,
        (
            "step “new” for 18 min. No step progress for longer than a whole run usually "
            "takes (usually 8 to 10 min)."
        ),
    ),
    "last attempt is shown once": (
        run("retrying", **overdue_fields(OverdueReason.LAST_ATTEMPT)),
        tree(retried(3)),
        None,
        "step “migrate” for 18 min. Attempt 3 of 3 (last).",
    ),
    # Aborting
    "aborting": (
        run("aborting", aborting_since=ago(6)),
        None,
        TIMING,
        "aborting for 6 min.",
    ),
    "aborting, at a step": (
        run("aborting", **overdue_fields(OverdueReason.STEP)),
        tree(step(status="aborting")),
        TIMING,
        "aborting at least for 5 min, at step “migrate”.",
    ),
    "aborting with unknown start": (
        run("aborting", status_since=ago(20)),
        None,
        TIMING,
        "aborting at least for 20 min.",
    ),
    # Strange
    "unknown": (run("unknown"), None, None, "Northflank status: unknown for 5 min."),
    "unknown, at a step": (
        run("unknown"),
        tree(step()),
        None,
        "Northflank status: unknown; step “migrate” for 18 min.",
    ),
    "undocumented status": (
        run("hibernating", status_since=ago(20)),
        None,
        TIMING,
        "Northflank status: “hibernating”.",
    ),
    "undocumented status, at a step": (
        run("hibernating"),
        tree(step()),
        None,
        "Northflank status: “hibernating”; step “migrate” for 18 min.",
    ),
    "no status": (run(""), None, None, "Northflank reports no status for 5 min."),
    "a success that has not concluded": (
        run("success"),
        None,
        None,
        "Northflank status: “success”, but not concluded.",
    ),
    # Ended
    "success": (
        concluded_run("success", after=9),
        None,
        TIMING,
        "succeeded in 9 min 0 s (usually 8 to 10 min).",
    ),
    "success with unknown end": (
        concluded_run("success", after=None),
        None,
        TIMING,
        "succeeded.",
    ),
    "success with a failed step": (
        concluded_run("success"),
        tree(FAILED_STEP),
        None,
        "succeeded in 20 min 0 s.",
    ),
    "success after an approval": (
        concluded_run("success"),
        tree(approval(19, status="success", ended_at=ago(8))),
        TIMING,
        "succeeded in 9 min 0 s (usually 8 to 10 min), plus 11 min waiting for approval.",
    ),
    "success with negative duration": (
        concluded_run("success", after=-5),
        None,
        None,
        "succeeded in 0 s.",
    ),
    "failure": (
        concluded_run("failure"),
        tree(FAILED_STEP),
        TIMING,
        "failed after 20 min 0 s, at step “migrate”: “exit code 1”.",
    ),
    "failure at the last attempt": (
        concluded_run("failure"),
        tree(failed(attempts=3, max_attempts=3)),
        TIMING,
        "failed after 20 min 0 s, at step “migrate” on attempt 3 of 3.",
    ),
    "failure of a nested step": (
        concluded_run("failure"),
        tree(failed("group", steps=(failed("inner"),))),
        None,
        "failed after 20 min 0 s, at step “inner”.",
    ),
    "failure with a code": (
        concluded_run("failure"),
        tree(failed(status="invalid", error_code=400)),
        None,
        "failed after 20 min 0 s, at step “migrate”: code 400.",
    ),
    "failure of an unknown step": (
        concluded_run("failure"),
        None,
        None,
        "failed after 20 min 0 s.",
    ),
    "failure with unknown end": (concluded_run("failure", after=None), tree(), None, "failed."),
    "aborted": (
        concluded_run("aborted"),
        tree(step(status="aborted")),
        TIMING,
        "aborted after 20 min 0 s, at step “migrate”.",
    ),
    "aborted, steps unknown": (
        concluded_run("aborted"),
        None,
        None,
        "aborted after 20 min 0 s.",
    ),
    "skipped": (
        concluded_run("skipped", after=None),
        None,
        None,
        "skipped: Northflank did not run it.",
    ),
    "concluded with status unknown": (
        concluded_run("unknown"),
        None,
        None,
        "ended after 20 min 0 s; Northflank reports the outcome as unknown.",
    ),
    "concluded with undocumented status": (
        concluded_run("hibernating"),
        None,
        None,
        "ended after 20 min 0 s; Northflank status: “hibernating”.",
    ),
    "concluded with status running": (
        concluded_run("running"),
        None,
        None,
        "ended after 20 min 0 s; Northflank status: “running”.",
    ),
    # Removed
    "removed": (
        removed_run("running"),
        tree(step()),
        TIMING,
        "Northflank no longer lists this run; last status “running”, at step “migrate”.",
    ),
    "removed without status": (
        removed_run(""),
        None,
        None,
        "Northflank no longer lists this run.",
    ),
    "removed after its end": (
        concluded_run("success", removed_at=NOW),
        None,
        None,
        "succeeded in 20 min 0 s. Northflank no longer lists it.",
    ),
}


def summary_text(
    subject: Run,
    root: Node | None,
    timing: StageTiming | None,
    *,
    queued_ahead: int = 0,
    queued_behind: int = 0,
    skip_summary: str = "",
) -> str:
    parts = run_summary.build(
        subject,
        root,
        timing,
        queued_ahead=queued_ahead,
        queued_behind=queued_behind,
        skip_summary=skip_summary,
    )
    return run_summary.render_text(parts, NOW)


@pytest.mark.parametrize(("subject", "root", "timing", "text"), CASES.values(), ids=CASES)
def test_run_summary_per_case_has_its_text(
    subject: Run, root: Node | None, timing: StageTiming | None, text: str
) -> None:
    assert summary_text(subject, root, timing) == f"checkout / Production: {text}"


def test_run_summary_ends_with_runs_queued_behind() -> None:
    text = summary_text(run("retrying"), tree(retried(2)), TIMING, queued_behind=2)
    assert text == (
        "checkout / Production: step “migrate” for 18 min (usually 2 to 4 min). "
        "Attempt 2 of 3, next in 40 s. 2 runs are queued behind it."
    )


def test_run_summary_with_one_run_queued_behind_is_singular() -> None:
    assert summary_text(run(), None, None, queued_behind=1).endswith(" 1 run is queued behind it.")


def test_run_summary_of_concluded_run_has_no_runs_queued_behind() -> None:
    assert "behind" not in summary_text(concluded_run("success"), None, None, queued_behind=2)


def test_run_summary_has_skipped_runs_after_queued_ones() -> None:
    skip_summary = "2 runs skipped since this run was created."
    assert summary_text(run(), None, None, queued_behind=1, skip_summary=skip_summary).endswith(
        f" 1 run is queued behind it. {skip_summary}"
    )


def test_run_summary_of_concluded_run_has_skipped_runs() -> None:
    skip_summary = "2 runs skipped while this run was in flight."
    assert summary_text(concluded_run("success"), None, None, skip_summary=skip_summary).endswith(
        f". {skip_summary}"
    )


@pytest.mark.parametrize(("queued_ahead", "text"), [(1, "1 run ahead"), (2, "2 runs ahead")])
def test_run_summary_of_queued_run_counts_runs_ahead(queued_ahead: int, text: str) -> None:
    assert summary_text(run("queued", started=None), None, TIMING, queued_ahead=queued_ahead) == (
        f"checkout / Production: queued for 21 min (usually about 1 min), {text}."
    )


def test_run_summary_has_time_parts_that_keep_counting() -> None:
    parts = run_summary.build(run("retrying"), tree(retried(2)), TIMING)
    assert [part for part in parts if not isinstance(part, str)] == [
        Elapsed(ago(18)),
        Countdown(NOW + timedelta(seconds=40)),
    ]
    later = run_summary.render_text(parts, NOW + timedelta(minutes=2))
    assert "for 20 min" in later
    assert "next due now" in later


def test_run_summary_has_names_as_separate_parts() -> None:
    names = [
        part
        for part in run_summary.build(run(), tree(step()), None)
        if isinstance(part, ExternalText)
    ]
    assert names == ["checkout", "migrate"]


def test_run_summary_truncates_long_step_name_to_one_line() -> None:
    text = summary_text(run(), tree(step(label="a\nb\u2028" + "x" * 1000)), None)
    assert text == f"checkout / Production: step “a b {'x' * 75}…” for 18 min."


def test_run_summary_truncates_long_error() -> None:
    text = summary_text(concluded_run("failure"), tree(failed(error_message="x" * 10_000)), None)
    assert len(text) < 300
    assert text.endswith("x…”.")


# --- for a row ---------------------------------------------------------------------------------

STEP_FIELDS = {"step": "migrate, attempt 2 of 3", "step_key": "migrate", "step_started_at": ago(18)}
LONG_STEP_TIMING = StageTiming(
    observed_run_median=115, observed_run_p95=245, observed_steps={"migrate": [120, 240]}
)
ROWS = {
    "step": (
        run(**STEP_FIELDS),
        tree(step()),
        TIMING,
        "migrate, attempt 2 of 3, for 18 min (usually 2 to 4 min)",
    ),
    "step without typical duration": (
        run(**STEP_FIELDS),
        None,
        None,
        "migrate, attempt 2 of 3, for 18 min",
    ),
    "step without start": (
        run(**STEP_FIELDS | {"step_started_at": None}),
        None,
        TIMING,
        "migrate, attempt 2 of 3",
    ),
    "approval": (
        run("approval_wait", step="sign-off", step_started_at=ago(360)),
        tree(approval()),
        TIMING,
        # Its typical duration is under its bar.
        "Waiting for approval: “sign-off”, for 6 h. Approve it on Northflank.",
    ),
    "step with the run's typical duration": (
        run(**STEP_FIELDS),
        tree(step()),
        LONG_STEP_TIMING,
        "migrate, attempt 2 of 3, for 18 min",
    ),
    "queued": (run("queued", started=None), None, TIMING, ""),
    "aborting": (
        run("aborting", **STEP_FIELDS),
        None,
        TIMING,
        "migrate, attempt 2 of 3",
    ),
    "without step": (run(), None, TIMING, ""),
    "ended": (concluded_run("success", **STEP_FIELDS), None, TIMING, ""),
    "removed": (removed_run("running", **STEP_FIELDS), None, TIMING, ""),
}


@pytest.mark.parametrize(("subject", "root", "timing", "text"), ROWS.values(), ids=ROWS)
def test_run_row_summary_per_case_has_its_text(
    subject: Run, root: Node | None, timing: StageTiming | None, text: str
) -> None:
    timers = overdue.timers(subject, root, timing)
    assert run_summary.render_text(run_summary.step_summary(subject, timers), NOW) == text


# --- anything at all ---------------------------------------------------------------------------


timings = st.none() | st.builds(
    StageTiming,
    observed_run_median=st.none() | st.floats(0, 1e6),
    observed_run_p95=st.none() | st.floats(0, 1e6),
    observed_queue_median=st.none() | st.floats(0, 1e6),
    observed_queue_p95=st.none() | st.floats(0, 1e6),
    observed_steps=st.just({})
    | st.builds(
        lambda median, p95: {"migrate": [median, p95]}, st.floats(0, 1e6), st.floats(0, 1e6)
    ),
)


SKIP_SUMMARIES = st.sampled_from(["", "2 runs skipped since this run was created."])


@given(
    *(runs(), st.none() | trees, timings, TIMES),
    *(st.integers(0, 3), st.integers(0, 3), SKIP_SUMMARIES),
)
def test_run_summary_of_any_run_is_complete(
    subject: Run,
    root: Node | None,
    timing: StageTiming | None,
    now: datetime,
    queued_ahead: int,
    queued_behind: int,
    skip_summary: str,
) -> None:
    parts = run_summary.build(
        subject,
        root,
        timing,
        queued_ahead=queued_ahead,
        queued_behind=queued_behind,
        skip_summary=skip_summary,
    )
    text = run_summary.render_text(parts, now)
    assert text.startswith("checkout / Production: ")
    assert text.endswith(skip_summary or ".")
    assert "None" not in text
    assert re.search(r"-\d", text) is None  # no time is negative
    assert text.count("\n") == 0


@given(runs(), st.none() | trees, timings, TIMES)
def test_run_row_summary_of_any_run_is_valid(
    subject: Run, root: Node | None, timing: StageTiming | None, now: datetime
) -> None:
    text = run_summary.render_text(
        run_summary.step_summary(subject, overdue.timers(subject, root, timing)), now
    )
    assert "None" not in text
    assert re.search(r"-\d", text) is None


def test_failed_group_without_failed_step_is_the_failed_one() -> None:
    group = node(
        "Workflow",
        label="each-region",
        status="failure",
        error_message="Timed out.",
        steps=(step(9, status="aborted"),),
    )
    text = summary_text(concluded_run("failure"), tree(group), None)
    assert "at step “each-region”: “Timed out.”" in text
