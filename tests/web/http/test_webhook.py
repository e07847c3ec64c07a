"""Northflank's webhook: every response."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts.authentication import throttle
from dashboard.db import threads as db_threads
from dashboard.models import Stage, WebhookStats
from tests.support.live import Live

SECRET = "right-" + "x" * 20
WEBHOOK_PATH = "/hooks/northflank/"
HEADER_PREFIX = "X-Northflank-Notification-Integration-"
RUN_STARTED = "release-flow-template-run:start"

type SendEvent = Callable[..., HttpResponse]


@pytest.fixture(autouse=True)
def webhook_secret(settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = [SECRET]


@pytest.fixture
def send_event(db: None) -> SendEvent:
    """Send a webhook as Northflank does: with no session and no form token."""
    client = Client(enforce_csrf_checks=True)

    def send_event(
        body: Any = None, *, token: str = SECRET, id: str = "e-1", **options: Any
    ) -> HttpResponse:
        if body is None:
            body = {"event": RUN_STARTED, "data": {"project": {"id": "shop", "name": "Shop"}}}
        raw = body if isinstance(body, bytes) else json.dumps(body)
        headers = {f"{HEADER_PREFIX}Token": token, f"{HEADER_PREFIX}Event-Id": id} | options.pop(
            "headers", {}
        )
        return client.post(
            WEBHOOK_PATH, raw, content_type="application/json", headers=headers, **options
        )  # type: ignore[return-value]

    return send_event


def webhook_status() -> WebhookStats:
    return WebhookStats.objects.get()


# --- the token ---------------------------------------------------------------------------------


def test_webhook_with_valid_token_is_accepted(send_event: SendEvent) -> None:
    assert send_event().status_code == 200
    assert webhook_status().event_count == 1


@pytest.mark.parametrize(
    "token", ["", "wrong", SECRET + "x", SECRET[:-1], "r\xefght", SECRET.upper()]
)
def test_webhook_with_invalid_token_returns_401(send_event: SendEvent, token: str) -> None:
    answer = send_event(token=token)
    assert (answer.status_code, answer.content) == (401, b"Unauthorized\n")
    assert webhook_status().event_count == 0


def test_webhook_without_token_returns_401(client: Client, db: None) -> None:
    answer = client.post(WEBHOOK_PATH, "{}", content_type="application/json")
    assert answer.status_code == 401


def test_webhook_with_repeated_invalid_tokens_is_throttled_without_a_write(
    send_event: SendEvent,
) -> None:
    for _ in range(throttle.WEBHOOK.burst):
        assert send_event(token="wrong").status_code == 401
    first = webhook_status().last_rejected_at
    with CaptureQueriesContext(connection) as queries:
        answer = send_event(token="wrong")
    assert (answer.status_code, answer.content) == (429, b"Too many requests\n")
    assert 0 < int(answer["Retry-After"]) <= throttle.WEBHOOK.interval.total_seconds()
    assert webhook_status().last_rejected_at == first
    assert [query["sql"][:6] for query in queries.captured_queries] == ["SELECT"]


def test_webhook_with_repeated_invalid_tokens_logs_once(
    send_event: SendEvent, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        send_event(token="wrong")
    assert len(caplog.records) == 1


@pytest.fixture
def clock_one_hour_ahead() -> Iterator[None]:
    """Set the database's clock an hour ahead of ours."""
    db_threads.set_clock_offset(timedelta(hours=1))
    yield
    db_threads.set_clock_offset(timedelta())


@pytest.mark.usefixtures("clock_one_hour_ahead")
def test_webhook_event_time_comes_from_database_clock(send_event: SendEvent) -> None:
    send_event(token="wrong")
    send_event()
    soon = timezone.now() + timedelta(minutes=59)
    row = webhook_status()
    assert row.last_event_at is not None
    assert row.last_rejected_at is not None
    assert min(row.last_event_at, row.last_rejected_at) > soon


