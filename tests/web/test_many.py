"""Aborting many runs as pages tell it: a frozen list is asked about, and each run is told of."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard import aborts
from dashboard.accounts import permissions
from dashboard.models import Abort, AbortBatch, Budget, Grant, Run, Stage
from dashboard.models.aborts import AbortState, What
from dashboard.models.bulk_aborts import ItemResult
from dashboard.models.grants import Right
from dashboard.web.components import abort_all
from tests.support import factories
from tests.support.flights import LEDGER, SEARCH, eventually, in_flight
from tests.support.html import HTMX, See, one, parsed, words
from tests.support.live import Live, token
from tests.support.stream import listening

MANY = "/aborts/many/"


def asking(*runs: Run) -> str:
    return f"{MANY}?{'&'.join(f'run={run.pk}' for run in runs)}"


def frozen(html: LexborHTMLParser) -> list[str | None]:
    """The runs that the form of a confirmation holds."""
    return [box.attributes["value"] for box in html.css('form[method="post"] [name="run"]')]


def left_out(html: LexborHTMLParser) -> str:
    return words(one(html, ".left-out"))


@pytest.fixture
def trio(stage: Stage) -> list[Run]:
    """A run in each stage, those at stake least first."""
    dev = factories.stage("Development", of=stage.pipeline)
    staging = factories.stage("Staging", of=stage.pipeline)
    return [
        factories.run(dev, name="Dev", step="build"),
        factories.run(staging, name="Stg"),
        factories.run(stage, name="Prod"),
    ]


# --- Rows and the bar ---------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["now", "stage"])
def test_runs_in_flight_can_be_selected(page: str, see: See, stage: Stage) -> None:
    idle = factories.run(stage)
    factories.run(stage, status="aborting")
    factories.run(stage, status="success")
    html = see("/" if page == "now" else factories.address(stage))
    box = one(html, '.pick input[type="checkbox"]')
    assert (box.attributes["name"], box.attributes["value"]) == ("run", str(idle.pk))
    assert box.attributes["form"] == one(html, "form#many").attributes["id"]
    assert box.attributes["aria-label"] == f"Select {idle.name}"


def test_a_run_whose_abort_is_under_way_cannot_be_selected(
    see: See, run: Run, manager: User
) -> None:
    factories.abort(run, manager)
    assert see("/").css(".pick input") == []


@pytest.mark.parametrize("page", ["now", "stage"])
def test_who_may_not_abort_sees_neither_boxes_nor_bar(
    page: str, looking_on: Client, stage: Stage
) -> None:
    factories.run(stage)
    factories.run(stage)
    html = parsed(looking_on.get("/" if page == "now" else factories.address(stage)))
    assert html.css(".pick input, .many") == []


def test_all_in_flight_is_offered_where_there_is_more_than_one(see: See, trio: list[Run]) -> None:
    assert words(one(see("/"), "[data-abort-all]")) == "Abort all 3 in flight here…"
    Run.objects.exclude(pk=trio[0].pk).update(in_flight=False)
    assert see("/").css("[data-abort-all]") == []


def test_all_counts_what_the_person_may_abort_only(see: See, trio: list[Run], stage: Stage) -> None:
    Grant.objects.filter(right=Right.ABORT).update(stage="Production")
    factories.run(stage)
    assert words(one(see("/"), "[data-abort-all]")) == "Abort all 2 that you may abort…"


@pytest.mark.parametrize("page", ["now", "stage"])
def test_all_says_why_it_is_not_all_in_flight(
    page: str, see: See, stage: Stage, manager: User
) -> None:
    for _ in range(2):
        factories.run(stage)
    factories.run(stage, status="aborting")
    factories.abort(factories.run(stage), manager)
    html = see("/" if page == "now" else factories.address(stage))
    assert words(one(html, "[data-abort-all]")) == "Abort all 2 that nobody is aborting…"


def test_all_says_both_reasons_why_it_is_not_all_in_flight(
    see: See, trio: list[Run], stage: Stage
) -> None:
    Grant.objects.filter(right=Right.ABORT).update(stage="Production")
    factories.run(stage)
    factories.run(stage, status="aborting")
    assert words(one(see("/"), "[data-abort-all]")) == (
        "Abort all 2 that you may abort and nobody is aborting…"
    )


def test_all_tells_nothing_of_places_that_are_hidden(see: See, trio: list[Run]) -> None:
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), right=Right.ABORT, stage="Staging")
    factories.run(trio[1].stage)
    assert words(one(see("/"), "[data-abort-all]")) == "Abort all 2 in flight here…"


def test_all_of_a_filter_counts_also_what_is_not_on_the_screen(see: See, stage: Stage) -> None:
    for number in range(105):
        factories.run(stage, status="pending" if number % 21 == 0 else "running")
    here = factories.address(stage)
    assert words(one(see(here), "[data-abort-all]")) == "Abort all 105 in flight here…"
    html = see(f"{here}?status=pending")
    assert words(one(html, "[data-abort-all]")) == "Abort all 5 in flight here…"
    fields = one(html, ".all form").css("input")
    query = "&".join(f"{each.attributes['name']}={each.attributes['value']}" for each in fields)
    assert len(frozen(see(f"{MANY}?{query}"))) == 5


# --- The question -------------------------------------------------------------------------------


def test_asking_names_every_run_and_does_nothing(see: See, trio: list[Run]) -> None:
    html = see(asking(*trio))
    assert words(one(html, "h1")) == "Abort 3 runs?"
    listed = words(one(html, ".list"))
    assert all(part in listed for part in ("Dev", "Stg", "Prod", "Shop", "Checkout", "build"))
    assert "not a rollback" in words(one(html, "main .confirm"))
    assert not AbortBatch.objects.exists()


def test_production_comes_first_and_has_its_own_count(see: See, trio: list[Run]) -> None:
    html = see(asking(*trio))
    heads = [words(head) for head in html.css(".list h2")]
    assert heads == ["Production 1", "Staging 1", "Development 1"]
    assert frozen(html) == [str(run.pk) for run in reversed(trio)]
    assert words(one(html, ".stakes")) == "1 of them is in Production."


def test_the_dialog_is_the_question_alone_with_the_focus_on_staying(
    see: See, trio: list[Run]
) -> None:
    html = see(asking(*trio), **HTMX)
    assert html.css("header, nav, main") == []
    assert words(one(html, "[autofocus]")) == "Keep running"
    assert words(one(html, 'button[type="submit"] .idle')) == "Abort 3 runs"


def test_without_a_script_staying_leads_back(see: See, trio: list[Run]) -> None:
    assert one(see(asking(*trio)), "main [autofocus]").attributes["href"] == "/"
    html = see(asking(trio[0]))
    assert one(html, "main [autofocus]").attributes["href"] == factories.address(trio[0].stage)


def test_what_is_left_out_is_said_with_why(
    see: See, trio: list[Run], stage: Stage, manager: User
) -> None:
    Grant.objects.filter(right=Right.ABORT).update(stage="Production")
    ended = factories.run(stage, status="success", name="Over")
    mine = factories.run(stage, name="Mine")
    factories.abort(mine, manager)
    html = see(asking(*trio, ended, mine))
    assert frozen(html) == [str(trio[2].pk)]
    said = left_out(html)
    assert "4 runs are left out" in said
    assert "It has ended: success." in said
    assert "Abort accepted" in said
    assert "Nobody but an administrator" in said


def test_nothing_selected_is_said(see: See) -> None:
    html = see(MANY)
    assert words(one(html, "[data-why]")) == "No run is selected."
    assert html.css('main form[method="post"]') == []


def test_too_many_are_refused_before_anything_is_asked(see: See, stage: Stage) -> None:
    for _ in range(aborts.MOST + 1):
        factories.run(stage)
    html = see(f"{MANY}?page=now")
    assert words(one(html, "[data-why]")).startswith("At most 200 runs can be aborted at once")
    assert html.css('main form[method="post"]') == []


def test_all_of_now_is_frozen_when_asked(see: See, trio: list[Run], stage: Stage) -> None:
    html = see(f"{MANY}?page=now")
    factories.run(stage)
    assert len(frozen(html)) == 3
    assert "Runs that start from here on are not aborted." in words(one(html, ".confirm"))


def test_places_that_are_hidden_are_not_asked_about(see: See, trio: list[Run]) -> None:
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), right=Right.ABORT, stage="Staging")
    assert frozen(see(asking(*trio))) == [str(trio[1].pk)]
    assert frozen(see(f"{MANY}?page=now")) == [str(trio[1].pk)]
    assert "Prod" not in see(asking(*trio)).html  # type: ignore[operator]


def test_a_stage_that_is_hidden_is_not_found(at_desk: Client, trio: list[Run]) -> None:
    Grant.objects.all().delete()
    assert at_desk.get(f"{MANY}?stage={trio[0].stage_id}").status_code == 404
    assert at_desk.get(f"{MANY}?stage=x").status_code == 404


def test_names_are_shown_as_text(see: See, stage: Stage) -> None:
    run = factories.run(stage, name=factories.HOSTILE, step=factories.HOSTILE)
    html = see(asking(run))
    assert html.css("#hostile, main script") == []
    assert '<b id="hostile">' in one(html, ".list .name").text()


@pytest.mark.parametrize("query", ["run=x", "run=-1", "run=99999999999999999999", "run=²"])
def test_nonsense_in_an_address_selects_nothing(query: str, see: See) -> None:
    assert words(one(see(f"{MANY}?{query}"), "[data-why]")) == "No run is selected."


# --- The press ----------------------------------------------------------------------------------


@pytest.mark.parametrize("htmx", [True, False])
def test_a_missing_reason_is_said_and_what_was_filled_in_stays(
    htmx: bool, at_desk: Client, trio: list[Run], settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = ["Production"]
    key = str(uuid4())
    form = {"run": [run.pk for run in trio], "key": key, "reason": " "}
    answer = at_desk.post(MANY, form, headers=HTMX if htmx else {})
    assert answer.status_code == 422
    if htmx:
        assert answer.content.decode() == "Aborting runs in Production takes a reason."
    else:
        html = parsed(answer)
        assert words(one(html, "#reason-error")) == "Aborting runs in Production takes a reason."
        assert one(html, '[name="key"]').attributes["value"] == key
        assert len(frozen(html)) == 3
    assert not AbortBatch.objects.exists()


def test_a_form_without_its_key_does_nothing(at_desk: Client, trio: list[Run]) -> None:
    answer = at_desk.post(MANY, {"run": [trio[0].pk], "reason": "Stuck"})
    assert answer.status_code == 422
    assert not AbortBatch.objects.exists()


def test_who_may_abort_none_of_them_is_refused(looking_on: Client, trio: list[Run]) -> None:
    form = {"run": [run.pk for run in trio], "key": str(uuid4()), "reason": "Stuck"}
    answer = looking_on.post(MANY, form)
    assert answer.status_code == 403
    assert permissions.RELEASE_MANAGERS in answer.content.decode()
    assert not AbortBatch.objects.exists()


def press(live: Live, runs: list[Run], *, htmx: bool) -> tuple[httpx.Client, httpx.Response]:
    person = live.person("manager")
    html = parsed(person.get(asking(*runs)))
    form: dict[str, Any] = {
        "csrfmiddlewaretoken": token(person),
        "run": frozen(html),
        "key": one(html, '[name="key"]').attributes["value"],
        "reason": "Bad release",
    }
    return person, person.post(MANY, data=form, headers=HTMX if htmx else {})


@pytest.mark.parametrize("htmx", [True, False])
def test_over_http_the_press_leads_to_a_page_that_tells_of_each(
    htmx: bool, live: Live, manager: User
) -> None:
    runs = [in_flight(live), in_flight(live, SEARCH)]
    person, answer = press(live, runs, htmx=htmx)
    batch = AbortBatch.objects.get()
    if htmx:
        assert (answer.status_code, answer.headers["hx-redirect"]) == (200, f"{MANY}{batch.pk}/")
    else:
        assert (answer.status_code, answer.headers["location"]) == (303, f"{MANY}{batch.pk}/")
    eventually(lambda: AbortBatch.objects.filter(settled_at__isnull=False).exists())
    html = parsed(person.get(f"{MANY}{batch.pk}/"))
    assert words(one(html, ".summary .verdict")) == "2 asked for: 2 aborting."
    assert len(html.css("tbody tr")) == 2
    assert live.sandbox.abort_posts == {run.run_id: 1 for run in runs}


def test_over_http_a_run_that_started_after_the_question_is_not_aborted(
    live: Live, manager: User
) -> None:
    asked = in_flight(live, LEDGER)
    person = live.person("manager")
    html = parsed(person.get(f"{MANY}?page=now"))
    later = in_flight(live, LEDGER)
    form: dict[str, Any] = {
        "csrfmiddlewaretoken": token(person),
        "run": frozen(html),
        "key": one(html, '[name="key"]').attributes["value"],
    }
    person.post(MANY, data=form)
    eventually(lambda: AbortBatch.objects.filter(settled_at__isnull=False).exists())
    assert live.sandbox.abort_posts == {asked.run_id: 1}
    assert Run.objects.get(pk=later.pk).in_flight


def test_over_http_a_form_that_is_sent_twice_acts_once(live: Live, manager: User) -> None:
    run = in_flight(live)
    person = live.person("manager")
    form = {"csrfmiddlewaretoken": token(person), "run": [run.pk], "key": str(uuid4())}
    first, second = person.post(MANY, data=form), person.post(MANY, data=form)
    assert first.headers["location"] == second.headers["location"]
    eventually(lambda: AbortBatch.objects.filter(settled_at__isnull=False).exists())
    assert live.sandbox.abort_posts == {run.run_id: 1}


# --- The page of a list -------------------------------------------------------------------------


def batch_of(runs: list[Run], by: User, *results: str) -> AbortBatch:
    batch = aborts.request_many([run.pk for run in runs], aborts.Press(by, "Why"), uuid4())
    for item, result in zip(batch.items.all(), results, strict=False):
        item.result = ItemResult(result)
        if result == "abort":
            item.abort = factories.abort(item.run, by)
        item.save(update_fields=["result", "abort"])
    return batch


def test_the_summary_counts_in_words(see: See, trio: list[Run], manager: User) -> None:
    batch = batch_of(trio, manager, "abort", "ended")
    html = see(f"{MANY}{batch.pk}/")
    said = words(one(html, ".summary .verdict"))
    assert said == "3 asked for: 1 aborting, 1 had ended, 1 waiting."
    assert "goes on when you leave" in words(one(html, ".summary"))
    assert one(html, "noscript meta").attributes["http-equiv"] == "refresh"


def test_a_list_that_is_over_no_longer_refreshes(see: See, trio: list[Run], manager: User) -> None:
    batch = batch_of(trio, manager, "ended", "ended", "ended")
    html = see(f"{MANY}{batch.pk}/")
    assert html.css("noscript meta") == []
    assert "goes on" not in words(one(html, ".summary"))


def test_each_row_says_what_came_of_it_and_leads_to_its_run(
    see: See, trio: list[Run], manager: User
) -> None:
    batch = batch_of(trio, manager, "abort", "ended")
    html = see(f"{MANY}{batch.pk}/")
    found = [
        (words(one(row, ".result")), words(one(row, ".what a.title")))
        for row in html.css("tbody tr")
    ]
    assert found == [("Aborting", "Dev"), ("Had ended", "Stg"), ("Waiting", "Prod")]
    assert one(html, "tbody tr:first-child .what a.title").attributes["href"] == factories.address(
        trio[0]
    )


def test_only_those_who_may_see_a_place_see_its_item(
    client: Client, trio: list[Run], manager: User, viewer: User
) -> None:
    batch = batch_of(trio, manager)
    Grant.objects.filter(right=Right.SEE).update(stage="Staging")
    client.force_login(viewer)
    html = parsed(client.get(f"{MANY}{batch.pk}/"))
    assert [words(one(row, ".what a.title")) for row in html.css("tbody tr")] == ["Stg"]
    said = words(one(html, ".summary .verdict"))
    assert said == "1 asked for, as far as you may see: 1 waiting."
    assert "3" not in words(one(html, "h1"))
    Grant.objects.filter(right=Right.SEE).delete()
    assert client.get(f"{MANY}{batch.pk}/").status_code == 404


def test_a_list_that_waits_for_requests_says_until_when(
    see: See, trio: list[Run], manager: User
) -> None:
    batch = batch_of(trio, manager)
    now = timezone.now()
    until = now + timedelta(minutes=3)
    Budget.objects.create(pk=1, limit=1000, remaining=0, resets_at=until, seen_at=now)
    html = see(f"{MANY}{batch.pk}/")
    said = words(one(html, ".summary .trouble"))
    assert "kept for single aborts" in said
    assert f"{timezone.localtime(until):%H:%M:%S}" in said


def test_its_own_refresh_is_the_live_region_alone(
    at_desk: Client, trio: list[Run], manager: User
) -> None:
    batch = batch_of(trio, manager)
    first = at_desk.get(f"{MANY}{batch.pk}/", headers=HTMX)
    assert parsed(first).css("header") == []
    tag = first.headers["HX-PTag"]
    again = at_desk.get(f"{MANY}{batch.pk}/", headers={**HTMX, "HX-PTag": tag})
    assert again.status_code == 304


def test_offers_under_every_filter_have_ids_of_their_own(manager: User, stage: Stage) -> None:
    factories.run(stage, status="hibernating <b>")
    offered = abort_all.all_of_stage(permissions.rights(manager), stage)
    assert offered["hibernating <b>"].count == 1
    assert len({each.id for each in offered.values()}) == len(offered)
    assert all("<" not in each.id for each in offered.values())


def test_a_run_that_goes_on_after_its_abort_is_counted_as_that(
    see: See, trio: list[Run], manager: User
) -> None:
    batch = batch_of(trio, manager, "abort", "ended", "ended")
    abort = Abort.objects.get()
    now = timezone.now()
    assert abort.move(AbortState.CONCLUDED, What.CONCLUDED, now, outcome="aborted", settled_at=now)
    html = see(f"{MANY}{batch.pk}/")
    said = words(one(html, ".summary .verdict"))
    assert said == "3 asked for: 1 turned out otherwise, 2 had ended."


@pytest.mark.parametrize("key", ["9999999999999999999", "9" * 40, "0"])
def test_a_key_that_is_none_is_not_found(key: str, at_desk: Client, db: None) -> None:
    assert at_desk.get(f"{MANY}{key}/").status_code == 404
    assert at_desk.get(f"{MANY}?stage={key}").status_code == 404
    assert at_desk.get(f"{MANY}?run={key}").status_code == 200
    assert at_desk.get(f"/live/?page=batch&key={key}").status_code == 404
    assert at_desk.get(f"/aborts/lists/?before={key}").status_code == 200
    assert at_desk.get(f"/aborts/?before={key}").status_code == 200


# --- Found later --------------------------------------------------------------------------------


def listed(html: LexborHTMLParser) -> list[str]:
    return [words(one(row, "a.title")) for row in html.css("[data-list]")]


@pytest.mark.parametrize("place", ["audit", "run"])
def test_an_act_leads_to_its_list(place: str, see: See, trio: list[Run], manager: User) -> None:
    batch = batch_of(trio, manager)
    factories.abort(trio[0], manager, batch=batch)
    html = see("/aborts/" if place == "audit" else factories.address(trio[0]))
    assert one(html, "[data-batch]").attributes["href"] == f"{MANY}{batch.pk}/"


def test_an_act_of_its_own_leads_to_no_list(see: See, run: Run, manager: User) -> None:
    factories.abort(run, manager)
    assert see("/aborts/").css("[data-batch]") == []


def test_the_audit_leads_to_all_lists(see: See) -> None:
    assert one(see("/aborts/"), 'a[href="/aborts/lists/"]')


def test_a_list_is_found_by_who_why_and_what_came_of_it(
    see: See, trio: list[Run], manager: User
) -> None:
    batch = batch_of(trio, manager, "abort", "ended", "not_allowed")
    row = one(see("/aborts/lists/"), "[data-list]")
    assert words(one(row, "a.title")) == "3 asked for: 1 aborting, 1 had ended, 1 not allowed."
    assert one(row, "a.title").attributes["href"] == f"{MANY}{batch.pk}/"
    assert words(one(row, ".who")) == "manager on a page"
    assert words(one(row, ".reason")) == "Why"


def test_lists_come_in_pages_the_newest_first(see: See, run: Run, manager: User) -> None:
    keys = [batch_of([run], manager, "ended").pk for _ in range(21)][::-1]

    def shown(html: LexborHTMLParser) -> list[str | None]:
        return [link.attributes["href"] for link in html.css("[data-list] a.title")]

    first = see("/aborts/lists/")
    assert shown(first) == [f"{MANY}{key}/" for key in keys[:20]]
    rest = see(f"/aborts/lists/{one(first, '.pager [rel="next"]').attributes['href']}")
    assert shown(rest) == [f"{MANY}{keys[20]}/"]
    assert one(rest, '.pager [rel="first"]').attributes["href"] == "/aborts/lists/"


def test_more_lists_take_no_more_queries(at_desk: Client, trio: list[Run], manager: User) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as asked:
            assert at_desk.get("/aborts/lists/").status_code == 200
        return len(asked)

    batch_of(trio, manager, "abort")
    few = queries()
    for _ in range(3):
        batch_of(trio, manager, "ended")
    assert queries() == few


def test_lists_of_hidden_places_are_hidden_and_others_tell_what_is_seen_of_them(
    looking_on: Client, trio: list[Run], manager: User
) -> None:
    batch_of(trio, manager)
    batch_of(trio[:1], manager)
    Grant.objects.filter(right=Right.SEE).update(stage="Staging")
    html = parsed(looking_on.get("/aborts/lists/"))
    assert listed(html) == ["1 asked for, as far as you may see: 1 waiting."]
    Grant.objects.filter(right=Right.SEE).delete()
    html = parsed(looking_on.get("/aborts/lists/"))
    assert words(one(html, '[data-empty="nothing_exists"]')).startswith("No runs that you may see")


def test_a_list_that_moves_on_is_refreshed(at_desk: Client, trio: list[Run], manager: User) -> None:
    batch = batch_of(trio, manager)
    tag = one(parsed(at_desk.get("/aborts/lists/")), "#live").attributes["hx-ptag"] or ""
    headers = {**HTMX, "HX-PTag": tag}
    assert at_desk.get("/aborts/lists/", headers=headers).status_code == 304
    batch.items.update(result=ItemResult.ENDED)
    assert listed(parsed(at_desk.get("/aborts/lists/", headers=headers))) == [
        "3 asked for: 3 had ended."
    ]


# --- Its stream ---------------------------------------------------------------------------------


@pytest.fixture
def staged(live: Live, manager: User) -> list[Run]:
    """A run in Production and one in Staging, beside the running server."""
    return [factories.run(factories.stage(name), name=name) for name in ("Production", "Staging")]


def test_an_open_page_hears_of_each_run_and_of_all(
    live: Live, staged: list[Run], manager: User
) -> None:
    batch = batch_of(staged, manager)
    item = batch.items.get(position=1)
    with listening(live.person("manager"), "batch", batch.pk) as stream:
        item.result = ItemResult.ENDED
        item.save(update_fields=["result"])
        factories.change(item.run, status="success", concluded=True, in_flight=False)
        brought = {}
        while "summary" not in brought or f"item-{item.pk}" not in brought:
            brought |= {id: part.text() for id, part in next(stream).parts.items()}
    assert "Had ended" in brought[f"item-{item.pk}"]
    assert "2 asked for: 1 had ended, 1 waiting." in brought["summary"]


def test_a_stream_brings_no_item_of_a_place_that_is_hidden(
    live: Live, staged: list[Run], manager: User, viewer: User
) -> None:
    batch = batch_of(staged, manager)
    Grant.objects.filter(right=Right.SEE).update(stage="Staging")
    hidden, seen = batch.items.all()
    with listening(live.person("viewer"), "batch", batch.pk) as stream:
        factories.change(hidden.run, step="x")
        factories.change(seen.run, step="y")
        parts: set[str] = set()
        while f"item-{seen.pk}" not in parts:
            parts |= set(next(stream).parts)
    assert f"item-{hidden.pk}" not in parts


def test_a_list_of_hidden_places_has_no_stream(
    live: Live, staged: list[Run], manager: User, viewer: User
) -> None:
    batch = batch_of(staged, manager)
    Grant.objects.filter(right=Right.SEE).delete()
    assert live.person("viewer").get(f"/live/?page=batch&key={batch.pk}").status_code == 404
