"""The rate budget in the database: probes, the end of a pause, and what is not counted."""

from datetime import datetime

import pytest
import time_machine
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dashboard.models import RateBudget
from dashboard.northflank import Call, RateLimit
from dashboard.upstream import budget_store
from dashboard.upstream.rate_budget import DEFAULT_LIMIT
from tests.support.rate_budget import record_response
from tests.support.world import at

pytestmark = pytest.mark.django_db


def test_limit_is_the_default_until_an_answer_has_one() -> None:
    assert budget_store.load_limit() == DEFAULT_LIMIT
    record_response(RateLimit(500, 400, 1800), at(0))
    assert budget_store.load_limit() == 500


@pytest.mark.parametrize(("seconds", "backoff_until"), [(3, at(5)), (0.5, None)])
def test_pause_ends_with_an_answer_to_a_request_that_was_sent_after_it(
    seconds: float, backoff_until: datetime | None
) -> None:
    record_response(RateLimit(1000, 900, 1800), at(0))
    budget_store.record_rate_limited(5, at(0))
    with time_machine.travel(at(6), tick=False):
        answer = Call("GET", "GET run", 200, seconds, RateLimit(1000, 899, 1794))
        budget_store.record_calls([answer])
    assert RateBudget.objects.get().backoff_until == backoff_until


def test_pause_ends_with_the_last_of_several_calls_if_that_was_sent_after_it() -> None:
    record_response(RateLimit(1000, 900, 1800), at(0))
    budget_store.record_rate_limited(5, at(0))
    calls = [
        Call("GET", "GET run", 200, seconds, RateLimit(1000, remaining, 1794))
        for seconds, remaining in ((3, 899), (0.5, 898))  # sent after 2.5 and 5.5 s
    ]
    with time_machine.travel(at(6), tick=False):
        budget_store.record_calls(calls)
    assert RateBudget.objects.get().backoff_until is None


def test_budget_that_does_not_change_is_not_written() -> None:
    record_response(RateLimit(1000, 900, 1800), at(0))
    budget_store.record_calls([], excluded_from_burst=2)
    with CaptureQueriesContext(connection) as queries:
        budget_store.record_calls([], excluded_from_burst=2)
    assert not [query for query in queries if query["sql"].startswith("UPDATE")]


@pytest.mark.parametrize(("requests", "burst"), [(2, 3), (5, 0), (8, 0)])
def test_excluded_requests_do_not_count_against_the_burst(requests: int, burst: float) -> None:
    budget_store.record_calls([], excluded_from_burst=requests)  # nothing was recorded yet
    assert not RateBudget.objects.exists()
    record_response(RateLimit(1000, 900, 1800), at(0))
    RateBudget.objects.update(burst=5)
    budget_store.record_calls([], excluded_from_burst=requests)
    assert RateBudget.objects.get().burst == burst
