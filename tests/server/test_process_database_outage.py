"""A database outage of some seconds in a running process, and its end."""

import contextlib
import re
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

    @property
    def lines(self) -> list[str]:
        return self.process.log.read_text().splitlines()

    def log_lines_of(self, event: str) -> list[str]:
        return [line for line in self.lines if event in line]


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


@pytest.mark.slow
def test_database_outage_is_logged_once_and_stream_continues(site: Site) -> None:
    site.run()  # it is running
    before = len(site.lines)
    with site.client.stream("GET", "/live/?page=now", timeout=processes.WAIT_TIMEOUT) as stream:
        parts = stream.iter_text()
        assert next(parts)
        site.proxy.cut()
        try:
            answers = request_pages(site, 4)
        finally:
            site.proxy.restore()
        assert {answer.status_code for answer in answers} == {503}
        wait_until(lambda: site.client.get("/").status_code == 200, processes.WAIT_TIMEOUT)
        wait_until(lambda: "data-age" in next(parts), processes.WAIT_TIMEOUT)  # the same stream
    wait_until(lambda: site.log_lines_of("database.up"), processes.WAIT_TIMEOUT)
    # Runs, aborts and pruning may be logged at any time; the loss of notifications, at the end.
    others = r"\] (abort|notify|pruning|run)\."
    log_lines = [line for line in site.lines[before:] if not re.search(others, line)]
    assert len(log_lines) == 2, "\n".join(log_lines[:40])
    assert "database.down" in log_lines[0]
    assert "database.up" in log_lines[1]


def run_id_of(address: str) -> str:
    return address.rstrip("/").rpartition("/")[2]


def refresh_target(answer: httpx.Response) -> str:
    page = LexborHTMLParser(answer.text)
    refresh = page.css_first("meta[http-equiv=refresh]")
    assert refresh is not None, answer.text
    return str(refresh.attributes["content"]).partition(";url=")[2]


def error_reason(answer: httpx.Response) -> str:
    reason = LexborHTMLParser(answer.text).css_first("[data-reason]")
    assert reason is not None, answer.text
    return " ".join(reason.text().split())


def post_abort(client: httpx.Client, address: str, **headers: str) -> httpx.Response:
    form = {"csrfmiddlewaretoken": token(client), "pick": "Stuck"}
    return client.post(f"{address}abort/", data=form, headers=headers)


def wait_until_ready(site: Site) -> None:
    wait_until(lambda: site.client.get("/readyz").status_code == 200, processes.WAIT_TIMEOUT)


@pytest.mark.slow
def test_page_during_database_outage_returns_503_and_retries(site: Site) -> None:
    address = site.run()
    site.proxy.cut()
    try:
        answer = site.client.get(f"{address}?x=1")
        api_answer = site.client.get("/api/runs/", headers={"Authorization": "Bearer rfd_x"})
        readiness = site.client.get("/readyz")
    finally:
        site.proxy.restore()
    wait_until_ready(site)
    assert answer.status_code == 503
    assert "The database has not responded since" in error_reason(answer)
    assert "This page retries automatically." in error_reason(answer)
    assert "mistake" not in answer.text
    assert refresh_target(answer) == f"{address}?x=1"
    assert int(answer.headers["Retry-After"]) == int(api_answer.headers["Retry-After"]) > 0
    assert api_answer.status_code == 503
    assert api_answer.json()["error"]["code"] == "database_outage"
    assert readiness.status_code == 503
    assert site.client.get(refresh_target(answer)).status_code == 200


@pytest.mark.slow
def test_abort_during_database_outage_is_not_sent(site: Site) -> None:
    address = site.run()
    before = dict(site.sandbox.abort_request_counts)
    site.proxy.cut()
    try:
        page_answer = post_abort(site.client, address)
        dialog_answer = post_abort(site.client, address, **{"HX-Request": "true"})
    finally:
        site.proxy.restore()
    wait_until_ready(site)
    assert (page_answer.status_code, dialog_answer.status_code) == (503, 503)
    text = "Nothing was saved and nothing was sent to Northflank."
    assert text in error_reason(page_answer)
    assert text in dialog_answer.text
    assert dialog_answer.headers["Content-Type"].startswith("text/plain")
    assert refresh_target(page_answer) == address  # not to the form
    assert run_id_of(address) not in site.client.get("/aborts/").text
    assert dict(site.sandbox.abort_request_counts) == before


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
