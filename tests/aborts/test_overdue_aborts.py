"""Aborts that take long: severity, log and timeline by their age."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from structlog.testing import capture_logs

from dashboard.aborts import reconcile, resend_policy
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from tests.support import factories
from tests.support.abort_answers import (
    FakeNorthflank,
    Logs,
    claim_first,
    error_response,
    log_line,
    place_fields,
)

WARN_AFTER, CRITICAL_AFTER = timedelta(seconds=180), timedelta(seconds=600)
RESENDS_END = resend_policy.RESEND_WINDOW + timedelta(seconds=1)  # after the first send


def reconcile_at(at: datetime) -> Logs:
    """Reconcile open aborts at a given time."""
    with time_machine.travel(at, tick=False):
        return FakeNorthflank().reconcile()


def severities() -> dict[str, int]:
    return dict(Run.objects.values_list("run_id", "abort_severity"))


def test_overdue_abort_is_reported_once_per_severity(run: Run, manager: User) -> None:
    since = factories.abort(run, manager).requested_at
    reports = []
    for elapsed in (
        WARN_AFTER - timedelta(seconds=1),
        WARN_AFTER,
        WARN_AFTER,
        CRITICAL_AFTER,
        CRITICAL_AFTER,
    ):
        before = Run.objects.get().version
        logs = reconcile_at(since + elapsed)
        changed = Run.objects.get().version != before
        reports.append((severities()["r1"], changed, [line["severity"] for line in logs]))
    assert reports == [
        (0, False, []),
        (1, True, ["warning"]),
        (1, False, []),
        (2, True, ["critical"]),
        (2, False, []),
    ]


def test_overdue_abort_is_logged(run: Run, manager: User) -> None:
    since = factories.abort(run, manager).requested_at
    expected = log_line("overdue", "warning", severity="warning") | place_fields(run)
    assert reconcile_at(since + WARN_AFTER) == [expected]


def test_abort_severity_depends_on_each_runs_abort_start(run: Run, manager: User) -> None:
    since = db_threads.now()
    others = {
        "ours, and aborting": {"status": "aborting", "status_since": since - CRITICAL_AFTER},
        "anothers": {"status": "aborting", "status_since": since - CRITICAL_AFTER},
        "anothers, amber": {"status": "aborting", "status_since": since - WARN_AFTER},
        "anothers, just begun": {"status": "aborting", "status_since": since},
        "not aborted": {"status_since": since - CRITICAL_AFTER},
        "over": {"status": "success", "abort_severity": 1},
        "aborted no more": {"abort_severity": 2},
        "ours, and told before": {"abort_severity": 2},
        "anothers, and told before": {
            "status": "aborting",
            "status_since": since,
            "abort_severity": 1,
        },
        "over, and open": {"status": "success"},
        "aborting after a refusal": {"status": "aborting", "status_since": since - CRITICAL_AFTER},
    }
    runs = {name: factories.run(run.stage, name, **fields) for name, fields in others.items()}
    factories.abort(run, manager, requested_at=since - CRITICAL_AFTER)
    for name in ("ours, and aborting", "ours, and told before"):
        factories.abort(runs[name], manager, requested_at=since)
    factories.abort(
        runs["over, and open"], manager, "requested", requested_at=since - CRITICAL_AFTER
    )
    settled = {"settled_at": since, "requested_at": since - CRITICAL_AFTER}
    factories.abort(runs["aborting after a refusal"], manager, "refused", **settled)
    factories.abort(runs["not aborted"], manager, "refused", **settled)
    versions = dict(Run.objects.values_list("run_id", "version"))
    reconcile_at(since)
    assert severities() == {
        "r1": 2,
        "ours, and aborting": 2,
        "anothers": 2,
        "anothers, amber": 1,
        "anothers, just begun": 0,
        "not aborted": 0,
        "over": 1,
        "aborted no more": 0,
        "ours, and told before": 0,
        "anothers, and told before": 0,
        "over, and open": 0,
        "aborting after a refusal": 2,
    }
    changed_run_ids = {
        run.run_id for run in Run.objects.all() if run.version != versions[run.run_id]
    }
    assert changed_run_ids == {
        "r1",
        "ours, and aborting",
        "anothers",
        "anothers, amber",
        "aborted no more",
        "ours, and told before",
        "anothers, and told before",
        "aborting after a refusal",
    }


def test_severity_falls_when_an_unconfirmed_abort_takes_effect(run: Run, manager: User) -> None:
    since = db_threads.now()
    factories.abort(
        run, manager, "unknown", requested_at=since, sent_at=since, responded_at=None, send_count=1
    )
    at = since + RESENDS_END
    Run.objects.update(synced_at=since)
    with time_machine.travel(at, tick=False):
        FakeNorthflank(reading=error_response(503)).reconcile()
    assert severities() == {"r1": 2}  # not resent any more
    Run.objects.update(status="aborting", status_since=at, aborting_since=since)
    before = Run.objects.get().version
    logs = reconcile_at(since + WARN_AFTER)
    assert severities() == {"r1": 1}
    assert Run.objects.get().version == before + 1 + 1  # the abort is accepted: it has arrived
    assert "abort.overdue" not in [line["event"] for line in logs]


def test_severity_falls_beside_one_that_stays_for_a_clock_that_is_behind(
    run: Run, manager: User
) -> None:
    reached_at = factories.abort(run, manager).requested_at + WARN_AFTER
    factories.run(run.stage, "aborted no more", abort_severity=1)
    Run.objects.filter(pk=run.pk).update(abort_severity=1)
    reconcile.update_severities(reached_at - timedelta(seconds=1))
    assert severities() == {"r1": 1, "aborted no more": 0}


@pytest.mark.parametrize("change", [{"abort_severity": 2}, {"in_flight": False}], ids=str)
def test_severity_that_changes_while_it_is_being_lowered_stays(
    run: Run, change: dict[str, Any]
) -> None:
    factories.run(run.stage, "aborted no more")
    Run.objects.update(abort_severity=1)
    this_run = Run.objects.filter(pk=run.pk)
    with connection.execute_wrapper(claim_first(lambda: this_run.update(**change))):
        reconcile.update_severities(db_threads.now())
    assert severities() == {"r1": change.get("abort_severity", 1), "aborted no more": 0}


@pytest.mark.parametrize("change", [{"abort_severity": 1}, {"in_flight": False}], ids=str)
def test_run_that_changes_while_its_severity_is_raised_is_not_reported_and_others_are(
    run: Run, manager: User, change: dict[str, Any]
) -> None:
    now = db_threads.now()
    for overdue in (run, factories.run(run.stage, "other")):
        factories.abort(overdue, manager, requested_at=now - WARN_AFTER)
    this_run = Run.objects.filter(pk=run.pk)
    with (
        connection.execute_wrapper(claim_first(lambda: this_run.update(**change))),
        capture_logs() as logs,
    ):
        reconcile.update_severities(now)
    assert [(line["event"], line["run"]) for line in logs] == [("abort.overdue", "other")]
    assert severities() == {"r1": change.get("abort_severity", 0), "other": 1}


def test_removed_run_with_an_open_abort_is_not_overdue(run: Run, manager: User) -> None:
    now = db_threads.now()
    factories.abort(run, manager, requested_at=now - CRITICAL_AFTER)
    Run.objects.update(removed_at=now)
    reconcile.update_severities(now)
    assert severities() == {"r1": 0}


def test_aborting_run_is_not_critical_after_an_unconfirmed_abort(run: Run, manager: User) -> None:
    since = db_threads.now()
    factories.abort(
        run, manager, "unknown", requested_at=since, sent_at=since, responded_at=None, send_count=1
    )
    Run.objects.update(status="aborting", status_since=since)
    reconcile.update_severities(since + RESENDS_END)
    assert severities() == {"r1": 0}


@pytest.mark.parametrize("failure", [429, 409], ids=["not sent", "refused"])
@pytest.mark.parametrize("elapsed", [CRITICAL_AFTER, RESENDS_END], ids=["accepted", "unconfirmed"])
def test_run_stays_critical_after_a_second_abort_that_failed(
    run: Run, manager: User, elapsed: timedelta, failure: int
) -> None:
    since = db_threads.now()
    state = "accepted" if elapsed == CRITICAL_AFTER else "unknown"
    first = factories.abort(run, manager, state, requested_at=since, sent_at=since, send_count=1)
    Run.objects.update(synced_at=since)
    at = since + elapsed
    with time_machine.travel(at, tick=False):
        FakeNorthflank(reading=error_response(503)).reconcile()
        assert severities() == {"r1": 2}
        second = request_abort(run, AbortRequest(manager), again_of_pk=first.pk).abort
        FakeNorthflank(abort=error_response(failure)).send(second)
        assert Abort.objects.get(pk=second.pk).settled_at == at
        reconcile_at(at)
        assert severities() == {"r1": 2}
        critical_run = Run.objects.with_stage().get()
        another = request_abort(critical_run, AbortRequest(manager)).abort
        assert another.already_aborting_since == since
        FakeNorthflank().send(another)
    reconcile_at(at)
    assert severities() == {"r1": 2 if state == "accepted" else 0}  # by the clock since the first


@pytest.mark.parametrize("failure", [429, 409], ids=["not sent", "refused"])
def test_run_stays_critical_after_an_abort_not_arrived_and_one_that_failed(
    run: Run, manager: User, failure: int
) -> None:
    factories.abort(run, manager, "unknown", settled_at=db_threads.now())
    reconcile_at(db_threads.now())
    another = request_abort(run, AbortRequest(manager)).abort
    assert severities() == {"r1": 0}
    FakeNorthflank(abort=error_response(failure)).send(another)
    assert reconcile.is_work_pending()
    reconcile_at(db_threads.now())
    assert severities() == {"r1": 2}


def test_run_that_goes_on_after_a_second_abort_is_not_critical(run: Run, manager: User) -> None:
    now = db_threads.now()
    factories.abort(run, manager, "aborted_again", settled_at=now)
    factories.abort(run, manager, "concluded", settled_at=now, outcome="aborted")
    assert not reconcile.is_work_pending()
    reconcile.update_severities(now)
    assert severities() == {"r1": 0}


@pytest.mark.parametrize("states", [["aborted_again", "refused"], ["unknown"]], ids=str)
def test_removed_run_is_not_critical_after_an_abort_not_arrived(
    run: Run, manager: User, states: list[str]
) -> None:
    now = db_threads.now()
    for state in states:
        factories.abort(run, manager, state, settled_at=now)
    Run.objects.update(removed_at=now)
    assert not reconcile.is_work_pending()
    reconcile.update_severities(now)
    assert severities() == {"r1": 0}
