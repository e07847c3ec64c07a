"""What a run waits for, with its log: a part of the run's page, and a page without JavaScript."""

import json
import logging
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import AccessEvent, Run, Upstream, Work
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from dashboard.sandbox import logs, parse_fault
from dashboard.sandbox.secret_lines import LOGGED_SECRETS, SECRET_PREFIX
from tests.support import api, factories, live_runs
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.stream import messages


@pytest.fixture
def scenario() -> str:
    return "jobs-and-builds"


@pytest.fixture
def site(live: Live) -> Iterator[Live]:
    """The dashboard while a worker reads: without one, no log is read."""
    with live.ticking():
        yield live


@pytest.fixture
def client(site: Live, manager: User) -> httpx.Client:
    return site.sign_in("manager")


def logs_address(run: Run) -> str:
    return f"{factories.address(run)}logs/"


def look(client: httpx.Client, run: Run, query: str = "", **headers: str) -> LexborHTMLParser:
    answer = client.get(logs_address(run) + query, headers=headers)
    assert answer.status_code == 200, answer.text
    return parse_html(answer)


def lines(page: LexborHTMLParser) -> list[str]:
    return [text_of(line) for line in page.css("[data-log-line] bdi")]


def problem(page: LexborHTMLParser) -> str:
    found = page.css_first("[data-log-problem]")
    return text_of(found) if found is not None else ""


def opened() -> list[AccessEvent]:
    """Return the records of opened logs."""
    return list(AccessEvent.objects.filter(kind=AccessKind.LOGS_OPENED))


def test_silent_job_run_is_shown_with_its_last_words(site: Live, client: httpx.Client) -> None:
    page = look(client, live_runs.waiting_run(site, "silent"), **HTMX)
    waiting = select_one(page, "[data-waiting-for]")
    assert text_of(waiting).startswith("Waits for job run clean-up-")
    assert (waiting.attributes["data-kind"], waiting.attributes["data-status"]) == (
        "job_run",
        "RUNNING",
    )
    assert waiting.attributes["data-id"]
    assert lines(page)[-1].startswith("waiting for lock on table orders")
    panel = select_one(page, "[data-silent-since]")
    assert "Silent for" in text_of(panel)
    assert page.css_first("header") is None  # the part alone


@pytest.mark.parametrize(
    ("pipeline", "text"),
    [
        ("build", "Waits for build joyous-view"),
        ("one-match", "Probably waits for job run reindex-"),
        ("several-matches", "Waits for a job run of count"),
    ],
)
def test_what_a_run_waits_for_is_named_as_far_as_it_is_known(
    site: Live, client: httpx.Client, pipeline: str, text: str
) -> None:
    page = look(client, live_runs.waiting_run(site, pipeline), **HTMX)
    assert text_of(select_one(page, "[data-waiting-for]")).startswith(text)
    assert bool(lines(page)) == (pipeline != "several-matches")
    assert bool(problem(page)) == (pipeline == "several-matches")


def test_page_without_javascript_has_the_log_and_a_link_to_reload(
    site: Live, client: httpx.Client
) -> None:
    run = live_runs.waiting_run(site, "chatty")
    page = look(client, run)
    assert len(lines(page)) == 50
    assert select_one(page, ".log-reload").attributes["href"] == logs_address(run)
    assert page.css_first("header nav") is not None


def test_earlier_lines_and_a_text_are_in_the_address(site: Live, client: httpx.Client) -> None:
    run = live_runs.waiting_run(site, "chatty")
    link = look(client, run).css_first(".log-box a")
    assert link is not None
    assert link.attributes["href"] == f"{logs_address(run)}?lines=200"
    more = lines(look(client, run, "?lines=200"))
    assert 50 < len(more) <= 200
    page = look(client, run, f"?lines=200&find={quote(more[0].upper())}")
    assert lines(page) == [more[0]]
    assert select_one(page, "[name=find]").attributes["value"] == more[0].upper()


@pytest.mark.parametrize("query", ["?lines=x", "?lines=-1", "?lines=" + "9" * 30, "?find=%00"])
def test_odd_addresses_show_the_log(site: Live, client: httpx.Client, query: str) -> None:
    look(client, live_runs.waiting_run(site, "silent"), query)


def test_who_may_not_see_logs_sees_what_the_run_waits_for(site: Live, viewer: User) -> None:
    run = live_runs.waiting_run(site, "silent")
    page = look(site.sign_in("viewer"), run, **HTMX)
    assert text_of(select_one(page, "[data-waiting-for]")).startswith("Waits for job run clean-up-")
    assert text_of(select_one(page, "[data-log-denied]")) == (
        "You may not see logs here. Ask someone in “Release managers”."
    )
    assert lines(page) == []
    assert "data-silent-since" not in str(page.html)
    assert not opened()


def test_lines_read_for_one_person_are_not_shown_to_another_without_the_right(
    site: Live, client: httpx.Client, viewer: User
) -> None:
    run = live_runs.waiting_run(site, "silent")
    assert lines(look(client, run))
    page = look(site.sign_in("viewer"), run)
    assert lines(page) == []
    assert "waiting for lock" not in str(page.html)


def test_opened_log_is_recorded_once(site: Live, client: httpx.Client) -> None:
    run = live_runs.waiting_run(site, "silent")
    look(client, run)
    look(client, run)
    [event] = opened()
    assert event.username == "manager"
    assert "job run clean-up-" in event.detail


