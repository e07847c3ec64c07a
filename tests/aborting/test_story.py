"""Every state an abort can be in has its sentence, and none says more than is known."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from dashboard import abort_story, statuses
from dashboard.models import Abort
from dashboard.models.aborts import AbortState

AT = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
TONES = {"info", "warning", "bad", "neutral"}
OUTCOMES = ["", "hibernating", *statuses.RUN]


def abort(state: str, outcome: str, *, settled: bool, answered: bool, sent: bool) -> Abort:
    return Abort(
        state=state,
        outcome=outcome,
        requested_at=AT,
        sent_at=AT if sent else None,
        answered_at=AT + timedelta(seconds=1) if answered else None,
        settled_at=AT + timedelta(seconds=72) if settled else None,
        answer="Northflank has failed (500).",
    )


@pytest.mark.parametrize(("state", "outcome"), list(product(AbortState, OUTCOMES)))
def test_every_state_has_a_sentence_that_claims_no_more_than_is_known(
    state: AbortState, outcome: str
) -> None:
    for settled, answered, sent in product([True, False], repeat=3):
        told = abort_story.of(abort(state, outcome, settled=settled, answered=answered, sent=sent))
        assert told.tone in TONES
        assert told.sentence.endswith(".")
        assert "None" not in told.sentence
        assert "  " not in told.sentence
        if outcome != "aborted":
            assert "aborted" not in told.sentence.lower()


@pytest.mark.parametrize(
    ("state", "outcome", "sentence"),
    [
        ("requested", "", "Abort requested; waiting for Northflank’s answer."),
        (
            "accepted",
            "",
            "Northflank accepted the abort at 03:00:01. The run has not concluded yet.",
        ),
        ("concluded", "aborted", "Aborted 1 min 12 s later."),
        (
            "concluded",
            "success",
            "The run ended as success 1 min 12 s later, in spite of the abort.",
        ),
        (
            "concluded",
            "",
            "Northflank knows the run no more 1 min 12 s later; how it ended is unknown.",
        ),
        ("too_late", "failure", "The run had ended as failed before the abort arrived."),
        ("too_late", "", "Northflank knew the run no more when the abort arrived."),
        ("refused", "", "Northflank refused the abort: Northflank has failed (500)."),
        ("not_sent", "", "The abort was not sent: Northflank has failed (500)."),
    ],
)
def test_the_sentences(state: str, outcome: str, sentence: str) -> None:
    assert (
        abort_story.of(abort(state, outcome, settled=True, answered=True, sent=True)).sentence
        == sentence
    )


def test_an_end_without_an_answer_says_that_none_came() -> None:
    told = abort_story.of(abort("concluded", "success", settled=True, answered=False, sent=True))
    assert told.sentence.endswith("No answer to the abort had come back.")
