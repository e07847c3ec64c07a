"""Asking that a channel be told when a run ends: who may, which channels, and what others see."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts import permissions
from dashboard.models import EndRequest, Grant, NoticeRule, Run, Stage
from dashboard.notices import end_requests
from tests.support import factories
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.people import client_of

NOT_OPEN = "No message will be sent: the run has ended or the channel is gone."


@pytest.fixture(autouse=True)
def channels(settings: Settings) -> dict[str, str]:
    settings.NOTIFY_URLS = {"oncall": "json://secret@oncall", "releases": "json://releases"}
    return settings.NOTIFY_URLS


@pytest.fixture
def run(stage: Stage) -> Run:
    return factories.run(stage, "r-1", name="Nightly")


@pytest.fixture
def ana(db: None) -> User:
    permissions.ensure_default_group()
    return User.objects.create_user("ana")


def add_rule(channel: str, **fields: Any) -> NoticeRule:
    defaults = {"events": ["run_ended"], "created_at": timezone.now()}
    return NoticeRule.objects.create(channel=channel, **defaults | fields)


def panel_of(user: User, run: Run) -> str:
    """Return the text of what the run's page offers without JavaScript."""
    html = parse_html(client_of(user).get(factories.address(run)))
    return " ".join(map(text_of, html.css("[data-tell-end] form")))


def post(user: User, run: Run, **fields: str) -> Any:
    address = factories.address(run, "end_request")
    return client_of(user).post(address, fields, headers=HTMX)


def test_channels_are_those_that_rules_open_at_the_place_of_the_run(run: Run) -> None:
    assert end_requests.open_channels(run) == []
    add_rule("releases")
    add_rule("oncall", project=run.stage.pipeline.project, stage=run.stage.name)
    assert end_requests.open_channels(run) == ["oncall", "releases"]
    NoticeRule.objects.all().delete()
    add_rule("oncall", events=["failed"])
    add_rule("oncall", stage="Staging")
    add_rule("oncall", project=factories.project("other"))
    add_rule("unset")
    assert end_requests.open_channels(run) == []


@pytest.mark.parametrize("end", [{"in_flight": False}, {"removed_at": timezone.now()}])
def test_nothing_is_offered_once_a_run_is_over(run: Run, ana: User, end: dict[str, Any]) -> None:
    add_rule("oncall")
    factories.change(run, **end)
    assert panel_of(ana, run) == ""
    answer = post(ana, run, request="oncall")
    assert (answer.status_code, answer.content.decode()) == (409, NOT_OPEN)
    assert not EndRequest.objects.exists()


def test_request_is_seen_by_all_and_withdrawn_by_its_user(run: Run, ana: User) -> None:
    add_rule("oncall")
    assert panel_of(ana, run) == "Tell “oncall” when this run ends"
    version = Run.objects.get().version
    for _pressed_twice in range(2):
        answer = post(ana, run, request="oncall")
        assert answer.status_code == 200
        told = "Channel “oncall” is told when this run ends: asked by ana."
        assert told in text_of(parse_html(answer))
    request = EndRequest.objects.get()
    assert (request.run, request.user, request.channel) == (run, ana, "oncall")
    assert Run.objects.get().version > version  # so that open pages show it
    ben = User.objects.create_user("ben")
    assert panel_of(ana, run) == f"{told} Withdraw: oncall"
    assert panel_of(ben, run) == told
    assert post(ben, run, withdraw="oncall").status_code == 200
    assert EndRequest.objects.exists()
    assert post(ana, run, withdraw="oncall").status_code == 200
    assert not EndRequest.objects.exists()
    assert panel_of(ben, run) == "Tell “oncall” when this run ends"


def test_channel_that_was_closed_meanwhile_is_not_told(run: Run, ana: User) -> None:
    client, address = client_of(ana), factories.address(run, "end_request")
    page = client.post(address, {"request": "oncall"}, follow=True)  # without JavaScript
    assert text_of(select_one(parse_html(page), "#notices p")) == NOT_OPEN
    answer = post(ana, run, request="oncall")
    assert (answer.status_code, answer.content.decode()) == (409, NOT_OPEN)
    assert not EndRequest.objects.exists()


def test_who_may_not_view_the_run_cannot_ask(run: Run, ana: User) -> None:
    add_rule("oncall")
    Grant.objects.all().delete()
    assert post(ana, run, request="oncall").status_code == 404
    with pytest.raises(PermissionDenied):
        end_requests.request(run, ana, "oncall")
    assert not EndRequest.objects.exists()


def test_read_only_offers_nothing_and_refuses(run: Run, ana: User, settings: Settings) -> None:
    add_rule("oncall")
    end_requests.request(run, ana, "oncall")
    settings.READ_ONLY = True
    assert panel_of(ana, run) == "Channel “oncall” is told when this run ends: asked by ana."
    for fields in ({"request": "oncall"}, {"withdraw": "oncall"}):
        answer = post(ana, run, **fields)
        assert (answer.status_code, answer.content.decode()) == (
            403,
            "This dashboard is read-only.",
        )
    assert EndRequest.objects.exists()


def test_page_fetches_the_form_of_its_user(run: Run, ana: User) -> None:
    add_rule("oncall")
    end_requests.request(run, ana, "oncall")
    form = client_of(ana).get(factories.address(run, "end_request"), headers=HTMX)
    assert select_one(parse_html(form), "button[name=withdraw]").attributes["value"] == "oncall"
    answer = Client().get(factories.address(run, "end_request"))
    assert answer.status_code == 302  # to sign in
