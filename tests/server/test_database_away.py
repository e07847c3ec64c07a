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
from tests.support.processes import Running, manage, running, upstream
from tests.support.tcp_relay import DatabaseProxy, database_proxy

pytestmark = [pytest.mark.process, pytest.mark.postgres]


@dataclass
class Site:
    """A dashboard with its sync, whose line to PostgreSQL the test holds."""

    process: Running
    line: DatabaseProxy
    sandbox: Sandbox
    person: httpx.Client

    def run(self) -> str:
        """Wait until a run that can be aborted is on the first page, and return its address."""

        def look() -> str:
            page = LexborHTMLParser(self.person.get("/").text)
            for row in page.css("[data-run]"):
                if row.css_first("[data-abort]") and row.attributes["data-status"] != "aborting":
                    return str(row.attributes["data-run"])
            return ""

        run_id = wait_until(look, processes.PATIENCE)
        return str(self.person.get(f"/runs/{run_id}/").headers["location"])

    @property
    def lines(self) -> list[str]:
        return self.process.log.read_text().splitlines()

    def said(self, event: str) -> list[str]:
        return [line for line in self.lines if event in line]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("away")
    with (
        postgres() as database,
        database_proxy(database) as (url, line),
        upstream() as (nf, sandbox),
    ):
        given = {
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": nf,
            "LOG_LEVEL": "INFO",
        }
        assert manage("migrate", "-v0", DATABASE_URL=database, **given).returncode == 0
        made = manage(
            "createsuperuser", "--noinput", "--username=boss", "--email=",
            DJANGO_SUPERUSER_PASSWORD="boss", DATABASE_URL=database, **given,
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        with running(folder, "serve", "--port", "0", DATABASE_URL=url, **given) as process:
            yield Site(process, line, sandbox, process.person("boss"))


def request_pages(site: Site, seconds: float) -> list[httpx.Response]:
    """Look at pages, again and again, as many people would."""
    answers = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for address in ("/", "/board/", "/live/?page=now"):
            with contextlib.suppress(httpx.ReadTimeout):
                answers.append(site.person.get(address, headers={"HX-Request": "true"}))
    return answers


def test_database_outage_is_logged_once_and_stream_continues(site: Site) -> None:
    site.run()  # it is at work
    before = len(site.lines)
    with site.person.stream("GET", "/live/?page=now", timeout=processes.PATIENCE) as stream:
        parts = stream.iter_text()
        assert next(parts)
        site.line.cut()
        try:
            answers = request_pages(site, 4)
        finally:
            site.line.mend()
        assert {answer.status_code for answer in answers} == {503}
        wait_until(lambda: site.person.get("/").status_code == 200, processes.PATIENCE)
        wait_until(lambda: "data-age" in next(parts), processes.PATIENCE)  # the same stream
    wait_until(lambda: site.said("database.up"), processes.PATIENCE)
    # Of what it is there for it may have something to tell at any time.
    said = [line for line in site.lines[before:] if not re.search(r"\] (abort|run)\.", line)]
    assert len(said) == 2, "\n".join(said[:40])
    assert "database.down" in said[0]
    assert "database.up" in said[1]


def run_id_of(address: str) -> str:
    return address.rstrip("/").rpartition("/")[2]


def refresh_target(answer: httpx.Response) -> str:
    page = LexborHTMLParser(answer.text)
    found = page.css_first("meta[http-equiv=refresh]")
    assert found is not None, answer.text
    return str(found.attributes["content"]).partition(";url=")[2]


def error_reason(answer: httpx.Response) -> str:
    said = LexborHTMLParser(answer.text).css_first("[data-reason]")
    assert said is not None, answer.text
    return " ".join(said.text().split())


def post_abort(person: httpx.Client, address: str, **headers: str) -> httpx.Response:
    form = {"csrfmiddlewaretoken": token(person), "pick": "Stuck"}
    return person.post(f"{address}abort/", data=form, headers=headers)


def wait_until_ready(site: Site) -> None:
    wait_until(lambda: site.person.get("/readyz").status_code == 200, processes.PATIENCE)


def test_page_during_database_outage_returns_503_and_retries(site: Site) -> None:
    address = site.run()
    site.line.cut()
    try:
        answer = site.person.get(f"{address}?x=1")
        machine = site.person.get("/api/runs/", headers={"Authorization": "Bearer rfd_x"})
        ready = site.person.get("/readyz")
    finally:
        site.line.mend()
    wait_until_ready(site)
    assert answer.status_code == 503
    assert "The database has not responded since" in error_reason(answer)
    assert "This page retries automatically." in error_reason(answer)
    assert "mistake" not in answer.text
    assert refresh_target(answer) == f"{address}?x=1"
    assert int(answer.headers["Retry-After"]) == int(machine.headers["Retry-After"]) > 0
    assert machine.status_code == 503
    assert machine.json()["error"]["code"] == "database_outage"
    assert ready.status_code == 503
    assert site.person.get(refresh_target(answer)).status_code == 200


def test_abort_during_database_outage_is_not_sent(site: Site) -> None:
    address = site.run()
    before = dict(site.sandbox.abort_request_counts)
    site.line.cut()
    try:
        pressed = post_abort(site.person, address)
        in_dialog = post_abort(site.person, address, **{"HX-Request": "true"})
    finally:
        site.line.mend()
    wait_until_ready(site)
    assert (pressed.status_code, in_dialog.status_code) == (503, 503)
    nothing = "Nothing was saved and nothing was sent to Northflank."
    assert nothing in error_reason(pressed)
    assert nothing in in_dialog.text
    assert in_dialog.headers["Content-Type"].startswith("text/plain")
    assert refresh_target(pressed) == address  # never the form
    assert run_id_of(address) not in site.person.get("/aborts/").text
    assert dict(site.sandbox.abort_request_counts) == before


def test_abort_response_during_database_outage_is_saved_after_recovery(site: Site) -> None:
    address = site.run()
    run_id = run_id_of(address)
    site.sandbox.faults = [parse_fault("latency:1@/abort")]
    with ThreadPoolExecutor(1) as aside:
        pressed = aside.submit(post_abort, site.person, address)
        on_its_way = f"/runs/{run_id}/abort"
        wait_until(lambda: on_its_way in str(site.sandbox.requests), processes.PATIENCE)
        site.line.cut()
        try:
            wait_until(lambda: site.sandbox.abort_request_counts[run_id], processes.PATIENCE)
            request_pages(site, 2)
        finally:
            site.line.mend()
        assert pressed.result(processes.PATIENCE).status_code == 302
    site.sandbox.faults = []
    assert "Abort accepted" in site.person.get(address).text
    assert site.sandbox.abort_request_counts[run_id] == 1
