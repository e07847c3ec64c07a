"""Clients that call the API over real HTTP, each with its own token."""

from collections.abc import Iterator

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.models.accounts.api_tokens import Scope
from tests.support.api import CreateApiClient, client, create_token_secret
from tests.support.live import Live
from tests.support.openapi import expect_documented


@pytest.fixture
def api_client(live: Live) -> Iterator[CreateApiClient]:
    """Return a function that creates a client with a token of an account."""
    clients: list[httpx.Client] = []

    def create(user: User, scope: Scope = Scope.ABORT, name: str = "PagerDuty") -> httpx.Client:
        clients.append(client(live, create_token_secret(user, scope, name)))
        return clients[-1]

    yield create
    for created in clients:
        created.close()


@pytest.fixture
def anonymous_client(live: Live) -> Iterator[httpx.Client]:
    """A client without a token."""
    hooks = {"response": [expect_documented]}
    with httpx.Client(base_url=live.base_url, timeout=60, event_hooks=hooks) as http_client:
        yield http_client
