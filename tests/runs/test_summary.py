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
from tests.support.arbitrary import PLACE, TIMES, runs, trees
from tests.support.factories import node

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def run(status: str = "running", *, started: float | None = 20, **more: Any) -> Run:
    """A run created 21 minutes ago and first seen a minute later."""
    defaults = {
        "concluded": False,
        "in_flight": True,
        "created_at": ago(21),
        "started_at": None if started is None else ago(started),
        "first_synced_at": ago(20),
        "status_since": ago(5),
    }
    return Run(stage=PLACE, status=status, **defaults | more)


def concluded_run(status: str, *, after: float | None = 20, **more: Any) -> Run:
    """A run that ended so many minutes after its start."""
    at = None if after is None else ago(20 - after)
    return run(status, concluded=True, in_flight=False, concluded_at=at, **more)


def removed_run(status: str, **more: Any) -> Run:
    return run(status, in_flight=False, removed_at=NOW, **more)


def overdue_fields(why: OverdueReason, level: Severity = Severity.WARNING) -> dict[str, Any]:
    return {"overdue_severity": level, "overdue_reason": str(why)}


def tree(*steps: Node) -> Node:
    return node("Workflow", steps=steps)


def step(minutes: float | None = 18, **more: Any) -> Node:
    began = None if minutes is None else ago(minutes)
    defaults = {"label": "migrate", "ref": "migrate", "status": "waiting", "started_at": began}
    return node("JobRun", **defaults | more)


def approval(minutes: float = 360, **more: Any) -> Node:
    defaults = {"label": "sign-off", "ref": "sign-off", "status": "approval_wait"}
    return node("Approval", started_at=ago(minutes), **defaults | more)


def retried(attempts: int, *, in_seconds: float | None = 40, **more: Any) -> Node:
    at = None if in_seconds is None else NOW + timedelta(seconds=in_seconds)
    defaults = {
        "status": "retrying",
        "attempts": attempts,
        "max_attempts": 3,
        "next_attempt_at": at,
    }
    return step(**defaults | more)


def failed(label: str = "migrate", **more: Any) -> Node:
    return node("JobRun", label=label, **{"status": "failure"} | more)


# A run usually takes 8 to 10 minutes, waits about one for its turn, migrates for 2 to 4.
TIMING = StageTiming(
    observed_run_median=480,
    observed_run_p95=600,
    observed_queue_median=60,
    observed_queue_p95=60,
    observed_steps={"migrate": [120, 240], "sign-off": [600, 5400]},
)
FAILED_STEP = failed(error_message="exit code 1")

