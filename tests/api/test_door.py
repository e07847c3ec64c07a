"""Who is let in: the holder of a good token, and nobody else."""

import logging
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.models import ApiToken
from dashboard.models.api_tokens import Scope
from tests.support.api import Machine, client, failed, secret_of
from tests.support.live import Live


def ask(anyone: httpx.Client, authorization: str | bytes) -> httpx.Response:
    raw = authorization if isinstance(authorization, bytes) else authorization.encode()
    return anyone.get("/api/runs/", headers=[(b"Authorization", raw)])


def test_without_a_token_nobody_is_let_in(anyone: httpx.Client, viewer: User) -> None:
    answer = anyone.get("/api/runs/")
    assert failed(answer) == (401, "token_missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="release flows"'


def test_a_token_of_nobody_is_unknown(anyone: httpx.Client, viewer: User) -> None:
    answer = ask(anyone, "Bearer rfd_" + "x" * 43)
    assert failed(answer) == (401, "token_unknown")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_written_in_any_case(anyone: httpx.Client, viewer: User, scheme: str) -> None:
    assert ask(anyone, f"{scheme} {secret_of(viewer)}").status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic dmlld2VyOnZpZXdlcg==", "Token {}", "{}", "Bearer{}"]
)
def test_another_header_is_no_token(anyone: httpx.Client, viewer: User, header: str) -> None:
    assert failed(ask(anyone, header.format(secret_of(viewer)))) == (401, "token_missing")


@pytest.mark.parametrize(
    "sent", ["Bearer tökén".encode(), b"Bearer \xff\xfe", b"Bearer a b c", b"Bearer " + b"x" * 8000]
)
def test_garbage_opens_nothing(anyone: httpx.Client, viewer: User, sent: bytes) -> None:
    assert failed(ask(anyone, sent)) == (401, "token_unknown")


@pytest.mark.parametrize(
    "change",
    [str.upper, lambda s: s[:-1], lambda s: s + "x", lambda s: s.removeprefix("rfd_")],
)
def test_nearly_the_secret_is_not_the_secret(
    anyone: httpx.Client, viewer: User, change: Callable[[str], str]
) -> None:
    assert failed(ask(anyone, f"Bearer {change(secret_of(viewer))}")) == (401, "token_unknown")


def test_what_is_kept_of_a_token_opens_nothing(anyone: httpx.Client, viewer: User) -> None:
    secret_of(viewer)
    assert failed(ask(anyone, f"Bearer {ApiToken.objects.get().digest}")) == (401, "token_unknown")


def test_a_token_is_good_until_it_expires(live: Live, viewer: User) -> None:
    soon = timezone.now() + timedelta(hours=1)
    with client(live, secret_of(viewer, expires_at=soon)) as one:
        assert one.get("/api/runs/").status_code == 200
        ApiToken.objects.update(expires_at=timezone.now())
        assert failed(one.get("/api/runs/")) == (401, "token_expired")


def test_a_revoked_token_opens_nothing(machine: Machine, viewer: User) -> None:
    one = machine(viewer)
    assert one.get("/api/runs/").status_code == 200
    ApiToken.objects.update(revoked_at=timezone.now())
    assert failed(one.get("/api/runs/")) == (401, "token_revoked")


def test_the_token_of_an_account_that_was_switched_off_opens_nothing(
    machine: Machine, viewer: User
) -> None:
    one = machine(viewer)
    User.objects.update(is_active=False)
    assert failed(one.get("/api/runs/")) == (401, "token_inactive")


def test_the_token_of_an_account_that_was_deleted_is_unknown(
    machine: Machine, viewer: User
) -> None:
    one = machine(viewer)
    viewer.delete()
    assert failed(one.get("/api/runs/")) == (401, "token_unknown")


def test_a_session_opens_nothing(live: Live, manager: User) -> None:
    person = live.person("manager")
    assert failed(person.get("/api/runs/")) == (401, "token_missing")
    assert failed(person.post("/api/runs/x/abort/", json={})) == (401, "token_missing")


def test_a_token_opens_no_page(machine: Machine, manager: User) -> None:
    assert machine(manager).get("/").headers["location"].startswith("/accounts/login/")


