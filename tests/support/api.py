"""Clients of the JSON API."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import httpx
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.models import ApiToken, Run
from dashboard.models.accounts.api_tokens import REQUESTS_PER_WINDOW, Scope
from tests.support.live import Live
from tests.support.openapi import expect_documented

type CreateApiClient = Callable[
    ..., httpx.Client
]  # the token's account, then `scope=` and other fields of the token


def client(live: Live, secret: str) -> httpx.Client:
    """A client that fails at an answer which the OpenAPI document does not allow."""
    headers = {"Authorization": f"Bearer {secret}"}
    hooks = {"response": [expect_documented]}
    return httpx.Client(
        base_url=live.base_url, headers=headers, timeout=20, verify=False, event_hooks=hooks
    )


def create_token_secret(
    user: User, scope: Scope = Scope.ABORT, name: str = "PagerDuty", **fields: datetime
) -> str:
    return ApiToken.create_token(user, name, scope, timezone.now(), **fields)[1]


def leave_requests(count: int) -> None:
    """Leave each token `count` requests in a window that starts now."""
    used = REQUESTS_PER_WINDOW - count
    ApiToken.objects.update(window_started_at=timezone.now(), window_requests=used)


def abort(
    client: httpx.Client, run: Run | str, reason: str = "Stuck", **fields: Any
) -> httpx.Response:
    run_id = run.run_id if isinstance(run, Run) else run
    return client.post(f"/api/runs/{run_id}/abort/", json={"reason": reason, **fields})


def error_status_and_code(answer: httpx.Response) -> tuple[int, str]:
    """Return status and code of an error; it must be JSON with a message."""
    assert answer.headers["content-type"] == "application/json", answer.text
    error = answer.json()["error"]
    assert error["message"]
    return answer.status_code, error["code"]
