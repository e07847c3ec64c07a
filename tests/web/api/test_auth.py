"""Authentication of the API: only valid tokens are accepted."""

import logging
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import demo
from dashboard.accounts.authentication import throttle
from dashboard.models import AccessEvent, ApiToken
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope
from tests.support.api import (
    CreateApiClient,
    client,
    create_token_secret,
    error_status_and_code,
    leave_requests,
)
from tests.support.live import Live


def get_runs(anonymous_client: httpx.Client, authorization: str | bytes) -> httpx.Response:
    raw = authorization if isinstance(authorization, bytes) else authorization.encode()
    return anonymous_client.get("/api/runs/", headers=[(b"Authorization", raw)])


def test_request_without_token_returns_401(anonymous_client: httpx.Client, viewer: User) -> None:
    answer = anonymous_client.get("/api/runs/")
    assert error_status_and_code(answer) == (401, "token_missing")
    assert answer.headers["www-authenticate"] == 'Bearer realm="release flows"'


def test_unknown_token_returns_401(anonymous_client: httpx.Client, viewer: User) -> None:
    answer = get_runs(anonymous_client, "Bearer rfd_" + "x" * 43)
    assert error_status_and_code(answer) == (401, "token_unknown")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer  "])
def test_bearer_scheme_is_case_insensitive(
    anonymous_client: httpx.Client, viewer: User, scheme: str
) -> None:
    assert get_runs(anonymous_client, f"{scheme} {create_token_secret(viewer)}").status_code == 200


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Basic dmlld2VyOnZpZXdlcg==", "Token {}", "{}", "Bearer{}"]
)
def test_other_authorization_scheme_returns_401(
    anonymous_client: httpx.Client, viewer: User, header: str
) -> None:
    assert error_status_and_code(
        get_runs(anonymous_client, header.format(create_token_secret(viewer)))
    ) == (
        401,
        "token_missing",
    )


@pytest.mark.parametrize(
    "header",
    ["Bearer tökén".encode(), b"Bearer \xff\xfe", b"Bearer a b c", b"Bearer " + b"x" * 8000],
)
def test_malformed_token_returns_401(
    anonymous_client: httpx.Client, viewer: User, header: bytes
) -> None:
    assert error_status_and_code(get_runs(anonymous_client, header)) == (401, "token_unknown")


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda secret: secret[:-1],
        lambda secret: secret + "x",
        lambda secret: secret.removeprefix("rfd_"),
    ],
)
def test_altered_token_returns_401(
    anonymous_client: httpx.Client, viewer: User, change: Callable[[str], str]
) -> None:
    assert error_status_and_code(
        get_runs(anonymous_client, f"Bearer {change(create_token_secret(viewer))}")
    ) == (
        401,
        "token_unknown",
    )


def test_stored_token_digest_is_not_accepted_as_token(
    anonymous_client: httpx.Client, viewer: User
) -> None:
    create_token_secret(viewer)
    assert error_status_and_code(
        get_runs(anonymous_client, f"Bearer {ApiToken.objects.get().digest}")
    ) == (
        401,
        "token_unknown",
    )


def test_expired_token_returns_401(live: Live, viewer: User) -> None:
    soon = timezone.now() + timedelta(hours=1)
    with client(live, create_token_secret(viewer, expires_at=soon)) as http_client:
        assert http_client.get("/api/runs/").status_code == 200
        ApiToken.objects.update(expires_at=timezone.now())
        assert error_status_and_code(http_client.get("/api/runs/")) == (401, "token_expired")


def test_revoked_token_returns_401(api_client: CreateApiClient, viewer: User) -> None:
    http_client = api_client(viewer)
    assert http_client.get("/api/runs/").status_code == 200
    ApiToken.objects.update(revoked_at=timezone.now())
    assert error_status_and_code(http_client.get("/api/runs/")) == (401, "token_revoked")


def test_token_of_inactive_account_returns_401(api_client: CreateApiClient, viewer: User) -> None:
    http_client = api_client(viewer)
    User.objects.update(is_active=False)
    assert error_status_and_code(http_client.get("/api/runs/")) == (401, "token_inactive")


def test_token_of_demo_account_is_valid_with_sandbox_only(
    api_client: CreateApiClient, transactional_db: None
) -> None:
    demo.enable()
    http_client = api_client(User.objects.get(username="admin"))
    assert http_client.get("/api/runs/").status_code == 200
    demo.disable()
    assert error_status_and_code(http_client.get("/api/runs/")) == (401, "token_inactive")


def test_session_without_token_returns_401(live: Live, manager: User) -> None:
    client = live.sign_in("manager")
    assert error_status_and_code(client.get("/api/runs/")) == (401, "token_missing")
    assert error_status_and_code(client.post("/api/runs/x/abort/", json={})) == (
        401,
        "token_missing",
    )


def test_token_gives_no_access_to_pages(live: Live, manager: User) -> None:
    headers = {"Authorization": f"Bearer {create_token_secret(manager)}"}
    answer = httpx.get(live.base_url, headers=headers)
    assert answer.headers["location"].startswith("/accounts/login/")


