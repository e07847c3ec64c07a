"""A process is paused for longer than its leases, and goes on: no abort is sent twice."""

import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.utils import timezone
from pytest_django import DjangoDbBlocker

from dashboard.aborts.request import SEND_LEASE
from dashboard.models import Abort, Lead
from dashboard.models.abort_lifecycle import EventType
from tests.support import processes
from tests.support.crashes import KILL_SIGNAL, KILL_STEP
from tests.support.databases import PROCESS_DATABASE, empty_database, postgres
from tests.support.live_runs import wait_until
from tests.support.outage_site import (
    INTERVAL,
    Answers,
    make_due,
    outage_site,
    submit_abort,
)

pytestmark = pytest.mark.process

MINUTE = timedelta(minutes=1)


def is_stopped(pid: int) -> bool:
    """Return whether a process has been stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def has_passed(duration: timedelta, since: datetime) -> bool:
    return timezone.now() - since > duration


@pytest.mark.slow
@pytest.mark.parametrize(
    "pause",
    [
        pytest.param(SEND_LEASE + timedelta(seconds=1), id="longer than a lease"),
        pytest.param(MINUTE, id="minute", marks=pytest.mark.exhaustive),
    ],
)
@pytest.mark.parametrize(
    "vendor",
    [
        pytest.param("sqlite", marks=pytest.mark.exhaustive),
        pytest.param("postgresql", marks=pytest.mark.postgres),
    ],
)
def test_abort_of_paused_process_is_sent_once(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker, vendor: str, pause: timedelta
) -> None:
    has_others = vendor == "postgresql"
    with (
        django_db_blocker.unblock(),
        empty_database(vendor, tmp_path) as url,
        outage_site(tmp_path, url, count=1 if has_others else 0) as site,
        ThreadPoolExecutor(1) as executor,
        # It stops when it has recorded its first abort as sent, and before it sends it.
        site.process(
            "tests.support.crashes", **{KILL_STEP: "commit 1", KILL_SIGNAL: "SIGSTOP"}
        ) as client,
    ):
        process, (run, other_run) = site.processes[-1], site.start_runs(2)
        answers = Answers()
        answer = executor.submit(submit_abort, client, run.id)
        wait_until(lambda: is_stopped(process.process.pid), processes.WAIT_TIMEOUT)
        stopped_at = timezone.now()
        if has_others:
            answers.aborts[other_run.id] = submit_abort(site.clients[0], other_run.id)
            wait_until(lambda: is_aborted(run.id), 2 * processes.WAIT_TIMEOUT, INTERVAL)
            assert site.sandbox.abort_request_counts[run.id] == 1
        wait_until(lambda: has_passed(pause, stopped_at), 3 * processes.WAIT_TIMEOUT, INTERVAL)
        process.process.send_signal(signal.SIGCONT)
        answers.aborts[run.id] = answer.result(processes.WAIT_TIMEOUT)
        if not has_others:
            answers.aborts[other_run.id] = submit_abort(client, other_run.id)
        assert set(answers.aborts.values()) == {"aborted"}
        site.assert_aborts_are_whole(answers)
        resumed_at = timezone.now()
        leads = Lead.objects.using(PROCESS_DATABASE).filter(renewed_at__gt=resumed_at)
        wait_until(leads.exists, processes.WAIT_TIMEOUT, INTERVAL)
        assert client.get("/").status_code == 200
        assert "Traceback" not in process.log.read_text()


def is_aborted(run_id: str) -> bool:
    make_due(run_id)
    abort = Abort.objects.using(PROCESS_DATABASE).get(run__run_id=run_id)
    adopted = abort.events.filter(event_type=EventType.ADOPTED)
    return abort.outcome == "aborted" and adopted.exists()


@pytest.mark.slow
@pytest.mark.postgres
def test_process_paused_in_a_transaction_does_not_block_others(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    with (
        django_db_blocker.unblock(),
        postgres() as url,
        outage_site(tmp_path, url, count=1) as site,
        ThreadPoolExecutor(1) as executor,
        # It stops while it records an abort, and holds locks that all writes of runs need.
        site.process(
            "tests.support.crashes", **{KILL_STEP: "step 2", KILL_SIGNAL: "SIGSTOP"}
        ) as client,
    ):
        process, (run, other_run) = site.processes[-1], site.start_runs(2)
        answers = Answers()
        answer = executor.submit(submit_abort, client, run.id)
        wait_until(lambda: is_stopped(process.process.pid), processes.WAIT_TIMEOUT)
        answers.aborts[other_run.id] = submit_abort(site.clients[0], other_run.id)
        assert answers.aborts[other_run.id] == "aborted"
        process.process.send_signal(signal.SIGCONT)
        answers.aborts[run.id] = answer.result(processes.WAIT_TIMEOUT)
        site.assert_aborts_are_whole(answers)
        assert "Traceback" not in process.log.read_text()
