"""Aborts without a response: the message is correct at once and after the outcome is determined."""

import socket

import pytest
from django.contrib.auth.models import User

from dashboard.models import Abort
from dashboard.northflank import NorthflankClient
from dashboard.sandbox import parse_fault
from tests.support.live import Live
from tests.support.live_runs import (
    abort_message,
    advance_time,
    backdate_abort,
    create_run_in_flight,
    notice_text,
    read,
    reconcile,
    replace_client,
    restart_resend_delay,
    shorten_upstream_timeout,
    submit_abort,
)


def test_timed_out_abort_that_arrived_is_accepted(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    shorten_upstream_timeout(live)
    live.sandbox.faults = [parse_fault("abort-timeout:5")]
    message = notice_text(submit_abort(live.sign_in("manager"), run))
    abort = Abort.objects.get()
    assert abort.state == "accepted"
    assert abort.answered_at is None
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
    live.sandbox.faults = [parse_fault("abort-lost:5")]
    client = live.sign_in("manager")
    message = notice_text(submit_abort(client, run))
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert message == (
        "The abort may not have arrived. Northflank did not respond within 0.4 seconds. "
        "It is resent if the run continues, for up to 2 min after the first send "
        "(sent 1 of at most 5 times)."
    )
    assert "is resent if" in notice_text(submit_abort(client, run))
    Abort.objects.update(send_count=5)
    backdate_abort(abort, requested_at=70, claimed_at=70, sent_at=70)
    read(live, run)
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("unknown", "")
    assert abort.settled_at is not None
    assert "probably lost" in abort_message()
    assert live.sandbox.abort_request_counts[run.run_id] == 1
    live.sandbox.faults = []
    assert "accepted" in notice_text(submit_abort(client, run))
    assert live.sandbox.abort_request_counts[run.run_id] == 2


@pytest.mark.parametrize(
    "fault", ["reset@/abort", "500@/abort", "503@/abort", "502-html@/abort", "error-string@/abort"]
)
def test_ambiguous_failure_leaves_abort_unknown_and_open(
    live: Live, manager: User, fault: str
) -> None:
    run = create_run_in_flight(live)
    live.sandbox.faults = [parse_fault(fault)]
    message = notice_text(submit_abort(live.sign_in("manager"), run))
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert message.startswith("The abort may not have arrived. ")
    assert "<" not in message
    restart_resend_delay(abort)
    reconcile(live)
    assert Abort.objects.get().settled_at is None
    assert live.sandbox.abort_request_counts[run.run_id] == 1


def test_refused_connection_marks_abort_not_sent(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound and not listening: refused
        refusing_url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        replace_client(live, NorthflankClient("sandbox", base_url=refusing_url))
        message = notice_text(submit_abort(live.sign_in("manager"), run))
    abort = Abort.objects.get()
    assert (abort.state, abort.retry_at) == ("not_sent", None)
    assert abort.settled_at is not None
    assert message == "Not sent: Northflank is unreachable."
    assert live.sandbox.abort_request_counts[run.run_id] == 0
