"""The run summary: in every status, for arbitrary steps and clocks."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Run, StageTiming
from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration
from dashboard.northflank import Node
from dashboard.runs import activity, overdue
from dashboard.runs import summary as run_summary
from dashboard.runs.concurrency import RelatedRuns
from dashboard.runs.overdue import OverdueReason
from dashboard.texts.rich_text import (
    Countdown,
    Elapsed,
    ExternalText,
    Message,
    RichText,
    Value,
    parts,
    to_text,
)
from tests.support import messages
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
        "turn_since": ago(21),
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
RUN_TYPICAL = TypicalDuration(timedelta(minutes=8), timedelta(minutes=10))
QUEUE_TYPICAL = TypicalDuration(timedelta(minutes=1), timedelta(minutes=1))
STEP_TYPICAL = TypicalDuration(timedelta(minutes=2), timedelta(minutes=4))
APPROVAL_TYPICAL = TypicalDuration(timedelta(minutes=10), timedelta(minutes=90))
NEXT_ATTEMPT = Countdown(NOW + timedelta(seconds=40))
FAILED_STEP = failed(error_message="exit code 1")

type Case = tuple[Run, Node | None, StageTiming | None, str, dict[str, Value]]


def case(
    keys: str,
    subject: Run,
    root: Node | None = None,
    timing: StageTiming | None = None,
    since: float | None = None,
    **params: Value,
) -> Case:
    """Return a run, its steps and a baseline; then the keys and parameters of its state.

    It has been in this state since so many minutes.
    """
    elapsed = {} if since is None else {"since": Elapsed(ago(since))}
    return subject, root, timing, keys, params | elapsed


CASES: dict[str, Case] = {
    # At a step
    "step with typical duration": case(
        "step since typical sentence",
        run(),
        tree(step(3)),
        TIMING,
        step="migrate",
        since=3,
        typical=STEP_TYPICAL,
    ),
    "step without typical duration": case(
        "step since sentence", run(), tree(step()), step="migrate", since=18
    ),
    "step just started": case(
        "step since sentence", run(), tree(step(0.5)), step="migrate", since=0.5
    ),
    "step without start time": case(
        "step_not_started sentence", run(), tree(step(None)), TIMING, step="migrate"
    ),
    "step without a name": case(
        "step since sentence", run(), tree(step(label=" ")), step="JobRun", since=18
    ),
    "step in a group": case(
        "step since typical sentence",
        run(),
        tree(node("Workflow", label="group", status="waiting", steps=(step(3),))),
        TIMING,
        step="migrate",
        since=3,
        typical=STEP_TYPICAL,
    ),
    # Retried
    "retrying step": case(
        "step since typical sentence next_attempt error_message last_error",
        run("retrying"),
        tree(retried(2, error_message="exit code 1")),
        TIMING,
        step="migrate",
        since=18,
        typical=STEP_TYPICAL,
        attempt="Attempt 2 of 3",
        until=NEXT_ATTEMPT,
        error="exit code 1",
    ),
    "retrying step after one attempt": case(
        "step since sentence next_attempt",
        run("retrying"),
        tree(retried(1)),
        step="migrate",
        since=18,
        attempt="Attempt 1 of 3",
        until=NEXT_ATTEMPT,
    ),
    "retrying step with its attempt due": case(
        "step since sentence next_attempt",
        run("retrying"),
        tree(retried(2, in_seconds=-9)),
        step="migrate",
        since=18,
        attempt="Attempt 2 of 3",
        until=Countdown(ago(0.15)),
    ),
    "step at its second attempt": case(
        "step since sentence attempt_sentence",
        run(),
        tree(retried(2, status="waiting", in_seconds=-60)),
        step="migrate",
        since=18,
        attempt="Attempt 2 of 3",
    ),
    "step at its last attempt": case(
        "step since sentence attempt_sentence error_code last_error",
        run("retrying"),
        tree(retried(3, in_seconds=None, error_code=137)),
        step="migrate",
        since=18,
        attempt="Attempt 3 of 3",
        code=137,
    ),
    "invalid attempts": case(
        "step since sentence attempt_sentence",
        run("retrying"),
        tree(retried(4, in_seconds=None)),
        step="migrate",
        since=18,
        attempt="Attempt 4",
    ),
    "attempts without a maximum": case(
        "step since sentence attempt_sentence",
        run(),
        tree(retried(2, status="waiting", max_attempts=None)),
        step="migrate",
        since=18,
        attempt="Attempt 2",
    ),
    # Waits
    "queued": case(
        "queued since typical sentence",
        run("queued", started=None),
        timing=TIMING,
        since=21,
        typical=QUEUE_TYPICAL,
    ),
    "pending": case("pending since sentence", run("pending", started=None), since=21),
    "approval": case(
        "step_approval since typical sentence",
        run("approval_wait"),
        tree(approval()),
        TIMING,
        step="sign-off",
        since=360,
        typical=APPROVAL_TYPICAL,
    ),
    "approval of a run with status running": case(
        "step_approval since sentence", run(), tree(approval()), step="sign-off", since=360
    ),
    "approval of an unread step": case(
        "approval_wait since sentence", run("approval_wait"), tree(step()), TIMING, since=5
    ),
    "approval beside an earlier step": case(
        "step_approval since typical sentence",
        run("approval_wait"),
        tree(step(50), approval(5)),
        TIMING,
        step="sign-off",
        since=5,
        typical=APPROVAL_TYPICAL,
    ),
    "approval without steps": case(
        "approval_wait since sentence", run("approval_wait"), timing=TIMING, since=5
    ),
    "approval with unknown start": case(
        "approval_wait sentence", run("approval_wait", status_since=ago(20))
    ),
    "async wait": case(
        "step_async_wait since typical sentence",
        run("async_wait"),
        tree(step(status="async_wait")),
        TIMING,
        step="migrate",
        since=18,
        typical=STEP_TYPICAL,
    ),
    "async wait without steps": case(
        "async_wait since sentence", run("async_wait"), timing=TIMING, since=5
    ),
    # Steps unknown
    "running": case(
        "running since typical sentence", run(), timing=TIMING, since=20, typical=RUN_TYPICAL
    ),
    "running without typical duration": case("running since sentence", run(), since=20),
    "running without start time": case("running sentence", run(started=None)),
    "waiting": case("running since sentence", run("waiting"), since=20),
    "between two steps": case(
        "running since typical sentence",
        run(),
        tree(step(status="success"), step(None, status=None)),
        TIMING,
        since=20,
        typical=RUN_TYPICAL,
    ),
    "retrying": case("retrying since sentence", run("retrying"), timing=TIMING, since=5),
    # Overdue
    "overdue step": case(
        "step since typical sentence longer step sentence",
        run(**overdue_fields(OverdueReason.STEP)),
        tree(step()),
        TIMING,
        step="migrate",
        since=18,
        typical=STEP_TYPICAL,
    ),
    "critical step": case(
        "step since typical sentence times_as_long step sentence",
        run(**overdue_fields(OverdueReason.STEP, Severity.CRITICAL)),
        tree(step()),
        TIMING,
        step="migrate",
        factor="3",
        since=18,
        typical=STEP_TYPICAL,
    ),
    "step on time of an overdue run": case(
        "step since typical sentence times_as_long run sentence_typical",
        run(**overdue_fields(OverdueReason.RUN, Severity.CRITICAL)),
        tree(step(3)),
        TIMING,
        step="migrate",
        factor="3",
        since=3,
        typical=RUN_TYPICAL,
    ),
    "overdue run": case(
        "running since typical sentence longer run sentence",
        run(**overdue_fields(OverdueReason.RUN)),
        timing=TIMING,
        since=20,
        typical=RUN_TYPICAL,
    ),
    "run over the fixed limit": case(
        "running since sentence run_limit sentence",
        run(**overdue_fields(OverdueReason.RUN)),
        since=20,
        limit="60 min",
    ),
    "overdue in the queue": case(
        "queued since typical sentence longer queue sentence",
        run("queued", started=None, **overdue_fields(OverdueReason.QUEUE)),
        timing=TIMING,
        since=21,
        typical=QUEUE_TYPICAL,
    ),
    "overdue approval": case(
        "step_approval since sentence approval_limit sentence",
        run("approval_wait", **overdue_fields(OverdueReason.APPROVAL)),
        tree(approval()),
        step="sign-off",
        since=360,
        limit="4 h",
    ),
    "unchanged for long": case(
        "step since sentence longer no_progress sentence_typical",
        run(**overdue_fields(OverdueReason.NO_PROGRESS)),
        tree(step(18, label="new", ref="new")),
        TIMING,
        step="new",
        since=18,
        typical=RUN_TYPICAL,
    ),
    "last attempt": case(
        "step since sentence attempt_sentence last_attempt sentence",
        run("retrying", **overdue_fields(OverdueReason.LAST_ATTEMPT)),
        tree(retried(3)),
        step="migrate",
        since=18,
        attempt="Attempt 3 of 3",
    ),
    "last attempt beside the current step": case(
        "step since sentence attempt_sentence last_attempt sentence",
        run("retrying", **overdue_fields(OverdueReason.LAST_ATTEMPT)),
        tree(retried(2, in_seconds=None), retried(3, label="test")),
        step="migrate",
        since=18,
        attempt="Attempt 2 of 3",
    ),
    "last attempt beside an approval": case(
        "step_approval since sentence last_attempt sentence",
        run("approval_wait", **overdue_fields(OverdueReason.LAST_ATTEMPT)),
        tree(retried(3), approval()),
        step="sign-off",
        since=360,
    ),
    # Aborting
    "aborting": case(
        "aborting since sentence", run("aborting", aborting_since=ago(6)), timing=TIMING, since=6
    ),
    "aborting, at a step": case(
        "aborting_at_least since at_step sentence",
        run("aborting", **overdue_fields(OverdueReason.STEP)),
        tree(step(status="aborting")),
        TIMING,
        since=5,
        step="migrate",
    ),
    "aborting with unknown start": case(
        "aborting_at_least since sentence",
        run("aborting", status_since=ago(20)),
        timing=TIMING,
        since=20,
    ),
    # Strange
    "unknown": case("status_unknown since sentence", run("unknown"), since=5),
    "undocumented status": case(
        "status sentence",
        run("hibernating", status_since=ago(20)),
        timing=TIMING,
        status="hibernating",
    ),
    "no status": case("no_status since sentence", run(""), since=5),
    "a success that has not concluded": case(
        "status_not_concluded sentence", run("success"), status="succeeded"
    ),
    # Ended
    "success": case(
        "success_in typical sentence",
        concluded_run("success", after=9),
        timing=TIMING,
        time="9 min 00 s",
        typical=RUN_TYPICAL,
    ),
    "success with unknown end": case(
        "success sentence", concluded_run("success", after=None), timing=TIMING
    ),
    "success with a failed step": case(
        "success_in sentence", concluded_run("success"), tree(FAILED_STEP), time="20 min 00 s"
    ),
    "success after an approval": case(
        "success_in typical with_approvals sentence",
        concluded_run("success"),
        tree(approval(19, status="success", ended_at=ago(8))),
        TIMING,
        time="11 min",
        typical=RUN_TYPICAL,
    ),
    "success with negative duration": case(
        "success_in sentence", concluded_run("success", after=-5), time="0 s"
    ),
    "failure": case(
        "failure_after at_step error_message with_error sentence",
        concluded_run("failure"),
        tree(FAILED_STEP),
        TIMING,
        time="20 min 00 s",
        step="migrate",
        error="exit code 1",
    ),
    "failure at the last attempt": case(
        "failure_after at_attempt sentence",
        concluded_run("failure"),
        tree(failed(attempts=3, max_attempts=3)),
        TIMING,
        time="20 min 00 s",
        step="migrate",
        attempt="attempt 3 of 3",
    ),
    "failure of a nested step": case(
        "failure_after at_step sentence",
        concluded_run("failure"),
        tree(failed("group", steps=(failed("inner"),))),
        time="20 min 00 s",
        step="inner",
    ),
    "failure with a code": case(
        "failure_after at_step error_code with_error sentence",
        concluded_run("failure"),
        tree(failed(status="invalid", error_code=400)),
        time="20 min 00 s",
        step="migrate",
        code=400,
    ),
    "failure of an unknown step": case(
        "failure_after sentence", concluded_run("failure"), time="20 min 00 s"
    ),
    "failure with unknown end": case(
        "failure sentence", concluded_run("failure", after=None), tree()
    ),
    "aborted": case(
        "aborted_after at_step sentence",
        concluded_run("aborted"),
        tree(step(status="aborted")),
        TIMING,
        time="20 min 00 s",
        step="migrate",
    ),
    "aborted, steps unknown": case(
        "aborted_after sentence", concluded_run("aborted"), time="20 min 00 s"
    ),
    "skipped": case("skipped sentence", concluded_run("skipped", after=None)),
    "concluded with status unknown": case(
        "ended_after status ended_with_status sentence",
        concluded_run("unknown"),
        time="20 min 00 s",
        status="unknown",
    ),
    "concluded with undocumented status": case(
        "ended_after status ended_with_status sentence",
        concluded_run("hibernating"),
        time="20 min 00 s",
        status="hibernating",
    ),
    "concluded with status running": case(
        "ended_after status ended_with_status sentence",
        concluded_run("running"),
        time="20 min 00 s",
        status="running",
    ),
    # Removed
    "removed": case(
        "removed_status at_step sentence",
        removed_run("running"),
        tree(step()),
        TIMING,
        status="running",
        step="migrate",
    ),
    "removed while it waited for approval beside an earlier step": case(
        "removed_status at_step sentence",
        removed_run("approval_wait"),
        tree(step(50), approval(5)),
        TIMING,
        status="needs approval",
        step="sign-off",
    ),
    "removed without status": case("removed", removed_run("")),
    "removed after its end": case(
        "success_in sentence removed_after_end",
        concluded_run("success", removed_at=NOW),
        time="20 min 00 s",
    ),
}


def summary(
    subject: Run,
    root: Node | None,
    timing: StageTiming | None,
    *,
    blocked_by: int = 0,
    blocks: int = 0,
    skip_summary: RichText = "",
) -> Message:
    related = RelatedRuns(
        "", (subject,) * blocked_by, (subject,) * blocks, skipped_text=skip_summary
    )
    return run_summary.build(subject, root, timing, related)


@pytest.mark.parametrize(("subject", "root", "timing", "keys", "params"), CASES.values(), ids=CASES)
def test_run_summary_per_case_has_its_keys_and_parameters(
    subject: Run,
    root: Node | None,
    timing: StageTiming | None,
    keys: str,
    params: dict[str, Value],
) -> None:
    message = summary(subject, root, timing)
    assert (message.key, message.params["pipeline"]) == ("summary", "checkout")
    assert message.params["stage"] == "Production"
    assert messages.keys_and_params(message.params["state"]) == (keys, params)


def test_run_summary_ends_with_runs_queued_behind() -> None:
    message = summary(run("retrying"), tree(retried(2)), TIMING, blocks=2)
    assert messages.keys(message).endswith(" next_attempt blocks summary")
    assert str(message).endswith(". Blocks 2 runs.")


def test_run_summary_with_one_run_queued_behind_is_singular() -> None:
    assert str(summary(run(), None, None, blocks=1)).endswith(" Blocks 1 run.")


def test_run_summary_of_concluded_run_has_no_runs_queued_behind() -> None:
    message = summary(concluded_run("success"), None, None, blocks=2)
    assert "blocks" not in messages.keys(message)


def test_run_summary_has_skipped_runs_after_queued_ones() -> None:
    message = summary(run(), None, None, blocks=1, skip_summary="Skipped.")
    assert messages.keys(message) == "running since sentence blocks summary"
    assert str(message).endswith(" Skipped.")


def test_run_summary_of_concluded_run_has_skipped_runs() -> None:
    message = summary(concluded_run("success"), None, None, skip_summary="Skipped.")
    assert str(message).endswith(". Skipped.")


def test_run_summary_of_queued_run_counts_runs_ahead() -> None:
    message = summary(run("queued", started=None), None, TIMING, blocked_by=2)
    assert messages.keys(message) == "queued since typical blocked_by sentence summary"
    assert messages.params(message)["n"] == 2


def test_run_summary_has_time_parts_that_keep_counting() -> None:
    message = summary(run("retrying"), tree(retried(2)), TIMING)
    times = [part for part in parts(message) if not isinstance(part, str)]
    assert times == [Elapsed(ago(18)), NEXT_ATTEMPT]
    later = to_text(message, NOW + timedelta(minutes=2))
    assert "for 20 min" in later
    assert "next due now" in later


def test_run_summary_has_names_as_separate_parts() -> None:
    message = summary(run(), tree(step()), None)
    names = [part for part in parts(message) if isinstance(part, ExternalText)]
    assert names == ["checkout", "migrate"]


def test_run_summary_truncates_long_step_name_to_one_line() -> None:
    message = summary(run(), tree(step(label="a\nb\u2028" + "x" * 1000)), None)
    assert messages.params(message)["step"] == f"a b {'x' * 75}…"


def test_run_summary_truncates_long_error() -> None:
    message = summary(concluded_run("failure"), tree(failed(error_message="x" * 10_000)), None)
    assert messages.params(message)["error"] == "x" * 199 + "…"


# --- for a row ---------------------------------------------------------------------------------

STEP_FIELDS: dict[str, Any] = {
    "step": "migrate, attempt 2 of 3",
    "step_key": "migrate",
    "step_started_at": ago(18),
}
LONG_STEP_TIMING = StageTiming(
    observed_run_median=115, observed_run_p95=245, observed_steps={"migrate": [120, 240]}
)
ROWS: dict[str, Case] = {
    "step": case(
        "row_step typical",
        run(**STEP_FIELDS),
        tree(step()),
        TIMING,
        step="migrate, attempt 2 of 3",
        since=18,
        typical=STEP_TYPICAL,
    ),
    "step without typical duration": case(
        "row_step", run(**STEP_FIELDS), step="migrate, attempt 2 of 3", since=18
    ),
    # Its typical duration is under its bar.
    "approval": case(
        "row_approval",
        run("approval_wait", step="sign-off", step_started_at=ago(360)),
        tree(approval()),
        TIMING,
        step="sign-off",
        since=360,
    ),
}


@pytest.mark.parametrize(("subject", "root", "timing", "keys", "params"), ROWS.values(), ids=ROWS)
def test_run_row_summary_per_case_has_its_keys_and_parameters(
    subject: Run,
    root: Node | None,
    timing: StageTiming | None,
    keys: str,
    params: dict[str, Value],
) -> None:
    text = activity.row_text(subject, overdue.timers(subject, root, timing))
    assert messages.keys_and_params(text) == (keys, params)


@pytest.mark.parametrize(
    ("read_at", "keys"),
    [(ago(12), "row_approval_unknown_step"), (ago(10), "row_approval"), (None, "row_approval")],
)
def test_run_row_summary_does_not_take_the_step_before_an_approval_for_it(
    read_at: datetime | None, keys: str
) -> None:
    subject = run("approval_wait", **STEP_FIELDS, status_since=ago(11), detail_synced_at=read_at)
    text = activity.row_text(subject, overdue.timers(subject, None, None))
    assert messages.keys_and_params(text)[0] == keys


def test_run_row_summary_without_elapsed_time_is_the_step_alone() -> None:
    aborting = run("aborting", **STEP_FIELDS)
    assert activity.row_text(aborting, []) == "migrate, attempt 2 of 3"


@pytest.mark.parametrize(
    ("number", "steps_of", "text"),
    [(2, 7, "migrate (2 of 7)"), (1, 1, "migrate"), (None, None, "migrate")],
)
def test_row_says_the_place_of_the_step(
    number: int | None, steps_of: int | None, text: str
) -> None:
    subject = run(status="aborting", step="migrate", step_number=number, step_count=steps_of)
    assert to_text(activity.row_text(subject, [])) == text


@pytest.mark.parametrize(
    "subject",
    [
        run("queued", started=None),
        concluded_run("success", **STEP_FIELDS),
        removed_run("running", **STEP_FIELDS),
    ],
    ids=["queued", "ended", "removed"],
)
def test_run_row_summary_without_step_in_progress_is_empty(subject: Run) -> None:
    assert activity.row_text(subject, []) == ""


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


SKIP_SUMMARIES = st.sampled_from(["", "2 runs skipped."])


@pytest.mark.slow
@given(
    *(runs(), st.none() | trees, timings, TIMES),
    *(st.integers(0, 3), st.integers(0, 3), SKIP_SUMMARIES),
)
def test_run_summary_of_any_run_is_complete(
    subject: Run,
    root: Node | None,
    timing: StageTiming | None,
    now: datetime,
    blocked_by: int,
    blocks: int,
    skip_summary: str,
) -> None:
    message = summary(
        subject,
        root,
        timing,
        blocked_by=blocked_by,
        blocks=blocks,
        skip_summary=skip_summary,
    )
    text = to_text(message, now)
    assert text.startswith("checkout / Production: ")
    assert text.endswith(skip_summary or ".")
    assert "None" not in text
    assert re.search(r"-\d", text) is None  # no time is negative
    assert text.count("\n") == 0


@given(runs(), st.none() | trees, timings, TIMES)
def test_run_row_summary_of_any_run_is_valid(
    subject: Run, root: Node | None, timing: StageTiming | None, now: datetime
) -> None:
    text = to_text(activity.row_text(subject, overdue.timers(subject, root, timing)), now)
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
    params = messages.params(summary(concluded_run("failure"), tree(group), None))
    assert (params["step"], params["error"]) == ("each-region", "Timed out.")
