"""A database outage of some seconds in a running process, and its end."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest
from selectolax.lexbor import LexborHTMLParser

from dashboard.sandbox import parse_fault
from dashboard.sandbox.sandbox import Sandbox
from tests.support import processes
from tests.support.databases import postgres
from tests.support.live import token
from tests.support.live_runs import wait_until
from tests.support.processes import RunningProcess, manage, run_manage, upstream
from tests.support.tcp_relay import DatabaseProxy, database_proxy

pytestmark = [pytest.mark.process, pytest.mark.postgres]


@dataclass
class Site:
    """A dashboard with its sync, whose connections to PostgreSQL the test can cut."""

    process: RunningProcess
    url: str
    proxy: DatabaseProxy
    sandbox: Sandbox
    client: httpx.Client

    def run(self) -> str:
        """Wait until a run that can be aborted is on the first page, and return its address."""

        def find_run() -> str:
            page = LexborHTMLParser(self.client.get("/").text)
            for row in page.css("[data-run]"):
                if row.css_first("[data-abort]") and row.attributes["data-status"] != "aborting":
                    return str(row.attributes["data-run"])
            return ""

        run_id = wait_until(find_run, processes.WAIT_TIMEOUT)
        return str(self.client.get(f"/runs/{run_id}/").headers["location"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("away")
    with (
        postgres() as database,
        database_proxy(database) as (url, proxy),
        upstream() as (upstream_url, sandbox),
    ):
        variables = {
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": upstream_url,
            "LOG_LEVEL": "INFO",
        }
        assert manage("migrate", "-v0", DATABASE_URL=database, **variables).returncode == 0
        result = manage(
            "createsuperuser", "--noinput", "--username=boss", "--email=",
            DJANGO_SUPERUSER_PASSWORD="boss", DATABASE_URL=database, **variables,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        with run_manage(folder, "serve", "--port", "0", DATABASE_URL=url, **variables) as process:
            yield Site(process, url, proxy, sandbox, process.sign_in("boss"))


def request_pages(site: Site, seconds: float) -> list[httpx.Response]:
    """Request pages repeatedly for `seconds`."""
    answers = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for address in ("/", "/board/", "/live/?page=now"):
            with contextlib.suppress(httpx.ReadTimeout):
                answers.append(site.client.get(address, headers={"HX-Request": "true"}))
    return answers


def run_id_of(address: str) -> str:
    return address.rstrip("/").rpartition("/")[2]


def post_abort(client: httpx.Client, address: str, **headers: str) -> httpx.Response:
    form = {"csrfmiddlewaretoken": token(client), "pick": "Stuck"}
    return client.post(f"{address}abort/", data=form, headers=headers)


@pytest.mark.slow
def test_abort_response_during_database_outage_is_saved_after_recovery(site: Site) -> None:
    address = site.run()
    run_id = run_id_of(address)
    site.sandbox.faults = [parse_fault("latency:1@/abort")]
    with ThreadPoolExecutor(1) as executor:
        response = executor.submit(post_abort, site.client, address)
        path = f"/runs/{run_id}/abort"
        wait_until(lambda: path in str(site.sandbox.requests), processes.WAIT_TIMEOUT)
        site.proxy.cut()
        try:
            wait_until(lambda: site.sandbox.abort_request_counts[run_id], processes.WAIT_TIMEOUT)
            request_pages(site, 2)
        finally:
            site.proxy.restore()
        assert response.result(processes.WAIT_TIMEOUT).status_code == 302
    site.sandbox.faults = []
    assert "Abort accepted" in site.client.get(address).text
    assert site.sandbox.abort_request_counts[run_id] == 1


def test_start_during_database_outage_is_refused_in_a_sentence(site: Site) -> None:
    site.proxy.cut()
    try:
        result = manage("serve", "--port", "0", DATABASE_URL=site.url)
    finally:
        site.proxy.restore()
    assert result.returncode == 1
    assert "CommandError: Database error: connection failed" in result.stderr
    assert "Traceback" not in result.stderr
