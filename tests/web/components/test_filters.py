"""The filter of a stage's runs: combined parameters, and invalid ones ignored."""

from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import permissions
from dashboard.db.threads import now
from dashboard.models import BulkAbort, BulkAbortItem, Run, Stage
from dashboard.runs import statuses
from dashboard.web.components.lists import filters
from dashboard.web.components.runs import run_row
from dashboard.web.http.site_context import SiteContext
from dashboard.web.live.snapshot import Snapshot
from dashboard.web.pages.stage import StagePage
from tests.support import factories
from tests.support.html import GetPage, parse_html, select_one, text_of
from tests.support.messages import keys_and_params

ALL_RUNS = "?all=1"
# One of each parameter, in the order in which addresses carry them.
EACH_PARAMETER = [
    ("status", "failure"),
    ("status", "aborted"),
    ("q", "nightly"),
    ("from", "2026-03-01"),
    ("to", "2026-03-31T14:30"),
    ("overdue", "1"),
    ("by_me", "1"),
]


def listed_run_ids(html: LexborHTMLParser) -> list[str | None]:
    return [row.attributes["data-run"] for row in html.css("[data-run]")]


def checked_values(html: LexborHTMLParser, name: str = "status") -> list[str | None]:
    boxes = html.css(f'.run-filter input[name="{name}"][type="checkbox"]')
    return [box.attributes["value"] for box in boxes if "checked" in box.attributes]


def query_pairs(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query)


def warnings(html: LexborHTMLParser) -> str:
    return " ".join(text_of(notice) for notice in html.css("main > .inline-notice"))


@pytest.fixture
def get_stage_page(get_page: GetPage, stage: Stage) -> GetPage:
    """Open the stage's page with a query."""
    return lambda query, **headers: get_page(f"{factories.address(stage)}?{query}", **headers)


# --- Statuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["running", "success", "hibernating", "h" * 100])
def test_status_filter_lists_only_runs_of_that_status(
    status: str, get_stage_page: GetPage, stage: Stage
) -> None:
    for other_status in [*statuses.RUN_STATUSES, "hibernating", "h" * 100]:
        factories.run(stage, other_status[-90:], status=other_status)
    html = get_stage_page(f"status={status}")
    assert listed_run_ids(html) == [status[-90:]]
    assert checked_values(html) == [status]


def test_status_filter_with_several_statuses_matches_any(
    get_stage_page: GetPage, stage: Stage
) -> None:
    for status in statuses.RUN_STATUSES:
        factories.run(stage, status, status=status)
    html = get_stage_page("status=failure&status=running&status=aborted")
    assert listed_run_ids(html) == ["running", "failure", "aborted"]
    assert checked_values(html) == ["running", "aborted", "failure"]
    assert text_of(select_one(html, "#status-chosen")) == "3 statuses"


@pytest.mark.parametrize(
    ("query", "key", "params"),
    [
        (f"q={'x' * 300}", "text_cut", {"count": 200, "text": "x" * 40}),
        ("from=yesterday", "invalid_date", {"day": "yesterday"}),
        ("overdue=yes", "invalid_value", {"name": "overdue"}),
        ("by_me=yes", "invalid_value", {"name": "by_me"}),
        ("before=x", "invalid_position", {"place": "x"}),
        # A time without its zone, to Python: the "+" stands for the T.
        ("before=1_0001-01-01%2B00:00_5", "invalid_position", {"place": "1_0001-01-01+00:00_5"}),
    ],
)
def test_invalid_parameter_has_a_warning(
    query: str, key: str, params: dict[str, object], stage: Stage
) -> None:
    [warning] = filters.parse(QueryDict(query), stage, None).warnings
    assert keys_and_params(warning) == (key, params)


@pytest.mark.parametrize("status", ["nope", "RUNNING", "<b>", "\0", "x" * 5000, "ـ"])
def test_unknown_status_matches_no_run(status: str, get_stage_page: GetPage, run: Run) -> None:
    html = get_stage_page(f"status={quote(status)}")
    assert listed_run_ids(html) == (["r-1"] if status == "\0" else [])
    html = get_stage_page(f"status={quote(status)}&status=running")
    assert listed_run_ids(html) == ["r-1"]


