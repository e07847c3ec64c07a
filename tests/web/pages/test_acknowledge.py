"""Acknowledging a run: permissions, what everybody sees, and when it ends."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from pytest_django import Settings
from selectolax.lexbor import LexborHTMLParser

from dashboard.accounts import permissions
from dashboard.models import Acknowledgement, ChangeCounter, Run, Stage
from dashboard.models.severity import Severity
from dashboard.runs import acknowledgements
from dashboard.web.live.changes import load_changes
from dashboard.web.pages.run import RunPage
from tests.support import factories
from tests.support.html import HTMX, GetPage, parse_html, select_one, text_of
from tests.support.live import Live, token
from tests.support.stream import next_part, open_stream


@pytest.fixture
def run(stage: Stage) -> Run:
    """A run that is overdue."""
    return factories.run(
        stage, "r-1", name="Nightly", overdue_severity=Severity.WARNING, overdue_reason="run"
    )


@pytest.fixture
def ana(db: None) -> User:
    permissions.ensure_default_group()
    return User.objects.create_user("ana", password="ana")


@pytest.fixture
def cem(db: None) -> User:
    return User.objects.create_user("cem", password="cem")


def post_acknowledgement(
    client: Client, run: Run, action: str = "acknowledge", htmx: bool = True, **fields: Any
) -> Any:
    headers = HTMX if htmx else {}
    return client.post(
        factories.address(run, "acknowledge"), {"action": action} | fields, headers=headers
    )


def client_for(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


def run_page_for(user: User, run: Run) -> LexborHTMLParser:
    return parse_html(client_for(user).get(factories.address(run)))


def buttons(html: LexborHTMLParser) -> list[str]:
    return [text_of(button) for button in html.css("[data-acknowledgements] button")]


def acknowledged_by(html: LexborHTMLParser) -> list[str]:
    return [text_of(bdi) for bdi in html.css(".run .acknowledgement bdi")]


# --- Acknowledging ------------------------------------------------------------------------------


def test_acknowledgement_is_shown_to_all_users(run: Run, ana: User, cem: User) -> None:
    before = run_page_for(ana, run)
    assert buttons(before) == ["Acknowledge"]
    assert before.css(".acknowledged-by") == []
    card = parse_html(post_acknowledgement(client_for(ana), run))
    assert acknowledged_by(card) == ["ana"]
    assert buttons(card) == ["Hand back"]
    after = run_page_for(cem, run)
    assert acknowledged_by(after) == ["ana"]
    assert buttons(after) == ["Acknowledge too", "Take over from ana"]
    assert "Acknowledged by ana since" in text_of(select_one(after, "#incident-summary-text"))


def test_acknowledgement_is_shown_on_run_row_and_board(
    run: Run, ana: User, get_page: GetPage
) -> None:
    assert get_page("/").css(".acknowledged-by") == []
    acknowledgements.acknowledge(run, ana)
    for address in ("/", factories.address(run.stage)):
        row = select_one(get_page(address), 'tr[data-run="r-1"]')
        assert text_of(select_one(row, ".acknowledged-by bdi")) == "ana"
        assert row.attributes["data-acknowledged"] == "ana"
    assert text_of(select_one(get_page("/board/"), ".acknowledged")) == "Acknowledged by ana"


def test_acknowledge_twice_by_same_user_changes_nothing(run: Run, ana: User) -> None:
    post_acknowledgement(client_for(ana), run)
    before = ChangeCounter.latest()
    answer = post_acknowledgement(client_for(ana), run)
    assert answer.status_code == 200
    assert Acknowledgement.objects.count() == 1
    assert ChangeCounter.latest() == before


def test_hand_back_ends_acknowledgement_and_keeps_history(run: Run, ana: User) -> None:
    post_acknowledgement(client_for(ana), run)
    card = parse_html(post_acknowledgement(client_for(ana), run, "hand_back"))
    assert acknowledged_by(card) == []
    assert buttons(card) == ["Acknowledge"]
    assert "Acknowledged by ana from" in text_of(select_one(card, "[data-acknowledgements] ul"))
    before = ChangeCounter.latest()
    post_acknowledgement(client_for(ana), run, "hand_back")
    assert ChangeCounter.latest() == before


def test_take_over_replaces_acknowledgement_and_is_recorded(run: Run, ana: User, cem: User) -> None:
    acknowledgements.acknowledge(run, ana)
    key = Acknowledgement.objects.get().pk
    card = parse_html(
        post_acknowledgement(client_for(cem), run, "take_over", take_over_from=[key, "x", 10**9])
    )
    assert acknowledged_by(card) == ["cem"]
    assert text_of(select_one(card, "[data-acknowledgements] ul")).endswith("; taken over by cem")


def test_take_over_ends_only_named_acknowledgements_of_same_run(
    run: Run, ana: User, cem: User
) -> None:
    acknowledgements.acknowledge(run, ana)
    key = Acknowledgement.objects.get().pk
    bea = User.objects.create_user("bea")
    acknowledgements.acknowledge(run, bea)
    other = factories.run(run.stage, overdue_severity=Severity.WARNING)
    acknowledgements.acknowledge(other, ana)
    other_key = Acknowledgement.objects.get(run=other).pk
    post_acknowledgement(client_for(cem), run, "take_over", take_over_from=[key, other_key])
    assert set(run.acknowledgements.open().values_list("username", flat=True)) == {"bea", "cem"}
    assert other.acknowledgements.open().count() == 1


def test_run_row_with_many_acknowledgements_names_all(run: Run, get_page: GetPage) -> None:
    names = ["a1", "a2", "a3", "a4", "a5"]
    for name in names:
        acknowledgements.acknowledge(run, User.objects.create_user(name))
    row = select_one(get_page("/"), 'tr[data-run="r-1"]')
    assert [text_of(name) for name in row.css(".acknowledged-by bdi")] == names
    assert row.attributes["data-acknowledged"] == ", ".join(names)


def test_acknowledge_without_javascript_redirects_to_run(run: Run, ana: User) -> None:
    answer = post_acknowledgement(client_for(ana), run, htmx=False)
    assert answer.status_code == 302
    assert answer["Location"] == factories.address(run)
    assert Acknowledgement.objects.open().count() == 1


def test_streamed_run_card_contains_no_user_specific_controls(run: Run, ana: User) -> None:
    acknowledgements.acknowledge(run, ana)
    snapshot = load_changes(None).snapshot(permissions.for_user(ana))
    part = RunPage(snapshot, key=run.pk).changed_parts([run])[0]
    card = LexborHTMLParser(part.html)
    assert card.css("[data-acknowledgements] button, [data-acknowledgements] form, input") == []
    element = select_one(card, "[data-acknowledgements] [hx-get]")
    answer = client_for(ana).get(element.attributes["hx-get"], headers=HTMX)
    assert [text_of(button) for button in parse_html(answer).css("button")] == ["Hand back"]
    # The page has the same element, so that other changes do not replace it.
    target = (element.attributes["hx-target"] or "")[1:]
    assert (
        select_one(run_page_for(ana, run), "[data-acknowledgements] .actions").attributes["id"]
        == target
    )


# --- Who may ------------------------------------------------------------------------------------


def test_viewer_may_acknowledge(run: Run, viewer: User) -> None:
    assert post_acknowledgement(client_for(viewer), run).status_code == 200
    assert Acknowledgement.objects.get().user == viewer


def test_acknowledgement_in_read_only_mode_cannot_change(
    run: Run, ana: User, cem: User, settings: Settings
) -> None:
    acknowledgements.acknowledge(run, ana)
    settings.READ_ONLY = True
    assert buttons(run_page_for(ana, run)) == []
    assert acknowledged_by(run_page_for(cem, run)) == ["ana"]
    for action in ("acknowledge", "hand_back", "take_over"):
        answer = post_acknowledgement(client_for(cem), run, action)
        assert answer.status_code == 403
        assert "read-only" in answer.content.decode()
    assert Acknowledgement.objects.open().count() == 1


# --- Which runs, and until when -----------------------------------------------------------------


def test_run_without_alert_offers_no_acknowledgement(stage: Stage, ana: User) -> None:
    quiet_run = factories.run(stage)
    assert run_page_for(ana, quiet_run).css("[data-acknowledgements]") == []
    answer = post_acknowledgement(client_for(ana), quiet_run)
    assert answer.status_code == 409
    assert post_acknowledgement(client_for(ana), quiet_run, htmx=False).status_code == 302
    assert Acknowledgement.objects.count() == 0


@pytest.mark.parametrize(
    "fields", [{"status": "aborting", "abort_severity": 1}, {"overdue_severity": 2}]
)
def test_run_with_alert_offers_acknowledgement(
    fields: dict[str, Any], stage: Stage, ana: User
) -> None:
    assert buttons(run_page_for(ana, factories.run(stage, **fields))) == ["Acknowledge"]


def test_acknowledgement_with_hostile_username_is_escaped(run: Run, cem: User) -> None:
    acknowledgements.acknowledge(run, User.objects.create_user(factories.HOSTILE[:150]))
    for address in ("/", "/board/", factories.address(run), factories.address(run.stage)):
        html = parse_html(client_for(cem).get(address))
        assert html.css("#hostile") == []
        assert "<b id=" in text_of(html.css_first(".acknowledged-by bdi, .acknowledged bdi"))


# --- Several processes --------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_concurrent_acknowledgements_by_one_user_create_one(live: Live) -> None:
    ana = User.objects.create_user("ana", password="ana")
    permissions.ensure_default_group()
    run = factories.run(factories.stage(), overdue_severity=Severity.WARNING)
    barrier = Barrier(4)

    def acknowledge(_: int) -> None:
        try:
            barrier.wait(30)
            acknowledgements.acknowledge(run, ana)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(acknowledge, range(4)))
    assert Acknowledgement.objects.count() == 1


# --- Live, and by the API -----------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_acknowledgement_is_streamed_to_open_pages(live: Live, viewer: User, manager: User) -> None:
    run = factories.run(factories.stage(), "r-1", overdue_severity=Severity.WARNING)
    viewer_http, manager_http = live.sign_in("viewer"), live.sign_in("manager")
    with open_stream(viewer_http) as now, open_stream(viewer_http, "run", run.pk) as page:
        answer = post_over_http(manager_http, run, "acknowledge")
        assert "manager" in answer.text
        next_part(now, "run-r-1", "Acknowledged by manager since")
        next_part(page, "run-r-1", "Acknowledged by manager since")
        post_over_http(manager_http, run, "hand_back")
        while "Acknowledged" in next_part(now, "run-r-1").text():
            pass  # the row as it was before it was handed back


def post_over_http(client: httpx.Client, run: Run, action: str) -> httpx.Response:
    data = {"csrfmiddlewaretoken": token(client), "action": action}
    answer = client.post(factories.address(run, "acknowledge"), data=data, headers=HTMX)
    assert answer.status_code == 200, answer.text
    return answer
