"""A run's status that changes after its abort settled replaces the earlier message."""

from dataclasses import replace

from django.contrib.auth.models import User

from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.aborts.send import wait_for_response
from dashboard.db.threads import now
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import EventType
from dashboard.sandbox import parse_fault
from dashboard.sync import mirror
from tests.support import abort_invariants
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    abort_message,
    backdate_abort,
    create_run_in_flight,
    read,
    shorten_upstream_timeout,
)


def run_with_abort(live: Live, user: User) -> tuple[Run, Abort]:
    """A run in flight, and its abort, sent and answered."""
    run = create_run_in_flight(live)
    result = request_abort(run, AbortRequest(user))
    live.run(lambda: wait_for_response(result))
    return run, Abort.objects.get()


def mirror_status(live: Live, run: Run, status: str, *, concluded: bool) -> None:
    """Mirror the run as if Northflank reported this status."""
    detail = live.run(lambda: live.connection.client.get_run(*LEDGER, run.run_id))
    changed_detail = replace(detail, run=replace(detail.run, status=status, concluded=concluded))
    mirror.apply_detail(run.stage_id, changed_detail, requested_at=now())


def status_changes_after_end(abort: Abort) -> list[str]:
    """Return the later statuses in the timeline; the abort must be consistent."""
    row = Abort.objects.select_related("run").get(pk=abort.pk)
    is_removed = row.run.removed_at is not None
    events = list(row.events.all())
    abort_invariants.assert_abort_is_consistent(
        row, events, status=row.run.status, request_count=1, is_removed=is_removed
    )
    return [
        event.detail for event in events if event.event_type == EventType.STATUS_CHANGED_AFTER_END
    ]


def test_run_in_flight_again_after_abort_can_be_aborted_again(live: Live, manager: User) -> None:
    run, abort = run_with_abort(live, manager)
    mirror_status(live, run, "aborted", concluded=True)
    mirror_status(live, run, "running", concluded=False)
    assert status_changes_after_end(abort) == ["running"]
    assert request_abort(Run.objects.with_stage().get(), AbortRequest(manager)).is_new


def test_not_arrived_abort_of_run_aborting_later_shows_new_status(
    live: Live, manager: User
) -> None:
    shorten_upstream_timeout(live)
    live.sandbox.faults = [parse_fault("reset:5@abort-")]
    run, abort = run_with_abort(live, manager)
    Abort.objects.update(send_count=5)
    backdate_abort(abort, sent_at=70)
    read(live, run)
    assert "never confirmed" in abort_message()
    mirror_status(live, run, "aborting", concluded=False)
    assert status_changes_after_end(abort) == ["aborting"]
    assert abort_message().endswith("never confirmed the abort, but the run is aborting.")
