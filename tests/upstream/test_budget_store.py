"""The rate budget in the database: who may probe, and what does not count against the rate."""

import pytest

from dashboard.models import RateBudget
from dashboard.northflank import RateLimit
from dashboard.upstream import budget_store
from dashboard.upstream.rate_budget import DEFAULT_LIMIT
from tests.support.rate_budget import record_response
from tests.support.world import at

pytestmark = pytest.mark.django_db


def test_nobody_probes_before_the_first_answer() -> None:
    assert not budget_store.claim_probe(at(0))
    assert not RateBudget.objects.exists()


def test_limit_is_the_default_until_an_answer_has_one() -> None:
    assert budget_store.load_limit() == DEFAULT_LIMIT
    record_response(RateLimit(500, 400, 1800), at(0))
    assert budget_store.load_limit() == 500


def test_excluded_requests_do_not_count_against_the_burst() -> None:
    budget_store.exclude_from_burst(2)  # nothing was recorded yet
    assert not RateBudget.objects.exists()
    record_response(RateLimit(1000, 900, 1800), at(0))
    RateBudget.objects.update(burst=5)
    budget_store.exclude_from_burst(2)
    assert RateBudget.objects.get().burst == 3
