"""Page by page through a stage's runs: each run once, in order, whatever happens meanwhile."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.http import QueryDict
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings, strategies

from dashboard.models import Run, Stage
from dashboard.web.components import filters, pagination
from dashboard.web.components.cursor import Cursor
from dashboard.web.components.pagination import Page
from tests.support import factories
from tests.support.html import See, one, words

T0 = datetime(2026, 3, 1, tzinfo=UTC)
STATUSES = ["running", "queued", "success", "failure", "aborted"]

type Turn = Callable[..., Page]


@pytest.fixture
def turn(stage: Stage, viewer: User) -> Turn:
    """Find the page of a query; by keywords it is of another size."""
    return lambda query, **size: pagination.page(
        stage.runs.all(), filters.read(QueryDict(query), stage, viewer), **size
    )


@pytest.fixture
def many(stage: Stage) -> Stage:
    """A stage with 250 runs, of which the five oldest are in flight."""
    for number in range(250):
        status = "running" if number >= 245 else "success"
        created = T0 - timedelta(minutes=number)
        factories.run(stage, f"r-{number}", status=status, created_at=created)
    return stage


def walk(turn: Turn, query: str, onward: str = "older_url", **size: int) -> list[list[int]]:
    """The pages from one on, each as it was found: the keys of its runs."""
    pages = []
    while query:
        page = turn(query, **size)
        pages.append(page.keys)
        query = urlsplit(getattr(page, onward)).query
    return pages


def in_order(stage: Stage, **which: object) -> list[int]:
    return list(stage.runs.filter(**which).newest_first().values_list("pk", flat=True))


# --- Every run once -----------------------------------------------------------------------------


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    runs=strategies.lists(
        strategies.tuples(strategies.sampled_from(STATUSES), strategies.integers(0, 4)),
        max_size=25,
    ),
    per_page=strategies.integers(1, 7),
    asked=strategies.sets(strategies.sampled_from([*STATUSES, "in_flight"])),
    text=strategies.sampled_from(["", "", "even"]),
    looked_at=strategies.integers(1, 30),
)
def test_walking_shows_each_run_once_in_order_in_both_directions(
    runs: list[tuple[str, int]],
    per_page: int,
    asked: set[str],
    text: str,
    looked_at: int,
    stage: Stage,
    turn: Turn,
) -> None:
    Run.objects.all().delete()
    for number, (status, minute) in enumerate(runs):
        name = "Even" if number % 2 else "Odd"
        created = T0 + timedelta(minutes=minute)
        factories.run(stage, f"{number}", name=name, status=status, created_at=created)
    meant = [
        run.pk
        for run in stage.runs.newest_first()
        if (not asked or run.status in asked or ("in_flight" in asked and run.in_flight))
        and text in run.name.lower()
    ]
    query = "&".join([f"status={status}" for status in asked] + [f"q={text}"])
    size = {"per_page": per_page, "looked_at": looked_at}
    older = walk(turn, query, **size)
    assert [key for page in older for key in page] == meant
    if not meant:
        return
    # From below the oldest upwards: nearest first, so the pages come in reverse.
    bottom = Cursor(False, T0 - timedelta(days=1), 0)
    newer = walk(turn, f"{query}&after={bottom.written}", "newer_url", **size)
    upwards = [key for page in newer for key in reversed(page)]
    assert upwards == meant[::-1]


def test_a_page_back_is_the_page_one_came_from(many: Stage, turn: Turn) -> None:
    first = turn("all=1")
    second = turn(urlsplit(first.older_url).query)
    third = turn(urlsplit(second.older_url).query)
    assert [len(page.keys) for page in (first, second, third)] == [100, 100, 50]
    assert first.keys + second.keys + third.keys == in_order(many)
    back = turn(urlsplit(third.newer_url).query)
    assert back.keys == second.keys
    assert turn(urlsplit(back.newer_url).query).keys == first.keys


def test_while_runs_come_and_end_none_is_missed_and_none_comes_twice(
    many: Stage, turn: Turn
) -> None:
    before = in_order(many, in_flight=False)
    first = turn("all=1")
    for number in range(30):
        factories.run(many, f"new-{number}", created_at=T0 + timedelta(minutes=number + 1))
    Run.objects.filter(pk__in=first.keys[:2]).update(in_flight=False, concluded=True)
    Run.objects.filter(pk=first.keys[-1]).delete()  # also the run that the place is named after
    rest = walk(turn, urlsplit(first.older_url).query)
    seen = first.keys + [key for page in rest for key in page]
    assert set(before) <= set(seen)
    # What has ended meanwhile has another place now: those two runs, and no others.
    assert len(seen) - len(set(seen)) == 2


def test_runs_of_one_moment_are_told_apart(stage: Stage, turn: Turn) -> None:
    for number in range(230):
        factories.run(stage, f"r-{number}", status="failure", created_at=T0)
    pages = walk(turn, "status=failure")
    assert [len(page) for page in pages] == [100, 100, 30]
    assert [key for page in pages for key in page] == in_order(stage)


def test_a_page_of_runs_in_flight_goes_on_with_those_that_ended(stage: Stage, turn: Turn) -> None:
    for number in range(150):
        factories.run(stage, f"f-{number}", created_at=T0 - timedelta(days=number))
        factories.run(stage, f"e-{number}", status="success", created_at=T0)
    assert [key for page in walk(turn, "all=1") for key in page] == in_order(stage)


# --- As the page shows it -----------------------------------------------------------------------


def test_in_flight_is_on_top_however_old_then_newest_first(see: See, many: Stage) -> None:
    html = see(factories.address(many))
    assert [row.attributes["data-run"] for row in html.css("[data-run]")][:7] == [
        "r-245", "r-246", "r-247", "r-248", "r-249", "r-0", "r-1",
    ]  # fmt: skip


def test_pages_lead_to_each_other_and_keep_the_filter(see: See, many: Stage) -> None:
    address = factories.address(many)
    first = see(f"{address}?status=success&from=2026-01-01")
    assert words(one(first, ".pager span")) == "100 of 245 runs"
    assert first.css('.pager [rel="prev"], .pager [rel="first"]') == []
    following = one(first, '.pager [rel="next"]').attributes["href"] or ""
    assert following.startswith("?status=success&from=2026-01-01&before=")
    second = see(address + following)
    assert words(one(second, ".pager span")) == "100 of 245 runs"
    newest = one(second, '.pager [rel="first"]').attributes["href"]
    assert newest == "?status=success&from=2026-01-01"
    back = one(second, '.pager [rel="prev"]').attributes["href"] or ""
    assert back.startswith("?status=success&from=2026-01-01&after=")
    again = [row.attributes["data-run"] for row in see(address + back).css("[data-run]")]
    assert again == [row.attributes["data-run"] for row in first.css("[data-run]")]


def test_beyond_the_last_run_a_page_leads_to_the_newest(see: See, run: Run) -> None:
    place = Cursor(run.in_flight, run.created_at, run.pk).written
    for side in ("before", "after"):
        html = see(f"{factories.address(run.stage)}?status=running&{side}={place}")
        empty = one(html, '[data-empty="nothing_matches"]')
        assert one(empty, "a").attributes["href"] == "?status=running"


def test_a_text_is_looked_for_stretch_by_stretch(stage: Stage, turn: Turn) -> None:
    for number in range(25):
        name = "Needle" if number in {3, 22} else "Hay"
        created = T0 - timedelta(minutes=number)
        factories.run(stage, f"r{number}", name=name, status="success", created_at=created)
    flying = factories.run(stage, name="Needle in flight", created_at=T0 - timedelta(days=9))
    found = dict(stage.runs.filter(name__startswith="Needle").values_list("run_id", "pk"))

    def look(url: str) -> Page:
        return turn(urlsplit(url).query, looked_at=10)

    first = look("?q=needle")
    assert (first.keys, first.looked_at) == ([flying.pk, found["r3"]], 10)
    second = look(first.older_url)
    assert (second.keys, second.looked_at) == ([], 10)
    assert "q=needle" in second.older_url
    third = look(second.older_url)
    assert (third.keys, third.older_url) == ([found["r22"]], "")
    assert look(third.newer_url).looked_at == 10


def test_runs_are_counted_up_to_a_thousand(stage: Stage, turn: Turn) -> None:
    factories.copies(factories.run(stage, status="success", created_at=T0), 999)
    assert turn("all=1").text == "100 of 1000 runs"
    factories.run(stage, status="failure")
    assert turn("all=1").text == "100 of more than 1,000 runs"
    assert turn("status=success&status=failure").text == "100 of more than 1,000 runs"
    assert turn("status=failure").text == "1 of 1 run"
    assert turn("q=copy-1").text == "100 runs"


@pytest.mark.parametrize(
    "place",
    [
        "x", "0", "0.1", "2.1.1", "0.1.-1", "0.1e3.1", "0.½.1", "0.٣.1", "0. 1.1", "0.1.1\n",
        f"0.{'9' * 18}.1", f"0.-{'9' * 18}.1", f"0.1.{'9' * 19}", "\0", "0.1.1" * 2000, "-1",
        "0.1.1.1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_place_that_is_none_is_ignored_and_said(
    side: str, place: str, see: See, run: Run
) -> None:
    html = see(f"{factories.address(run.stage)}?{side}={quote(place)}")
    assert "is no place in the list" in words(one(html, "main > .trouble"))
    assert one(html, "[data-run]").attributes["data-run"] == "r-1"


@pytest.mark.parametrize("place", [f"1.1.{'9' * 18}", "0.-62135596800000000.0", "1.0.1"])
def test_a_place_that_is_made_up_is_one_as_good_as_any(place: str, see: See, run: Run) -> None:
    for side in ("before", "after"):
        html = see(f"{factories.address(run.stage)}?{side}={place}")
        assert html.css("main > .trouble") == []
        shown = [row.attributes["data-run"] for row in html.css("[data-run]")]
        beyond = html.css('[data-empty="nothing_matches"]') != []
        assert shown == ([] if beyond else ["r-1"])


def test_a_place_is_what_was_written() -> None:
    for moment in (T0, T0 + timedelta(microseconds=1), datetime(1, 1, 1, tzinfo=UTC)):
        for flying in (True, False):
            place = Cursor(flying, moment, 7)
            assert Cursor.read(place.written) == place


# --- What it costs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query", ["all=1", "status=failure", "status=failure&status=aborted", "from=2026-01-01"]
)
def test_pages_are_found_along_an_index(query: str, many: Stage, turn: Turn) -> None:
    """Each question for runs enters an index at the place where the page begins."""
    factories.run(many, status="failure")
    factories.run(many, status="aborted")
    place = Cursor(False, T0 - timedelta(minutes=200), 10**9).written
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
        if connection.vendor == "postgresql":
            # So small a table would be read whole, and sorted.
            cursor.execute(
                "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off;"
                " SET LOCAL enable_sort = off"
            )
    turn(query)  # the statuses there are, kept for a minute
    with CaptureQueriesContext(connection) as asked:
        turn(f"{query}&before={place}")
    places = [each["sql"] for each in asked if "COUNT(" not in each["sql"]]
    assert places
    for sql in places:
        plan = _plan(sql)
        assert "runs_of_a_stage" in plan or "runs_of_a_status" in plan, plan
        assert "TEMP B-TREE" not in plan, plan
        assert "Sort" not in plan, plan


def _plan(sql: str) -> str:
    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
    with connection.cursor() as cursor:
        cursor.execute(f"{explain} {sql}")
        return "\n".join(str(row[-1]) for row in cursor.fetchall())
