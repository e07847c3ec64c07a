"""Aborts that take long: severity, log and timeline by their age."""

from datetime import datetime, timedelta

import time_machine
from django.contrib.auth.models import User

from dashboard.db import threads as db_threads
from dashboard.models import Run
from tests.support import factories
from tests.support.abort_answers import FakeNorthflank, Logs, log_line

WARN_AFTER, CRITICAL_AFTER = timedelta(seconds=180), timedelta(seconds=600)


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
    assert reconcile_at(since + WARN_AFTER) == [log_line("overdue", "warning", severity="warning")]


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
