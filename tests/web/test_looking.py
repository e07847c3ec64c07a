"""Saying that one looks at a run: who may, what everybody sees, and when it ends."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import IntegrityError, connection, connections, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import permissions
from dashboard.models import ChangeCounter, Grant, Looking, Run, Stage
from dashboard.models.typical_duration import Overdue
from dashboard.northflank import Run as ApiRun
from dashboard.runs import acknowledgements, alerts
from dashboard.sync import mirror
from dashboard.web.live import parts as live_parts
from tests.support import factories
from tests.support.html import HTMX, See, one, parsed, words
from tests.support.live import Live, token
from tests.support.stream import about, listening


@pytest.fixture
def run(stage: Stage) -> Run:
    """A run that is overdue."""
    return factories.run(stage, "r-1", name="Nightly", overdue=Overdue.YES, overdue_why="run")


@pytest.fixture
def ana(db: None) -> User:
    permissions.keep_group()
    return User.objects.create_user("ana", password="ana")


@pytest.fixture
def cem(db: None) -> User:
    return User.objects.create_user("cem", password="cem")


def say(person: Client, run: Run, what: str = "look", htmx: bool = True, **more: Any) -> Any:
    headers = HTMX if htmx else {}
    return person.post(factories.address(run, "look"), {"say": what} | more, headers=headers)


def browser(person: User) -> Client:
    client = Client()
    client.force_login(person)
    return client


def shown_to(person: User, run: Run) -> LexborHTMLParser:
    return parsed(browser(person).get(factories.address(run)))


def buttons(html: LexborHTMLParser) -> list[str]:
    return [words(button) for button in html.css("[data-looking] button")]


def lookers(html: LexborHTMLParser) -> list[str]:
    return [words(bdi) for bdi in html.css(".run .looker bdi")]


# --- A press ------------------------------------------------------------------------------------


def test_a_press_is_seen_by_everybody(run: Run, ana: User, cem: User) -> None:
    before = shown_to(ana, run)
    assert buttons(before) == ["I’m looking"]
    assert before.css(".lookers") == []
    card = parsed(say(browser(ana), run))
    assert lookers(card) == ["ana"]
    assert buttons(card) == ["Stop looking"]
    to_cem = shown_to(cem, run)
    assert lookers(to_cem) == ["ana"]
    assert buttons(to_cem) == ["I’m looking too", "Take over from ana"]
    assert "ana is looking, since" in words(one(to_cem, "#hand-over-text"))


def test_it_is_on_the_row_and_on_the_board(run: Run, ana: User, see: See) -> None:
    assert see("/").css(".lookers") == []
    acknowledgements.begin(run, ana)
    for address in ("/", factories.address(run.stage)):
        row = one(see(address), 'tr[data-run="r-1"]')
        assert words(one(row, ".lookers bdi")) == "ana"
        assert row.attributes["data-lookers"] == "ana"
    assert words(one(see("/board/"), ".looked-at")) == "ana looking"


def test_nothing_relative_to_now_is_kept_in_a_row(run: Run, ana: User, see: See) -> None:
    acknowledgements.begin(run, ana)
    since = timezone.localtime(Looking.objects.get().since)
    time = one(one(see("/"), 'tr[data-run="r-1"] .lookers'), "time")
    assert words(time) == f"{since.day} {since:%b %H:%M:%S}"
    assert "data-clock" in time.attributes


def test_a_second_press_changes_nothing(run: Run, ana: User) -> None:
    say(browser(ana), run)
    before = ChangeCounter.latest()
    answer = say(browser(ana), run)
    assert answer.status_code == 200
    assert Looking.objects.count() == 1
    assert ChangeCounter.latest() == before


def test_it_is_handed_back(run: Run, ana: User) -> None:
    say(browser(ana), run)
    card = parsed(say(browser(ana), run, "stop"))
    assert lookers(card) == []
    assert buttons(card) == ["I’m looking"]
    assert "ana looked from" in words(one(card, "[data-looking] ul"))
    before = ChangeCounter.latest()
    say(browser(ana), run, "stop")
    assert ChangeCounter.latest() == before


def test_another_looks_too(run: Run, ana: User, cem: User) -> None:
    acknowledgements.begin(run, ana)
    card = parsed(say(browser(cem), run))
    assert lookers(card) == ["ana", "cem"]
    assert buttons(card) == ["Stop looking", "Take over from ana"]


def test_another_takes_over_and_it_is_said_from_whom(run: Run, ana: User, cem: User) -> None:
    acknowledgements.begin(run, ana)
    key = Looking.objects.get().pk
    card = parsed(say(browser(cem), run, "take_over", instead_of=[key, "x", 10**9]))
    assert lookers(card) == ["cem"]
    assert words(one(card, "[data-looking] ul")).endswith("; cem took over")
    assert "; cem took over" in words(one(card, "#hand-over-text"))


def test_only_those_are_taken_over_from_that_were_named(run: Run, ana: User, cem: User) -> None:
    acknowledgements.begin(run, ana)
    key = Looking.objects.get().pk
    bea = User.objects.create_user("bea")
    acknowledgements.begin(run, bea)
    other = factories.run(run.stage, overdue=Overdue.YES)
    acknowledgements.begin(other, ana)
    elsewhere = Looking.objects.get(run=other).pk
    say(browser(cem), run, "take_over", instead_of=[key, elsewhere])
    assert set(run.lookings.open().values_list("username", flat=True)) == {"bea", "cem"}
    assert other.lookings.open().count() == 1


def test_who_takes_over_from_themselves_goes_on(run: Run, ana: User) -> None:
    acknowledgements.begin(run, ana)
    say(browser(ana), run, "take_over", instead_of=[Looking.objects.get().pk])
    assert Looking.objects.open().count() == Looking.objects.count() == 1


def test_three_are_named_and_the_others_counted(run: Run, see: See) -> None:
    for name in ("a1", "a2", "a3", "a4", "a5"):
        acknowledgements.begin(run, User.objects.create_user(name))
    row = one(see("/"), 'tr[data-run="r-1"]')
    assert [words(name) for name in row.css(".lookers bdi")] == ["a1", "a2", "a3"]
    assert words(one(row, ".lookers")).endswith("and 2 more")
    assert row.attributes["data-lookers"] == "a1, a2, a3 and 2 more"


def test_without_javascript_a_press_leads_back_to_the_run(run: Run, ana: User) -> None:
    answer = say(browser(ana), run, htmx=False)
    assert answer.status_code == 302
    assert answer["Location"] == factories.address(run)
    assert Looking.objects.open().count() == 1


def test_the_stream_brings_nothing_of_one_person(run: Run, ana: User) -> None:
    acknowledgements.begin(run, ana)
    part = live_parts._card(run.pk, permissions.rights(ana))[0]
    card = LexborHTMLParser(part.html)
    assert card.css("[data-looking] button, [data-looking] form, input") == []
    asks = one(card, "[data-looking] [hx-get]")
    answer = browser(ana).get(asks.attributes["hx-get"], headers=HTMX)
    assert [words(button) for button in parsed(answer).css("button")] == ["Stop looking"]
    # The page's own element is the same one, so that a change of something else leaves it alone.
    place = (asks.attributes["hx-target"] or "")[1:]
    assert one(shown_to(ana, run), "[data-looking] .choice").attributes["id"] == place


# --- Who may ------------------------------------------------------------------------------------


def test_who_may_only_look_on_may_look(run: Run, viewer: User) -> None:
    assert say(browser(viewer), run).status_code == 200
    assert Looking.objects.get().user == viewer


def test_who_may_not_see_the_run_finds_nothing(run: Run, ana: User) -> None:
    Grant.objects.all().delete()
    assert say(browser(ana), run).status_code == 404
    with pytest.raises(acknowledgements.NotAllowed):
        acknowledgements.begin(run, ana)
    assert Looking.objects.count() == 0


def test_a_stranger_is_led_to_the_sign_in(run: Run, client: Client) -> None:
    assert say(client, run, htmx=False).status_code == 302
    assert say(client, run).status_code == 401
    assert Looking.objects.count() == 0


def test_a_closed_account_may_not(run: Run, ana: User) -> None:
    ana.is_active = False
    ana.save()
    with pytest.raises(acknowledgements.NotAllowed):
        acknowledgements.begin(run, ana)


def test_read_only_is_read_only(run: Run, ana: User, cem: User, settings: Settings) -> None:
    acknowledgements.begin(run, ana)
    settings.READ_ONLY = True
    assert buttons(shown_to(ana, run)) == []
    assert lookers(shown_to(cem, run)) == ["ana"]
    for what in ("look", "stop", "take_over"):
        answer = say(browser(cem), run, what)
        assert answer.status_code == 403
        assert "read-only" in answer.content.decode()
    assert Looking.objects.open().count() == 1


def test_aborting_may_be_switched_off(run: Run, ana: User, settings: Settings) -> None:
    settings.ABORTS_ENABLED = False
    assert say(browser(ana), run).status_code == 200


def test_a_form_of_another_site_does_nothing(run: Run, ana: User) -> None:
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(ana)
    assert say(strict, run).status_code == 403
    assert Looking.objects.count() == 0


def test_asking_says_nothing(run: Run, ana: User) -> None:
    answer = browser(ana).get(factories.address(run, "look"))
    assert (answer.status_code, answer["Location"]) == (302, factories.address(run))
    assert Looking.objects.count() == 0


def test_a_run_that_nobody_knows_is_not_found(run: Run, ana: User) -> None:
    address = factories.address(run, "look").replace("r-1", "r-2")
    assert browser(ana).post(address).status_code == 404


# --- What there is to look at, and the end ------------------------------------------------------


def test_a_run_that_needs_nobody_offers_nothing(stage: Stage, ana: User) -> None:
    calm = factories.run(stage)
    assert shown_to(ana, calm).css("[data-looking]") == []
    answer = say(browser(ana), calm)
    assert answer.status_code == 409
    assert say(browser(ana), calm, htmx=False).status_code == 302
    assert Looking.objects.count() == 0


@pytest.mark.parametrize("fields", [{"status": "aborting", "aborting_level": 1}, {"overdue": 2}])
def test_a_run_that_needs_somebody_offers_it(
    fields: dict[str, Any], stage: Stage, ana: User
) -> None:
    assert buttons(shown_to(ana, factories.run(stage, **fields))) == ["I’m looking"]


def test_one_that_is_no_longer_overdue_is_still_looked_at(run: Run, ana: User, cem: User) -> None:
    acknowledgements.begin(run, ana)
    factories.change(run, overdue=0)
    assert lookers(shown_to(cem, run)) == ["ana"]
    assert buttons(shown_to(cem, run)) == ["I’m looking too", "Take over from ana"]


def heard(run: Run, status: str, *, concluded: bool) -> None:
    """Have the mirror hear of it from Northflank."""
    now = timezone.now()
    said = ApiRun(
        id=run.run_id,
        name=run.name,
        description=None,
        status=status,
        concluded=concluded,
        created_at=run.created_at,
        started_at=run.started_at,
        concluded_at=now if concluded else None,
        updated_at=now,
    )
    mirror.runs(run.stage_id, [said], asked_at=now)


@pytest.mark.parametrize("status", ["success", "aborted", "skipped"])
def test_it_ends_with_the_run(status: str, run: Run, ana: User) -> None:
    acknowledgements.begin(run, ana)
    heard(run, "aborting", concluded=False)
    assert Looking.objects.open().count() == 1
    heard(run, status, concluded=True)
    [ended] = Looking.objects.all()
    assert ended.until is not None
    assert ended.since < ended.until
    card = shown_to(ana, run)
    assert (lookers(card), buttons(card)) == ([], [])
    assert "ana looked from" in words(one(card, "[data-looking]"))


def test_a_failure_is_looked_at_further(run: Run, ana: User, see: See) -> None:
    acknowledgements.begin(run, ana)
    heard(run, "failure", concluded=True)
    assert lookers(shown_to(ana, run)) == ["ana"]
    assert words(one(see("/"), 'tr[data-run="r-1"] .lookers bdi')) == "ana"


def test_for_a_day(run: Run, ana: User, cem: User) -> None:
    heard(run, "failure", concluded=True)
    acknowledgements.begin(run, ana)
    ended = timezone.now() - alerts.LATELY - timedelta(hours=1)
    factories.change(run, concluded_at=ended)
    Looking.objects.update(since=ended)
    card = shown_to(ana, run)
    assert (lookers(card), buttons(card)) == ([], [])
    assert "ana looked from" in words(one(card, "[data-looking]"))
    assert say(browser(cem), run).status_code == 409


def test_it_goes_on_where_northflank_knows_the_run_no_more(run: Run, ana: User) -> None:
    acknowledgements.begin(run, ana)
    mirror.gone(run.pk, asked_at=timezone.now())
    assert Looking.objects.open().count() == 1


def test_another_run_of_the_stage_ends_nothing(run: Run, ana: User) -> None:
    other = factories.run(run.stage, "r-2")
    acknowledgements.begin(run, ana)
    heard(other, "success", concluded=True)
    assert Looking.objects.open().count() == 1


def test_the_name_outlives_the_account(run: Run, ana: User, cem: User) -> None:
    acknowledgements.begin(run, ana)
    ana.delete()
    assert lookers(shown_to(cem, run)) == ["ana"]
    assert buttons(shown_to(cem, run)) == ["I’m looking too", "Take over from ana"]
    say(browser(cem), run, "take_over", instead_of=[Looking.objects.get().pk])
    assert lookers(shown_to(cem, run)) == ["cem"]


def test_a_name_is_only_text(run: Run, cem: User) -> None:
    acknowledgements.begin(run, User.objects.create_user(factories.HOSTILE[:150]))
    for address in ("/", "/board/", factories.address(run), factories.address(run.stage)):
        html = parsed(browser(cem).get(address))
        assert html.css("#hostile") == []
        assert "<b id=" in words(html.css_first(".lookers bdi, .looked-at bdi"))


# --- Several processes --------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_presses_at_once_are_one(live: Live) -> None:
    ana = User.objects.create_user("ana", password="ana")
    permissions.keep_group()
    run = factories.run(factories.stage(), overdue=Overdue.YES)
    together = Barrier(4)

    def press(_: int) -> None:
        try:
            together.wait(30)
            acknowledgements.begin(run, ana)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(press, range(4)))
    assert Looking.objects.count() == 1


def test_the_database_refuses_a_second_one(run: Run, ana: User) -> None:
    acknowledgements.begin(run, ana)
    with pytest.raises(IntegrityError), transaction.atomic():
        Looking.objects.create(run=run, user=ana, username="ana", since=timezone.now())


# --- Live, and for machines ---------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_it_comes_to_open_pages_by_the_stream(live: Live, viewer: User, manager: User) -> None:
    run = factories.run(factories.stage(), "r-1", overdue=Overdue.YES)
    watching, acting = live.person("viewer"), live.person("manager")
    with listening(watching) as now, listening(watching, "run", run.pk) as page:
        answer = press(acting, run, "look")
        assert "manager" in answer.text
        about(now, "run-r-1", "manager is looking, since")
        about(page, "run-r-1", "manager is looking, since")
        press(acting, run, "stop")
        row = about(now, "run-r-1")
        assert "looking" not in row.text()


def press(person: httpx.Client, run: Run, what: str) -> httpx.Response:
    data = {"csrfmiddlewaretoken": token(person), "say": what}
    answer = person.post(factories.address(run, "look"), data=data, headers=HTMX)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.django_db(transaction=True)
def test_it_is_told_of_a_failure_that_was_old_when_first_heard_of(live: Live, viewer: User) -> None:
    hours = timezone.now() - timedelta(hours=5)
    run = factories.run(
        factories.stage(), "r-1", status="failure", created_at=hours, concluded_at=hours
    )
    with listening(live.person("viewer")) as now:
        acknowledgements.begin(run, viewer)
        about(now, "run-r-1", "viewer is looking, since")


@pytest.mark.parametrize("address", ["/", "/board/", "run"])
def test_more_people_cost_no_more_queries(address: str, run: Run, at_desk: Client) -> None:
    def queries() -> int:
        cache.clear()
        with CaptureQueriesContext(connection) as seen:
            at_desk.get(factories.address(run) if address == "run" else address)
        return len(seen)

    queries()  # notes the interest
    acknowledgements.begin(run, User.objects.create_user("a0"))
    few = queries()
    for number in range(1, 6):
        person = User.objects.create_user(f"a{number}")
        acknowledgements.begin(run, person)
        acknowledgements.begin(factories.run(run.stage, overdue=Overdue.YES), person)
    assert queries() <= few
