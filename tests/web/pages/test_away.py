"""Since you were away: the part of Now, the page, and the account's own last visit."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import ChangeCounter, Grant, LastVisit, Run, Star
from dashboard.web.live import event_ids
from dashboard.web.pages import away
from tests.support import factories
from tests.support.html import HTMX, parse_html, select_one, text_of

HOUR = timedelta(hours=1)


@pytest.fixture
def visit(viewer: User) -> LastVisit:
    """The last visit of the viewer, an hour ago."""
    visited_at = timezone.now() - HOUR
    return LastVisit.objects.create(user=viewer, version=ChangeCounter.latest(), at=visited_at)


@pytest.fixture
def run(visit: LastVisit) -> Run:
    """A run that has started since."""
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.fixture
def client(client: Client, viewer: User) -> Client:
    client.force_login(viewer)
    return client


def part(client: Client, query: str = "") -> LexborHTMLParser:
    """The part of Now."""
    return parse_html(client.get(f"/away/{query}", headers=HTMX))


def line(html: LexborHTMLParser) -> str:
    """What the line says behind its time; empty: there is none."""
    return "".join(text_of(line).partition(": ")[2] for line in html.css(".away summary"))


def test_first_visit_begins_now_and_tells_nothing(client: Client, viewer: User) -> None:
    run = factories.run(factories.stage())
    assert line(part(client)) == ""
    assert LastVisit.objects.get(user=viewer).version == run.version


def test_line_opens_to_the_runs_and_stays_until_it_was_seen(client: Client, run: Run) -> None:
    for _ in range(2):
        html = part(client)
        assert line(html) == "1 started"
        assert select_one(html, "li > a").attributes["href"] == factories.address(run)
    assert "open" not in select_one(html, "details").attributes


def test_seen_records_the_time_of_the_line_and_not_of_the_press(
    client: Client, run: Run, visit: LastVisit, settings: Settings
) -> None:
    settings.READ_ONLY = True
    seen = select_one(part(client), "button").attributes["value"]
    shown_at = timezone.now()
    second = factories.run(run.stage)
    assert line(parse_html(client.post("/away/", {"seen": seen}, headers=HTMX))) == ""
    visit.refresh_from_db()
    assert visit.version == second.version - 1
    assert visit.at <= shown_at
    # It does not go back, as from another tab.
    client.post("/away/", {"seen": event_ids.page_version(0, shown_at - HOUR)}, headers=HTMX)
    assert LastVisit.objects.get().version == visit.version


def test_last_visit_is_of_one_account(client: Client, run: Run, manager: User) -> None:
    LastVisit.objects.create(user=manager, version=run.version, at=timezone.now() - HOUR)
    assert line(part(client)) == "1 started"
    client.force_login(manager)
    assert line(part(client)) == ""


def test_who_was_on_now_just_before_is_told_nothing(
    client: Client, run: Run, visit: LastVisit
) -> None:
    visit.at = timezone.now() - away.MIN_ABSENCE + timedelta(minutes=1)
    visit.save()
    assert line(part(client)) == ""
    assert line(parse_html(client.get("/away/"))) == "1 started"  # who asks is told


def test_open_page_that_slept_is_told_what_happened_since(
    client: Client, run: Run, visit: LastVisit
) -> None:
    awake_until = timezone.now() - HOUR / 2
    before = {"started_at": awake_until - HOUR / 4, "first_synced_at": awake_until - HOUR / 4}
    factories.change(run, **before)
    assert line(part(client)) == "1 started"
    since = f"?since={event_ids.milliseconds(awake_until)}"
    assert line(part(client, since)) == ""
    factories.run(run.stage)
    assert line(part(client, since)) == "1 started"
    assert line(part(client, "?since=9999999999999999")) == ""  # a clock that is far ahead


def test_visit_of_long_ago_is_as_of_a_week_ago(client: Client, run: Run, visit: LastVisit) -> None:
    visit.at -= timedelta(days=99)
    visit.save()
    time = select_one(part(client), "summary time").attributes["datetime"] or ""
    assert time.startswith((timezone.now() - timedelta(days=7)).date().isoformat())


def test_only_visible_runs_and_with_the_filter_only_starred_ones_are_told(
    client: Client, run: Run, viewer: User
) -> None:
    pipelines = [run.stage.pipeline]
    for slug in ("cart", "ledger"):
        pipelines.append(factories.pipeline(slug, factories.project(slug)))
        factories.run(factories.stage(parent=pipelines[-1]))
    Grant.objects.all().delete()
    for pipeline in pipelines[:2]:
        factories.grant("view", "parts", viewer, project=pipeline.project)
    assert line(part(client)) == "2 started"
    assert line(part(client, "?mine=1")) == ""
    for pipeline in pipelines[1:]:
        Star.objects.create(user=viewer, pipeline=pipeline)
    assert line(part(client, "?mine=1")) == "1 started"


def test_page_without_scripts_shows_the_same_and_returns_to_now(client: Client, run: Run) -> None:
    now = parse_html(client.get("/?mine=1"))
    address = select_one(now, "#away").attributes["hx-get"]
    assert address == "/away/?mine=1"
    html = parse_html(client.get("/away/"))
    assert line(html) == "1 started"
    assert "open" in select_one(html, "details").attributes
    form = {"seen": select_one(html, ".away button").attributes["value"]}
    answer = client.post("/away/?mine=1", form)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/?mine=1")
    assert text_of(select_one(parse_html(client.get("/away/")), "main p")).startswith("Nothing")


def test_more_runs_than_fit_are_counted(client: Client, run: Run) -> None:
    for _ in range(away.MAX_ROWS):
        factories.run(run.stage)
    rows = part(client).css("dd li")
    assert (len(rows), text_of(rows[-1])) == (away.MAX_ROWS + 1, "and 1 more")
    assert len(parse_html(client.get("/away/")).css("dd li")) == away.MAX_ROWS + 1


@pytest.mark.parametrize("seen", ["", "1", "1.x", "x.1", "-1.1", "1." + "9" * 30])
def test_seen_of_nothing_is_not_found(client: Client, seen: str) -> None:
    assert client.post("/away/", {"seen": seen}).status_code == 404


def test_page_does_not_claim_that_nothing_happened_where_too_much_did(
    client: Client, visit: LastVisit
) -> None:
    Grant.objects.all().delete()  # the viewer sees none of them
    first = factories.run(factories.stage(), "r-first")
    changed = ({"run_id": f"r-{n}", "version": first.version + n} for n in range(1, 1_002))
    factories.insert_copies(first, changed)
    text = text_of(select_one(parse_html(client.get("/away/")), "main"))
    assert "More than 1000 runs have changed since" in text
    assert "Nothing has happened" not in text
