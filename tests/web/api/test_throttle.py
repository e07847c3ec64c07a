"""The rate limit of a token is counted in the database, also for concurrent requests."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User

from dashboard.models import ApiToken
from dashboard.models.accounts.api_tokens import REQUESTS_PER_WINDOW
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
