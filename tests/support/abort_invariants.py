"""Invariants of every abort, whatever its outcome, for the durability tests."""

from collections.abc import Sequence

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts.permissions import Permission
from dashboard.models import Abort, AbortEvent
from dashboard.models.abort_lifecycle import NO_EFFECT_STATES, AbortState, EventType
from dashboard.web.components.runs import run_row

# The abort's state after each type of event; other types leave it unchanged.
STATE_AFTER = {
    EventType.REQUESTED: AbortState.REQUESTED,
    EventType.SENT: AbortState.REQUESTED,
    EventType.ACCEPTED: AbortState.ACCEPTED,
    EventType.ABORTING: AbortState.ACCEPTED,
    EventType.REFUSED: AbortState.REFUSED,
    EventType.NOT_SENT: AbortState.NOT_SENT,
    EventType.UNKNOWN: AbortState.UNKNOWN,
    EventType.NOT_ARRIVED: AbortState.UNKNOWN,
    EventType.TOO_LATE: AbortState.TOO_LATE,
    EventType.CONCLUDED: AbortState.CONCLUDED,
    EventType.ABORTED_AGAIN: AbortState.ABORTED_AGAIN,
}
OPEN = {AbortState.REQUESTED, AbortState.ACCEPTED}
SETTLED = set(AbortState) - OPEN - {AbortState.UNKNOWN}


def assert_abort_is_consistent(
    abort: Abort,
    events: Sequence[AbortEvent],
    *,
    status: str,
    request_count: int,
    is_removed: bool = False,
) -> None:
    """Fail unless an abort's row, events and messages are consistent with each other.

    `status` is the run's status on Northflank, the last one if `is_removed`; `request_count` is how
    many abort requests for the run Northflank received.
    """
    message = abort_messages.describe(abort, abort.run)
    assert message.tone
    assert message.plain_text.endswith("."), message
    assert "None" not in message.plain_text
    assert "  " not in message.plain_text
    if message.plain_text.startswith("Aborted after"):
        assert (abort.outcome, status) == ("aborted", "aborted")
    if "never confirmed this abort" in message.plain_text:
        assert status not in {"aborting", "aborted"}, message.plain_text
    if "already ended" in message.plain_text or "the run ended" in message.plain_text:
        assert abort.outcome == status, message.plain_text
    if "removed from Northflank" in message.plain_text:
        assert is_removed, message.plain_text

    row = run_row.build_row(abort.run, Permission(True), abort)
    assert row.abort_line is not None
    if row.abort_line.abort:
        assert (
            row.abort_line.message.plain_text == message.plain_text
        )  # the row shows the same text as the run's page
    else:
        assert abort.settled_at is not None, "an abort under way belongs to this dashboard"
        assert "; the latest abort from this dashboard was not accepted." in (
            row.abort_line.message.plain_text
        ), "an abort before it may have aborted the run"
        assert abort.state in {*NO_EFFECT_STATES, AbortState.ABORTED_AGAIN}
        assert "status is still aborting" not in message.plain_text
    if row.is_abort_again_offered and abort.settled_at is None:
        assert abort.is_awaiting_northflank, "abort again only after one that was sent"

    state = AbortState(abort.state)
    assert state not in OPEN or abort.settled_at is None
    assert state not in SETTLED or abort.settled_at is not None
    types = [EventType(event.event_type) for event in events]
    assert types[0] is EventType.REQUESTED
    assert [STATE_AFTER[kind] for kind in types if kind in STATE_AFTER][-1] is state, types
    if state is AbortState.ACCEPTED:
        assert abort.response_status == 200 or EventType.ABORTING in types
    if not request_count:
        assert abort.response_status is None or abort.response_status == 429
    if abort.sent_at is None:
        assert EventType.SENT not in types
        assert abort.responded_at is None
    for line in abort_timeline.entries(abort, events):
        assert line.text.endswith((".", "!", "?", "…")), line
        assert "None" not in line.text
