"""What has to hold of every abort, whatever became of it: the judge of the tests of durability."""

from collections.abc import Sequence

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts.permissions import Verdict
from dashboard.models import Abort, AbortEvent
from dashboard.models.aborts import AbortState, What
from dashboard.web.components import run_row

# The state that a line of the trail leaves the act in; lines that are not here leave it as it was.
LEAVES = {
    What.REQUESTED: AbortState.REQUESTED,
    What.SENT: AbortState.REQUESTED,
    What.ACCEPTED: AbortState.ACCEPTED,
    What.ABORTING: AbortState.ACCEPTED,
    What.REFUSED: AbortState.REFUSED,
    What.NOT_SENT: AbortState.NOT_SENT,
    What.UNKNOWN: AbortState.UNKNOWN,
    What.NOT_ARRIVED: AbortState.UNKNOWN,
    What.TOO_LATE: AbortState.TOO_LATE,
    What.CONCLUDED: AbortState.CONCLUDED,
    What.TRIED_AGAIN: AbortState.TRIED_AGAIN,
}
OPEN = {AbortState.REQUESTED, AbortState.ACCEPTED}
SETTLED = set(AbortState) - OPEN - {AbortState.UNKNOWN}


def holds(
    act: Abort, events: Sequence[AbortEvent], *, status: str, posts: int, gone: bool = False
) -> None:
    """Fail unless what is said of an act is true.

    `status` is what Northflank says of its run now (or said last, where it is gone), and `posts`
    how many requests to abort that run have reached it.
    """
    told = abort_messages.of(act, act.run)
    assert told.tone
    assert told.sentence.endswith("."), told
    assert "None" not in told.sentence
    assert "  " not in told.sentence
    if told.sentence.startswith("Aborted after"):
        assert (act.outcome, status) == ("aborted", "aborted")
    if "not to have arrived" in told.sentence:
        assert status not in {"aborting", "aborted"}, told.sentence
    if "the run had ended as" in told.sentence or "the run ended as" in told.sentence:
        assert act.outcome == status, told.sentence
    if "knows the run no more" in told.sentence:
        assert gone, told.sentence

    row = run_row.row(act.run, Verdict(True), act)
    assert row.abort is not None
    if row.abort.by:
        assert row.abort.story.sentence == told.sentence  # the row says what the run's page says
    else:
        assert act.settled_at is not None, "an act under way is ours"
        assert "Northflank says aborting" not in told.sentence
    if row.again and act.settled_at is None:
        assert act.waits, "what was never sent cannot be tried again"

    state = AbortState(act.state)
    assert state not in OPEN or act.settled_at is None
    assert state not in SETTLED or act.settled_at is not None
    whats = [What(event.what) for event in events]
    assert whats[0] is What.REQUESTED
    assert [LEAVES[what] for what in whats if what in LEAVES][-1] is state, whats
    if state is AbortState.ACCEPTED:
        assert act.answer_status == 200 or What.ABORTING in whats
    if not posts:
        assert act.answer_status is None or act.answer_status == 429
    if act.sent_at is None:
        assert What.SENT not in whats
        assert act.answered_at is None
    for line in abort_timeline.lines(act, events):
        assert line.text.endswith((".", "!", "?", "…")), line
        assert "None" not in line.text