def test_a_call_begins_no_session(machine: Machine, manager: User) -> None:
    assert "set-cookie" not in machine(manager).get("/api/runs/").headers


@pytest.mark.parametrize(
    "address", ["", "nothing/", "runs", "runs/x/abort", "runs/x/abort/y/", "/"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_an_address_that_is_none_is_told_so(
    machine: Machine, viewer: User, address: str, method: str
) -> None:
    assert failed(machine(viewer).request(method, f"/api/{address}")) == (404, "no_address")


@pytest.mark.parametrize(
    ("method", "address", "allowed"),
    [
        ("POST", "runs/", "GET, HEAD"),
        ("DELETE", "runs/x/", "GET, HEAD"),
        ("GET", "runs/x/abort/", "POST"),
        ("PUT", "runs/x/abort/", "POST"),
        ("OPTIONS", "runs/", "GET, HEAD"),
    ],
)
def test_a_method_that_does_not_fit_is_told_which_do(
    machine: Machine, viewer: User, method: str, address: str, allowed: str
) -> None:
    answer = machine(viewer).request(method, f"/api/{address}")
    assert failed(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_a_defect_is_json_too_and_is_logged(
    machine: Machine, viewer: User, caplog: pytest.LogCaptureFixture
) -> None:
    one = machine(viewer)
    ApiToken.objects.update(scope=Scope.READ)
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dashboard_grant RENAME TO elsewhere")
    try:
        answer = one.get("/api/runs/")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO dashboard_grant")
    assert failed(answer) == (500, "defect")
    assert "dashboard_grant" not in answer.text
    assert "api.defect" in caplog.text


def test_a_refused_call_is_no_line_in_the_log(
    anyone: httpx.Client, viewer: User, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        ask(anyone, "Bearer rfd_wrong")
    assert caplog.text == ""


def test_a_secret_is_never_told_again(
    live: Live, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = secret_of(manager)
    with client(live, secret) as one:
        said = [one.get("/api/runs/").text, one.get("/api/runs/x/").text]
        ApiToken.objects.update(revoked_at=timezone.now())
        answer = one.get("/api/runs/")
    said += [answer.text, str(answer.headers), caplog.text, str(ApiToken.objects.values().get())]
    assert not any(secret in text or secret[8:] in text for text in said)


# --- how often ---------------------------------------------------------------------------------


def test_the_minutes_requests_can_be_used_up(
    machine: Machine, viewer: User, settings: object
) -> None:
    settings.API_REQUESTS_PER_MINUTE = 2  # type: ignore[attr-defined]
    one = machine(viewer)
    answers = [one.get("/api/runs/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert failed(answers[2]) == (429, "too_many_requests")
    assert 0 < int(answers[2].headers["retry-after"]) <= 60


def test_the_next_minute_is_a_new_one(machine: Machine, viewer: User, settings: object) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1  # type: ignore[attr-defined]
    one = machine(viewer)
    one.get("/api/runs/")
    ApiToken.objects.update(window_at=timezone.now() - timedelta(minutes=1))
    assert one.get("/api/runs/").status_code == 200
    assert one.get("/api/runs/").status_code == 429


def test_one_tokens_requests_are_not_anothers(
    machine: Machine, viewer: User, settings: object
) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1  # type: ignore[attr-defined]
    first, second = machine(viewer), machine(viewer, name="Grafana")
    assert [one.get("/api/runs/").status_code for one in (first, second, first)] == [200, 200, 429]


def test_errors_count_too(machine: Machine, viewer: User, settings: object) -> None:
    settings.API_REQUESTS_PER_MINUTE = 1  # type: ignore[attr-defined]
    one = machine(viewer)
    assert one.get("/api/runs/unknown/").status_code == 404
    assert one.get("/api/runs/unknown/").status_code == 429


def test_when_a_token_was_used_is_noted_once_a_minute(machine: Machine, viewer: User) -> None:
    one = machine(viewer)
    begun = timezone.now()
    one.get("/api/runs/")
    first = ApiToken.objects.get().used_at
    one.get("/api/runs/")
    assert first is not None
    assert ApiToken.objects.get().used_at == first >= begun
