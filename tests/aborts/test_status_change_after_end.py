"""A run's status that changes after its abort settled replaces the earlier message."""

from dataclasses import replace

from django.contrib.auth.models import User

from dashboard import aborts
from dashboard.aborts import AbortRequest
from dashboard.db.threads import now
from dashboard.models import Abort, Run
from dashboard.models.aborts import EventType
from dashboard.sandbox import parse_fault
from dashboard.sync import mirror
from tests.support import abort_truth as truth
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    advance_time,
    impatient,
    in_flight,
    long_ago,
    read,
    story,
    vanish,
)


def aborted(live: Live, user: User) -> tuple[Run, Abort]:
    """A run in flight, and the act that an abort of it has become."""
    run = in_flight(live)
    result = aborts.request_abort(run, AbortRequest(user))
    live.run(lambda: aborts.wait_for_answer(result))
    return run, Abort.objects.get()


def mirror_status(live: Live, run: Run, status: str, *, concluded: bool) -> None:
    """Mirror the run as if Northflank said so of it."""
    detail = live.run(lambda: live.connection.client.get_run(*LEDGER, run.run_id))
    changed_detail = replace(detail, run=replace(detail.run, status=status, concluded=concluded))
    mirror.apply_detail(run.stage_id, changed_detail, requested_at=now())


def status_changes_after_end(abort: Abort) -> list[str]:
    """What the trail says that the run became; and all of it has to be true."""
    act = Abort.objects.select_related("run").get(pk=abort.pk)
    gone = act.run.removed_at is not None
    events = list(act.events.all())
    truth.assert_abort_is_consistent(act, events, status=act.run.status, posts=1, gone=gone)
    return [
        event.detail for event in events if event.event_type == EventType.STATUS_CHANGED_AFTER_END
    ]


def test_restored_run_after_removal_shows_new_status(live: Live, manager: User) -> None:
    run, abort = aborted(live, manager)
    vanish(live, run.run_id)
    read(live, run)
    assert "Northflank removed the run" in story()
    live.sandbox.faults = []
    read(live, run)
    assert status_changes_after_end(abort) == ["aborting"]
    assert story() == ("Northflank had removed the run, but now reports aborting. Check the run.")


def test_run_in_flight_again_after_abort_can_be_aborted_again(live: Live, manager: User) -> None:
    run, abort = aborted(live, manager)
    mirror_status(live, run, "aborted", concluded=True)
    mirror_status(live, run, "running", concluded=False)
    assert status_changes_after_end(abort) == ["running"]
    assert aborts.request_abort(Run.objects.with_stage().get(), AbortRequest(manager)).is_new


def test_outcome_that_changes_and_changes_back_adds_two_events(live: Live, manager: User) -> None:
    run, abort = aborted(live, manager)
    for status in ("aborted", "success", "aborted"):
        mirror_status(live, run, status, concluded=True)
    assert status_changes_after_end(abort) == ["success", "aborted"]
    assert story().startswith("Aborted after")


def test_too_late_abort_of_run_in_flight_again_shows_new_status(live: Live, manager: User) -> None:
    run = in_flight(live)
    advance_time(live, 3600)
    result = aborts.request_abort(run, AbortRequest(manager))
    live.run(lambda: aborts.wait_for_answer(result))
    abort = Abort.objects.get()
    assert (abort.state, status_changes_after_end(abort)) == ("too_late", [])
    mirror_status(live, run, "running", concluded=False)
    assert status_changes_after_end(abort) == ["running"]
    assert "to running after the abort" in story()


def test_not_arrived_abort_of_run_aborting_later_shows_new_status(
    live: Live, manager: User
) -> None:
    impatient(live)
    live.sandbox.faults = [parse_fault("abort-lost:5")]
    run, abort = aborted(live, manager)
    Abort.objects.update(send_count=5)
    long_ago(abort, sent_at=70)
    read(live, run)
    assert "probably lost" in story()
    mirror_status(live, run, "aborting", concluded=False)
    assert status_changes_after_end(abort) == ["aborting"]
    assert story().endswith("considered lost, but the run is now aborting.")