def test_webhook_with_two_secrets_accepts_both(send_event: SendEvent, settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = ["new-" + "y" * 20, SECRET]
    assert send_event().status_code == 200
    assert send_event(token="new-" + "y" * 20).status_code == 200


@pytest.mark.parametrize("token", ["", SECRET])
def test_webhook_without_configured_secret_returns_404(
    send_event: SendEvent, settings: Settings, token: str
) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    assert send_event(token=token).status_code == 404
    assert not WebhookStats.objects.exists()


# --- the body ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nonsense", b"[]", b"null", b'"text"', b"1", b"{", b"\xff\xfe", b'{"event": 7}',
        b'{"event": {"a": 1}}', b"[" * 60_000, b'{"a":' * 10_000, b"1" * 5000,
    ],
    ids=range(13),
)  # fmt: skip
def test_webhook_with_invalid_body_returns_400(send_event: SendEvent, body: bytes) -> None:
    answer = send_event(body)
    assert answer.status_code == 400
    assert not WebhookStats.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"event": "build:start"}',
        b'{"event": "", "data": null}',
        b'{"event": "release-flow-template-run:start", "data": "text"}',
        b'{"event": "release-flow-template-run:start", "data": [[["\\ud800", "\\u0000"]]]}',
        b'{"event": "release-flow-template-run:start", "data": {"project": {"id": "\\u0000"}}}',
        b'{"event": "release-flow-template-run:start", "data": {"project": {"id": "\\ud83d"}}}',
        b'{"event": "release-flow-template-run:start", "data": {"project": {"id": ["a", 1, {}]}}}',
        b'{"event": "release-flow-template-run:no-such-word", "data": {"run": NaN}}',
    ],
    ids=range(9),
)
def test_webhook_with_unusual_event_data_is_accepted(send_event: SendEvent, body: bytes) -> None:
    assert send_event(body).status_code == 200
    assert webhook_status().event_count == 1


def test_webhook_event_type_in_header_is_recognized(send_event: SendEvent, stage: Stage) -> None:
    send_event({"data": {}}, headers={f"{HEADER_PREFIX}Event-Type": RUN_STARTED})
    assert webhook_status().last_release_event_at is not None


def test_webhook_unrelated_event_is_counted_and_makes_nothing_due(
    send_event: SendEvent, stage: Stage
) -> None:
    send_event({"event": "build:start", "data": {"project": {"id": "shop"}}})
    assert (webhook_status().event_count, webhook_status().last_release_event_at) == (1, None)
    assert Stage.objects.get().next_sync_at == stage.next_sync_at


def test_webhook_event_sent_by_hand_makes_stages_due_but_is_not_received_from_northflank(
    send_event: SendEvent, stage: Stage
) -> None:
    send_event({"event": RUN_STARTED, "data": {}}, id="")
    stage.refresh_from_db()
    assert stage.next_sync_at <= timezone.now()
    stats = webhook_status()
    assert (stats.event_count, stats.last_event_at, stats.last_release_event_at) == (1, None, None)
    send_event()
    assert webhook_status().last_release_event_at is not None


# --- around the view ---------------------------------------------------------------------------


# --- over the real server ----------------------------------------------------------------------


def test_webhook_on_real_server_is_accepted(live: Live) -> None:
    answer = httpx.post(
        live.base_url + WEBHOOK_PATH,
        json={"event": "x", "data": {}},
        headers={f"{HEADER_PREFIX}Token": SECRET},
    )
    assert (answer.status_code, answer.text) == (200, "ok\n")


@pytest.mark.parametrize(
    ("token", "size", "status"),
    [(SECRET, 250_000, 200), (SECRET, 263_000, 413), ("wrong", 66_000, 413)],
)
def test_large_webhook_body_requires_the_token(
    live: Live, token: str, size: int, status: int
) -> None:
    answer = httpx.post(
        live.base_url + WEBHOOK_PATH,
        json={"event": "x", "data": "y" * size},
        headers={f"{HEADER_PREFIX}Token": token},
    )
    assert answer.status_code == status
