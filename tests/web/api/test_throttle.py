"""The rate limit of a token is counted in the database, also for concurrent requests."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone

from dashboard.models import ApiToken
from dashboard.models.accounts.api_tokens import REQUESTS_PER_WINDOW, Scope
from tests.support.api import CreateApiClient, leave_requests


@pytest.mark.slow
def test_concurrent_requests_are_all_counted(api_client: CreateApiClient, viewer: User) -> None:
    http_client = api_client(viewer)
    leave_requests(25)
    with ThreadPoolExecutor(20) as executor:
        statuses = Counter(
            executor.map(lambda _: http_client.get("/api/runs/").status_code, range(40))
        )
    assert statuses == {200: 25, 429: 15}
    assert ApiToken.objects.get().window_requests == REQUESTS_PER_WINDOW


def test_concurrent_processes_with_stale_row_are_all_counted(
    transactional_db: None, viewer: User
) -> None:
    token, _ = ApiToken.create_token(viewer, "x", Scope.READ, timezone.now())

    def take(_: int) -> None:
        try:
            ApiToken.objects.get(pk=token.pk)
            for _number in range(5):
                token.throttle(timezone.now())  # its count is stale
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as executor:
        list(executor.map(take, range(8)))
    token.refresh_from_db()
    assert token.window_requests == 40
