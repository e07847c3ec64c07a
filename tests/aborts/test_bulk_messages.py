"""The outcome of each run of a bulk abort, and the summary of all."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dashboard.aborts import bulk_messages
from dashboard.aborts import messages as abort_messages
from dashboard.aborts.bulk_messages import ItemOutcome
from dashboard.aborts.messages import AbortMessage
from dashboard.models import Abort, Run
from dashboard.models.bulk_aborts import BulkAbortItemResult
from tests.support import messages

AT = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
NOTE = "Abort of another user."


def run(status: str = "running", *, concluded: bool = False, **fields: Any) -> Run:
    defaults = {"status_since": AT, "in_flight": not concluded}
    return Run(status=status, concluded=concluded, **defaults | fields)


def abort(state: str, outcome: str = "", **fields: Any) -> Abort:
    defaults = {"requested_at": AT, "sent_at": AT, "username": "ana", "response": "No."}
    return Abort(state=state, outcome=outcome, **defaults | fields)


@pytest.mark.parametrize(
    ("result", "kind", "text", "tone"),
    [
        ("waiting", "waiting", "Waiting to be sent.", "waiting"),
        ("ended", "too_late", "The run had already ended; nothing was sent.", "neutral"),
        ("not_allowed", "not_allowed", NOTE, "bad"),
    ],
)
def test_run_without_an_abort_of_its_own(result: str, kind: str, text: str, tone: str) -> None:
    note = "" if result == "ended" else NOTE
    for row in (None, abort("accepted")):
        outcome = bulk_messages.describe(BulkAbortItemResult(result), run(), row, note)
        assert (outcome.kind, outcome.message.plain_text) == (kind, text)
        assert outcome.message.tone == tone


def test_run_with_unknown_end_has_the_note_even_after_it_was_listed_again() -> None:
    for subject in (run(in_flight=False, removed_at=AT), run(), run("success", concluded=True)):
        outcome = bulk_messages.describe(BulkAbortItemResult.ENDED, subject, None, NOTE)
        assert outcome == ItemOutcome("removed", AbortMessage(NOTE, "warning"))


@pytest.mark.parametrize(
    ("subject", "kind", "tone"),
    [
        (run("aborting"), "aborting", "warning"),
        (run("aborted", concluded=True), "aborted", "neutral"),
        (run("success", concluded=True), "not_stopped", "neutral"),
        (run("aborting", in_flight=False, removed_at=AT), "removed", "neutral"),
        (run("aborting", removed_at=AT), "removed", "neutral"),
        (run("running", removed_at=AT), "removed", "neutral"),
        (run("aborted", concluded=True, removed_at=AT), "aborted", "neutral"),
    ],
)
def test_run_aborted_from_outside_has_the_note(subject: Run, kind: str, tone: str) -> None:
    outcome = bulk_messages.describe(BulkAbortItemResult.JOINED, subject, None, NOTE)
    assert outcome == ItemOutcome(kind, AbortMessage(NOTE, tone))


def test_run_that_goes_on_after_an_abort_from_outside_is_not_stopped() -> None:
    outcome = bulk_messages.describe(BulkAbortItemResult.JOINED, run(), None, NOTE)
    assert (outcome.kind, outcome.message.tone) == ("not_stopped", "bad")
    assert messages.keys(outcome.message.text) == "other_abort_failed"
    assert outcome.is_final


ABORTED, ENDED = run("aborted", concluded=True), run("success", concluded=True)
REMOVED = run(removed_at=AT)


@pytest.mark.parametrize(
    ("row", "subject", "kind"),
    [
        (abort("requested"), run(), "sending"),
        (abort("accepted"), run(), "aborting"),
        (abort("concluded", "aborted", settled_at=AT), ABORTED, "aborted"),
        (abort("concluded", "success", settled_at=AT), ENDED, "not_stopped"),
        (abort("concluded", settled_at=AT), REMOVED, "removed"),
        (abort("concluded", "aborted", settled_at=AT), run(), "status_changed"),
        (abort("not_sent", settled_at=AT), run(), "not_sent"),
        (abort("refused", settled_at=AT), run(), "refused"),
        (abort("too_late", "success", settled_at=AT), ENDED, "too_late"),
        (abort("too_late", settled_at=AT), REMOVED, "removed"),
        (abort("unknown"), run(), "unconfirmed"),
        (abort("unknown", settled_at=AT), run(), "not_arrived"),
        (abort("aborted_again", settled_at=AT), run(), "aborted_again"),
    ],
)
@pytest.mark.parametrize("result", [BulkAbortItemResult.ABORT, BulkAbortItemResult.JOINED])
def test_run_with_an_abort_has_its_message(
    result: BulkAbortItemResult, row: Abort, subject: Run, kind: str
) -> None:
    outcome = bulk_messages.describe(result, subject, row, NOTE)
    assert outcome == ItemOutcome(kind, abort_messages.describe(row, subject))


def outcome(kind: str) -> ItemOutcome:
    return ItemOutcome(kind, AbortMessage("Text.", "neutral"))


def test_only_outcomes_that_may_change_are_not_final() -> None:
    final = {kind: outcome(kind).is_final for kind in bulk_messages.OUTCOMES}
    assert {kind for kind, is_final in final.items() if not is_final} == {
        *("waiting", "sending", "aborting", "unconfirmed"),
    }


@pytest.mark.parametrize(("is_partial", "key"), [(False, "summary"), (True, "partial_summary")])
def test_bulk_abort_summary_counts_outcomes_successes_first(is_partial: bool, key: str) -> None:
    kinds = ["waiting", "aborted", "refused", "aborted"]
    message = bulk_messages.summarize(map(outcome, kinds), is_partial=is_partial)
    assert messages.keys(message) == key
    assert messages.params(message)["n"] == 4
    assert str(message).endswith(": 2 aborted, 1 refused, 1 waiting.")
    assert ("only runs you may view" in str(message)) is is_partial


def test_bulk_abort_summary_keeps_the_name_of_northflank() -> None:
    assert str(bulk_messages.summarize([outcome("removed")])).endswith("removed from Northflank.")


@pytest.mark.parametrize("kind", bulk_messages.OUTCOMES)
def test_each_outcome_has_a_label_and_a_count(kind: str) -> None:
    assert outcome(kind).label
    assert outcome(kind).glyph
    assert str(bulk_messages.summarize([outcome(kind)])).startswith("1 requested: 1 ")
