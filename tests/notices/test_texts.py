"""What a message says, and that what others have written does nothing in it."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, NoticeMessage
from dashboard.models.notices import NoticeEvent
from dashboard.notices import texts
from dashboard.texts.local_time import format_full
from tests.support import factories

JOINER = "\u2060"


def message_about_abort(user: User, **fields: object) -> NoticeMessage:
    stage = factories.stage()
    run = factories.run(stage, "r1", name=str(fields.pop("name", "Basket totals 4719")))
    factories.abort(run, user, "refused", response="No permission.", **fields)
    factories.run(stage, status="queued", started_at=None, created_at=timezone.now())
    return texts.of_run(run, NoticeEvent.ABORT_OTHERWISE, timezone.now())


def test_message_says_how_the_run_stands_who_aborted_it_and_why(
    manager: User, settings: Settings
) -> None:
    settings.BASE_URL = "https://flows.example"
    message = message_about_abort(manager, reason="It hangs.", settled_at=timezone.now())
    assert message.title == "Abort ended otherwise than asked: Basket totals 4719 in Shop"
    requested = f"Abort requested by manager, {format_full(Abort.objects.get().requested_at)}"
    assert message.body.splitlines() == [
        "Checkout / Production: running for 1 min. Blocks 1 run.",
        f"{requested}: “It hangs.” Northflank refused: No permission.",
        "https://flows.example/projects/shop/pipelines/checkout/release-flows/production/runs/r1/",
    ]
    assert message.payload["run"]["id"] == "r1"
    assert message.payload["abort"]["reason"] == "It hangs."


def test_names_and_reasons_neither_mention_anybody_nor_hide_a_link(manager: User) -> None:
    name = "@everyone <!channel> <@U1> [docs](https://evil.example)\x1b[31m\u202e"
    message = message_about_abort(manager, name=name, reason=name)
    for text in (message.title, message.body):
        assert f"@{JOINER}everyone <{JOINER}!channel> <{JOINER}@{JOINER}U1> [docs]{JOINER}(" in text
        assert not {"\x1b", "\u202e"} & set(text)
    assert "@everyone <!channel>" in message.payload["title"]


def test_text_is_bounded_and_keeps_its_address(manager: User) -> None:
    message = message_about_abort(manager, name="x" * 10_000, reason="y" * 10_000)
    assert len(message.title) < 200
    assert len(message.body) < texts.MAX_LENGTH + 200
    assert message.body.endswith(f"\n{message.url}")


@pytest.mark.parametrize(
    ("fields", "event", "title"),
    [
        ({"status": "failure"}, NoticeEvent.FAILED, "Failed: Run in Shop"),
        ({"status": "success"}, NoticeEvent.RUN_ENDED, "Succeeded: Run in Shop"),
        ({"removed_at": timezone.now()}, NoticeEvent.OVERDUE, "Removed: Run in Shop"),
        ({}, NoticeEvent.FAR_OVERDUE, "No longer overdue: Run in Shop"),
        ({}, NoticeEvent.APPROVAL, "No longer waiting for approval: Run in Shop"),
        ({}, NoticeEvent.ABORT_OVERDUE, "No longer aborting: Run in Shop"),
        ({"status": "new"}, NoticeEvent.OVERDUE, "No longer overdue: Run in Shop"),
    ],
)
def test_title_says_how_it_ended(
    db: None, fields: dict[str, Any], event: NoticeEvent, title: str
) -> None:
    run = factories.run(factories.stage(), name="Run", **fields)
    assert texts.of_run(run, event, timezone.now(), is_over=True).title == title


def test_dashboard_is_told_of_as_on_health(db: None) -> None:
    factories.leader()
    factories.upstream_error("No response.", timezone.now() - timedelta(minutes=6))
    message = texts.of_dashboard(NoticeEvent.SYNC_DOWN, timezone.now())
    assert message.title == "Northflank cannot be read"
    assert message.body.startswith("No updates from Northflank since 20")
    assert message.url == "/health/"


def test_end_of_an_aborted_run_says_what_still_runs(db: None) -> None:
    run = factories.run(
        factories.stage(), status="aborted", steps=factories.steps_naming("j1", status="aborted")
    )
    factories.work(run)
    body = texts.of_run(run, NoticeEvent.OVERDUE, timezone.now(), is_over=True).body
    assert "\nLeft running by the abort: job run migrate-j1 (j1), RUNNING, started " in body


def test_each_payload_has_the_fields_of_the_documents(db: None) -> None:
    payload = texts.of_test("ops", "ann").payload
    assert (payload["event"], payload["over"]) == ("test", False)
    assert (payload["run"], payload["abort"]) == (None, None)
