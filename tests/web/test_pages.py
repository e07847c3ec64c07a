"""Common features of all pages: full page and fragment, ETag, query count, headers."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.models import Run, Stage
from tests.support import factories
from tests.support.html import HTMX, GetPage, live_tag, parse_html, select_one, text_of
from tests.support.pages import ALL_PAGES, LIVE_PAGES, PAGES, address_of


@pytest.mark.parametrize("name", LIVE_PAGES)
def test_page_is_complete_html_document(name: str, run: Run, operator_client: Client) -> None:
    answer = operator_client.get(address_of(name, run))
    html = parse_html(answer)
    assert answer.status_code == 200
    assert answer.content.lstrip().lower().startswith(b"<!doctype html>")
    assert select_one(html, "#live").attributes["data-page"] == name
    assert select_one(html, "main h1").text().strip()
    assert select_one(html, "title").text().endswith("Release flows")


@pytest.mark.parametrize("name", LIVE_PAGES)
def test_page_refresh_returns_only_live_region(
    name: str, run: Run, operator_client: Client
) -> None:
    answer = operator_client.get(address_of(name, run), headers=HTMX)
    assert answer.status_code == 200
    assert answer.content.lstrip().startswith(b'<div id="live"')
    assert b"<html" not in answer.content.lower()


@pytest.mark.parametrize("name", LIVE_PAGES)
def test_page_and_refresh_contain_same_live_region(
    name: str, run: Run, operator_client: Client
) -> None:
    page_region = select_one(parse_html(operator_client.get(address_of(name, run))), "#live")
    refresh_region = select_one(
        parse_html(operator_client.get(address_of(name, run), headers=HTMX)), "#live"
    )
    assert page_region.html == refresh_region.html


@pytest.mark.parametrize("name", LIVE_PAGES)
def test_refresh_without_change_returns_304(name: str, run: Run, operator_client: Client) -> None:
    tag = live_tag(parse_html(operator_client.get(address_of(name, run))))
    answer = operator_client.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 304
    assert answer.content == b""
    assert answer["HX-PTag"] == tag


@pytest.mark.parametrize("name", PAGES)
def test_changed_run_changes_page_tag(name: str, run: Run, operator_client: Client) -> None:
    tag = operator_client.get(address_of(name, run), headers=HTMX)["HX-PTag"]
    factories.change(run, status="retrying")
    answer = operator_client.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert answer["HX-PTag"] != tag
    assert (
        parse_html(answer).css_first('[data-status="retrying"], [data-tone="warning"]') is not None
    )


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("stage", {"error_message": "It fell over."}, "It fell over."),
        ("stage", {"error_since": datetime(2026, 1, 2, tzinfo=UTC)}, 'datetime="2026-01-02T'),
        ("pipeline", {"error_message": "It fell over."}, "It fell over."),
    ],
)
def test_changed_error_of_a_stage_changes_page_tag(
    name: str, fields: dict[str, Any], text: str, run: Run, operator_client: Client
) -> None:
    Stage.objects.update(error="x", error_message="Refused.", error_since=timezone.now())
    tag = operator_client.get(address_of(name, run), headers=HTMX)["HX-PTag"]
    Stage.objects.update(**fields)
    answer = operator_client.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert text in answer.content.decode()


@pytest.mark.parametrize("name", ["now", "stage", "run"])
def test_revoked_permission_changes_page_tag(
    name: str, run: Run, operator_client: Client, manager: User
) -> None:
    tag = operator_client.get(address_of(name, run), headers=HTMX)["HX-PTag"]
    manager.groups.clear()
    answer = operator_client.get(address_of(name, run), headers=HTMX | {"HX-PTag": tag})
    assert answer.status_code == 200
    assert "disabled" in select_one(parse_html(answer), "[data-abort]").attributes


@pytest.mark.parametrize("name", LIVE_PAGES)
@pytest.mark.usefixtures("stopped_clock")
def test_page_with_more_rows_needs_no_more_queries(
    name: str, stage: Stage, operator_client: Client
) -> None:
    def queries() -> int:
        cache.clear()  # uncached rows need the most queries
        with CaptureQueriesContext(connection) as captured:
            assert operator_client.get(address_of(name, run)).status_code == 200
        return len(captured)

    run = factories.run(stage)
    for status in ("running", "failure", "success", "aborting"):
        factories.run(stage, status=status)
    # The charts of several stages take one query more than that of one.
    factories.run(factories.stage("Development"), status="success")
    operator_client.get(
        address_of(name, run)
    )  # marks the page watched, which it does once in a while
    query_count = queries()
    for number in range(45):
        other_stage = factories.stage(
            "Staging", parent=factories.pipeline(f"pipeline-{number % 9}")
        )
        factories.run(other_stage, status=("running", "failure", "success")[number % 3])
    assert queries() <= query_count
    assert query_count <= 28  # a stage's page also one for each status, once a minute


@pytest.mark.parametrize("name", ALL_PAGES)
def test_page_has_no_inline_script_or_style(name: str, run: Run, operator_client: Client) -> None:
    html = parse_html(operator_client.get(address_of(name, run)))
    assert html.css("style, [style]") == []
    assert (
        html.css("script:not([src]):not([type='application/json'])") == []
    )  # data is not executed
    handlers = [
        attribute
        for element in html.css("*")
        for attribute in element.attributes
        if re.fullmatch(r"on\w+|hx-on.*", attribute)
    ]
    assert handlers == []


@pytest.mark.parametrize("name", ALL_PAGES)
def test_page_has_security_headers(name: str, run: Run, operator_client: Client) -> None:
    answer = operator_client.get(address_of(name, run))
    policy = answer["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "nonce" not in policy
    assert answer["X-Frame-Options"] == "DENY"
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Referrer-Policy"] == "same-origin"
    assert "camera=()" in answer["Permissions-Policy"]
    assert "clipboard-write" not in answer["Permissions-Policy"]  # for Copy summary


@pytest.mark.parametrize(
    ("address", "method", "headers", "status"),
    [
        ("/", "GET", {}, 200),
        ("/board/", "GET", {"Host": "elsewhere.example"}, 400),
        ("/people/", "GET", {}, 403),
        ("/nothing/here/", "GET", {}, 404),
        ("/static/nothing.css", "GET", {}, 404),
        ("/", "POST", {}, 405),
        ("/healthz", "POST", {}, 405),
    ],
)
def test_no_cache_keeps_an_answer(
    address: str, method: str, headers: dict[str, str], status: int, operator_client: Client
) -> None:
    answer = operator_client.generic(method, address, headers=headers)
    assert (answer.status_code, answer["Cache-Control"]) == (status, "private, no-store")


@pytest.mark.parametrize("name", [*LIVE_PAGES, "abort"])
@pytest.mark.parametrize("headers", [{}, HTMX])
def test_page_and_refresh_responses_vary_by_htmx(
    name: str, headers: dict[str, str], run: Run, operator_client: Client
) -> None:
    answer = operator_client.get(address_of(name, run), headers=headers)
    assert "HX-Request" in answer["Vary"]
    assert "Cookie" in answer["Vary"]


@pytest.mark.parametrize("name", LIVE_PAGES)
def test_page_rejects_post(name: str, run: Run, operator_client: Client) -> None:
    assert operator_client.post(address_of(name, run)).status_code == 405


@pytest.mark.parametrize("name", ALL_PAGES)
def test_notices_element_is_live_region(name: str, run: Run, operator_client: Client) -> None:
    notices = select_one(parse_html(operator_client.get(address_of(name, run))), "#notices")
    assert notices.attributes["aria-live"] == "polite"
    assert notices.attributes["role"] == "status"


@pytest.mark.parametrize("name", ALL_PAGES)
def test_element_ids_are_unique(name: str, run: Run, operator_client: Client) -> None:
    for status in ("failure", "aborted", "queued"):
        factories.run(run.stage, status=status)
    html = parse_html(operator_client.get(address_of(name, run)))
    ids = [element.attributes["id"] for element in html.css("[id]")]
    assert sorted(ids) == sorted(set(ids))


@pytest.mark.parametrize("name", LIVE_PAGES)
def test_referenced_ids_and_icons_exist(
    name: str, run: Run, viewer_client: Client, viewer: User
) -> None:
    for status in ("failure", "aborted", "queued", "unheard-of"):
        factories.run(run.stage, status=status)
    factories.abort(factories.run(run.stage, status="aborting"), viewer)
    html = parse_html(viewer_client.get(address_of(name, run)))
    ids = {element.attributes["id"] for element in html.css("[id]")} | {
        "confirm-title",
        "confirm-warning",
    }
    referenced = {
        word
        for attribute in ("aria-labelledby", "aria-describedby", "for")
        for element in html.css(f"[{attribute}]")
        for word in (element.attributes[attribute] or "").split()
    }
    glyphs = {(use.attributes["href"] or "")[1:] for use in html.css("use")}
    assert (referenced | glyphs) - ids == set()


def test_navigation_marks_current_page(get_page: GetPage, run: Run) -> None:
    assert (
        select_one(get_page("/board/"), 'nav a[aria-current="page"]').attributes["href"]
        == "/board/"
    )
    assert select_one(get_page("/"), 'nav a[aria-current="page"]').attributes["href"] == "/"


@pytest.mark.parametrize("name", PAGES)
def test_page_with_inconsistent_times_shows_no_negative_duration(
    name: str, run: Run, operator_client: Client
) -> None:
    now = timezone.now()
    later = now + timedelta(hours=1)
    factories.change(run, created_at=later, started_at=later, updated_at=later)
    ended_run = factories.run(
        run.stage, status="failure", created_at=later, started_at=later, concluded_at=now
    )
    for subject in (run, ended_run):
        answer = operator_client.get(address_of(name, subject))
        assert answer.status_code == 200
        assert re.search(r"-\d+ (s|min|h|d)\b", text_of(parse_html(answer))) is None
