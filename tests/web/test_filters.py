"""Which runs of a stage an address asks for: filters together, and deaf to nonsense."""

import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from django.contrib.auth.models import User
from django.http import QueryDict
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings, strategies
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import AbortBatch, BatchItem, Run, Stage
from dashboard.runs import statuses
from dashboard.web.components import filters
from dashboard.web.components.pagination import LOOKED_AT
from tests.support import factories
from tests.support.html import See, one, parsed, words

ALL = "?all=1"
# One of each parameter, in the order in which addresses carry them.
EACH = [
    ("status", "failure"),
    ("status", "aborted"),
    ("q", "nightly"),
    ("from", "2026-03-01"),
    ("to", "2026-03-31T14:30"),
    ("overdue", "1"),
    ("mine", "1"),
]


def shown(html: LexborHTMLParser) -> list[str | None]:
    return [row.attributes["data-run"] for row in html.css("[data-run]")]


def ticked(html: LexborHTMLParser, name: str = "status") -> list[str | None]:
    boxes = html.css(f'.run-filter input[name="{name}"][type="checkbox"]')
    return [box.attributes["value"] for box in boxes if "checked" in box.attributes]


def asked_by(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query)


def warnings(html: LexborHTMLParser) -> str:
    return " ".join(words(each) for each in html.css("main > .trouble"))


@pytest.fixture
def ask(see: See, stage: Stage) -> See:
    """Open the stage's page with a query."""
    return lambda query, **headers: see(f"{factories.address(stage)}?{query}", **headers)


# --- Statuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [*statuses.RUN, "hibernating", "h" * 100])
def test_each_status_can_be_filtered_for(status: str, ask: See, stage: Stage) -> None:
    for each in [*statuses.RUN, "hibernating", "h" * 100]:
        factories.run(stage, each[-90:], status=each)
    html = ask(f"status={status}")
    assert shown(html) == [status[-90:]]
    assert ticked(html) == [status]


def test_several_statuses_are_any_of_them(ask: See, stage: Stage) -> None:
    for each in statuses.RUN:
        factories.run(stage, each, status=each)
    html = ask("status=failure&status=running&status=aborted")
    assert shown(html) == ["running", "failure", "aborted"]
    assert ticked(html) == ["running", "aborted", "failure"]
    assert words(one(html, "#status-chosen")) == "3 statuses"


def test_statuses_that_ended_are_mixed_by_age(ask: See, stage: Stage) -> None:
    now = timezone.now()
    for number in range(9):
        status = ["failure", "aborted", "success"][number % 3]
        created = now - timedelta(minutes=number)
        factories.run(stage, f"r{number}", status=status, created_at=created)
    assert shown(ask("status=failure&status=aborted")) == ["r0", "r1", "r3", "r4", "r6", "r7"]


def test_in_flight_is_a_choice_beside_the_statuses(ask: See, stage: Stage) -> None:
    for each in ["running", "queued", "failure", "success"]:
        factories.run(stage, each, status=each)
    assert shown(ask("status=in_flight")) == ["queued", "running"]
    assert shown(ask("status=in_flight&status=failure")) == ["queued", "running", "failure"]


def test_a_run_that_is_gone_is_found_by_its_last_status(ask: See, stage: Stage) -> None:
    factories.run(stage, "lost", status="running", in_flight=False, gone_at=timezone.now())
    assert shown(ask("status=running")) == ["lost"]
    assert shown(ask("status=in_flight")) == []


@pytest.mark.parametrize("status", ["nope", "RUNNING", "<b>", "\0", "x" * 5000, "ـ"])
def test_an_unknown_status_is_ignored_with_a_notice(status: str, ask: See, run: Run) -> None:
    html = ask(f"status={quote(status)}&status=running")
    assert shown(html) == ["r-1"]
    assert ("There is no status “" in warnings(html)) is (status != "\0")


def test_statuses_are_listed_without_reading_every_run(
    stage: Stage, viewer: User, django_assert_max_num_queries: object
) -> None:
    for _ in range(40):
        factories.run(stage, status="success")
    factories.run(stage, status="zebra")
    with django_assert_max_num_queries(4):  # type: ignore[operator]
        offered = filters.read(QueryDict(), stage, viewer).known
    assert offered == (filters.IN_FLIGHT, *statuses.RUN, "zebra")


# --- Text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["name", "run_id", "description", "step"])
@pytest.mark.parametrize("status", ["running", "success"])
def test_a_text_is_found_in_what_is_told_of_a_run(
    field: str, status: str, ask: See, stage: Stage
) -> None:
    found = factories.run(stage, status=status, **{field: "Fix 100%_of Nightlies"})
    factories.run(stage, status=status)
    assert shown(ask("q=fix+100%25_OF+night")) == [found.run_id]


