"""A database outage of some seconds in a running process, and its end."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest
from pytest_django import DjangoDbBlocker

from dashboard.sandbox import parse_fault
from tests.support import processes
from tests.support.databases import postgres
from tests.support.live_runs import wait_until
from tests.support.outage_site import Answers, OutageSite, outage_site, submit_abort
from tests.support.processes import manage
from tests.support.tcp_relay import DatabaseProxy, database_proxy

pytestmark = [pytest.mark.process, pytest.mark.postgres]


@dataclass
class Site(OutageSite):
    """A process whose connections to PostgreSQL the test can cut."""

    url: str
    proxy: DatabaseProxy


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker
) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("away")
    with (
        django_db_blocker.unblock(),
        postgres() as database,
        database_proxy(database) as (url, proxy),
        outage_site(folder, database, process_url=url) as outage,
    ):
        yield Site(**vars(outage), url=url, proxy=proxy)


def request_pages(client: httpx.Client, seconds: float) -> None:
    """Request pages repeatedly for `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for address in ("/", "/board/", "/live/?page=now"):
            with contextlib.suppress(httpx.ReadTimeout):
                client.get(address, headers={"HX-Request": "true"})


@pytest.mark.slow
def test_abort_response_during_database_outage_is_saved_after_recovery(site: Site) -> None:
    [run], [client] = site.start_runs(1), site.clients
    # The other test may have cut the process off, too.
    wait_until(lambda: client.get("/readyz").status_code == 200, processes.WAIT_TIMEOUT)
    site.sandbox.faults = [parse_fault("latency:1@/abort")]
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(submit_abort, client, run.id)
        path = f"/runs/{run.id}/abort"
        wait_until(lambda: path in str(site.sandbox.requests), processes.WAIT_TIMEOUT)
        site.proxy.cut()
        try:
            wait_until(lambda: site.sandbox.abort_request_counts[run.id], processes.WAIT_TIMEOUT)
            request_pages(client, 2)
        finally:
            site.proxy.restore()
        answers = Answers(aborts={run.id: answer.result(processes.WAIT_TIMEOUT)})
    site.sandbox.faults = []
    assert answers.aborts == {run.id: "aborted"}
    site.assert_aborts_are_whole(answers)


def test_start_during_database_outage_is_refused_in_a_sentence(site: Site) -> None:
    site.proxy.cut()
    try:
        result = manage("serve", "--port", "0", DATABASE_URL=site.url)
    finally:
        site.proxy.restore()
    assert result.returncode == 1
    assert "CommandError: Database error: connection failed" in result.stderr
    assert "Traceback" not in result.stderr
