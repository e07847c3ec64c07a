"""The board: its order, pages and filter, warnings about invalid parameters, and cached cells."""

import string
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Grant, Pipeline, Run, Stage
from dashboard.runs import acknowledgements
from dashboard.web.components.board import board_list
from dashboard.web.components.board.board_filter import BoardFilter
from tests.support import factories
from tests.support.html import GetPage, fetch_page, select_one, text_of

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def pipelines_in_each_state(db: None) -> list[Pipeline]:
    """At rest, with a run in flight, latest run failed long ago and just now, overdue."""
    failure = {"status": "failure", "concluded": True, "in_flight": False}
    pipelines = []
    for slug, project, fields in (
        ("calm", "shop", {"status": "success", "concluded": True, "in_flight": False}),
        ("busy", "shop", {"status": "running"}),
        ("broken", "payments", failure | {"concluded_at": timezone.now() - timedelta(hours=2)}),
        ("just-broken", "payments", failure | {"concluded_at": timezone.now()}),
        ("late", "payments", {"status": "running", "overdue_severity": 1, "overdue_reason": "run"}),
    ):
        pipeline = factories.pipeline(slug, parent=factories.project(project))
        factories.run(factories.stage(parent=pipeline), f"r-{slug}", **fields)
        pipelines.append(pipeline)
    return pipelines


def listed_in_order(html: LexborHTMLParser) -> list[str]:
    return [text_of(link).casefold() for link in html.css(".board tbody th a bdi")]


def listed_pipelines(html: LexborHTMLParser) -> set[str]:
    return set(listed_in_order(html))


@pytest.mark.usefixtures("pipelines_in_each_state")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"calm", "busy", "broken", "just-broken", "late"}),
        ("?show=flight", {"busy", "late"}),
        ("?show=attention", {"just-broken", "late"}),
        ("?q=shop", {"calm", "busy"}),
        ("?q=SH%C3%96P", {"calm", "busy"}),
        ("?q=SHOP+bus", {"busy"}),
        ("?q=payments&show=flight", {"late"}),
        ("?q=shop&show=attention", set()),
    ],
)
def test_board_query_filters_pipelines(query: str, expected: set[str], get_page: GetPage) -> None:
    html = get_page(f"/board/{query}")
    assert listed_pipelines(html) == expected
    assert select_one(html, "#live").attributes["hx-get"] == f"/board/{query}"


# --- Order and pages ------------------------------------------------------------------------------


@pytest.mark.usefixtures("pipelines_in_each_state")
def test_board_lists_attention_first_then_in_flight_then_others(get_page: GetPage) -> None:
    html = get_page("/board/")
    assert {
        text_of(select_one(group, "[scope=rowgroup]")): listed_in_order(group)
        for group in html.css(".board tbody")
    } == {
        "Needs attention": ["just-broken", "late"],
        "In flight": ["busy"],
        "Nothing in flight": ["broken", "calm"],
    }
    assert [text_of(project) for project in html.css(".board th .project")] == [
        "Payments", "Payments", "Shop", "Payments", "Shop",
    ]  # fmt: skip


@pytest.fixture
def many_pipelines(pipelines_in_each_state: list[Pipeline]) -> None:
    """Fill two pages, and a third with two pipelines: those of the five states and others."""
    for number in range(2 * board_list.PER_PAGE - 3):
        factories.pipeline(f"other-{number:03}", parent=factories.project("web"))


def page_links(html: LexborHTMLParser) -> dict[str | None, str | None]:
    return {link.attributes["rel"]: link.attributes["href"] for link in html.css(".pager a")}


@pytest.mark.usefixtures("many_pipelines")
def test_board_pages_list_each_pipeline_once_in_the_order_of_the_board(get_page: GetPage) -> None:
    pages = [get_page(f"/board/?page={number}") for number in (1, 2, 3)]
    listed = [name for html in pages for name in listed_in_order(html)]
    assert len(listed) == len(set(listed)) == 2 * board_list.PER_PAGE + 2
    assert listed[:5] == ["just-broken", "late", "busy", "broken", "calm"]
    assert listed[5:] == sorted(listed[5:])
    assert [text_of(select_one(html, ".pager span")) for html in pages] == [
        "1–100 of 202 pipelines",
        "101–200 of 202 pipelines",
        "201–202 of 202 pipelines",
    ]
    assert [page_links(html) for html in pages] == [
        {"next": "?page=2"},
        {"prev": "?", "next": "?page=3"},
        {"prev": "?page=2"},
    ]


@pytest.mark.usefixtures("many_pipelines")
def test_board_page_links_keep_filter_and_its_choices_lead_to_first_page(
    get_page: GetPage,
) -> None:
    html = get_page("/board/?q=other&page=2")
    assert text_of(select_one(html, ".pager span")) == "101–197 of 197 pipelines"
    assert page_links(html) == {"prev": "?q=other"}
    assert [link.attributes["href"] for link in html.css(".choices a")] == [
        "?q=other",
        "?q=other&show=flight",
        "?q=other&show=attention",
    ]
    assert select_one(html, "form.filter").css("[name=page]") == []