# --- Text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["name", "run_id", "description", "step"])
@pytest.mark.parametrize("status", ["running", "success"])
def test_text_filter_matches_run_fields(
    field: str, status: str, get_stage_page: GetPage, stage: Stage
) -> None:
    matching_run = factories.run(stage, status=status, **{field: "Fix 100%_of Nightlies"})
    factories.run(stage, status=status)
    factories.search_texts()
    assert listed_run_ids(get_stage_page("q=fix+100%25_OF+night")) == [matching_run.run_id]


@pytest.mark.parametrize("text", ["uber straße", "STRASSE über", "ÜBER"])
def test_text_filter_folds_as_the_search_and_takes_words_in_any_order(
    text: str, get_stage_page: GetPage, stage: Stage
) -> None:
    factories.run(stage, "r-1", name="Über die Straße")
    factories.search_texts()
    assert listed_run_ids(get_stage_page(f"q={quote(text)}")) == ["r-1"]


@pytest.mark.parametrize("text", ["%", "_", "\\", "'", '"', "nightly_x"])
def test_text_filter_with_wildcard_characters_matches_literally(
    text: str, get_stage_page: GetPage, stage: Stage
) -> None:
    factories.run(stage, "r-1", name="Nightly x")
    factories.search_texts()
    assert listed_run_ids(get_stage_page(f"q={quote(text)}")) == []


def test_long_text_filter_is_truncated_and_reported(get_stage_page: GetPage, stage: Stage) -> None:
    factories.run(stage, "r-1", name="a" * 200)
    factories.search_texts()
    html = get_stage_page(f"q={'a' * 300}")
    assert listed_run_ids(html) == ["r-1"]
    assert warnings(html)


# --- Dates --------------------------------------------------------------------------------------


@pytest.fixture
def runs_around_dst_change(settings: Settings, stage: Stage) -> Stage:
    """Runs around the end of a day that has 23 hours, each named by its local time."""
    settings.TIME_ZONE = "Europe/Berlin"
    timezone.get_default_timezone.cache_clear()
    zone = timezone.get_default_timezone()
    for local in (
        "2026-03-28T23:59:59", "2026-03-29T00:00:00", "2026-03-29T14:30:00",
        "2026-03-29T14:30:59", "2026-03-29T14:31:00", "2026-03-29T23:59:59", "2026-03-30T00:00:00",
    ):  # fmt: skip
        created_at = datetime.fromisoformat(local).replace(tzinfo=zone)
        factories.run(stage, local[5:], status="success", created_at=created_at)
    yield stage
    timezone.get_default_timezone.cache_clear()


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("from=2026-03-29&to=2026-03-29", "03-29T00:00:00", "03-29T23:59:59"),
        ("from=2026-03-30", "03-30T00:00:00", "03-30T00:00:00"),
        ("to=2026-03-28", "03-28T23:59:59", "03-28T23:59:59"),
        ("from=2026-03-29T14:30&to=2026-03-29T14:30", "03-29T14:30:00", "03-29T14:30:59"),
    ],
)
def test_date_filters_are_inclusive_in_page_timezone(
    query: str, first: str, last: str, get_stage_page: GetPage, runs_around_dst_change: Stage
) -> None:
    html = get_stage_page(query)
    assert html.css("main > .inline-notice") == []
    assert (listed_run_ids(html)[-1], listed_run_ids(html)[0]) == (first, last)