# What is said behind "checkout / Production: ", of a run, its steps, and what is usual.
CASES: dict[str, tuple[Run, Node | None, StageTiming | None, str]] = {
    # At a step
    "a step, and what is usual": (
        run(),
        tree(step(3)),
        TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min).",
    ),
    "a step of which nothing is usual": (run(), tree(step()), None, "step “migrate” for 18 min."),
    "a step just begun": (run(), tree(step(0.5)), None, "step “migrate” for 30 s."),
    "a step that has no start": (run(), tree(step(None)), TIMING, "at step “migrate”."),
    "a step without a name": (run(), tree(step(label=" ")), None, "step “JobRun” for 18 min."),
    "steps side by side": (
        run(),
        tree(step(3), step(3, label="b"), step(3, label="c")),
        TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min), and 2 more in parallel.",
    ),
    "a step within a group": (
        run(),
        tree(node("Workflow", label="group", status="waiting", steps=(step(3),))),
        TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min).",
    ),
    # Tried again
    "a step that is tried again": (
        run("retrying"),
        tree(retried(2, error_message="exit code 1")),
        TIMING,
        (
            "step “migrate” for 18 min (usually 2 to 4 min). Attempt 2 of 3, next in 40 s. "
            "Last error: “exit code 1”."
        ),
    ),
    "a step that was tried once": (
        run("retrying"),
        tree(retried(1)),
        None,
        "step “migrate” for 18 min. Attempt 1 of 3, next in 40 s.",
    ),
    "a step whose next attempt is due": (
        run("retrying"),
        tree(retried(2, in_seconds=-9)),
        None,
        "step “migrate” for 18 min. Attempt 2 of 3, next due now.",
    ),
    "a step that works at its second attempt": (
        run(),
        tree(retried(2, status="waiting", in_seconds=-60)),
        None,
        "step “migrate” for 18 min. Attempt 2 of 3.",
    ),
    "a step at its last attempt": (
        run("retrying"),
        tree(retried(3, in_seconds=None, error_code=137)),
        None,
        "step “migrate” for 18 min. Attempt 3 of 3 (last). Last error: code 137.",
    ),
    "attempts that make no sense": (
        run("retrying"),
        tree(retried(4, in_seconds=None)),
        None,
        "step “migrate” for 18 min. Attempt 4 (last).",
    ),
    "attempts without an end": (
        run(),
        tree(retried(2, status="waiting", max_attempts=None)),
        None,
        "step “migrate” for 18 min. Attempt 2.",
    ),
    # Waits
    "its turn": (
        run("queued", started=None),
        None,
        TIMING,
        "queued for 21 min (usually about 1 min).",
    ),
    "not begun": (run("pending", started=None), None, None, "waiting to start for 21 min."),
    "people": (
        run("approval_wait"),
        tree(approval()),
        TIMING,
        "needs approval at step “sign-off” for 6 h (usually 10 to 90 min).",
    ),
    "people, of a run that is said to be running": (
        run(),
        tree(approval()),
        None,
        "needs approval at step “sign-off” for 6 h.",
    ),
    "people, for a step that was not read yet": (
        run("approval_wait"),
        tree(step()),
        TIMING,
        "needs approval for 5 min.",
    ),
    "people, steps unknown": (
        run("approval_wait"),
        None,
        TIMING,
        "needs approval for 5 min.",
    ),
    "people, nobody knows since when": (
        run("approval_wait", status_since=ago(20)),
        None,
        None,
        "needs approval.",
    ),
    "an answer from outside": (
        run("async_wait"),
        tree(step(status="async_wait")),
        TIMING,
        (
            "step “migrate” is waiting for a response from outside Northflank for 18 min "
            "(usually 2 to 4 min)."
        ),
    ),
    "an answer from outside, steps unknown": (
        run("async_wait"),
        None,
        TIMING,
        "a step is waiting for a response from outside Northflank for 5 min.",
    ),
    # Steps unknown
    "running": (run(), None, TIMING, "running for 20 min (usually 8 to 10 min)."),
    "running, nothing is usual": (run(), None, None, "running for 20 min."),
    "running, no start is known": (run(started=None), None, None, "running."),
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
    "a step past its usual": (
        run(**overdue_fields(OverdueReason.STEP)),
        tree(step()),
        TIMING,
        "step “migrate” for 18 min (usually 2 to 4 min), longer than usual.",
    ),
    "a step far past its usual": (
        run(**overdue_fields(OverdueReason.STEP, Severity.CRITICAL)),
        tree(step()),
        TIMING,
        "step “migrate” for 18 min (usually 2 to 4 min), far longer than usual.",
    ),
    "a step in time, of a run that is late": (
        run(**overdue_fields(OverdueReason.RUN, Severity.CRITICAL)),
        tree(step(3)),
        TIMING,
        (
            "step “migrate” for 3 min (usually 2 to 4 min). The run takes far longer than "
            "usual (usually 8 to 10 min)."
        ),
    ),
    "a run past its usual": (
        run(**overdue_fields(OverdueReason.RUN)),
        None,
        TIMING,
        "running for 20 min (usually 8 to 10 min), longer than usual.",
    ),
    "a run past a plain limit": (
        run(**overdue_fields(OverdueReason.RUN)),
        None,
        None,
        "running for 20 min. Running for more than 1 h.",
    ),
    "a turn that does not come": (
        run("queued", started=None, **overdue_fields(OverdueReason.QUEUE)),
        None,
        TIMING,
        "queued for 21 min (usually about 1 min), longer than usual.",
    ),
    "people who take their time": (
        run("approval_wait", **overdue_fields(OverdueReason.APPROVAL)),
        tree(approval()),
        None,
        ("needs approval at step “sign-off” for 6 h. Waiting for approval for more than 4 h."),
    ),
    "nothing has changed for long": (
        run(**overdue_fields(OverdueReason.NO_PROGRESS)),
        tree(step(18, label="new", ref="new")),
        TIMING,
        (
            "step “new” for 18 min. No step progress for longer than a whole run usually "
            "takes (usually 8 to 10 min)."
        ),
    ),
    "the last attempt is said once": (
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
    "aborting, nobody knows since when": (
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
    "a status nobody knows": (
        run("hibernating", status_since=ago(20)),
        None,
        TIMING,
        "Northflank status: “hibernating”.",
    ),
    "a status nobody knows, at a step": (
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
    "success, nobody knows when": (
        concluded_run("success", after=None),
        None,
        TIMING,
        "succeeded.",
    ),
    "success in spite of a step": (
        concluded_run("success"),
        tree(FAILED_STEP),
        None,
        "succeeded in 20 min 0 s.",
    ),
    "success after people": (
        concluded_run("success"),
        tree(approval(19, status="success", ended_at=ago(8))),
        TIMING,
        "succeeded in 9 min 0 s (usually 8 to 10 min), plus 11 min waiting for approval.",
    ),
    "success that took less than nothing": (
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
    "failure of an inner step": (
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
    "failure of a step nobody knows": (
        concluded_run("failure"),
        None,
        None,
        "failed after 20 min 0 s.",
    ),
    "failure, nobody knows when": (concluded_run("failure", after=None), tree(), None, "failed."),
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
    "ended as unknown": (
        concluded_run("unknown"),
        None,
        None,
        "ended after 20 min 0 s; Northflank reports the outcome as unknown.",
    ),
    "ended as nobody knows": (
        concluded_run("hibernating"),
        None,
        None,
        "ended after 20 min 0 s; Northflank status: “hibernating”.",
    ),
    "ended, and said to be running": (
        concluded_run("running"),
        None,
        None,
        "ended after 20 min 0 s; Northflank status: “running”.",
    ),
    # Gone
    "gone": (
        removed_run("running"),
        tree(step()),
        TIMING,
        "Northflank no longer lists this run; last status “running”, at step “migrate”.",
    ),
    "gone, without a word": (
        removed_run(""),
        None,
        None,
        "Northflank no longer lists this run.",
    ),
    "gone after its end": (
        concluded_run("success", removed_at=NOW),
        None,
        None,
        "succeeded in 20 min 0 s. Northflank no longer lists it.",
    ),
}


def summary_text(
    of: Run,
    root: Node | None,
    timing: StageTiming | None,
    *,
    before: int = 0,
    behind: int = 0,
    dropped: str = "",
) -> str:
    parts = run_summary.build(
        of, root, timing, queued_ahead=before, queued_behind=behind, skip_summary=dropped
    )
    return run_summary.render_text(parts, NOW)


@pytest.mark.parametrize(("of", "root", "timing", "words"), CASES.values(), ids=CASES)
def test_run_summary_per_case_has_its_text(
    of: Run, root: Node | None, timing: StageTiming | None, words: str
) -> None:
    assert summary_text(of, root, timing) == f"checkout / Production: {words}"


def test_run_summary_ends_with_runs_queued_behind() -> None:
    words = summary_text(run("retrying"), tree(retried(2)), TIMING, behind=2)
    assert words == (
        "checkout / Production: step “migrate” for 18 min (usually 2 to 4 min). "
        "Attempt 2 of 3, next in 40 s. 2 runs are queued behind it."
    )


def test_run_summary_with_one_run_queued_behind_is_singular() -> None:
    assert summary_text(run(), None, None, behind=1).endswith(" 1 run is queued behind it.")


def test_run_summary_of_concluded_run_has_no_runs_queued_behind() -> None:
    assert "behind" not in summary_text(concluded_run("success"), None, None, behind=2)


def test_run_summary_has_skipped_runs_after_queued_ones() -> None:
    dropped = "2 runs skipped since this run was created."
    assert summary_text(run(), None, None, behind=1, dropped=dropped).endswith(
        f" 1 run is queued behind it. {dropped}"
    )


def test_run_summary_of_concluded_run_has_skipped_runs() -> None:
    dropped = "2 runs skipped while this run was in flight."
    assert summary_text(concluded_run("success"), None, None, dropped=dropped).endswith(
        f". {dropped}"
    )


@pytest.mark.parametrize(("before", "words"), [(1, "1 run ahead"), (2, "2 runs ahead")])
def test_run_summary_of_queued_run_counts_runs_ahead(before: int, words: str) -> None:
    assert summary_text(run("queued", started=None), None, TIMING, before=before) == (
        f"checkout / Production: queued for 21 min (usually about 1 min), {words}."
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
    words = summary_text(run(), tree(step(label="a\nb\u2028" + "x" * 1000)), None)
    assert words == f"checkout / Production: step “a b {'x' * 75}…” for 18 min."


def test_run_summary_truncates_long_error() -> None:
    words = summary_text(concluded_run("failure"), tree(failed(error_message="x" * 10_000)), None)
    assert len(words) < 300
    assert words.endswith("x…”.")


# --- for a row ---------------------------------------------------------------------------------

STEP_FIELDS = {"step": "migrate, attempt 2 of 3", "step_key": "migrate", "step_started_at": ago(18)}
LONG_STEP_TIMING = StageTiming(
    observed_run_median=115, observed_run_p95=245, observed_steps={"migrate": [120, 240]}
)
ROWS = {
    "a step": (
        run(**STEP_FIELDS),
        tree(step()),
        TIMING,
        "migrate, attempt 2 of 3, for 18 min (usually 2 to 4 min)",
    ),
    "a step of which nothing is usual": (
        run(**STEP_FIELDS),
        None,
        None,
        "migrate, attempt 2 of 3, for 18 min",
    ),
    "a step without a start": (
        run(**STEP_FIELDS | {"step_started_at": None}),
        None,
        TIMING,
        "migrate, attempt 2 of 3",
    ),
    "people": (
        run("approval_wait", step="sign-off", step_started_at=ago(360)),
        tree(approval()),
        TIMING,
        "Waiting for approval: “sign-off”, for 6 h",  # its typical duration is under its bar
    ),
    "a step that usually takes as long as all of it": (
        run(**STEP_FIELDS),
        tree(step()),
        LONG_STEP_TIMING,
        "migrate, attempt 2 of 3, for 18 min",
    ),
    "its turn": (run("queued", started=None), None, TIMING, ""),
    "an abort has a clock of its own": (
        run("aborting", **STEP_FIELDS),
        None,
        TIMING,
        "migrate, attempt 2 of 3",
    ),
    "no step is known": (run(), None, TIMING, ""),
    "it has ended": (concluded_run("success", **STEP_FIELDS), None, TIMING, ""),
    "it is gone": (removed_run("running", **STEP_FIELDS), None, TIMING, ""),
}


@pytest.mark.parametrize(("of", "root", "timing", "words"), ROWS.values(), ids=ROWS)
def test_run_row_summary_per_case_has_its_text(
    of: Run, root: Node | None, timing: StageTiming | None, words: str
) -> None:
    clocks = overdue.timers(of, root, timing)
    assert run_summary.render_text(run_summary.step_summary(of, clocks), NOW) == words


# --- anything at all ---------------------------------------------------------------------------


timings = st.none() | st.builds(
    StageTiming,
    observed_run_median=st.none() | st.floats(0, 1e6),
    observed_run_p95=st.none() | st.floats(0, 1e6),
    observed_queue_median=st.none() | st.floats(0, 1e6),
    observed_queue_p95=st.none() | st.floats(0, 1e6),
    observed_steps=st.just({})
    | st.builds(lambda a, b: {"migrate": [a, b]}, st.floats(0, 1e6), st.floats(0, 1e6)),
)


DROPPED = st.sampled_from(["", "2 runs skipped since this run was created."])


@given(
    *(runs(), st.none() | trees, timings, TIMES),
    *(st.integers(0, 3), st.integers(0, 3), DROPPED),
)
def test_run_summary_of_any_run_is_complete(
    of: Run,
    root: Node | None,
    timing: StageTiming | None,
    now: datetime,
    before: int,
    behind: int,
    dropped: str,
) -> None:
    summary_text = run_summary.build(
        of, root, timing, queued_ahead=before, queued_behind=behind, skip_summary=dropped
    )
    words = run_summary.render_text(summary_text, now)
    assert words.startswith("checkout / Production: ")
    assert words.endswith(dropped or ".")
    assert "None" not in words
    assert re.search(r"-\d", words) is None  # no time has less than none to go
    assert words.count("\n") == 0


@given(runs(), st.none() | trees, timings, TIMES)
def test_run_row_summary_of_any_run_is_valid(
    of: Run, root: Node | None, timing: StageTiming | None, now: datetime
) -> None:
    words = run_summary.render_text(
        run_summary.step_summary(of, overdue.timers(of, root, timing)), now
    )
    assert "None" not in words
    assert re.search(r"-\d", words) is None


def test_failed_group_without_failed_step_is_the_failed_one() -> None:
    group = node(
        "Workflow",
        label="each-region",
        status="failure",
        error_message="Timed out.",
        steps=(step(9, status="aborted"),),
    )
    told = summary_text(concluded_run("failure"), tree(group), None)
    assert "at step “each-region”: “Timed out.”" in told
