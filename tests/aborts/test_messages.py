"""Abort messages: every state has one, and none claims more than is known."""

from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.models import Abort, AbortEvent, Run
from dashboard.models.aborts import AbortState, EventType
from dashboard.runs import statuses

AT = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
TONES = {"info", "warning", "bad", "neutral"}
REMOVED_TEXT = "Outcome unknown: Northflank removed the run 1 min 12 s after the request."
DOUBT = "The abort may not have arrived. Northflank has failed (500)."
OUTCOMES = ["", "hibernating", *statuses.RUN_STATUSES]


def abort(state: str, outcome: str = "", **fields: Any) -> Abort:
    defaults = {
        "requested_at": AT,
        "sent_at": AT,
        "answered_at": AT + timedelta(seconds=1),
        "settled_at": AT + timedelta(seconds=72),
        "answer": "Northflank has failed (500).",
        "username": "ana",
        "reason": "Stuck",
    }
    return Abort(state=state, outcome=outcome, **defaults | fields)


def run(status: str = "running", *, concluded: bool = False, level: int = 0) -> Run:
    since = AT + timedelta(seconds=2)
    return Run(
        status=status, concluded=concluded, in_flight=not concluded, status_since=since,
        abort_severity=level,
    )  # fmt: skip


def removed_run() -> Run:
    return Run(status="aborting", concluded=False, status_since=AT, removed_at=AT)


@pytest.mark.parametrize(("state", "outcome"), list(product(AbortState, OUTCOMES)))
def test_abort_message_in_every_state_is_a_complete_true_sentence(
    state: AbortState, outcome: str
) -> None:
    for settled, answered, sent in product([True, False], repeat=3):
        row = abort(
            state,
            outcome,
            settled_at=AT if settled else None,
            answered_at=AT if answered else None,
            sent_at=AT if sent else None,
        )
        for status, concluded, level in product(OUTCOMES[1:], [True, False], range(3)):
            message = abort_messages.describe(row, run(status, concluded=concluded, level=level))
            assert message.tone in TONES
            assert message.plain_text.endswith(".")
            assert "None" not in message.plain_text
            assert "  " not in message.plain_text
            if "Aborted after" in message.plain_text:
                assert (outcome, status, concluded) == ("aborted", "aborted", True)


@pytest.mark.parametrize(
    ("abort", "run", "sentence"),
    [
        (
            abort("requested", sent_at=None),
            run(),
            "Abort requested at 03:00:00; not sent yet.",
        ),
        (
            abort("requested"),
            run(),
            "Abort sent at 03:00:00; waiting for Northflank’s response.",
        ),
        (
            abort("accepted", settled_at=None),
            run(),
            "Abort accepted at 03:00:01; run status is still running.",
        ),
        (abort("accepted"), run("aborting"), "Abort accepted; aborting since 03:00:02."),
        (
            abort("accepted"),
            run("aborting", level=1),
            "Abort accepted; aborting since 03:00:02. Taking longer than 3 min.",
        ),
        (
            abort("accepted"),
            run("aborting", level=2),
            "Abort accepted; aborting since 03:00:02. Not ended after 10 min.",
        ),
        (
            abort("concluded", "aborted"),
            run("aborted", concluded=True),
            "Aborted after 1 min 12 s.",
        ),
        (
            abort("concluded", "success"),
            run("success", concluded=True),
            "Abort failed: the run finished (success) 1 min 12 s after the request.",
        ),
        (
            abort("concluded", "aborted"),
            run("success", concluded=True),
            "Status changed from aborted to success after the abort. Check the run.",
        ),
        (
            abort("concluded"),
            removed_run(),
            REMOVED_TEXT,
        ),
        (
            abort("too_late", "failure"),
            run("failure", concluded=True),
            "Too late: the run had finished (failed) before the abort arrived.",
        ),
        (
            abort("too_late", "success", sent_at=None),
            run("success", concluded=True),
            "Too late: the run had finished (success) before the abort was sent.",
        ),
        (
            abort("too_late"),
            run(),
            "The run no longer existed when the abort arrived.",
        ),
        (abort("refused"), run(), "Northflank refused: Northflank has failed (500)."),
        (abort("not_sent", answer="No way"), run(), "Not sent: No way."),
        (
            abort("not_sent", retry_at=AT + timedelta(minutes=40)),
            run(),
            "Not sent: rate limited by Northflank until 03:40:00.",
        ),
        (
            abort("not_sent", retry_at=AT + timedelta(days=1)),
            run(),
            "Not sent: rate limited by Northflank until 2 Jan 03:00:00.",
        ),
        (
            abort("accepted", requested_at=AT - timedelta(days=2), settled_at=None),
            run("aborting"),
            "Abort accepted; aborting since 1 Jan 2026 03:00:02.",
        ),
        (
            abort("unknown", settled_at=None, send_count=2),
            run(),
            f"{DOUBT} It is resent if the run continues (sent 2 of at most 5 times).",
        ),
        (
            abort("unknown", settled_at=None, send_count=5),
            run(),
            f"{DOUBT} Sent 5 times; checking the run’s status.",
        ),
        (
            abort("unknown", settled_at=None, send_count=3),
            run(level=2),
            f"{DOUBT} It is not resent automatically. You can resend it.",
        ),
        (
            abort("unknown", send_count=5),
            run(),
            "Abort probably lost: it was sent 5 times, but the run continued. You can resend it.",
        ),
        (
            abort("unknown", send_count=1),
            run("success", concluded=True),
            "Abort probably lost: it was sent, but the run continued.",
        ),
        (
            abort("requested", settled_at=None, sent_at=AT, send_count=2),
            run(),
            "Abort resent at 03:00:00 (attempt 2 of 5); waiting for Northflank’s response.",
        ),
        (
            abort("accepted", settled_at=None, answer_status=409),
            run("aborting"),
            "The run was already aborting, since 03:00:02 or earlier.",
        ),
        (
            abort("retried"),
            run(),
            "No effect after 1 min 12 s; the abort was resent.",
        ),
    ],
)
def test_abort_message_per_state_has_its_text(abort: Abort, run: Run, sentence: str) -> None:
    assert abort_messages.describe(abort, run).plain_text == sentence