@pytest.mark.usefixtures("many_pipelines")
@pytest.mark.parametrize(
    ("page", "text"),
    [
        *((page, "1–100 of 202 pipelines") for page in ("0", "-1", "1.5", "x", "²", "١", "")),
        *((page, "201–202 of 202 pipelines") for page in ("4", "999999")),
    ],
)
def test_board_shows_the_first_or_last_page_for_a_number_without_one(
    page: str, text: str, get_page: GetPage
) -> None:
    assert text_of(select_one(get_page(f"/board/?page={page}"), ".pager span")) == text


# --- Cells of stages without a release flow, or never read ----------------------------------------

NO_FLOW = {"has_flow": False}
NEVER_READ = {"has_flow": None, "synced_at": None}
ONLY_FLOW_READ = {"has_flow": True, "synced_at": None}  # its first list of runs has failed


@pytest.mark.parametrize("fields", [NO_FLOW, NEVER_READ, ONLY_FLOW_READ])
@pytest.mark.parametrize("status", ["running", "failure"])
def test_board_shows_run_in_flight_or_failed_of_stage_without_flow_or_never_read(
    status: str, fields: dict[str, Any], get_page: GetPage
) -> None:
    stage = factories.stage(**fields)
    run = factories.run(stage, status=status)
    html = get_page("/board/")
    cell = select_one(html, f"#stage-{stage.pk}")
    assert (cell.attributes["data-state"], cell.attributes["data-status"]) == ("flow", status)
    assert select_one(cell, "a").attributes["href"] == factories.address(run)
    assert run.name in text_of(select_one(cell, "a"))
    assert not any(text in text_of(cell) for text in ("no release flow", "not read", "no runs"))


@pytest.mark.parametrize(
    ("fields", "state", "text"),
    [
        (NO_FLOW, "none", "no release flow"),
        (NEVER_READ, "unknown", "not read yet"),
        (ONLY_FLOW_READ, "unknown", "not read yet"),
        ({}, "flow", "no runs"),
    ],
)
def test_board_says_why_a_stage_has_no_run(
    fields: dict[str, Any], state: str, text: str, get_page: GetPage
) -> None:
    factories.stage(**fields)
    cell = select_one(get_page("/board/"), "td[data-stage]")
    assert cell.attributes["data-state"] == state
    assert text_of(select_one(cell, ".muted")) == text


# --- What is released where -----------------------------------------------------------------------


def succeed(stage: Stage, name: str, minutes_ago: int, **fields: Any) -> Run:
    ended_at = timezone.now() - timedelta(minutes=minutes_ago)
    return factories.run(stage, name=name, status="success", concluded_at=ended_at, **fields)


def test_board_cell_names_the_run_that_last_succeeded_and_what_is_in_flight(
    get_page: GetPage,
) -> None:
    stage = factories.stage()
    succeed(stage, "Voucher codes 4718", 90)
    released = succeed(stage, "", 60, run_id="79cb9d80-1111")
    run = factories.run(
        stage, name="Basket 4719", step="migrate", step_number=3, step_count=7, overdue_severity=2,
        overdue_reason="run",
    )  # fmt: skip
    cell = select_one(get_page("/board/"), f"#stage-{stage.pk}")
    assert cell.attributes["data-released"] == released.run_id
    title = select_one(cell, ".released .title")
    assert (text_of(title), title.attributes["href"]) == (
        "Run 79cb9d80",
        factories.address(released),
    )
    latest = select_one(cell, ".latest")
    assert latest.attributes["href"] == factories.address(run)
    assert "Basket 4719 migrate (3 of 7)" in text_of(latest)
    assert cell.attributes["data-overdue"] == "2"


def test_board_cell_without_news_shows_nothing_but_the_release(get_page: GetPage) -> None:
    stage = factories.stage()
    succeed(stage, "Voucher codes 4718", 90)
    cell = select_one(get_page("/board/"), f"#stage-{stage.pk}")
    assert cell.css(".latest, .behind, .in-flight") == []


@pytest.mark.parametrize(
    ("names", "behind", "text", "summary", "missing"),
    [
        ("1.4 1.5 1.6", "2", "2 behind Staging", "2 releases behind Staging", ["1.6", "1.5"]),
        ("1.4 1.5", "1", "1 behind Staging", "1 release behind Staging", ["1.5"]),
        ("1.4 1.5 ? 1.6", "2+", "2+ behind Staging", "2+ releases behind Staging", ["1.6", "1.5"]),
        ("1.3", "unknown", "differs from Staging", "Differs from Staging", []),
        ("1.4 ?", "unknown", "may differ from Staging", "May differ from Staging", []),
    ],
)
def test_board_and_pipeline_say_how_far_a_stage_is_behind(
    get_page: GetPage, names: str, behind: str, text: str, summary: str, missing: list[str]
) -> None:
    production, staging = factories.stage("Production"), factories.stage("Staging")
    for minutes_ago, name in zip(range(90, 20, -10), names.split(), strict=False):
        succeed(staging, name.strip("?"), minutes_ago)
    succeed(production, "1.4", 10)
    cell = select_one(get_page("/board/"), f"#stage-{production.pk}")
    link = select_one(cell, ".behind")
    assert (cell.attributes["data-behind"], text_of(link)) == (behind, text)
    page = get_page(factories.address(production.pipeline))
    details = select_one(page, (link.attributes["href"] or "").removeprefix(page_path(production)))
    assert text_of(details).startswith(summary)
    assert [text_of(link) for link in details.css("li a")] == missing
    released = select_one(page, f"#stage-{production.pk} [data-released]")
    assert released.attributes["data-behind"] == behind


