"""What a caller gets who waits for Northflank's answer to an abort, over a real HTTP server."""

from datetime import timedelta

from django.contrib.auth.models import User

from dashboard.aborts.request import RESPONSE_TIMEOUT, AbortRequest, AbortResult, request_abort
from dashboard.aborts.send import wait_for_response
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from tests.support.live import Live
from tests.support.live_runs import create_run_in_flight


def request_abort_marked_as_sent(live: Live, user: User) -> AbortResult:
    """Request an abort as a page does: it is sent by `wait_for_response`."""
    run = create_run_in_flight(live)
    return request_abort(run, AbortRequest(user, "Stuck"), mark_sent=True)


def test_each_later_caller_gets_the_abort_as_stored(live: Live, manager: User) -> None:
    result = request_abort_marked_as_sent(live, manager)
    assert live.run(lambda: wait_for_response(result)).state == "accepted"
    joined = AbortResult(result.abort, is_new=False)
    for outcome in ("aborted", "success"):
        Abort.objects.update(state="concluded", outcome=outcome)
        assert live.run(lambda: wait_for_response(joined)).outcome == outcome
    assert live.sandbox.abort_request_counts == {result.abort.run.run_id: 1}


def test_caller_gets_the_settled_state_of_an_abort_that_is_answered_late(
    live: Live, manager: User
) -> None:
    result = request_abort_marked_as_sent(live, manager)
    Abort.objects.update(state="unknown", settled_at=db_threads.now())
    assert live.run(lambda: wait_for_response(result)).state == "unknown"
    assert live.sandbox.abort_request_counts == {result.abort.run.run_id: 1}


def test_answer_changes_no_run_whose_end_was_read_after_the_abort_was_marked(
    live: Live, manager: User
) -> None:
    result = request_abort_marked_as_sent(live, manager)
    assert result.request_seq is not None
    ended = {"status": "aborted", "concluded": True, "in_flight": False}
    run = Run.objects.filter(pk=result.abort.run_id)
    run.update(request_seq=result.request_seq + 1, **ended)
    assert live.run(lambda: wait_for_response(result)).state == "concluded"
    assert run.values(*ended).get() == ended


def test_abort_marked_as_sent_too_long_ago_is_not_sent(live: Live, manager: User) -> None:
    result = request_abort_marked_as_sent(live, manager)
    db_threads.set_clock_offset(timedelta(seconds=RESPONSE_TIMEOUT))
    assert live.run(lambda: wait_for_response(result)).state == "unknown"
    assert live.sandbox.abort_request_counts == {}
