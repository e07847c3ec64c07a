"""How a run stands, in a sentence or two: in every status, and for any steps and clocks at all."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Run, StageTiming
from dashboard.models.typical_duration import Overdue
from dashboard.northflank import Node
from dashboard.runs import overdue
from dashboard.runs import summary as run_summary
from dashboard.runs.overdue import Why
from dashboard.runs.summary import Name, Since, Until
from tests.support.arbitrary import PLACE, WHEN, runs, trees
from tests.support.factories import node

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def run(status: str = "running", *, started: float | None = 20, **more: Any) -> Run:
    """A run created 21 minutes ago and first seen a minute later."""
    usual = {
        "concluded": False,
        "in_flight": True,
        "created_at": ago(21),
        "started_at": None if started is None else ago(started),
        "first_seen_at": ago(20),
        "status_since": ago(5),
    }
    return Run(stage=PLACE, status=status, **usual | more)


def ended(status: str, *, after: float | None = 20, **more: Any) -> Run:
    """A run that ended so many minutes after its start."""
    at = None if after is None else ago(20 - after)
    return run(status, concluded=True, in_flight=False, concluded_at=at, **more)


def gone(status: str, **more: Any) -> Run:
    return run(status, in_flight=False, gone_at=NOW, **more)


def late(why: Why, level: Overdue = Overdue.YES) -> dict[str, Any]:
    return {"overdue": level, "overdue_why": str(why)}


def tree(*steps: Node) -> Node:
    return node("Workflow", steps=steps)


def step(minutes: float | None = 18, **more: Any) -> Node:
    began = None if minutes is None else ago(minutes)
    usual = {"label": "migrate", "ref": "migrate", "status": "waiting", "started_at": began}
    return node("JobRun", **usual | more)


def approval(minutes: float = 360, **more: Any) -> Node:
    usual = {"label": "sign-off", "ref": "sign-off", "status": "approval_wait"}
    return node("Approval", started_at=ago(minutes), **usual | more)


def retried(attempts: int, *, in_seconds: float | None = 40, **more: Any) -> Node:
    at = None if in_seconds is None else NOW + timedelta(seconds=in_seconds)
    usual = {"status": "retrying", "attempts": attempts, "max_attempts": 3, "next_attempt_at": at}
    return step(**usual | more)


def failed(label: str = "migrate", **more: Any) -> Node:
    return node("JobRun", label=label, **{"status": "failure"} | more)


# A run usually takes 8 to 10 minutes, waits about one for its turn, migrates for 2 to 4.
TIMING = StageTiming(
    run_median=480, run_p95=600, queue_median=60, queue_p95=60,
    steps={"migrate": [120, 240], "sign-off": [600, 5400]},
)  # fmt: skip
HAS_FAILED = failed(error_message="exit code 1")

# What is said behind "checkout / Production: ", of a run, its steps, and what is usual.
CASES: dict[str, tuple[Run, Node | None, StageTiming | None, str]] = {
    # At a step
    "a step, and what is usual": (
        run(), tree(step(3)), TIMING, "step “migrate” for 3 min (usually 2 to 4 min).",
    ),
    "a step of which nothing is usual": (run(), tree(step()), None, "step “migrate” for 18 min."),
    "a step just begun": (run(), tree(step(0.5)), None, "step “migrate” for 30 s."),
    "a step that has no start": (run(), tree(step(None)), TIMING, "at step “migrate”."),
    "a step without a name": (run(), tree(step(label=" ")), None, "step “JobRun” for 18 min."),
    "steps side by side": (
        run(), tree(step(3), step(3, label="b"), step(3, label="c")), TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min), and 2 more at the same time.",
    ),
    "a step within a group": (
        run(), tree(node("Workflow", label="group", status="waiting", steps=(step(3),))), TIMING,
        "step “migrate” for 3 min (usually 2 to 4 min).",
    ),
    # Tried again
    "a step that is tried again": (
        run("retrying"), tree(retried(2, error_message="exit code 1")), TIMING,
        (
            "step “migrate” for 18 min (usually 2 to 4 min). Attempt 2 of 3, next in 40 s."
            " The last error: “exit code 1”."
        ),
    ),
    "a step that was tried once": (
        run("retrying"), tree(retried(1)), None,
        "step “migrate” for 18 min. Attempt 1 of 3, next in 40 s.",
    ),
    "a step whose next attempt is due": (
        run("retrying"), tree(retried(2, in_seconds=-9)), None,
        "step “migrate” for 18 min. Attempt 2 of 3, next due now.",
    ),
    "a step that works at its second attempt": (
        run(), tree(retried(2, status="waiting", in_seconds=-60)), None,
        "step “migrate” for 18 min. Attempt 2 of 3.",
    ),
    "a step at its last attempt": (
        run("retrying"), tree(retried(3, in_seconds=None, error_code=137)), None,
        "step “migrate” for 18 min. Attempt 3 of 3, the last. The last error: code 137.",
    ),
    "attempts that make no sense": (
        run("retrying"), tree(retried(4, in_seconds=None)), None,
        "step “migrate” for 18 min. Attempt 4, the last.",
    ),
    "attempts without an end": (
        run(), tree(retried(2, status="waiting", max_attempts=None)), None,
        "step “migrate” for 18 min. Attempt 2.",
    ),
    # Waits
    "its turn": (
        run("queued", started=None), None, TIMING,
        "waits for its turn for 21 min (usually about 1 min).",
    ),
    "not begun": (run("pending", started=None), None, None, "waits to start for 21 min."),
    "people": (
        run("approval_wait"), tree(approval()), TIMING,
        "waits for people to approve “sign-off” for 6 h (usually 10 to 90 min).",
    ),
    "people, of a run that is said to be running": (
        run(), tree(approval()), None, "waits for people to approve “sign-off” for 6 h.",
    ),
    "people, for a step that was not read yet": (
        run("approval_wait"), tree(step()), TIMING,
        "waits for people to approve a step for 5 min.",
    ),
    "people, steps unknown": (
        run("approval_wait"), None, TIMING, "waits for people to approve a step for 5 min.",
    ),
    "people, nobody knows since when": (
        run("approval_wait", status_since=ago(20)), None, None,
        "waits for people to approve a step.",
    ),
    "an answer from outside": (
        run("async_wait"), tree(step(status="async_wait")), TIMING,
        (
            "step “migrate” waits for an answer from outside Northflank for 18 min"
            " (usually 2 to 4 min)."
        ),
    ),
    "an answer from outside, steps unknown": (
        run("async_wait"), None, TIMING,
        "a step waits for an answer from outside Northflank for 5 min.",
    ),
    # Steps unknown
    "running": (run(), None, TIMING, "under way for 20 min (usually 8 to 10 min)."),
    "running, nothing is usual": (run(), None, None, "under way for 20 min."),
    "running, no start is known": (run(started=None), None, None, "under way."),
    "waiting": (run("waiting"), None, None, "under way for 20 min."),
    "between two steps": (
        run(), tree(step(status="success"), step(None, status=None)), TIMING,
        "under way for 20 min (usually 8 to 10 min).",
    ),
    "retrying": (
        run("retrying"), None, TIMING, "a step failed and is being tried again for 5 min.",
    ),
    # Overdue
    "a step past its usual": (
        run(**late(Why.STEP)), tree(step()), TIMING,
        "step “migrate” for 18 min (usually 2 to 4 min), longer than usual.",
    ),
    "a step far past its usual": (
        run(**late(Why.STEP, Overdue.VERY)), tree(step()), TIMING,
        "step “migrate” for 18 min (usually 2 to 4 min), far longer than usual.",
    ),
    "a step in time, of a run that is late": (
        run(**late(Why.RUN, Overdue.VERY)), tree(step(3)), TIMING,
        (
            "step “migrate” for 3 min (usually 2 to 4 min)."
            " It takes far longer than usual (usually 8 to 10 min)."
        ),
    ),
    "a run past its usual": (
        run(**late(Why.RUN)), None, TIMING,
        "under way for 20 min (usually 8 to 10 min), longer than usual.",
    ),
    "a run past a plain limit": (
        run(**late(Why.RUN)), None, None,
        "under way for 20 min. It has gone on for more than 1 h.",
    ),
    "a turn that does not come": (
        run("queued", started=None, **late(Why.QUEUE)), None, TIMING,
        "waits for its turn for 21 min (usually about 1 min), longer than usual.",
    ),
    "people who take their time": (
        run("approval_wait", **late(Why.APPROVAL)), tree(approval()), None,
        (
            "waits for people to approve “sign-off” for 6 h."
            " It has waited for people for more than 4 h."
        ),
    ),
    "nothing has changed for long": (
        run(**late(Why.SILENT)), tree(step(18, label="new", ref="new")), TIMING,
        (
            "step “new” for 18 min."
            " No step has changed for longer than all of it takes (usually 8 to 10 min)."
        ),
    ),
    "the last attempt is said once": (
        run("retrying", **late(Why.ATTEMPTS)), tree(retried(3)), None,
        "step “migrate” for 18 min. Attempt 3 of 3, the last.",
    ),
    # Aborting
    "aborting": (
        run("aborting", aborting_since=ago(6)), None, TIMING, "aborting for 6 min.",
    ),
    "aborting, at a step": (
        run("aborting", **late(Why.STEP)), tree(step(status="aborting")), TIMING,
        "aborting at least for 5 min, at step “migrate”.",
    ),
    "aborting, nobody knows since when": (
        run("aborting", status_since=ago(20)), None, TIMING, "aborting at least for 20 min.",
    ),
    # Strange
    "unknown": (run("unknown"), None, None, "Northflank gives its status as unknown for 5 min."),
    "unknown, at a step": (
        run("unknown"), tree(step()), None,
        "Northflank gives its status as unknown; step “migrate” for 18 min.",
    ),
    "a status nobody knows": (
        run("hibernating", status_since=ago(20)), None, TIMING, "Northflank says “hibernating”.",
    ),
    "a status nobody knows, at a step": (
        run("hibernating"), tree(step()), None,
        "Northflank says “hibernating”; step “migrate” for 18 min.",
    ),
    "no status": (run(""), None, None, "Northflank gives no status for 5 min."),
    "a success that has not concluded": (
        run("success"), None, None,
        "Northflank says “success”, but not that it has concluded.",
    ),
    # Ended
    "success": (
        ended("success", after=9), None, TIMING, "succeeded in 9 min 0 s (usually 8 to 10 min).",
    ),
    "success, nobody knows when": (ended("success", after=None), None, TIMING, "succeeded."),
    "success in spite of a step": (
        ended("success"), tree(HAS_FAILED), None, "succeeded in 20 min 0 s.",
    ),
    "success after people": (
        ended("success"), tree(approval(19, status="success", ended_at=ago(8))), TIMING,
        "succeeded in 9 min 0 s (usually 8 to 10 min), not counting 11 min of waiting for people.",
    ),
    "success that took less than nothing": (
        ended("success", after=-5), None, None, "succeeded in 0 s.",
    ),
    "failure": (
        ended("failure"), tree(HAS_FAILED), TIMING,
        "failed after 20 min 0 s, at step “migrate”: “exit code 1”.",
    ),
    "failure at the last attempt": (
        ended("failure"), tree(failed(attempts=3, max_attempts=3)), TIMING,
        "failed after 20 min 0 s, at step “migrate” on attempt 3 of 3.",
    ),
    "failure of an inner step": (
        ended("failure"), tree(failed("group", steps=(failed("inner"),))), None,
        "failed after 20 min 0 s, at step “inner”.",
    ),
    "failure with a code": (
        ended("failure"), tree(failed(status="invalid", error_code=400)), None,
        "failed after 20 min 0 s, at step “migrate”: code 400.",
    ),
    "failure of a step nobody knows": (
        ended("failure"), None, None, "failed after 20 min 0 s.",
    ),
    "failure, nobody knows when": (ended("failure", after=None), tree(), None, "failed."),
    "aborted": (
        ended("aborted"), tree(step(status="aborted")), TIMING,
        "was aborted after 20 min 0 s, at step “migrate”.",
    ),
    "aborted, steps unknown": (ended("aborted"), None, None, "was aborted after 20 min 0 s."),
    "skipped": (
        ended("skipped", after=None), None, None,
        "was skipped: Northflank did not carry it out.",
    ),
    "ended as unknown": (
        ended("unknown"), None, None,
        "ended after 20 min 0 s, and Northflank gives its outcome as unknown.",
    ),
    "ended as nobody knows": (
        ended("hibernating"), None, None,
        "ended after 20 min 0 s; Northflank says “hibernating”.",
    ),
    "ended, and said to be running": (
        ended("running"), None, None, "ended after 20 min 0 s; Northflank says “running”.",
    ),
    # Gone
    "gone": (
        gone("running"), tree(step()), TIMING,
        "Northflank no longer knows this run; it last said “running”, at step “migrate”.",
    ),
    "gone, without a word": (gone(""), None, None, "Northflank no longer knows this run."),
    "gone after its end": (
        ended("success", gone_at=NOW), None, None,
        "succeeded in 20 min 0 s. Northflank no longer knows it.",
    ),
}  # fmt: skip


def said(
    of: Run,
    root: Node | None,
    timing: StageTiming | None,
    *,
    before: int = 0,
    behind: int = 0,
    dropped: str = "",
) -> str:
    parts = run_summary.of(of, root, timing, before=before, behind=behind, dropped=dropped)
    return run_summary.text(parts, NOW)


@pytest.mark.parametrize(("of", "root", "timing", "words"), CASES.values(), ids=CASES)
def test_a_verdict_reads(
    of: Run, root: Node | None, timing: StageTiming | None, words: str
) -> None:
    assert said(of, root, timing) == f"checkout / Production: {words}"


def test_those_behind_are_told_last() -> None:
    words = said(run("retrying"), tree(retried(2)), TIMING, behind=2)
    assert words == (
        "checkout / Production: step “migrate” for 18 min (usually 2 to 4 min)."
        " Attempt 2 of 3, next in 40 s. 2 runs wait behind it."
    )


def test_one_behind_is_one_run() -> None:
    assert said(run(), None, None, behind=1).endswith(" 1 run waits behind it.")


def test_nobody_waits_behind_a_run_that_has_ended() -> None:
    assert "behind" not in said(ended("success"), None, None, behind=2)


def test_what_was_dropped_is_told_after_what_waits() -> None:
    dropped = "2 runs have been skipped since it was created."
    assert said(run(), None, None, behind=1, dropped=dropped).endswith(
        f" 1 run waits behind it. {dropped}"
    )


def test_what_was_dropped_is_told_of_a_run_that_has_ended_too() -> None:
    dropped = "2 runs were skipped while it was in flight."
    assert said(ended("success"), None, None, dropped=dropped).endswith(f". {dropped}")


@pytest.mark.parametrize(("before", "words"), [(1, "1 run before it"), (2, "2 runs before it")])
def test_who_waits_for_its_turn_says_for_how_many(before: int, words: str) -> None:
    assert said(run("queued", started=None), None, TIMING, before=before) == (
        f"checkout / Production: waits for its turn for 21 min (usually about 1 min): {words}."
    )


def test_the_times_in_it_go_on_by_themselves() -> None:
    parts = run_summary.of(run("retrying"), tree(retried(2)), TIMING)
    assert [part for part in parts if not isinstance(part, str)] == [
        Since(ago(18)),
        Until(NOW + timedelta(seconds=40)),
    ]
    later = run_summary.text(parts, NOW + timedelta(minutes=2))
    assert "for 20 min" in later
    assert "next due now" in later


def test_names_are_told_apart_from_our_words() -> None:
    names = [part for part in run_summary.of(run(), tree(step()), None) if isinstance(part, Name)]
    assert names == ["checkout", "migrate"]


def test_a_long_name_on_many_lines_is_one_short_line() -> None:
    words = said(run(), tree(step(label="a\nb\u2028" + "x" * 1000)), None)
    assert words == f"checkout / Production: step “a b {'x' * 75}…” for 18 min."


def test_a_long_error_is_cut() -> None:
    words = said(ended("failure"), tree(failed(error_message="x" * 10_000)), None)
    assert len(words) < 300
    assert words.endswith("x…”.")


# --- for a row ---------------------------------------------------------------------------------

AT = {"step": "migrate, attempt 2 of 3", "step_key": "migrate", "step_since": ago(18)}
AS_LONG = StageTiming(run_median=115, run_p95=245, steps={"migrate": [120, 240]})
ROWS = {
    "a step": (
        run(**AT), tree(step()), TIMING,
        "migrate, attempt 2 of 3, for 18 min (usually 2 to 4 min)",
    ),
    "a step of which nothing is usual": (
        run(**AT), None, None, "migrate, attempt 2 of 3, for 18 min",
    ),
    "a step without a start": (
        run(**AT | {"step_since": None}), None, TIMING, "migrate, attempt 2 of 3",
    ),
    "people": (
        run("approval_wait", step="sign-off", step_since=ago(360)), tree(approval()), TIMING,
        "sign-off, for 6 h",  # how long people usually take stands under its bar
    ),
    "a step that usually takes as long as all of it": (
        run(**AT), tree(step()), AS_LONG, "migrate, attempt 2 of 3, for 18 min",
    ),
    "its turn": (run("queued", started=None), None, TIMING, ""),
    "an abort has a clock of its own": (
        run("aborting", **AT), None, TIMING, "migrate, attempt 2 of 3",
    ),
    "no step is known": (run(), None, TIMING, ""),
    "it has ended": (ended("success", **AT), None, TIMING, ""),
    "it is gone": (gone("running", **AT), None, TIMING, ""),
}  # fmt: skip


@pytest.mark.parametrize(("of", "root", "timing", "words"), ROWS.values(), ids=ROWS)
def test_a_row_reads(of: Run, root: Node | None, timing: StageTiming | None, words: str) -> None:
    clocks = overdue.clocks(of, root, timing)
    assert run_summary.text(run_summary.short(of, clocks), NOW) == words


# --- anything at all ---------------------------------------------------------------------------


timings = st.none() | st.builds(
    StageTiming,
    run_median=st.none() | st.floats(0, 1e6),
    run_p95=st.none() | st.floats(0, 1e6),
    queue_median=st.none() | st.floats(0, 1e6),
    queue_p95=st.none() | st.floats(0, 1e6),
    steps=st.just({})
    | st.builds(lambda a, b: {"migrate": [a, b]}, st.floats(0, 1e6), st.floats(0, 1e6)),
)


DROPPED = st.sampled_from(["", "2 runs have been skipped since it was created."])


@given(
    *(runs(), st.none() | trees, timings, WHEN),
    *(st.integers(0, 3), st.integers(0, 3), DROPPED),
)
def test_any_run_has_a_verdict(
    of: Run,
    root: Node | None,
    timing: StageTiming | None,
    now: datetime,
    before: int,
    behind: int,
    dropped: str,
) -> None:
    said = run_summary.of(of, root, timing, before=before, behind=behind, dropped=dropped)
    words = run_summary.text(said, now)
    assert words.startswith("checkout / Production: ")
    assert words.endswith(dropped or ".")
    assert "None" not in words
    assert re.search(r"-\d", words) is None  # no time has less than none to go
    assert words.count("\n") == 0


@given(runs(), st.none() | trees, timings, WHEN)
def test_any_run_has_a_row(
    of: Run, root: Node | None, timing: StageTiming | None, now: datetime
) -> None:
    words = run_summary.text(run_summary.short(of, overdue.clocks(of, root, timing)), now)
    assert "None" not in words
    assert re.search(r"-\d", words) is None


def test_a_group_that_failed_without_a_step_inside_that_failed_is_the_culprit() -> None:
    group = node(
        "Workflow",
        label="each-region",
        status="failure",
        error_message="Timed out.",
        steps=(step(9, status="aborted"),),
    )
    told = said(ended("failure"), tree(group), None)
    assert "at step “each-region”: “Timed out.”" in told
