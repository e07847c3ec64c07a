"""A run known by its id alone: looked for stage by stage, from a share of the hour for all."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.db.threads import in_database, now
from dashboard.models import CatalogueSweep, Grant, Run, RunLookup, Stage
from dashboard.sandbox import parse_fault
from dashboard.sync import run_lookup
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from dashboard.web.http import lookup
from tests.support import factories, flights
from tests.support.flights import LEDGER, eventually
from tests.support.html import HTMX, one, parsed, words
from tests.support.live import Live, token

NO_HINTS = dict.fromkeys(lookup.HINTS, "")
MADE_UP = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def person(live: Live, viewer: User) -> httpx.Client:
    limit(live, 1000)
    return live.person("viewer")


@pytest.fixture
def elsewhere(live: Live) -> int:
    """Twelve stages that were active lately; what is looked for is in none of them."""
    for number in range(12):
        factories.stage(of=factories.pipeline(f"p{number}"), active_at=timezone.now())
    return 12


def asked(live: Live, run_id: str) -> list[str]:
    return [path for _, path in live.sandbox.requests if run_id in path]


def said(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return words(one(parsed(answer), "[data-search]"))


def open_until_the_end(person: httpx.Client, address: str) -> httpx.Response:
    """Open a page again and again, as it does by itself, until the search has ended."""
    for _ in range(30):
        answer = person.get(address)
        if answer.status_code != 200:
            return answer
    raise AssertionError(said(answer))


def open_until_it_waits(person: httpx.Client, address: str) -> httpx.Response:
    """The same until it says why it does not go on."""
    for _ in range(30):
        answer = person.get(address)
        if not said(answer).endswith("not found yet."):
            return answer
    raise AssertionError(said(answer))


def press(person: httpx.Client, address: str) -> httpx.Response:
    """Press “Look again”, and go where it leads."""
    form = {"csrfmiddlewaretoken": token(person)}
    return person.post(address, data=form, follow_redirects=True)


def limit(live: Live, requests: int) -> None:
    """So many requests an hour are allowed."""
    live.sandbox.window.limit = requests


def spend(requests: int) -> None:
    """Searches have used so many requests of this hour."""
    RunLookup.objects.filter(run_id="searched").delete()
    factories.searched(requests, of=factories.stage("Development", has_flow=False))


def place(hint: str) -> str:
    """The address of Ledger's Staging, with a hint behind the run's id."""
    return f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{hint}"


def test_a_run_of_the_only_stage_is_found_at_once(live: Live, person: httpx.Client) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    answer = person.get(f"/runs/{run_id}/?from=alert&x=a%2Fb")
    run = Run.objects.with_place().get(run_id=run_id)
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{factories.address(run)}?from=alert&x=a%2Fb"


def test_it_is_looked_for_in_all_stages_until_it_is_found(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)  # no Production, so the last
    run_id = flights.started(live, LEDGER)
    assert open_until_the_end(person, f"/runs/{run_id}/").status_code == 302
    assert len(asked(live, run_id)) == 13


def test_production_comes_first_and_there_where_runs_are_in_flight(
    live: Live, person: httpx.Client
) -> None:
    for number in range(3):
        for name in ("Development", "Staging", "Production"):
            factories.stage(name, of=factories.pipeline(f"p{number}"))
    factories.run(Stage.objects.get(pipeline__slug="p2", name="Production"))
    factories.run(Stage.objects.get(pipeline__slug="p1", name="Staging"))
    keys = lookup.candidates(permissions.ALL, NO_HINTS).stages
    order = [str(Stage.objects.get(pk=key)).split(" / ") for key in keys]
    assert [stage for _, stage in order] == ["Production"] * 3 + ["Staging"] * 3 + [
        "Development"
    ] * 3
    assert order[0][0].lower() == "p2"
    assert order[3][0].lower() == "p1"


@pytest.mark.parametrize(
    "hint",
    [
        "pipeline=LEDGER",
        "project=Payments",
        "project=payments&pipeline=ledger",
        "pipeline=ledger&stage=staging",
    ],
)
def test_where_the_link_hints_alone_is_asked(
    hint: str, live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    answer = open_until_the_end(person, f"/runs/{run_id}/?{hint}")
    assert answer.headers["location"] == f"{place(run_id)}/?{hint}"
    assert len(asked(live, run_id)) == 1
    in_vain = open_until_the_end(person, f"/runs/{MADE_UP}/?{hint}")
    assert in_vain.status_code == 404
    assert len(asked(live, MADE_UP)) == 1
    html = parsed(in_vain)
    assert "in the one stage that fits the address" in words(one(html, "[data-why]"))
    onward = [(link.text(), link.attributes["href"]) for link in html.css(".onward a")]
    assert ("Look in all 13 stages", f"/runs/{MADE_UP}/") in onward


@pytest.mark.parametrize("stage", ["staging", "Staging"])
def test_a_complete_hint_leads_to_the_full_address_whatever_was_spent(
    stage: str, live: Live, person: httpx.Client, elsewhere: int
) -> None:
    spend(10_000)
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    hint = f"project=Payments&pipeline=ledger&stage={stage}&from=alert"
    answer = person.get(f"/runs/{run_id}/?{hint}")
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{place(run_id)}/?{hint}"
    assert asked(live, run_id) == []
    assert person.get(answer.headers["location"]).status_code == 200
    assert len(asked(live, run_id)) == 1


def test_a_complete_hint_that_is_wrong_leads_on_to_all_stages(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    wrong = person.get(
        f"/runs/{run_id}/?project=shop&pipeline=p1&stage=production", follow_redirects=True
    )
    assert wrong.status_code == 404
    onward = {link.text(): link.attributes["href"] or "" for link in parsed(wrong).css(".onward a")}
    answer = open_until_the_end(person, onward["Look in all 13 stages"])
    assert answer.status_code == 302
    assert len(asked(live, run_id)) == 13


def test_a_wrong_hint_does_not_widen_a_search_beyond_the_right_ones(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    answer = open_until_the_end(person, f"/runs/{run_id}/?pipeline=ledger&project=a-wrong-one")
    assert answer.status_code == 302
    assert len(asked(live, run_id)) == 1


def test_a_wrong_hint_hides_nothing(live: Live, person: httpx.Client) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    assert person.get(f"/runs/{run_id}/?project=x&pipeline=%00&stage=y").status_code == 302


def test_what_is_nowhere_is_a_404_that_says_so_and_costs_nothing_more(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    address = f"/runs/{MADE_UP}/?project=shop&pipeline=%00&from=alert"
    answer = open_until_the_end(person, address)
    assert [person.get(address).status_code for _ in range(3)] == [404] * 3
    html = parsed(answer)
    assert words(one(html, "[data-why]")) == (
        f"No run “{MADE_UP}” is known here. Northflank does not know it either in any of the 12"
        " stages that you see. It may have been deleted there, or the link was cut short."
    )
    assert len(asked(live, MADE_UP)) == 12


def test_it_says_until_when_a_no_counts_and_has_it_asked_again_on_request(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    address = f"/runs/{MADE_UP}/?project=shop"
    html = parsed(open_until_the_end(person, address))
    rows = RunLookup.objects.all()
    told = [time.attributes["datetime"] for time in html.css("[data-answered] time")]
    last = max(row.answered_at for row in rows if row.answered_at)
    first = min(row.asked_at for row in rows)
    assert told == [last.isoformat(), (first + run_lookup.REMEMBERED).isoformat()]
    again = one(html, 'form[action*="/again/"]').attributes["action"] or ""
    too_soon = press(person, again)
    assert too_soon.status_code == 404
    assert "It was looked for just now" in too_soon.text
    assert len(asked(live, MADE_UP)) == 12
    rows.update(asked_at=now() - run_lookup.AGAIN_AFTER)
    assert press(person, again).url.query == b"project=shop"
    open_until_the_end(person, address)
    assert len(asked(live, MADE_UP)) == 24


def test_a_full_address_in_vain_says_so_too(live: Live, person: httpx.Client) -> None:
    flights.stage(LEDGER)
    html = parsed(person.get(f"{place(MADE_UP)}/"))
    assert "Northflank does not know it either." in words(one(html, "[data-why]"))
    again = one(html, 'form[action*="/again/"]').attributes["action"] or ""
    RunLookup.objects.update(asked_at=now() - run_lookup.AGAIN_AFTER)
    answer = press(person, again)
    assert answer.url.path == f"{place(MADE_UP)}/"
    assert len(asked(live, MADE_UP)) == 2


def test_looking_again_and_again_leaves_half_to_what_was_never_looked_for(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    stages = list(Stage.objects.all())
    factories.searched(100, of=stages[0], repeated=True)
    for stage in stages:
        factories.searched(1, of=stage, run_id=MADE_UP, answered_at=None)
    assert "Looking again has used its part" in said(person.get(f"/runs/{MADE_UP}/"))
    assert asked(live, MADE_UP) == []
    assert open_until_the_end(person, "/runs/another/").status_code == 404


def test_nobody_looks_again_without_a_session(live: Live, person: httpx.Client) -> None:
    with httpx.Client(base_url=live.base_url, follow_redirects=True) as bot:
        assert bot.post(f"/runs/{MADE_UP}/again/").status_code in {200, 403}
    assert person.get(f"/runs/{MADE_UP}/again/").status_code == 405


def test_a_crowd_with_one_made_up_id_asks_as_often_as_one_person(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    with ThreadPoolExecutor(8) as hands:
        list(hands.map(lambda _: person.get(f"/runs/{MADE_UP}/"), range(24)))
    assert open_until_the_end(person, f"/runs/{MADE_UP}/").status_code == 404
    assert len(asked(live, MADE_UP)) == 12


def test_two_processes_that_look_for_one_run_ask_each_stage_once(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    stages = lookup.candidates(permissions.ALL, NO_HINTS).stages

    async def together() -> list[run_lookup.Search]:
        other = Connection(live.connection.token, live.upstream_url)
        both = [live.connection, other]
        try:
            await asyncio.gather(*(run_lookup.search(to, stages, MADE_UP) for to in both))
            return [await run_lookup.search(to, stages, MADE_UP) for to in both]
        finally:
            await other.close()

    assert [one_.over for one_ in live.run(together)] == [True, True]
    assert len(asked(live, MADE_UP)) == 12


def test_a_flood_of_made_up_ids_costs_its_share_and_leaves_known_places_alone(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    limit(live, 200)
    answers = [person.get(f"/runs/made-up-{number}/") for number in range(6)]
    assert "Searches have used their 40 requests" in said(answers[-1])
    assert len(asked(live, "made-up")) == 40
    assert words(one(parsed(answers[-1]), "[data-share]")).startswith(
        "Searches may use 40 of the 200 requests of an hour"
    )
    assert "40 of 40 used" in words(one(parsed(person.get("/status/")), "[data-searches]"))
    run_id = flights.started(live, LEDGER)
    answer = person.get(f"{factories.address(flights.stage(LEDGER))}runs/{run_id}/")
    assert answer.status_code == 200, words(one(parsed(answer), "[data-why]"))


def test_one_id_leaves_something_to_others(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    limit(live, 50)  # searches may use 10 of them, and there are 12 stages
    for _ in range(3):
        answer = person.get(f"/runs/{MADE_UP}/")
    assert "The search for this run has used its part" in said(answer)
    assert len(asked(live, MADE_UP)) == 9
    person.get("/runs/another/")
    assert len(asked(live, "another")) == 1


def test_a_flood_does_not_hold_up_reading(live: Live, person: httpx.Client, elsewhere: int) -> None:
    limit(live, 200)
    for run_id in ("made-up", "made-up-too"):
        assert open_until_the_end(person, f"/runs/{run_id}/").status_code == 404
    assert len(asked(live, "made-up")) == 24
    allowed = live.run(lambda: in_database(budget_store.allowance, now()))
    assert allowed.slack == 20  # which as many requests of reading would have used up
    assert allowed.may_discover


def test_the_next_hour_goes_on_where_this_one_ended(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    spend(200 - 3)
    for _ in range(3):
        assert said(person.get(f"/runs/{run_id}/")).startswith("3 of 13 stages asked")
    spend(0)
    assert open_until_the_end(person, f"/runs/{run_id}/").status_code == 302
    assert len(asked(live, run_id)) == 13


def test_one_stage_that_cannot_be_asked_holds_up_no_other(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    live.sandbox.faults = [parse_fault("forbidden:payments")]
    told = said(open_until_it_waits(person, f"/runs/{MADE_UP}/"))
    assert told.startswith("12 of 13 stages asked, not found yet. One stage could not be asked: ")
    assert "It goes on at " in told
    person.get(f"/runs/{MADE_UP}/")
    assert len(asked(live, MADE_UP)) == 13


def test_while_lists_were_never_read_nothing_is_said_to_be_nowhere(
    live: Live, person: httpx.Client
) -> None:
    CatalogueSweep.objects.create(project=None, next_at=now())
    assert "still being listed" in said(person.get(f"/runs/{MADE_UP}/"))


def test_the_page_lets_one_choose_the_place_of_what_one_sees(
    live: Live, person: httpx.Client, viewer: User, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    spend(10_000)

    def choices(address: str) -> dict[str, list[str]]:
        form = one(parsed(person.get(address)), "[data-place]")
        assert form.attributes["action"] == f"/runs/{MADE_UP}/"
        return {
            select.attributes["name"] or "": [
                option.attributes["value"] or "" for option in select.css("option")
            ]
            for select in form.css("select")
        }

    all_ = choices(f"/runs/{MADE_UP}/")
    assert all_["project"] == ["", "payments", "shop"]
    assert "ledger" in all_["pipeline"]
    assert all_["stage"] == ["", "production", "staging", "development"]
    assert choices(f"/runs/{MADE_UP}/?project=payments")["pipeline"] == ["", "ledger"]
    page = parsed(person.get(f"/runs/{MADE_UP}/?project=shop&stage=production&from=alert"))
    chosen = [option.attributes["value"] for option in page.css("option[selected]")]
    assert chosen == ["shop", "production"]
    assert one(page, "[data-place] input[name=from]").attributes["value"] == "alert"
    Grant.objects.all().delete()
    factories.grant("see", "shop", viewer, project=factories.project("shop"), stage="Production")
    fewer = choices(f"/runs/{MADE_UP}/")
    assert fewer["project"] == ["", "shop"]
    assert "ledger" not in fewer["pipeline"]


def test_a_page_that_waits_loads_itself_once_the_run_was_read_otherwise(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    spend(10_000)
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    address = f"/runs/{run_id}/?from=alert"
    page = one(parsed(person.get(address)), "#live")
    assert page.attributes["hx-get"] == address
    waiting = person.get(address, headers=HTMX)
    assert "HX-Refresh" not in waiting.headers
    assert "0 of 13" in said(waiting)
    flights.mirrored(live, LEDGER, run_id)
    assert person.get(address, headers=HTMX).headers["HX-Refresh"] == "true"
    assert person.get(address).status_code == 302


def test_a_page_that_waits_loads_itself_once_all_were_asked(
    live: Live, person: httpx.Client
) -> None:
    flights.stage(LEDGER)
    assert person.get(f"/runs/{MADE_UP}/", headers=HTMX).headers["HX-Refresh"] == "true"
    assert person.get(f"/runs/{MADE_UP}/").status_code == 404


def test_only_stages_that_the_person_sees_are_asked(
    live: Live, person: httpx.Client, viewer: User, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    Grant.objects.all().delete()
    factories.grant("see", "shop", viewer, project=factories.project("shop"), stage="Staging")
    answer = person.get(f"/runs/{run_id}/?project=payments&pipeline=ledger")
    assert answer.status_code == 404
    assert asked(live, run_id) == []
    assert "ledger" not in answer.text.replace("pipeline=ledger", "")


def test_stages_without_a_flow_and_those_that_are_gone_are_not_asked(
    live: Live, person: httpx.Client
) -> None:
    factories.stage(has_flow=False)
    factories.stage(of=factories.pipeline("old", gone_at=timezone.now()))
    assert person.get(f"/runs/{MADE_UP}/").status_code == 404
    assert asked(live, MADE_UP) == []


def test_trouble_is_no_no(live: Live, person: httpx.Client) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    live.sandbox.faults = [parse_fault("500")]
    assert said(person.get(f"/runs/{run_id}/")).startswith("0 of 1 stages asked, not found yet.")
    so_far = len(asked(live, run_id))
    eventually(lambda: live.connection.trouble)
    live.connection.ask_at = monotonic() + 3600  # while all is in trouble no page asks again
    assert said(person.get(f"/runs/{run_id}/")).endswith("Northflank does not answer.")
    assert len(asked(live, run_id)) == so_far > 0
    live.sandbox.faults = []
    live.connection.ask_at = 0
    assert person.get(f"/runs/{run_id}/").status_code == 302


def test_what_can_be_no_id_is_not_looked_for(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    assert person.get(f"/runs/{'x' * 256}/").status_code == 404
    assert asked(live, "xxx") == []


def test_a_bot_without_a_session_has_nothing_asked(live: Live, elsewhere: int) -> None:
    with httpx.Client(base_url=live.base_url, follow_redirects=True) as bot:
        answer = bot.get(f"/runs/{MADE_UP}/")
    assert answer.url.path == "/accounts/login/"
    assert asked(live, MADE_UP) == []
