"""Overdue aborts: reported in time and once; aborting again has no side effects."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.db import connection

from dashboard.aborts import severity as abort_severity
from dashboard.aborts.abort_rules import can_abort_again
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.aborts.send import wait_for_response
from dashboard.db.threads import now
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.severity import Severity
from dashboard.sandbox import parse_fault
from tests.support import factories
from tests.support.live import Live
from tests.support.live_runs import (
    backdate_abort,
    create_run_in_flight,
    reconcile,
)

WARNING_SECONDS, CRITICAL_SECONDS = 3 * 60, 10 * 60


@pytest.mark.parametrize(
    ("seconds", "level"),
    [
        (-5, Severity.OK),
        (0, Severity.OK),
        (WARNING_SECONDS - 1, Severity.OK),
        (WARNING_SECONDS, Severity.WARNING),
        (CRITICAL_SECONDS - 1, Severity.WARNING),
        (CRITICAL_SECONDS, Severity.CRITICAL),
        (30 * 24 * 3600, Severity.CRITICAL),
    ],
)
def test_abort_severity_is_warning_after_3_min_and_critical_after_10(
    seconds: int, level: Severity
) -> None:
    assert abort_severity.classify(now() - timedelta(seconds=seconds), now()) is level


def aborting_run(live: Live, manager: User) -> tuple[Run, Abort]:
    """A run whose abort was accepted, and does not end."""
    live.sandbox.choices["abort-seconds"] = "10000"
    run = create_run_in_flight(live)
    result = request_abort(run, AbortRequest(manager))
    live.run(lambda: wait_for_response(result))
    return run, Abort.objects.get()


def backdate(abort: Abort, seconds: float) -> None:
    """Set an abort's request, send and answer to `seconds` ago."""
    abort.refresh_from_db()
    interval = seconds - (now() - abort.requested_at).total_seconds()
    backdate_abort(
        abort, requested_at=interval, claimed_at=interval, sent_at=interval, responded_at=interval
    )


def reconcile_run(live: Live, run: Run) -> tuple[int, bool]:
    """Reconcile aborts; return the run's severity, and whether it got a new version."""
    before = Run.objects.get(pk=run.pk).version
    reconcile(live)
    after = Run.objects.get(pk=run.pk)
    return after.abort_severity, after.version != before


def test_run_that_resumes_after_an_abort_not_arrived_is_critical(live: Live, manager: User) -> None:
    run = create_run_in_flight(live)
    factories.abort(run, manager, state="unknown", settled_at=now())
    assert reconcile_run(live, run) == (2, True)
    # Aborted elsewhere, without effect.
    Run.objects.update(status="aborting", abort_severity=0, status_since=now())
    assert reconcile_run(live, run) == (0, False)
    Run.objects.update(status="running")
    assert reconcile_run(live, run) == (2, True)


def abort_again(live: Live, run: Run, user: User, abort: Abort) -> Abort:
    """Abort again, and return the resulting abort."""
    run = Run.objects.with_stage().get(pk=run.pk)
    result = request_abort(run, AbortRequest(user), again_of_pk=abort.pk)
    live.run(lambda: wait_for_response(result))
    return Abort.objects.get(pk=result.abort.pk)


def test_concurrent_second_aborts_send_one_abort(live: Live, manager: User) -> None:
    run, first = aborting_run(live, manager)
    backdate(first, CRITICAL_SECONDS + 1)
    colleague = User.objects.create_user("colleague")
    colleague.groups.set(manager.groups.all())
    live.sandbox.faults = [parse_fault("latency:0.5@/abort")]
    with ThreadPoolExecutor(2) as executor:

        def abort_again_and_close(user: User) -> Abort:
            try:
                return abort_again(live, run, user, first)
            finally:
                connection.close()

        aborts = list(executor.map(abort_again_and_close, (manager, colleague)))
    assert aborts[0] == aborts[1]
    assert Abort.objects.filter(run=run).count() == 2
    assert live.sandbox.abort_request_counts[run.run_id] == 2


@pytest.mark.parametrize("state", sorted({*AbortState} - {"accepted", "unknown"}))
def test_unsent_or_settled_abort_allows_no_other(state: str) -> None:
    settled_at = None if state == AbortState.REQUESTED else now()
    abort = Abort(state=state, requested_at=now() - timedelta(hours=1), settled_at=settled_at)
    assert not can_abort_again(abort, now())
