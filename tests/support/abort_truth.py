"""Invariants of every abort, whatever its outcome, for the durability tests."""

from collections.abc import Sequence

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts.permissions import Permission
from dashboard.models import Abort, AbortEvent
from dashboard.models.aborts import AbortState, EventType
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
    EventType.RETRIED: AbortState.RETRIED,
}
OPEN = {AbortState.REQUESTED, AbortState.ACCEPTED}
SETTLED = set(AbortState) - OPEN - {AbortState.UNKNOWN}


def assert_abort_is_consistent(
    act: Abort, events: Sequence[AbortEvent], *, status: str, posts: int, gone: bool = False
) -> None:
    """Fail unless an abort's row, events and messages are consistent with each other.

    `status` is the run's status on Northflank now, or its last one if `gone`; `posts` is the number
    of abort requests for the run that Northflank received.
    """
    told = abort_messages.describe(act, act.run)
    assert told.tone
    assert told.plain_text.endswith("."), told
    assert "None" not in told.plain_text
    assert "  " not in told.plain_text
    if told.plain_text.startswith("Aborted after"):
        assert (act.outcome, status) == ("aborted", "aborted")
    if "probably lost" in told.plain_text:
        assert status not in {"aborting", "aborted"}, told.plain_text
    if "the run had finished" in told.plain_text or "the run finished" in told.plain_text:
        assert act.outcome == status, told.plain_text
    if "Northflank removed the run" in told.plain_text:
        assert gone, told.plain_text

    row = run_row.build_row(act.run, Permission(True), act)
    assert row.abort is not None
    if row.abort.requested_by:
        assert (
            row.abort.message.plain_text == told.plain_text
        )  # the row shows the same text as the run's page
    else:
        assert act.settled_at is not None, "an act under way is ours"
        assert "run status is still aborting" not in told.plain_text
    if row.can_resend and act.settled_at is None:
        assert act.is_awaiting_northflank, "what was never sent cannot be tried again"

    state = AbortState(act.state)
    assert state not in OPEN or act.settled_at is None
    assert state not in SETTLED or act.settled_at is not None
    whats = [EventType(event.event_type) for event in events]
    assert whats[0] is EventType.REQUESTED
    assert [STATE_AFTER[what] for what in whats if what in STATE_AFTER][-1] is state, whats
    if state is AbortState.ACCEPTED:
        assert act.answer_status == 200 or EventType.ABORTING in whats
    if not posts:
        assert act.answer_status is None or act.answer_status == 429
    if act.sent_at is None:
        assert EventType.SENT not in whats
        assert act.answered_at is None
    for line in abort_timeline.entries(act, events):
        assert line.text.endswith((".", "!", "?", "…")), line
        assert "None" not in line.text
