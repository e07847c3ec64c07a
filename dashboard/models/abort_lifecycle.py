"""The states of an abort, and what each event does to it: one table for all who record events."""

from dataclasses import dataclass
from typing import Any

from django.db import models


class AbortState(models.TextChoices):
    REQUESTED = "requested"  # recorded, perhaps sent; no response yet
    ACCEPTED = "accepted"  # Northflank answered 2xx; the run has not concluded yet
    CONCLUDED = "concluded"  # the run has concluded after Northflank accepted
    NOT_SENT = "not_sent"  # it certainly did not reach Northflank
    REFUSED = "refused"  # Northflank rejected it
    # May not have arrived: it is resent or, once settled, counts as not arrived.
    UNKNOWN = "unknown"
    TOO_LATE = "too_late"  # the run had concluded before the abort arrived
    ABORTED_AGAIN = "aborted_again"  # the run went on, and a user requested it again


# In these, an abort certainly had no effect: those before it count as if it had not been requested.
NO_EFFECT_STATES = (AbortState.NOT_SENT, AbortState.REFUSED)

TRANSITIONS: dict[AbortState, frozenset[AbortState]] = {
    AbortState.REQUESTED: frozenset(AbortState) - {AbortState.REQUESTED, AbortState.ABORTED_AGAIN},
    AbortState.ACCEPTED: frozenset({AbortState.CONCLUDED, AbortState.ABORTED_AGAIN}),
    # It may not have arrived: resending it starts again at REQUESTED.
    AbortState.UNKNOWN: frozenset(AbortState),
}


class EventType(models.TextChoices):
    """What happened to an abort: the type of a timeline entry."""

    REQUESTED = "requested"  # detail: more about its origin
    JOINED = "joined"  # another user requested it too; detail: who, from where, why
    ADOPTED = "adopted"  # taken over after its process had ended
    SENT = "sent"  # about to be sent; detail: the number of this send, from the second on
    ACCEPTED = "accepted"  # detail: the run's status in the response
    ABORTING = "aborting"  # Northflank reports the run as aborting
    REFUSED = "refused"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"  # it may or may not have arrived; detail: the error
    NOT_ARRIVED = "not_arrived"  # the run continued; detail: why it is not resent
    TOO_LATE = "too_late"  # detail: the run's status
    CONCLUDED = "concluded"  # detail: the run's status
    ABORTED_AGAIN = "aborted_again"  # detail: by whom
    LATE_RESPONSE = "late_response"  # a response after the abort had settled; changes nothing
    # The run's status changed after the abort had settled; detail: the run's status.
    STATUS_CHANGED_AFTER_END = "status_changed"


@dataclass(frozen=True, slots=True)
class Effect:
    """What an event does to an abort."""

    to_state: AbortState
    settles: bool = True
    detail_field: str = ""  # the abort's field that stores the event's detail, too

    def fields(self, at: Any, detail: str) -> dict[str, Any]:
        """Return the fields that the abort gets by an event of the time `at`."""
        fields: dict[str, Any] = {"state": self.to_state}
        if self.settles:
            fields["settled_at"] = at
        if self.detail_field:
            fields[self.detail_field] = detail
        return fields


# Events of other types change no state.
EFFECTS = {
    EventType.ACCEPTED: Effect(AbortState.ACCEPTED, settles=False, detail_field="response"),
    EventType.ABORTING: Effect(AbortState.ACCEPTED, settles=False),
    EventType.UNKNOWN: Effect(AbortState.UNKNOWN, settles=False, detail_field="response"),
    EventType.NOT_ARRIVED: Effect(AbortState.UNKNOWN),
    EventType.NOT_SENT: Effect(AbortState.NOT_SENT, detail_field="response"),
    EventType.REFUSED: Effect(AbortState.REFUSED, detail_field="response"),
    EventType.TOO_LATE: Effect(AbortState.TOO_LATE, detail_field="outcome"),
    EventType.CONCLUDED: Effect(AbortState.CONCLUDED, detail_field="outcome"),
    EventType.ABORTED_AGAIN: Effect(AbortState.ABORTED_AGAIN),
}


def event_of_run(state: str, *, status: str, in_flight: bool) -> EventType | None:
    """Return what the status of its run does to an open abort; None: nothing."""
    if state == AbortState.REQUESTED:
        return None  # still being sent: the sender moves it on once Northflank has answered
    if not in_flight:
        return EventType.CONCLUDED
    is_confirmed = state == AbortState.UNKNOWN and status == "aborting"
    return EventType.ABORTING if is_confirmed else None
