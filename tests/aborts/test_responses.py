"""Northflank's responses to an abort, and the messages for users."""

import pytest
from django.contrib.auth.models import User

from dashboard.models import Abort, RateBudget, Run, Stage
from dashboard.sandbox import parse_fault
from tests.support.live import Live
from tests.support.live_runs import (
    SEARCH,
    abort_message,
    advance_time,
    create_run_in_flight,
    notice_text,
    read,
    reconcile,
    submit_abort,
)


def test_abort_accepted_then_run_aborted_is_concluded(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    message = notice_text(submit_abort(live.sign_in("manager"), run, reason="  wrong\n build "))
    abort = Abort.objects.get()
    assert message == abort_message()
    assert message.startswith("Abort accepted; aborting since ")
    assert (abort.state, abort.username, abort.reason) == ("accepted", "manager", "wrong build")
    assert abort.client_address == "127.0.0.1"
    assert abort.response_status == 200
    assert abort.requested_at <= abort.sent_at <= abort.responded_at
    assert Run.objects.get().status == "aborting"
    advance_time(live, 10)
    assert read(live, run).status == "aborted"
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("concluded", "aborted")
    assert abort_message().startswith("Aborted after ")
    assert live.sandbox.abort_request_counts == {run.run_id: 1}


def test_run_of_unread_stage_can_be_aborted(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)  # as after a search for it
    Stage.objects.update(has_flow=None)
    assert "accepted" in notice_text(submit_abort(live.sign_in("manager"), run))
    assert read(live, run).status == "aborting"


def test_run_is_due_for_read_right_after_abort(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    submit_abort(live.sign_in("manager"), run)
    abort, row = Abort.objects.get(), Run.objects.get()
    assert row.next_detail_sync_at is not None
    assert (row.next_detail_sync_at - abort.responded_at).total_seconds() < 3


@pytest.mark.parametrize(
    ("chances", "outcome"), [((1 / 3, 2 / 3), "success"), ((2 / 3, 1), "failure")]
)
def test_run_that_ends_otherwise_after_abort_keeps_its_outcome(
    live: Live, manager: User, chances: tuple[float, float], outcome: str
) -> None:
    run = create_run_in_flight(
        live, SEARCH, condition=lambda chance: chances[0] < chance < chances[1]
    )
    advance_time(live, 60)  # it has started, so it can continue
    notice_text(submit_abort(live.sign_in("manager"), run))
    advance_time(live, 30)
    assert read(live, run).status == outcome
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome) == ("concluded", outcome)
    assert abort_message().startswith("Abort failed: the run ended (")
    assert "never responded" not in abort_message()


def test_new_abort_request_after_refusal_is_sent(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    live.sandbox.faults = [parse_fault("error-string:409*1@/abort")]
    submit_abort(client, run)
    assert "accepted" in notice_text(submit_abort(client, run))
    assert sorted(Abort.objects.values_list("state", flat=True)) == ["accepted", "refused"]


def test_abort_is_sent_when_rate_budget_is_at_reserve(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    RateBudget.objects.update(remaining=1, limit=1000)
    assert "accepted" in notice_text(submit_abort(live.sign_in("manager"), run))
    advance_time(live, 10)
    Run.objects.update(next_detail_sync_at=Abort.objects.get().responded_at)
    RateBudget.objects.update(remaining=60, limit=1000)  # below the reserve of 100
    live.run(live.worker.tick)
    live.run(live.worker.wait_idle)
    assert Abort.objects.get().outcome == "aborted"


def test_reconcile_with_only_settled_aborts_sends_no_requests(live: Live, manager: User) -> None:
    live.sandbox.choices["abort-answer"] = "aborted"
    run = create_run_in_flight(live)
    submit_abort(live.sign_in("manager"), run)
    request_count = len(live.sandbox.requests)
    reconcile(live)
    assert len(live.sandbox.requests) == request_count


def test_abort_answer_with_unchanged_run_stays_open(live: Live, manager: User) -> None:
    live.sandbox.choices["abort-answer"] = "unchanged"
    run = create_run_in_flight(live)
    message = notice_text(submit_abort(live.sign_in("manager"), run))
    assert "accepted" in message
    assert Abort.objects.get().state == "accepted"
    assert Run.objects.get().status not in {"aborting", "aborted"}
    assert read(live, run).status == "aborting"
    advance_time(live, 10)
    read(live, run)
    assert Abort.objects.get().outcome == "aborted"
