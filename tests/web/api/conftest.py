"""Clients that call the API over real HTTP, each with its own token."""

from collections.abc import Iterator

import httpx
import pytest
from django.contrib.auth.models import User

from dashboard.models.api_tokens import Scope
from tests.support.api import CreateApiClient, client, create_token_secret
from tests.support.live import Live


@pytest.fixture
def api_client(live: Live) -> Iterator[CreateApiClient]:
    """Return a function that creates a client with a token of an account."""
    made: list[httpx.Client] = []

    def make(of: User, scope: Scope = Scope.ABORT, name: str = "PagerDuty") -> httpx.Client:
        made.append(client(live, create_token_secret(of, scope, name)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def anonymous_client(live: Live) -> Iterator[httpx.Client]:
    """A client without a token."""
    with httpx.Client(base_url=live.base_url, timeout=20) as one:
        yield one
