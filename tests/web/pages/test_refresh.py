"""Refresh now on pages: who may press it, with and without scripts, and what it answers."""

from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Grant, ReadRequest, Run, Stage
from tests.support import factories
from tests.support.html import HTMX, parse_html, select_one, text_of

REQUESTED = "Being read from Northflank. This page shows it when it is read."


@pytest.fixture
def stage(db: None) -> Stage:
    factories.leader()
    return factories.stage(next_sync_at=timezone.now() + timedelta(hours=1))


@pytest.fixture
def run(stage: Stage) -> Run:
    return factories.run(stage, "r-1")


def press(client: Client, address: str, **headers: str) -> str:
    """Press the button of a page; return the notice."""
    form = select_one(parse_html(client.get(address)), "form.refresh")
    answer = client.post(form.attributes["action"] or "", follow=True, headers=headers)
    assert answer.status_code == 200
    return text_of(select_one(parse_html(answer), ".notice p"))


@pytest.mark.parametrize("read_only", [False, True])
def test_viewer_may_refresh_a_stage_also_when_nothing_may_be_changed(
    read_only: bool, stage: Stage, viewer_client: Client, settings: Settings
) -> None:
    settings.READ_ONLY = read_only
    assert press(viewer_client, factories.address(stage)) == REQUESTED
    assert Stage.objects.due(timezone.now()).get() == stage


def test_viewer_may_refresh_a_run(run: Run, viewer_client: Client) -> None:
    assert press(viewer_client, factories.address(run)) == REQUESTED
    assert ReadRequest.objects.get().run_id == "r-1"


def test_second_press_says_when_it_is_possible_again(run: Run, viewer_client: Client) -> None:
    for address in (factories.address(run), factories.address(run.stage)):
        press(viewer_client, address)
        assert press(viewer_client, address).startswith("Just requested. Again in 1")
    assert ReadRequest.objects.count() == 2


def test_htmx_gets_the_notice_alone(run: Run, viewer_client: Client) -> None:
    form = select_one(parse_html(viewer_client.get(factories.address(run))), "form.refresh")
    answer = viewer_client.post(form.attributes["hx-post"] or "", headers=HTMX)
    assert answer.status_code == 200
    html = parse_html(answer)
    assert text_of(select_one(html, "hx-partial .notice p")) == REQUESTED
    assert "<html" not in answer.content.decode()


def test_refreshed_stage_keeps_its_filter(stage: Stage, viewer_client: Client) -> None:
    address = f"{factories.address(stage)}?status=failure"
    form = select_one(parse_html(viewer_client.get(address)), "form.refresh")
    answer = viewer_client.post(form.attributes["action"] or "")
    assert answer["Location"] == address


def test_used_up_share_is_told_with_its_end(run: Run, viewer_client: Client) -> None:
    past = timezone.now() - timedelta(minutes=5)
    kind = ReadRequest.Kind.REFRESH
    ReadRequest.objects.bulk_create(
        ReadRequest(kind=kind, stage=run.stage, requested_at=past) for _ in range(100)
    )
    notice = press(viewer_client, factories.address(run))
    assert notice.startswith("“Refresh now” was used 100 times this hour. Try again at ")


def test_removed_pipeline_offers_no_refresh(run: Run, viewer_client: Client) -> None:
    pipeline = run.stage.pipeline
    type(pipeline)._default_manager.update(removed_at=timezone.now())
    for address in (factories.address(run), factories.address(run.stage)):
        assert parse_html(viewer_client.get(address)).css("form.refresh") == []
        answer = viewer_client.post(f"{address}refresh/", follow=True)
        assert "was removed from Northflank" in text_of(
            select_one(parse_html(answer), "#notices .notice p")
        )
    assert not ReadRequest.objects.exists()


def test_refresh_of_what_a_user_may_not_view_is_not_found(run: Run, viewer_client: Client) -> None:
    Grant.objects.all().delete()
    for address in (factories.address(run), factories.address(run.stage)):
        assert viewer_client.post(f"{address}refresh/").status_code == 404
    assert not ReadRequest.objects.exists()