@pytest.mark.parametrize("text", ["%", "_", "\\", "'", '"', "nightly_x"])
def test_a_text_is_no_pattern(text: str, ask: See, stage: Stage) -> None:
    factories.run(stage, "r-1", name="Nightly x")
    assert shown(ask(f"q={quote(text)}")) == []


def test_a_text_is_cut_and_says_so(ask: See, stage: Stage) -> None:
    factories.run(stage, "r-1", name="a" * 200)
    html = ask(f"q={'a' * 300}")
    assert shown(html) == ["r-1"]
    assert "Only the first 200 characters" in warnings(html)


def test_a_null_or_blank_text_is_none(ask: See, run: Run) -> None:
    for text in ("%00", "%20%20", ""):
        html = ask(f"q={text}")
        assert shown(html) == ["r-1"]
        assert html.css(".chips") == []


def test_a_text_looks_at_so_many_runs_and_goes_on_from_there(ask: See, stage: Stage) -> None:
    now = timezone.now()
    hay = factories.run(stage, name="Hay", status="success", created_at=now)
    factories.copies(hay, LOOKED_AT - 1)
    old = now - timedelta(days=1)
    factories.run(stage, "r-1", name="Needle", status="success", created_at=old)
    nothing = ask("q=needle")
    assert shown(nothing) == []
    assert words(one(nothing, '[data-empty="nothing_matches"] > p:first-child')) == (
        f"None of the {LOOKED_AT:,} runs looked at here matches."
    )
    further = one(nothing, ".nothing a").attributes["href"] or ""
    assert ("q", "needle") in asked_by(further)
    assert shown(ask(urlsplit(further).query)) == ["r-1"]
    factories.run(stage, "r-2", name="Needle in flight")
    first = ask("q=needle")
    assert shown(first) == ["r-2"]
    assert (
        words(one(first, ".pager span")) == f"1 found among the {LOOKED_AT:,} runs looked at here"
    )
    second = ask(urlsplit(one(first, '[rel="next"]').attributes["href"] or "").query)
    assert shown(second) == ["r-1"]
    assert second.css('[rel="next"]') == []


# --- Dates --------------------------------------------------------------------------------------


@pytest.fixture
def in_berlin(settings: Settings, stage: Stage) -> Stage:
    """Runs around the end of a day that has 23 hours, each named by its local time."""
    settings.TIME_ZONE = "Europe/Berlin"
    timezone.get_default_timezone.cache_clear()
    zone = timezone.get_default_timezone()
    for local in (
        "2026-03-28T23:59:59", "2026-03-29T00:00:00", "2026-03-29T14:30:00",
        "2026-03-29T14:30:59", "2026-03-29T14:31:00", "2026-03-29T23:59:59", "2026-03-30T00:00:00",
    ):  # fmt: skip
        made = datetime.fromisoformat(local).replace(tzinfo=zone)
        factories.run(stage, local[5:], status="success", created_at=made)
    yield stage
    timezone.get_default_timezone.cache_clear()


@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("from=2026-03-29&to=2026-03-29", "03-29T00:00:00", "03-29T23:59:59"),
        ("from=2026-03-30", "03-30T00:00:00", "03-30T00:00:00"),
        ("to=2026-03-28", "03-28T23:59:59", "03-28T23:59:59"),
        ("from=2026-03-29T14:30&to=2026-03-29T14:30", "03-29T14:30:00", "03-29T14:30:59"),
        ("to=2026-03-29T14:30:00", "03-28T23:59:59", "03-29T14:30:00"),
        ("from=2026-03-29T14:30:59", "03-29T14:30:59", "03-30T00:00:00"),
    ],
)
def test_dates_are_in_the_pages_zone_and_inclusive(
    query: str, first: str, last: str, ask: See, in_berlin: Stage
) -> None:
    html = ask(query)
    assert html.css("main > .trouble") == []
    assert (shown(html)[-1], shown(html)[0]) == (first, last)


