"""Northflank's webhook: every way in which it is answered."""

import json
import socket
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

from dashboard.db import threads as db_threads
from dashboard.models import Push, PushEvent, Stage
from tests.support.live import Live

SECRET = "right-" + "x" * 20
PLACE = "/hooks/northflank/"
HEADER = "X-Northflank-Notification-Integration-"
STARTED = "release-flow-template-run:start"

type Ring = Callable[..., HttpResponse]


@pytest.fixture(autouse=True)
def secret(settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = [SECRET]


@pytest.fixture
def ring(db: None) -> Ring:
    """Send a webhook as Northflank does: with no session and no form token."""
    client = Client(enforce_csrf_checks=True)

    def ring(
        body: Any = None, *, token: str = SECRET, id: str = "e-1", **more: Any
    ) -> HttpResponse:
        if body is None:
            body = {"event": STARTED, "data": {"project": {"id": "shop", "name": "Shop"}}}
        raw = body if isinstance(body, bytes) else json.dumps(body)
        headers = {f"{HEADER}Token": token, f"{HEADER}Event-Id": id} | more.pop("headers", {})
        return client.post(PLACE, raw, content_type="application/json", headers=headers, **more)  # type: ignore[return-value]

    return ring


def push() -> Push:
    return Push.objects.get()


# --- the token ---------------------------------------------------------------------------------


def test_an_authentic_event_is_taken(ring: Ring) -> None:
    assert ring().status_code == 200
    assert push().events == 1


@pytest.mark.parametrize(
    "token", ["", "wrong", SECRET + "x", SECRET[:-1], "r\xefght", SECRET.upper()]
)
def test_another_token_is_refused(ring: Ring, token: str) -> None:
    answer = ring(token=token)
    assert (answer.status_code, answer.content) == (401, b"Unauthorized\n")
    assert push().events == 0


def test_no_token_is_refused(client: Client, db: None) -> None:
    answer = client.post(PLACE, "{}", content_type="application/json")
    assert answer.status_code == 401


def test_a_refusal_does_not_tell_whether_the_body_was_right(ring: Ring) -> None:
    assert ring(b"{", token="wrong").content == ring(token="wrong").content


def test_a_flood_of_wrong_tokens_writes_once(ring: Ring) -> None:
    ring(token="wrong")
    first = push().refused_at
    with CaptureQueriesContext(
        connection,
    ) as asked:
        ring(token="wrong")
    assert push().refused_at == first
    assert [q["sql"][:6] for q in asked.captured_queries] == ["SELECT"]


def test_a_refusal_is_logged_once_in_ten_seconds(
    ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        ring(token="wrong")
    assert len(caplog.records) == 1


@pytest.fixture
def an_hour_ahead() -> Iterator[None]:
    """The database's clock is an hour ahead of ours."""
    db_threads.set_clock(timedelta(hours=1))
    yield
    db_threads.set_clock(timedelta())


@pytest.mark.usefixtures("an_hour_ahead")
def test_an_event_is_stamped_by_the_databases_clock(ring: Ring) -> None:
    ring(token="wrong")
    ring()
    soon = timezone.now() + timedelta(minutes=59)
    row = push()
    assert row.heard_at is not None
    assert row.refused_at is not None
    assert min(row.heard_at, row.refused_at) > soon


def test_while_the_secret_is_changed_both_are_taken(ring: Ring, settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = ["new-" + "y" * 20, SECRET]
    assert ring().status_code == 200
    assert ring(token="new-" + "y" * 20).status_code == 200


@pytest.mark.parametrize("token", ["", SECRET])
def test_without_a_secret_nothing_is_there(ring: Ring, settings: Settings, token: str) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    assert ring(token=token).status_code == 404
    assert not Push.objects.exists()


# --- the body ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"", b"nonsense", b"[]", b"null", b'"text"', b"1", b"{", b"\xff\xfe", b'{"event": 7}',
        b'{"event": {"a": 1}}', b"[" * 60_000, b'{"a":' * 10_000, b"1" * 5000,
    ],
    ids=range(13),
)  # fmt: skip
def test_what_is_no_event_is_refused(ring: Ring, body: bytes) -> None:
    answer = ring(body)
    assert answer.status_code == 400
    assert not Push.objects.exists()


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
def test_any_shape_of_an_event_is_taken(ring: Ring, body: bytes) -> None:
    assert ring(body).status_code == 200
    assert push().events == 1


def test_a_body_up_to_the_limit_is_taken(ring: Ring) -> None:
    assert ring({"event": "x", "data": "y" * 60_000}).status_code == 200


def test_a_body_over_the_limit_is_refused(ring: Ring) -> None:
    assert ring({"event": "x", "data": "y" * 70_000}).status_code == 413
    assert not Push.objects.exists()


def test_the_event_may_be_named_by_its_header_alone(ring: Ring, stage: Stage) -> None:
    ring({"data": {}}, headers={f"{HEADER}Event-Type": STARTED})
    assert push().rung_at is not None


@pytest.mark.parametrize("name", [STARTED, f"trigger:{STARTED}"])
def test_both_spellings_of_an_event_ring(ring: Ring, stage: Stage, name: str) -> None:
    ring({"event": name, "data": {"project": {"id": "shop"}}})
    stage.refresh_from_db()
    assert stage.next_sync_at <= timezone.now()


def test_another_event_is_counted_and_makes_nothing_due(ring: Ring, stage: Stage) -> None:
    ring({"event": "build:start", "data": {"project": {"id": "shop"}}})
    assert (push().events, push().others, push().rung_at) == (1, 1, None)
    assert Stage.objects.get().next_sync_at == stage.next_sync_at


def test_a_run_of_a_template_is_no_release_flow(ring: Ring) -> None:
    ring({"event": "template-run:start", "data": {}})
    assert push().others == 1


# --- once --------------------------------------------------------------------------------------


def test_an_event_that_comes_again_is_answered_and_not_heeded(ring: Ring, stage: Stage) -> None:
    ring()
    later = timezone.now() + timedelta(minutes=1)
    Stage.objects.update(next_sync_at=later)
    assert ring().status_code == 200
    assert (push().events, push().duplicates) == (2, 1)
    assert Stage.objects.get().next_sync_at == later


def test_an_event_without_an_id_is_heeded_each_time(ring: Ring) -> None:
    ring(id="")
    ring(id="")
    assert (push().events, push().duplicates) == (2, 0)


def test_an_id_of_any_length_is_kept_short(ring: Ring) -> None:
    long = "é" * 50_000
    ring(id=long)
    ring(id=long)
    ring(id=long + "x")
    assert push().duplicates == 1
    assert {len(digest) for digest in PushEvent.objects.values_list("digest", flat=True)} == {32}


# --- around the view ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "put", "delete", "head"])
def test_only_post_is_heard(client: Client, db: None, method: str) -> None:
    assert getattr(client, method)(PLACE).status_code == 405


def test_no_session_is_begun(ring: Ring) -> None:
    assert not ring().cookies


def test_plain_http_is_not_taken_where_https_is_the_rule(ring: Ring, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    assert ring().status_code == 301
    assert not Push.objects.exists()


def test_a_proxy_that_speaks_https_is_believed(ring: Ring, settings: Settings) -> None:
    settings.SECURE_SSL_REDIRECT = True
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    assert ring(headers={"X-Forwarded-Proto": "https"}).status_code == 200


def test_a_foreign_host_is_refused(ring: Ring) -> None:
    assert ring(headers={"Host": "evil.example"}).status_code == 400


def test_an_event_costs_a_handful_of_statements(ring: Ring, stage: Stage) -> None:
    ring(id="first")
    with CaptureQueriesContext(connection) as asked:
        ring(id="second")
    assert len(asked.captured_queries) <= 20, [q["sql"] for q in asked.captured_queries]


# --- over the real server ----------------------------------------------------------------------


def test_an_event_is_taken_by_the_real_server(live: Live) -> None:
    answer = httpx.post(
        live.base_url + PLACE, json={"event": "x", "data": {}}, headers={f"{HEADER}Token": SECRET}
    )
    assert (answer.status_code, answer.text) == (200, "ok\n")


def test_a_compressed_answer_is_fine_too(live: Live) -> None:
    headers = {f"{HEADER}Token": SECRET, "Accept-Encoding": "gzip"}
    assert httpx.post(live.base_url + PLACE, json={"event": "x"}, headers=headers).text == "ok\n"


def test_a_gigabyte_is_refused_before_it_is_sent(live: Live) -> None:
    host, port = live.base_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as line:
        line.sendall(
            f"POST {PLACE} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000000000\r\n"
            "\r\n".encode()
        )
        sent = 0
        line.settimeout(0.05)
        answer = b""
        while not answer and sent < 20_000_000:
            line.sendall(b"x" * 65536)
            sent += 65536
            try:
                answer = line.recv(65536)
            except TimeoutError:
                continue
    assert answer.startswith(b"HTTP/1.1 413")
    assert sent < 10_000_000


def test_a_body_that_names_no_length_is_cut_off_as_well(live: Live) -> None:
    answer = httpx.post(live.base_url + PLACE, content=iter([b"x" * 100_000] * 40))
    assert answer.status_code == 413


def test_a_body_within_the_servers_limit_but_not_ours_is_refused(live: Live) -> None:
    answer = httpx.post(
        live.base_url + PLACE, content=b"x" * 1_000_000, headers={f"{HEADER}Token": SECRET}
    )
    assert answer.status_code == 413