def test_failed_run_shows_the_last_lines_of_its_step(site: Live, client: httpx.Client) -> None:
    place = ("payments", "billing-api", "Staging")
    runs = site.sandbox.world.list_runs(live_runs.flow(site, place), site.sandbox.clock())
    failed = next(run for run in runs if run.outcome == "failure" and run.concluded_at < 2e9)
    page = look(client, live_runs.mirror_run(site, place, failed.id))
    assert text_of(select_one(page, "[data-waiting-for]")).startswith("Failed in")


ODD_LINES = (
    "x" * 100_000,
    "before\0after",
    "progress 10 %\rprogress 20 %\r\n",
    "\u202eeman desrever\u2066",
    "half \ud83d of a pair",
    "<script>alert('log')</script><b>&amp;",
    "\x1b[31mred\x1b[0m \x1b]8;;https://evil.example\x07link\x1b[2J",
    {"level": "info", "message": "not a text"},
    None,
)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("403@read-logs", "View Instance Logs (or View Observability)"),
        ("bad-token@read-logs", "View Instance Logs (or View Observability)"),
        ("500@read-logs", "Northflank server error (500)"),
        ("502-html@read-logs", "server error"),
        ("404-html@read-logs", "probably from a proxy"),
        ("huge:20@read-logs", "larger than 5,242,880 bytes"),
        ("404@get-job-run", "Northflank does not have it (404)."),
        ("404@read-logs", ""),
        *((f"field:log={json.dumps(line)}@read-logs", "") for line in ODD_LINES),
    ],
)
def test_bad_answers_are_said_and_are_no_outage(
    site: Live, client: httpx.Client, fault: str, text: str
) -> None:
    run = live_runs.waiting_run(site, "silent")
    Upstream.objects.get_or_create(pk=1)
    site.sandbox.faults = [parse_fault(fault)]
    page = look(client, run)
    assert text in problem(page)
    assert bool(text) == bool(problem(page))
    assert Upstream.objects.get().error == ""
    assert page.css_first("script:not([src]):not([type])") is None


def test_page_of_a_run_loads_the_log_only_if_it_waits_for_one(site: Live, manager: User) -> None:
    client = Client()
    client.force_login(manager)
    run = live_runs.waiting_run(site, "silent")
    page = parse_html(client.get(factories.address(run)))
    place = select_one(page, ".log-place [hx-get]")
    assert place.attributes["hx-get"] == logs_address(run)
    assert select_one(place, "a").attributes["href"] == logs_address(run)
    other = factories.run(run.stage)
    with CaptureQueriesContext(connection) as queries:
        page = parse_html(client.get(factories.address(other)))
    assert page.css_first(".log-place") is None
    statements = [query["sql"] for query in queries]
    assert not [sql for sql in statements if "dashboard_work" in sql and sql[:6] == "SELECT"]


def test_page_of_a_run_says_what_it_waits_for_before_the_log_is_loaded(
    site: Live, client: httpx.Client
) -> None:
    run = live_runs.waiting_run(site, "silent")
    before = select_one(parse_html(client.get(factories.address(run))), ".log-place p")
    named = select_one(before, "[data-waiting-for]").attributes
    assert (named["data-kind"], named["data-status"]) == ("job_run", "")
    look(client, run)
    work = Work.objects.get(run=run)
    assert named["data-id"] == work.work_id
    after = select_one(parse_html(client.get(factories.address(run))), ".log-place p")
    named = select_one(after, "[data-waiting-for]").attributes
    assert (named["data-id"], named["data-status"]) == (work.work_id, "RUNNING")
    assert "RUNNING started " in text_of(after)


def test_hidden_secrets_are_said_with_the_lines(
    site: Live, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    chatty = look(client, live_runs.waiting_run(site, "chatty"), **HTMX)
    assert chatty.css_first("[data-has-redacted]") is None
    monkeypatch.setattr(logs, "LAST_WORDS", "password=swordfish99")
    page = look(client, live_runs.waiting_run(site, "silent"), **HTMX)
    assert lines(page)[-1] == "password=[redacted]"
    sentence = "Known secrets are hidden. Check before you share."
    assert text_of(select_one(page, "[data-has-redacted]")) == sentence


def test_run_that_waits_for_nothing_with_a_log_says_so(site: Live, client: httpx.Client) -> None:
    page = look(client, factories.run(factories.stage()))
    assert text_of(select_one(page, "#log-panel")) == "The run waits for no job run or build."


def test_planted_secrets_are_nowhere(
    site: Live,
    client: httpx.Client,
    manager: User,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = live_runs.waiting_run(site, "silent")
    caplog.set_level(logging.DEBUG)
    address = factories.address(run)
    pages = [client.get(path) for path in (logs_address(run), address, f"{address}abort/", "/")]
    assert "[redacted]" in pages[0].text
    with api.client(site, api.create_token_secret(manager, Scope.LOGS)) as program:
        pages.append(program.get(f"/api/runs/{run.run_id}/?log=50"))
    assert "[redacted]" in pages[-1].text
    with client.stream("GET", f"/live/?page=run&key={run.pk}&since=0") as stream:
        sent = next(messages(stream))  # all parts of the page
    assert run.run_id in "".join(sent.data)
    exports = ("/aborts/export.csv", "/aborts/export.json")
    pages += [client.get(path) for path in exports]
    assert [page.status_code for page in pages] == [200] * len(pages)
    rows = [
        repr(row) for model in apps.get_app_config("dashboard").get_models()
        for row in model._default_manager.values()
    ]  # fmt: skip
    assert any(run.run_id in row for row in rows)
    everything = "\n".join([*(page.text for page in pages), *sent.data, *rows, caplog.text])
    assert [secret for secret in (SECRET_PREFIX, *LOGGED_SECRETS) if secret in everything] == []