@pytest.mark.parametrize("address", ["", "runs", "runs/x/abort/y/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_api_address_returns_404(
    api_client: CreateApiClient, viewer: User, address: str, method: str
) -> None:
    assert error_status_and_code(api_client(viewer).request(method, f"/api/{address}")) == (
        404,
        "no_address",
    )


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
def test_unsupported_method_returns_405_with_allow_header(
    api_client: CreateApiClient, viewer: User, method: str, address: str, allowed: str
) -> None:
    answer = api_client(viewer).request(method, f"/api/{address}")
    assert error_status_and_code(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


def test_unexpected_error_returns_json_500_and_is_logged(
    api_client: CreateApiClient, viewer: User, caplog: pytest.LogCaptureFixture
) -> None:
    http_client = api_client(viewer)
    ApiToken.objects.update(scope=Scope.READ)
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE dashboard_grant RENAME TO elsewhere")
    try:
        answer = http_client.get("/api/runs/")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE elsewhere RENAME TO dashboard_grant")
    assert error_status_and_code(answer) == (500, "defect")
    assert "dashboard_grant" not in answer.text
    assert "api.defect" in caplog.text


def test_token_secret_is_never_returned_or_logged(
    live: Live, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = create_token_secret(manager)
    with client(live, secret) as http_client:
        texts = [http_client.get("/api/runs/").text, http_client.get("/api/runs/x/").text]
        ApiToken.objects.update(revoked_at=timezone.now())
        answer = http_client.get("/api/runs/")
    texts += [answer.text, str(answer.headers), caplog.text, str(ApiToken.objects.values().get())]
    assert not any(secret in text or secret[8:] in text for text in texts)


# --- the access log -----------------------------------------------------------------------------


def test_first_use_of_token_is_recorded_once(api_client: CreateApiClient, viewer: User) -> None:
    http_client = api_client(viewer)
    for _ in range(3):
        http_client.get("/api/runs/")
    event = AccessEvent.objects.get()
    assert (event.kind, event.username) == (AccessKind.TOKEN_FIRST_USED, "viewer")
    assert (event.token_name, event.client_address) == ("PagerDuty", "127.0.0.1")


def test_refused_unknown_token_is_recorded_without_secret(
    anonymous_client: httpx.Client, viewer: User
) -> None:
    get_runs(anonymous_client, "Bearer something-secret")
    event = AccessEvent.objects.get()
    assert (event.kind, event.username, event.token_name) == (AccessKind.TOKEN_REFUSED, "", "")
    assert "something-secret" not in str(AccessEvent.objects.values().get())


# --- how often ---------------------------------------------------------------------------------


def test_requests_over_rate_limit_return_429(api_client: CreateApiClient, viewer: User) -> None:
    http_client = api_client(viewer)
    leave_requests(2)
    answers = [http_client.get("/api/runs/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert error_status_and_code(answers[2]) == (429, "too_many_requests")
    assert 0 < int(answers[2].headers["retry-after"]) <= 60


def test_rate_limit_resets_each_minute(api_client: CreateApiClient, viewer: User) -> None:
    http_client = api_client(viewer)
    leave_requests(0)
    assert http_client.get("/api/runs/").status_code == 429
    ApiToken.objects.update(window_started_at=timezone.now() - timedelta(minutes=1))
    assert http_client.get("/api/runs/").status_code == 200
    assert ApiToken.objects.get().window_requests == 1


def test_token_last_use_is_recorded_once_per_minute(
    api_client: CreateApiClient, viewer: User
) -> None:
    http_client = api_client(viewer)
    start_time = timezone.now()
    http_client.get("/api/runs/")
    first = ApiToken.objects.get().last_used_at
    http_client.get("/api/runs/")
    assert first is not None
    assert ApiToken.objects.get().last_used_at == first >= start_time


def test_refused_tokens_are_throttled_by_address(
    anonymous_client: httpx.Client, api_client: CreateApiClient, viewer: User
) -> None:
    answers = [get_runs(anonymous_client, "Bearer x") for _ in range(throttle.TOKEN.burst + 1)]
    assert [answer.status_code for answer in answers[-2:]] == [401, 429]
    assert error_status_and_code(answers[-1]) == (429, "too_many_failures")
    assert 0 < int(answers[-1].headers["retry-after"]) <= throttle.TOKEN.interval.total_seconds()
    assert api_client(viewer).get("/api/runs/").status_code == 200


def test_refused_token_does_not_throttle_another(
    anonymous_client: httpx.Client, api_client: CreateApiClient, viewer: User
) -> None:
    for _ in range(throttle.TOKEN.burst + 1):
        get_runs(anonymous_client, "Bearer x")
    http_client = api_client(viewer)
    ApiToken.objects.update(revoked_at=timezone.now())
    assert error_status_and_code(http_client.get("/api/runs/")) == (401, "token_revoked")
