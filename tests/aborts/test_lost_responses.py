"""Aborts without a response: the message is correct at once and after the outcome is determined."""

from django.contrib.auth.models import User

from dashboard.models import Abort
from dashboard.sandbox import parse_fault
from tests.support.live import Live
from tests.support.live_runs import (
    abort_message,
    advance_time,
    backdate_abort,
    create_run_in_flight,
    notice_text,
    read,
    shorten_upstream_timeout,
    submit_abort,
)


def test_timed_out_abort_that_arrived_is_accepted(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    shorten_upstream_timeout(live)
    live.sandbox.faults = [parse_fault("reset-after:5@abort-")]
    message = notice_text(submit_abort(live.sign_in("manager"), run))
    abort = Abort.objects.get()
    assert abort.state == "accepted"
    assert abort.responded_at is None
    assert message.startswith("Abort accepted; aborting since ")
    advance_time(live, 10)
    read(live, run)
    assert Abort.objects.get().outcome == "aborted"
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_timed_out_abort_that_was_lost_is_checked_then_reported_as_not_arrived(
    live: Live, manager: User
) -> None:
    run = create_run_in_flight(live)
    shorten_upstream_timeout(live)
    live.sandbox.faults = [parse_fault("reset:5@abort-")]
    client = live.sign_in("manager")
    message = notice_text(submit_abort(client, run))
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert message == (
        "The abort is not confirmed yet. Northflank did not respond within 0.4 seconds. "
        "The dashboard resends it for 2 min (1 of 5 sent); you need not do anything."
    )
    assert "The dashboard resends it" in notice_text(submit_abort(client, run))
    Abort.objects.update(send_count=5)
    backdate_abort(abort, requested_at=70, claimed_at=70, sent_at=70)
    read(live, run)
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("unknown", "")
    assert abort.settled_at is not None
    assert "never confirmed" in abort_message()
    assert live.sandbox.abort_request_counts[run.run_id] == 1
    live.sandbox.faults = []
    assert "accepted" in notice_text(submit_abort(client, run))
    assert live.sandbox.abort_request_counts[run.run_id] == 2
