"""What all pages have in common: page and fragment, their tag, their cost, their headers."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.models import Run, Stage
from tests.support import factories
from tests.support.html import HTMX, See, one, parsed, words
from tests.support.pages import ALL_PAGES, PAGES, REFRESHED, address_of


@pytest.mark.parametrize("name", REFRESHED)
def test_a_page_is_whole(name: str, run: Run, at_desk: Client) -> None:
    answer = at_desk.get(address_of(name, run))
    html = parsed(answer)
    assert answer.status_code == 200
    assert answer.content.lstrip().lower().startswith(b"<!doctype html>")
    assert one(html, "#live").attributes["data-page"] == name
    assert one(html, "main h1").text().strip()
    assert one(html, "title").text().endswith("Release flows")


@pytest.mark.parametrize("name", REFRESHED)
def test_its_refresh_is_the_live_region_alone(name: str, run: Run, at_desk: Client) -> None:
    answer = at_desk.get(address_of(name, run), headers=HTMX)
    assert answer.status_code == 200
    assert answer.content.lstrip().startswith(b'<div id="live"')
    assert b"<html" not in answer.content.lower()


@pytest.mark.parametrize("name", REFRESHED)
def test_page_and_refresh_show_the_same(name: str, run: Run, at_desk: Client) -> None:
    whole = one(parsed(at_desk.get(address_of(name, run))), "#live")
    alone = one(parsed(at_desk.get(address_of(name, run), headers=HTMX)), "#live")
    assert whole.html == alone.html


@pytest.mark.parametrize("name", REFRESHED)
def test_nothing_new_is_answered_304(name: str, run: Run, at_desk: Client) -> None:
    tag = one(parsed(at_desk.get(address_of(name, run))), "#live").attributes["hx-ptag"]
    answer = at_desk.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 304
    assert answer.content == b""
    assert answer["HX-PTag"] == tag


@pytest.mark.parametrize("name", PAGES)
def test_a_change_changes_the_tag(name: str, run: Run, at_desk: Client) -> None:
    tag = at_desk.get(address_of(name, run), headers=HTMX)["HX-PTag"]
    factories.change(run, status="retrying")
    answer = at_desk.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert answer["HX-PTag"] != tag
    assert parsed(answer).css_first('[data-status="retrying"], [data-tone="warning"]') is not None


@pytest.mark.parametrize("name", ["now", "stage", "run"])
def test_a_right_that_was_lost_changes_the_tag(
    name: str, run: Run, at_desk: Client, manager: User
) -> None:
    tag = at_desk.get(address_of(name, run), headers=HTMX)["HX-PTag"]
    manager.groups.clear()
    answer = at_desk.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert "disabled" in one(parsed(answer), "[data-abort]").attributes


@pytest.mark.parametrize("name", REFRESHED)
def test_more_rows_cost_no_more_queries(name: str, stage: Stage, at_desk: Client) -> None:
    def queries() -> int:
        cache.clear()  # rows not yet rendered cost most
        with CaptureQueriesContext(connection) as seen:
            assert at_desk.get(address_of(name, run)).status_code == 200
        return len(seen)

    run = factories.run(stage)
    for status in ("running", "failure", "success", "aborting"):
        factories.run(stage, status=status)
    # The histories of several stages take one query more than that of one.
    factories.run(factories.stage("Development"), status="success")
    at_desk.get(address_of(name, run))  # notes the interest, which it does once a while
    few = queries()
    for number in range(45):
        more = factories.stage("Staging", of=factories.pipeline(f"pipeline-{number % 9}"))
        factories.run(more, status=("running", "failure", "success")[number % 3])
    assert queries() <= few
    assert few <= 26  # of a stage also one for each status it has, once a minute


@pytest.mark.parametrize("name", ALL_PAGES)
def test_no_page_has_script_or_style_in_it(name: str, run: Run, at_desk: Client) -> None:
    html = parsed(at_desk.get(address_of(name, run)))
    assert html.css("style, [style]") == []
    assert html.css("script:not([src]):not([type='application/json'])") == []  # data does nothing
    handlers = [
        attribute
        for element in html.css("*")
        for attribute in element.attributes
        if re.fullmatch(r"on\w+|hx-on.*", attribute)
    ]
    assert handlers == []


@pytest.mark.parametrize("name", ALL_PAGES)
def test_every_page_carries_the_security_headers(name: str, run: Run, at_desk: Client) -> None:
    answer = at_desk.get(address_of(name, run))
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "nonce" not in policy
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize("name", [*REFRESHED, "abort"])
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_page_and_fragment_are_never_mixed_up_by_a_cache(
    name: str, headers: dict[str, str], run: Run, at_desk: Client
) -> None:
    answer = at_desk.get(address_of(name, run), headers=headers)
    assert "HX-Request" in answer["Vary"]
    assert "Cookie" in answer["Vary"]
    assert answer["Cache-Control"] == "no-store"


@pytest.mark.parametrize("name", REFRESHED)
def test_pages_are_read_only(name: str, run: Run, at_desk: Client) -> None:
    assert at_desk.post(address_of(name, run)).status_code == 405


@pytest.mark.parametrize("name", ALL_PAGES)
def test_the_notices_are_a_live_region_from_the_start(name: str, run: Run, at_desk: Client) -> None:
    notices = one(parsed(at_desk.get(address_of(name, run))), "#notices")
    assert notices.attributes["aria-live"] == "polite"
    assert notices.attributes["role"] == "status"


@pytest.mark.parametrize("name", ALL_PAGES)
def test_no_two_elements_share_an_id(name: str, run: Run, at_desk: Client) -> None:
    for status in ("failure", "aborted", "queued"):
        factories.run(run.stage, status=status)
    html = parsed(at_desk.get(address_of(name, run)))
    ids = [element.attributes["id"] for element in html.css("[id]")]
    assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("name", REFRESHED)
def test_every_reference_to_an_id_and_every_glyph_exists(
    name: str, run: Run, looking_on: Client, viewer: User
) -> None:
    for status in ("failure", "aborted", "queued", "unheard-of"):
        factories.run(run.stage, status=status)
    factories.abort(factories.run(run.stage, status="aborting"), viewer)
    html = parsed(looking_on.get(address_of(name, run)))
    known = {element.attributes["id"] for element in html.css("[id]")} | {"confirm-title"}
    wanted = {
        word
        for attribute in ("aria-labelledby", "aria-describedby", "for")
        for element in html.css(f"[{attribute}]")
        for word in (element.attributes[attribute] or "").split()
    }
    glyphs = {(use.attributes["href"] or "")[1:] for use in html.css("use")}
    assert (wanted | glyphs) - known == set()


def test_the_page_one_is_on_is_marked(see: See, run: Run) -> None:
    assert one(see("/board/"), 'nav a[aria-current="page"]').attributes["href"] == "/board/"
    assert one(see("/"), 'nav a[aria-current="page"]').attributes["href"] == "/"


def test_a_page_refreshes_faster_the_more_is_going_on(see: See, run: Run, manager: User) -> None:
    def seconds() -> int:
        return int(one(see("/"), "#live").attributes["data-refresh"] or "")

    in_flight = seconds()
    factories.abort(run, manager)
    aborting = seconds()
    Run.objects.update(in_flight=False, concluded=True)
    run.aborts.update(settled_at=run.created_at)
    assert aborting < in_flight < seconds()


@pytest.mark.parametrize("name", PAGES)
def test_times_that_make_no_sense_are_shown_without_a_negative_duration(
    name: str, run: Run, at_desk: Client
) -> None:
    now = timezone.now()
    later = now + timedelta(hours=1)
    factories.change(run, created_at=later, started_at=later, updated_at=later)
    ended = factories.run(
        run.stage, status="failure", created_at=later, started_at=later, concluded_at=now
    )
    for shown in (run, ended):
        answer = at_desk.get(address_of(name, shown))
        assert answer.status_code == 200
        assert re.search(r"-\d+ (s|min|h|d)\b", words(parsed(answer))) is None