@pytest.mark.parametrize("outcome", ["success", "failure", "skipped"])
def test_abort_message_for_run_that_ended_otherwise_is_loud(outcome: str) -> None:
    message = abort_messages.describe(abort("concluded", outcome), run(outcome, concluded=True))
    assert (message.is_unexpected, message.tone) == (True, "bad")


def test_abort_message_for_status_changed_to_success_after_abort_is_loud() -> None:
    message = abort_messages.describe(abort("concluded", "aborted"), run("success", concluded=True))
    assert (message.is_unexpected, message.tone) == (True, "bad")


def test_abort_message_for_aborted_run_is_neutral() -> None:
    message = abort_messages.describe(abort("concluded", "aborted"), run("aborted", concluded=True))
    assert (message.is_unexpected, message.tone) == (False, "neutral")


@pytest.mark.parametrize(("level", "tone"), [(0, "warning"), (1, "warning"), (2, "bad")])
def test_abort_message_tone_follows_severity(level: int, tone: str) -> None:
    assert abort_messages.describe(abort("accepted"), run("aborting", level=level)).tone == tone


def test_abort_message_for_concluded_run_without_answer_says_so() -> None:
    row = abort("concluded", "success", answered_at=None)
    message = abort_messages.describe(row, run("success", concluded=True))
    assert message.plain_text.endswith("Northflank never responded to the abort.")


def event_text(event_type: str, detail: str = "") -> str:
    [message] = abort_timeline.entries(
        abort("requested"), [AbortEvent(event_type=event_type, occurred_at=AT, detail=detail)]
    )
    return message.text


@pytest.mark.parametrize(
    ("event_type", "detail"), list(product(EventType, [*OUTCOMES, "Something"]))
)
def test_timeline_event_text_is_a_complete_sentence(event_type: EventType, detail: str) -> None:
    assert event_text(event_type, detail).endswith(".")
    assert "{}" not in event_text(event_type, detail)


@pytest.mark.parametrize(
    ("event_type", "detail", "text"),
    [
        ("requested", "", "Requested by ana: “Stuck”."),
        ("accepted", "running", "Accepted by Northflank; run status: running."),
        ("concluded", "failure", "The run ended as failed."),
        ("concluded", "", "Northflank removed the run."),
        ("retried", "ben", "Resent by ben."),
        ("answered_late", "aborting", "Late response from Northflank: aborting."),
        ("not_sent", "Sending timed out.", "Not sent: Sending timed out."),
    ],
)
def test_timeline_event_has_its_text(event_type: str, detail: str, text: str) -> None:
    assert event_text(event_type, detail) == text
