"""What is said of an abort: one true sentence for each state it can be in. Pure."""

from dataclasses import dataclass
from datetime import datetime

from django.utils import timezone

from dashboard import durations, statuses
from dashboard.models import Abort
from dashboard.models.aborts import AbortState


@dataclass(frozen=True, slots=True)
class Story:
    """How an abort stands, in a sentence and a tone."""

    sentence: str
    tone: str


def of(abort: Abort) -> Story:
    """Say how an abort stands; never more than Northflank has said."""
    match AbortState(abort.state):
        case AbortState.REQUESTED:
            return Story("Abort requested; waiting for Northflank’s answer.", "info")
        case AbortState.ACCEPTED:
            return Story(
                f"Northflank accepted the abort{_at(abort.answered_at)}. "
                "The run has not concluded yet.",
                "warning",
            )
        case AbortState.CONCLUDED:
            return _concluded(abort)
        case AbortState.NOT_SENT:
            until = (
                f" Northflank takes requests again{_at(abort.retry_at)}." if abort.retry_at else ""
            )
            return Story(f"The abort was not sent: {abort.answer}{until}", "bad")
        case AbortState.REFUSED:
            return Story(f"Northflank refused the abort: {abort.answer}", "bad")
        case AbortState.TOO_LATE:
            then = "arrived" if abort.sent_at else "could be sent"
            if not abort.outcome:
                return Story(f"Northflank knew the run no more when the abort {then}.", "info")
            return Story(
                f"The run had ended as {_word(abort.outcome)} before the abort {then}.", "info"
            )
        case AbortState.UNKNOWN if abort.settled_at is None:
            return Story(
                f"No answer to the abort: {abort.answer} Checking what became of the run.",
                "warning",
            )
        case AbortState.UNKNOWN:
            return Story(
                "No answer to the abort came back, and the run went on: "
                "it seems not to have arrived. You can try again.",
                "bad",
            )


def _concluded(abort: Abort) -> Story:
    took = (
        f" {durations.in_words(abort.settled_at - abort.requested_at)} later"
        if abort.settled_at
        else ""
    )
    if abort.outcome == "aborted":
        return Story(f"Aborted{took}.", "neutral")
    unheard = "" if abort.answered_at else " No answer to the abort had come back."
    if not abort.outcome:
        return Story(
            f"Northflank knows the run no more{took}; how it ended is unknown.{unheard}", "warning"
        )
    return Story(
        f"The run ended as {_word(abort.outcome)}{took}, in spite of the abort.{unheard}", "warning"
    )


def _word(status: str) -> str:
    return statuses.of_run(status).word.lower()


def _at(when: datetime | None) -> str:
    return f" at {timezone.localtime(when):%H:%M:%S}" if when else ""