@pytest.mark.parametrize(
    "value",
    [
        "2026-02-30", "0001-01-01", "9999-12-31", "20260331", "2026-03-31T14:30Z", "2026-03-31 ",
        "٢٠٢٦-03-31", "\0", "1" * 5000, "2026-W014-1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["to"])
def test_invalid_date_is_ignored_and_reported(
    name: str, value: str, get_stage_page: GetPage, run: Run
) -> None:
    html = get_stage_page(f"{name}={quote(value)}")
    if value == "2026-03-31 ":  # trailing blanks are ignored silently
        assert html.css("main > .inline-notice") == []
        return
    assert listed_run_ids(html) == ["r-1"]
    assert warnings(html)


# --- Overdue, and own aborts --------------------------------------------------------------------


def test_overdue_filter_lists_only_overdue_runs_in_flight(
    get_stage_page: GetPage, stage: Stage
) -> None:
    factories.run(stage, "late", overdue_severity=2, overdue_reason="run")
    factories.run(stage, "fine")
    factories.run(stage, "was-late", status="failure", overdue_severity=1, overdue_reason="run")
    assert listed_run_ids(get_stage_page("overdue=1")) == ["late"]


def test_own_aborts_filter_lists_single_and_bulk_aborts_of_user(
    get_stage_page: GetPage, stage: Stage, manager: User, viewer: User
) -> None:
    own, others, bulk_aborted, unrelated = (
        factories.run(stage, run_id, status="aborted")
        for run_id in ("mine", "others", "list", "no")
    )
    settled = {"settled_at": timezone.now()}
    factories.abort(own, manager, "refused", **settled)
    factories.abort(others, viewer, "concluded", **settled)
    for user, run in ((manager, bulk_aborted), (viewer, unrelated)):
        batch = BulkAbort.objects.create(
            key=f"00000000-0000-0000-0000-{user.pk:012}", user=user, username=user.username,
            requested_at=timezone.now(), claimed_at=timezone.now(), settled_at=timezone.now(),
        )  # fmt: skip
        BulkAbortItem.objects.create(bulk_abort=batch, position=0, run=run, result="joined")
    assert listed_run_ids(get_stage_page("by_me=1")) == ["list", "mine"]


# --- The address is the filter ------------------------------------------------------------------


def test_filter_chips_each_remove_one_parameter(get_stage_page: GetPage, run: Run) -> None:
    html = get_stage_page(urlencode(EACH_PARAMETER))
    chips = html.css(".filter-chips li a")
    assert [text_of(chip) for chip in chips[:-1]] == [
        "Remove: Aborted", "Remove: Failed", "Remove: “nightly”", "Remove: from 2026-03-01",
        "Remove: to 2026-03-31 14:30", "Remove: Overdue", "Remove: Aborted by me",
    ]  # fmt: skip
    remaining = [query_pairs(chip.attributes["href"] or "") for chip in chips[:-1]]
    assert all(
        len(parameters) == len(EACH_PARAMETER) - 1 and set(parameters) < set(EACH_PARAMETER)
        for parameters in remaining
    )
    assert len({frozenset(parameters) for parameters in remaining}) == len(EACH_PARAMETER)
    assert chips[-1].attributes["href"] == ALL_RUNS


def test_filter_form_contains_all_parameters(get_stage_page: GetPage, run: Run) -> None:
    html = get_stage_page(urlencode(EACH_PARAMETER))
    fields = html.css(".run-filter [name]")
    form_values = [
        (field.attributes["name"], field.attributes.get("value"))
        for field in fields
        if field.attributes.get("type") != "checkbox" or "checked" in field.attributes
    ]
    expected = {**dict(EACH_PARAMETER), "from": "2026-03-01T00:00"}
    assert {name: value for name, value in form_values if name != "status"} == {
        name: value for name, value in expected.items() if name != "status"
    }
    assert {value for name, value in form_values if name == "status"} == {"failure", "aborted"}


_values = strategies.one_of(
    strategies.sampled_from([value for _, value in EACH_PARAMETER]),
    strategies.sampled_from(["in_flight", "running", "0.1.1", "1.5.2", "2026-01-01T00:00:01"]),
    strategies.text(max_size=30),
)
_names = strategies.sampled_from(
    ["status", "q", "from", "to", "overdue", "by_me", "before", "page", "all", "x"]
)


@pytest.mark.slow
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=strategies.lists(strategies.tuples(_names, _values), max_size=8))
def test_any_query_is_accepted_and_links_keep_its_parameters(
    pairs: list[tuple[str, str]], run: Run, operator_client: Client
) -> None:
    query = urlencode(pairs, errors="replace")
    user = User.objects.get(username="manager")
    run_filter = filters.parse(QueryDict(query), run.stage, user)
    html = parse_html(operator_client.get(f"{factories.address(run.stage)}?{query}"))
    links = [
        link.attributes["href"] or "" for link in html.css(".pager a, .filter-chips a:not(.clear)")
    ]
    for link in links:
        parsed_again = filters.parse(QueryDict(urlsplit(link).query), run.stage, user)
        missing = set(run_filter.parameters) - set(parsed_again.parameters)
        assert len(missing) == (1 if "without" in _link_kind(html, link) else 0)
    # Parsing and formatting a query gives the same query.
    parsed_again = filters.parse(QueryDict(run_filter.query_string), run.stage, user)
    assert parsed_again.parameters == run_filter.parameters
    assert not parsed_again.warnings


def _link_kind(html: LexborHTMLParser, link: str) -> str:
    chips = [chip.attributes["href"] for chip in html.css(".filter-chips a:not(.clear)")]
    return "without" if link in chips else "page"


# --- Streams ------------------------------------------------------------------------------------


def stream_query(html: LexborHTMLParser) -> str:
    address = select_one(html, "#stream").attributes["hx-sse:connect"] or ""
    return QueryDict(urlsplit(address).query).get("query", "")


def test_stream_of_unfiltered_page_lists_all_new_runs(get_stage_page: GetPage, run: Run) -> None:
    assert stream_query(get_stage_page("all=1")) == ""


@pytest.mark.parametrize(
    "query",
    [
        "before=0_2026-01-01T00:00:00%2B00:00_1",
        "before=0_2026-01-01T00:00:00%2B00:00_1&status=running",
        "by_me=1",
    ],
)
def test_stream_of_older_or_own_aborts_page_lists_no_new_run(
    query: str, get_stage_page: GetPage, run: Run
) -> None:
    assert stream_query(get_stage_page(query)) == filters.NO_NEW_RUNS


FILTERS = [
    "status=in_flight", "status=failure", "status=in_flight&status=failure", "q=NIGHT", "q=100%25",
    "overdue=1", "overdue=1&status=running", "from=2026-03-01", "to=2026-03-01",
    "from=2026-03-01T08:00&to=2026-03-02&q=night", "status=success&overdue=1",
]  # fmt: skip


@pytest.mark.parametrize("query", FILTERS)
def test_stream_of_filtered_page_lists_new_runs_that_page_lists(
    query: str, get_stage_page: GetPage, stage: Stage
) -> None:
    for day in (datetime(2026, 2, 28, 12, tzinfo=UTC), datetime(2026, 3, 1, 12, tzinfo=UTC), now()):
        for status in ("queued", "running", "success", "failure"):
            is_ended = status in {"success", "failure"}
            for name in ("Nightly", "100% of it"):
                fields = {"concluded": is_ended, "in_flight": not is_ended, "created_at": day}
                factories.run(stage, name=name, status=status, **fields)
                factories.run(stage, name=name, status=status, overdue_severity=1, **fields)
    html = get_stage_page(query)
    page = StagePage(
        Snapshot(permissions.ALL, 0, now(), SiteContext()), key=stage.pk, query=stream_query(html)
    )
    runs = list(Run.objects.with_stage())
    listed = {row.attributes["id"] for row in html.css("tr[data-run]")}
    parts = page.changed_parts(runs)
    assert {part.id for part in parts if part.is_new} == {
        run_row.dom_id(run.run_id)
        for run in runs
        if run_row.dom_id(run.run_id) in listed and page.is_recent(run)
    }
    rows = {run_row.dom_id(run.run_id) for run in runs}
    assert {part.id for part in parts if part.is_unlisted} == rows - listed


# --- Aborting all of a filter -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "offered"),
    [("all=1", 3), ("status=in_flight", 3), ("status=queued", 2), *(
        (query, 0) for query in (
            "status=queued&status=running", "q=r", "status=queued&q=r", "overdue=1", "by_me=1",
            "from=2020-01-01", "status=queued&to=2099-01-01", "status=in_flight&status=queued",
        )
    )],
)  # fmt: skip
def test_abort_all_is_offered_only_for_filters_it_supports(
    query: str, offered: int, get_stage_page: GetPage, get_page: GetPage, stage: Stage
) -> None:
    for run_id, status in (("r1", "queued"), ("r2", "queued"), ("r3", "running")):
        factories.run(stage, run_id, status=status, overdue_severity=1)
    html = get_stage_page(query)
    forms = html.css(".abort-all form")
    assert bool(forms) is bool(offered)
    if not forms:
        assert html.css("#bulk-abort-form") != []  # selected runs can still be aborted
        return
    fields = [
        (element.attributes["name"], element.attributes["value"])
        for element in forms[0].css("input")
    ]
    confirmed = get_page(f"/aborts/bulk/new/?{urlencode(fields)}").css('main form [name="run"]')
    listed = [box.attributes["value"] for box in html.css('.select [name="run"]')]
    assert {element.attributes["value"] for element in confirmed} == set(listed)
    assert len(confirmed) == offered