@pytest.mark.parametrize(
    "value",
    [
        "yesterday", "2026-13-01", "2026-02-30", "0001-01-01", "9999-12-31", "20260331", "2026-W01",
        "2026-03-31T25:00", "2026-03-31T14:30Z", "2026-03-31 ", "٢٠٢٦-03-31", "\0", "1" * 5000,
        "2026-03-31T1430", "2026-W014-1",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_day_that_is_none_is_ignored_and_said(name: str, value: str, ask: See, run: Run) -> None:
    html = ask(f"{name}={quote(value)}")
    if value == "2026-03-31 ":  # a blank is not worth a word
        assert html.css("main > .trouble") == []
        return
    assert shown(html) == ["r-1"]
    assert "is no day" in warnings(html)


def test_the_form_takes_days_as_they_were_meant(ask: See, run: Run) -> None:
    html = ask("from=2026-03-01&to=2026-03-31")
    assert one(html, "#from").attributes["value"] == "2026-03-01T00:00"
    assert one(html, "#to").attributes["value"] == "2026-03-31T23:59"
    given_days = filters.read(QueryDict("to=2026-03-31"), run.stage, User())
    sent_back = filters.read(QueryDict("to=2026-03-31T23:59"), run.stage, User())
    assert given_days.until == sent_back.until


# --- Overdue, and mine --------------------------------------------------------------------------


def test_overdue_is_what_is_in_flight_and_overdue(ask: See, stage: Stage) -> None:
    factories.run(stage, "late", overdue=2, overdue_why="run")
    factories.run(stage, "fine")
    factories.run(stage, "was-late", status="failure", overdue=1, overdue_why="run")
    assert shown(ask("overdue=1")) == ["late"]


def test_mine_is_what_i_aborted_or_asked_to(
    ask: See, stage: Stage, manager: User, viewer: User
) -> None:
    mine, others, listed, theirs = (
        factories.run(stage, each, status="aborted") for each in ("mine", "others", "list", "no")
    )
    settled = {"settled_at": timezone.now()}
    factories.abort(mine, manager, "refused", **settled)
    factories.abort(others, viewer, "concluded", **settled)
    for person, run in ((manager, listed), (viewer, theirs)):
        batch = AbortBatch.objects.create(
            key=f"00000000-0000-0000-0000-{person.pk:012}", user=person, username=person.username,
            requested_at=timezone.now(), claimed_at=timezone.now(), settled_at=timezone.now(),
        )  # fmt: skip
        BatchItem.objects.create(batch=batch, position=0, run=run, result="joined")
    assert shown(ask("mine=1")) == ["list", "mine"]


@pytest.mark.parametrize("query", ["overdue=yes", "mine=manager", "mine=0"])
def test_a_switch_that_is_no_switch_is_ignored_and_said(query: str, ask: See, run: Run) -> None:
    html = ask(query)
    assert shown(html) == ["r-1"]
    assert "takes no value but 1" in warnings(html)


# --- The address is the filter ------------------------------------------------------------------


def test_each_thing_asked_for_can_be_left_out_without_the_others(ask: See, run: Run) -> None:
    html = ask(urlencode(EACH))
    chips = html.css(".chips li a")
    assert [words(chip) for chip in chips[:-1]] == [
        "Remove: Aborted", "Remove: Failed", "Remove: “nightly”", "Remove: from 2026-03-01",
        "Remove: to 2026-03-31 14:30", "Remove: Overdue", "Remove: Aborted by me",
    ]  # fmt: skip
    left = [asked_by(chip.attributes["href"] or "") for chip in chips[:-1]]
    assert all(len(rest) == len(EACH) - 1 and set(rest) < set(EACH) for rest in left)
    assert len({frozenset(rest) for rest in left}) == len(EACH)
    assert chips[-1].attributes["href"] == ALL


def test_the_last_thing_left_out_leads_to_all_runs(ask: See, run: Run) -> None:
    assert one(ask("overdue=1"), ".chips li:first-child a").attributes["href"] == ALL


def test_the_form_holds_all_that_is_asked_for(ask: See, run: Run) -> None:
    html = ask(urlencode(EACH))
    fields = html.css(".run-filter [name]")
    sent = [
        (field.attributes["name"], field.attributes.get("value"))
        for field in fields
        if field.attributes.get("type") != "checkbox" or "checked" in field.attributes
    ]
    meant = {**dict(EACH), "from": "2026-03-01T00:00"}
    assert {name: value for name, value in sent if name != "status"} == {
        name: value for name, value in meant.items() if name != "status"
    }
    assert {value for name, value in sent if name == "status"} == {"failure", "aborted"}


def test_a_filter_that_nothing_matches_says_so_and_leads_back(ask: See, run: Run) -> None:
    empty = one(ask("status=skipped"), '[data-empty="nothing_matches"]')
    assert one(empty, "a").attributes["href"] == ALL


def test_parameters_that_nobody_knows_are_left_alone(ask: See, run: Run) -> None:
    html = ask("foo=bar&status=&utm_source=x&q=&from=&to=")
    assert html.css("main > .trouble, .chips") == []
    assert shown(html) == ["r-1"]


def test_a_refresh_keeps_the_whole_address(ask: See, stage: Stage) -> None:
    query = urlencode([*EACH, ("before", "0.1.1")])
    address = f"{factories.address(stage)}?{query}"
    assert one(ask(query), "#live").attributes["hx-get"] == address


@pytest.mark.parametrize("page", ["2", "999999", "abc", "-1", "", "½", "9" * 5000])
def test_a_page_by_number_is_the_first_with_a_notice(page: str, ask: See, run: Run) -> None:
    html = ask(f"status=running&page={quote(page)}")
    assert shown(html) == ["r-1"]
    assert "Pages have no numbers any more" in warnings(html)
    assert ticked(html) == ["running"]


def test_the_first_page_by_number_is_no_news(ask: See, run: Run) -> None:
    assert warnings(ask("page=1")) == ""


_values = strategies.one_of(
    strategies.sampled_from([value for _, value in EACH]),
    strategies.sampled_from(["in_flight", "running", "0.1.1", "1.5.2", "2026-01-01T00:00:01"]),
    strategies.text(max_size=30),
)
_names = strategies.sampled_from(
    ["status", "q", "from", "to", "overdue", "mine", "before", "after", "page", "all", "x"]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=strategies.lists(strategies.tuples(_names, _values), max_size=8))
def test_any_address_is_answered_and_all_that_it_asks_for_is_kept(
    pairs: list[tuple[str, str]], run: Run, at_desk: Client
) -> None:
    query = urlencode(pairs, errors="replace")
    person = User.objects.get(username="manager")
    asked = filters.read(QueryDict(query), run.stage, person)
    html = parsed(at_desk.get(f"{factories.address(run.stage)}?{query}"))
    links = [link.attributes["href"] or "" for link in html.css(".pager a, .chips a:not(.clear)")]
    for link in links:
        again = filters.read(QueryDict(urlsplit(link).query), run.stage, person)
        missing = set(asked.wanted) - set(again.wanted)
        assert len(missing) == (1 if "without" in _kind(html, link) else 0)
    # Whoever reads what an address asks for, and writes it anew, gets the same.
    again = filters.read(QueryDict(asked.query), run.stage, person)
    assert again.wanted == asked.wanted
    assert not again.ignored


def _kind(html: LexborHTMLParser, link: str) -> str:
    chips = [chip.attributes["href"] for chip in html.css(".chips a:not(.clear)")]
    return "without" if link in chips else "page"


# --- What comes while the page is open ----------------------------------------------------------


def news(html: LexborHTMLParser) -> str:
    return one(html, "#live").attributes["data-news"] or ""


def test_all_new_runs_belong_on_an_unfiltered_page(ask: See, run: Run) -> None:
    assert news(ask("all=1")) == "all"


@pytest.mark.parametrize("query", ["before=0.1.1", "after=0.1.1&status=running", "mine=1"])
def test_none_belongs_where_it_cannot_be_told(query: str, ask: See, run: Run) -> None:
    assert news(ask(query)) == "none"


def test_a_filtered_page_says_what_a_new_run_must_be(ask: See, run: Run) -> None:
    said = json.loads(
        news(ask("status=in_flight&status=failure&q=NIGHT&overdue=1&from=2026-03-01"))
    )
    assert said == {
        "statuses": ["failure"], "inFlight": True, "text": "night", "overdue": True,
        "since": datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000, "until": None,
    }  # fmt: skip


# --- Aborting all of a filter -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "offered"),
    [("all=1", 3), ("status=in_flight", 3), ("status=queued", 2), *(
        (query, 0) for query in (
            "status=queued&status=running", "q=r", "status=queued&q=r", "overdue=1", "mine=1",
            "from=2020-01-01", "status=queued&to=2099-01-01", "status=in_flight&status=queued",
        )
    )],
)  # fmt: skip
def test_all_of_a_filter_is_offered_only_where_exactly_that_can_be_asked_for(
    query: str, offered: int, ask: See, see: See, stage: Stage
) -> None:
    for run_id, status in (("r1", "queued"), ("r2", "queued"), ("r3", "running")):
        factories.run(stage, run_id, status=status, overdue=1)
    html = ask(query)
    forms = html.css(".all form")
    assert bool(forms) is bool(offered)
    if not forms:
        assert html.css("#many") != []  # what is selected can still be aborted
        return
    fields = [(each.attributes["name"], each.attributes["value"]) for each in forms[0].css("input")]
    frozen = see(f"/aborts/many/?{urlencode(fields)}").css('main form [name="run"]')
    on_the_page = [box.attributes["value"] for box in html.css('.pick [name="run"]')]
    assert {each.attributes["value"] for each in frozen} == set(on_the_page)
    assert len(frozen) == offered