def test_stage_with_the_release_of_the_stage_before_is_not_behind(get_page: GetPage) -> None:
    production, staging = factories.stage("Production"), factories.stage("Staging")
    succeed(staging, "1.4", 20)
    succeed(production, "1.4", 10)
    for address in ("/board/", factories.address(production.pipeline)):
        assert get_page(address).css("[data-behind], .behind") == []


def page_path(stage: Stage) -> str:
    return factories.address(stage.pipeline)


def test_board_of_viewer_without_stage_before_compares_nothing(
    viewer: User, client: Client
) -> None:
    production, staging = factories.stage("Production"), factories.stage("Staging")
    succeed(staging, "1.4", 90)
    succeed(staging, "1.5", 60)
    succeed(production, "1.4", 10)
    Grant.objects.all().delete()
    factories.grant("view", "on-call", viewer, stage="Production")
    client.force_login(viewer)
    html = fetch_page(client, "/board/")
    assert text_of(select_one(html, f"#stage-{production.pk} .title")) == "1.4"
    assert html.css(".behind") == []


# --- A project, and my pipelines ------------------------------------------------------------------


@pytest.mark.usefixtures("pipelines_in_each_state")
def test_project_page_is_the_board_with_its_pipelines_only(get_page: GetPage) -> None:
    html = get_page("/projects/shop/?q=bus")
    assert text_of(select_one(html, "h1")) == "Shop"
    assert listed_pipelines(html) == {"busy"}
    assert listed_pipelines(get_page("/projects/shop/")) == {"calm", "busy"}


# --- Cached cells ---------------------------------------------------------------------------------


def change_stage(**fields: Any) -> Callable[[Run, User], object]:
    return lambda run, _user: Stage.objects.filter(pk=run.stage_id).update(**fields)


def acknowledge(run: Run, user: User) -> None:
    acknowledgements.acknowledge(run, user)


def end(run: Run, _user: User) -> None:
    factories.change(run, status="success", concluded=True, in_flight=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda run, _user: factories.change(run, status="waiting"),
        lambda run, _user: factories.change(run, overdue_severity=2, overdue_reason="run"),
        lambda run, _user: factories.run(run.stage, "newer"),
        lambda run, _user: factories.run(run.stage, "old", status="success", created_at=LONG_AGO),
        lambda run, _user: succeed(run.stage, "Released", 2),
        lambda run, _user: succeed(factories.stage("Staging"), "Released", 2),
        lambda run, _user: Pipeline.objects.update(name="Renamed"),
        lambda run, _user: Pipeline.objects.update(slug="moved"),
        change_stage(error="x", error_message="No access."),
        acknowledge,
        end,
    ],
)
def test_board_from_cache_equals_board_without_cache_after_change(
    change: Callable[[Run, User], object], manager: User, get_page: GetPage
) -> None:
    run = factories.run(factories.stage(), overdue_severity=1, overdue_reason="run")
    expect_same_without_cache(get_page, lambda: change(run, manager))


@pytest.mark.parametrize("fields", [NO_FLOW, NEVER_READ, ONLY_FLOW_READ])
def test_board_from_cache_equals_board_without_cache_after_change_of_stage_at_rest(
    fields: dict[str, Any], manager: User, get_page: GetPage
) -> None:
    run = factories.run(factories.stage(), status="success")
    expect_same_without_cache(get_page, lambda: change_stage(**fields)(run, manager))


def expect_same_without_cache(get_page: GetPage, change: Callable[[], object]) -> None:
    """Change what a cached cell shows: it shows the change as if it were not cached."""

    def cells() -> list[str | None]:
        return [cell.html for cell in get_page("/board/").css(".board td")]

    before = cells()
    change()
    from_cache = cells()
    assert from_cache != before
    cache.clear()
    assert from_cache == cells()


WORDS = st.text(string.ascii_letters + " ", max_size=12)


@given(before=WORDS, name=st.text(min_size=1, max_size=30), after=WORDS)
def test_board_filter_matches_any_part_of_pipeline_name(before: str, name: str, after: str) -> None:
    names = "Payments", f"{before}{name}{after}"
    assert BoardFilter(name).matches_text(*names)
    assert BoardFilter(f"payments {name}").matches_text(*names)
