"""Pagination of a stage's runs: each run once, in order, despite changes in between."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from hypothesis import HealthCheck, given, settings, strategies

from dashboard.models import Run, Stage
from dashboard.web.components.lists import filters, pagination
from dashboard.web.components.lists.filters import Cursor
from dashboard.web.components.lists.pagination import PageOfRuns
from tests.support import factories
from tests.support.html import GetPage, select_one, text_of

T0 = datetime(2026, 3, 1, tzinfo=UTC)
STATUSES = ["running", "queued", "success", "failure", "aborted"]

type GetRunPage = Callable[..., PageOfRuns]


@pytest.fixture
def get_run_page(stage: Stage, viewer: User) -> GetRunPage:
    """Return a function that gets the page of a query; keywords change its size."""
    return lambda query, **size: pagination.page(
        stage.runs.all(), filters.parse(QueryDict(query), stage, viewer), **size
    )


@pytest.fixture
def stage_with_250_runs(stage: Stage) -> Stage:
    """A stage with 250 runs, of which the five oldest are in flight."""
    for number in range(250):
        status = "running" if number >= 245 else "success"
        created = T0 - timedelta(minutes=number)
        factories.run(stage, f"r-{number}", status=status, created_at=created)
    return stage


def walk_pages(get_run_page: GetRunPage, query: str, **size: int) -> list[list[int]]:
    """Follow the links from one page on; return the run keys of each page."""
    pages = []
    while query:
        page = get_run_page(query, **size)
        pages.append(keys_of(page))
        query = urlsplit(page.older_url).query
    return pages


def keys_of(page: PageOfRuns) -> list[int]:
    return [run.pk for run in page.runs]


def keys_newest_first(stage: Stage, **conditions: object) -> list[int]:
    return list(stage.runs.filter(**conditions).newest_first().values_list("pk", flat=True))


# --- Every run once -----------------------------------------------------------------------------


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=strategies.lists(
        strategies.tuples(strategies.sampled_from(STATUSES), strategies.integers(0, 4)),
        max_size=25,
    ),
    per_page=strategies.integers(1, 7),
    statuses=strategies.sets(strategies.sampled_from([*STATUSES, "in_flight"])),
    text=strategies.sampled_from(["", "", "even"]),
)
def test_pagination_shows_each_run_once_in_order(
    runs: list[tuple[str, int]],
    per_page: int,
    statuses: set[str],
    text: str,
    stage: Stage,
    get_run_page: GetRunPage,
) -> None:
    Run.objects.all().delete()
    for number, (status, minute) in enumerate(runs):
        name = "Even" if number % 2 else "Odd"
        created = T0 + timedelta(minutes=minute)
        factories.run(stage, f"{number}", name=name, status=status, created_at=created)
    factories.search_texts()
    expected = [
        run.pk
        for run in stage.runs.newest_first()
        if (not statuses or run.status in statuses or ("in_flight" in statuses and run.in_flight))
        and text in run.name.lower()
    ]
    query = "&".join([f"status={status}" for status in statuses] + [f"q={text}"])
    older = walk_pages(get_run_page, query, per_page=per_page)
    assert [key for page in older for key in page] == expected


def test_pagination_while_runs_start_and_end_misses_and_repeats_none(
    stage_with_250_runs: Stage, get_run_page: GetRunPage
) -> None:
    before = keys_newest_first(stage_with_250_runs, in_flight=False)
    first = get_run_page("all=1")
    for number in range(30):
        factories.run(
            stage_with_250_runs, f"new-{number}", created_at=T0 + timedelta(minutes=number + 1)
        )
    Run.objects.filter(pk__in=keys_of(first)[:2]).update(in_flight=False, concluded=True)
    Run.objects.filter(pk=keys_of(first)[-1]).delete()  # also the run that the cursor names
    later_pages = walk_pages(get_run_page, urlsplit(first.older_url).query)
    keys = keys_of(first) + [key for page in later_pages for key in page]
    assert set(before) <= set(keys)
    # Runs that ended meanwhile have another position: those two, and no others.
    assert len(keys) - len(set(keys)) == 2


def test_pagination_after_runs_in_flight_continues_with_ended_runs(
    stage: Stage, get_run_page: GetRunPage
) -> None:
    for number in range(150):
        factories.run(stage, f"f-{number}", created_at=T0 - timedelta(days=number))
        factories.run(stage, f"e-{number}", status="success", created_at=T0)
    assert [key for page in walk_pages(get_run_page, "all=1") for key in page] == keys_newest_first(
        stage
    )


# --- On the page --------------------------------------------------------------------------------


def test_run_list_orders_in_flight_first_then_newest_first(
    get_page: GetPage, stage_with_250_runs: Stage
) -> None:
    html = get_page(factories.address(stage_with_250_runs))
    assert [row.attributes["data-run"] for row in html.css("[data-run]")][:7] == [
        "r-245", "r-246", "r-247", "r-248", "r-249", "r-0", "r-1",
    ]  # fmt: skip


def test_pagination_links_keep_filter(get_page: GetPage, stage_with_250_runs: Stage) -> None:
    address = factories.address(stage_with_250_runs)
    first = get_page(f"{address}?status=success&from=2026-01-01")
    assert text_of(select_one(first, ".pager span")) == "100 runs"
    assert first.css('.pager [rel="first"]') == []
    next_link = select_one(first, '.pager [rel="next"]').attributes["href"] or ""
    assert next_link.startswith("?status=success&from=2026-01-01&before=")
    second = get_page(address + next_link)
    assert text_of(select_one(second, ".pager span")) == "100 runs"
    newest = select_one(second, '.pager [rel="first"]').attributes["href"]
    assert newest == "?status=success&from=2026-01-01"


def test_page_beyond_last_run_links_to_newest(get_page: GetPage, run: Run) -> None:
    cursor = Cursor(run.in_flight, run.created_at, run.pk)
    html = get_page(f"{factories.address(run.stage)}?status=running&before={quote(str(cursor))}")
    empty_state = select_one(html, '[data-empty="known"]')
    assert select_one(empty_state, "a").attributes["href"] == "?status=running"


@pytest.mark.parametrize(
    "cursor",
    [
        "x", "0_1", "2_2026-01-01T00:00:00+00:00_1", "0_2026-01-01T00:00:00_1",
        "0_2026-01-01T00:00:00+02:00_1", "0_2026-13-01T00:00:00+00:00_1",
        "0_2026-01-01T00:00:00+00:00_-1", "0_2026-01-01T00:00:00+00:00_٣", "\0",
        f"0_2026-01-01T00:00:00+00:00_{'9' * 19}", "0_1_1" * 2000,
    ],
)  # fmt: skip
def test_invalid_cursor_is_ignored_and_reported(cursor: str, get_page: GetPage, run: Run) -> None:
    html = get_page(f"{factories.address(run.stage)}?before={quote(cursor)}")
    assert "Invalid position" in text_of(select_one(html, "main > .inline-notice"))
    assert select_one(html, "[data-run]").attributes["data-run"] == "r-1"


# --- Queries ------------------------------------------------------------------------------------
