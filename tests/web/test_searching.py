"""A run known by its id alone: looked for stage by stage, within an allowance for everybody."""

from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.utils import timezone

from dashboard.database import now
from dashboard.models import Grant, Run
from dashboard.sandbox import parse_fault
from dashboard.sync import lookup
from tests.support import factories, flights
from tests.support.flights import LEDGER, eventually
from tests.support.html import HTMX, one, parsed, words
from tests.support.live import Live

MADE_UP = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def person(live: Live, viewer: User) -> httpx.Client:
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


def spend(questions: int) -> None:
    cache.set(f"lookups:{now():%Y%m%d%H}", questions)


def test_a_run_of_the_only_stage_is_found_at_once(live: Live, person: httpx.Client) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    answer = person.get(f"/runs/{run_id}/?from=alert&x=a%2Fb")
    run = Run.objects.with_place().get(run_id=run_id)
    assert answer.status_code == 302
    assert answer.headers["location"] == f"{factories.address(run)}?from=alert&x=a%2Fb"


def test_it_is_looked_for_step_by_step_until_it_is_found(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)  # never active, so the last
    run_id = flights.started(live, LEDGER)
    assert said(person.get(f"/runs/{run_id}/")).startswith("5 of 13 stages asked, not found yet.")
    assert said(person.get(f"/runs/{run_id}/")).startswith("10 of 13 stages asked")
    assert person.get(f"/runs/{run_id}/").status_code == 302
    assert len(asked(live, run_id)) == 13


@pytest.mark.parametrize(
    "hint",
    [
        "project=payments&pipeline=ledger&stage=production",
        "pipeline=LEDGER",
        "project=Payments",
        "pipeline=ledger&project=a-wrong-one",
    ],
)
def test_where_the_link_hints_is_asked_first(
    hint: str, live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    answer = person.get(f"/runs/{run_id}/?{hint}")
    assert answer.status_code == 302
    assert answer.headers["location"].endswith(f"/{run_id}/?{hint}")


def test_a_wrong_hint_hides_nothing(live: Live, person: httpx.Client) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    assert person.get(f"/runs/{run_id}/?project=x&pipeline=%00&stage=y").status_code == 302


def test_what_is_nowhere_is_a_404_that_says_so_and_costs_nothing_more(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    answers = [person.get(f"/runs/{MADE_UP}/?project=shop&pipeline=p3") for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200, 200, 404, 404, 404, 404]
    html = parsed(answers[-1])
    assert words(one(html, "[data-why]")) == (
        f"No run “{MADE_UP}” is known here. Northflank does not know it either in any of the 12"
        " stages that you see. It may have been deleted there, or the link was cut short."
    )
    assert one(html, ".onward a").attributes["href"] == "/projects/shop/pipelines/p3/"
    assert len(asked(live, MADE_UP)) == 12


def test_a_crowd_with_one_made_up_id_asks_as_often_as_one_person(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    with ThreadPoolExecutor(8) as hands:
        list(hands.map(lambda _: person.get(f"/runs/{MADE_UP}/"), range(24)))
    assert len(asked(live, MADE_UP)) == 12


def test_a_flood_of_made_up_ids_leaves_half_of_the_allowance_to_known_places(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    for number in range(12):
        answer = person.get(f"/runs/made-up-{number}/")
    assert "As many stages were asked" in said(answer)
    assert len(asked(live, "made-up")) == lookup.SEARCHING
    run_id = flights.started(live, LEDGER)
    answer = person.get(f"{factories.address(flights.stage(LEDGER))}runs/{run_id}/")
    assert answer.status_code == 200, words(one(parsed(answer), "[data-why]"))


def test_the_next_hour_goes_on_where_this_one_ended(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    flights.stage(LEDGER)
    run_id = flights.started(live, LEDGER)
    spend(lookup.SEARCHING - 3)
    for _ in range(3):
        assert said(person.get(f"/runs/{run_id}/")).startswith("3 of 13 stages asked")
    spend(0)
    assert said(person.get(f"/runs/{run_id}/")).startswith("8 of 13 stages asked")
    assert person.get(f"/runs/{run_id}/").status_code == 302
    assert len(asked(live, run_id)) == 13


def test_a_page_that_waits_loads_itself_once_the_run_was_read_otherwise(
    live: Live, person: httpx.Client, elsewhere: int
) -> None:
    spend(lookup.SEARCHING)
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
