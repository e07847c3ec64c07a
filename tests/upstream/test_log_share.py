"""How often logs are read: often at first, then as the share of the hour allows."""

from datetime import timedelta

import pytest
from pytest_django import Settings

from dashboard.models import RateBudget
from dashboard.northflank import RateLimit
from dashboard.upstream import budget_store
from dashboard.upstream.log_share import LogShare
from tests.support.rate_budget import record_response
from tests.support.world import at

HOUR = 3600.0


def read_for_an_hour(logs: int = 1, total: int = 100) -> list[int]:
    """Return how many reads each of so many logs gets that somebody looks at for an hour."""
    used, reads, due = 0, [0] * logs, [0.0] * logs
    for second in range(int(HOUR)):
        for log in range(logs):
            share = LogShare(total, used, HOUR - second)
            if due[log] <= second and share.left:
                used, reads[log] = used + 1, reads[log] + 1
                share = LogShare(total, used, HOUR - second)
            if due[log] <= second:
                due[log] = second + share.interval(logs=logs, looked_for=second)
    return reads


def test_log_is_read_every_5_seconds_in_the_first_minute() -> None:
    assert LogShare(100, 1, HOUR).interval(logs=1, looked_for=59) == 5


def test_log_is_then_read_every_36_seconds() -> None:
    assert LogShare(100, 0, HOUR).interval(logs=1, looked_for=60) == 36


def test_log_that_is_looked_at_for_an_hour_uses_the_share_and_no_more() -> None:
    [reads] = read_for_an_hour()
    assert 90 <= reads <= 100


def test_all_of_thirty_logs_are_read_within_the_share() -> None:
    reads = read_for_an_hour(30)
    assert sum(reads) <= 100
    assert min(reads) >= 2


@pytest.mark.parametrize("total", [0, 10])
def test_after_the_share_the_next_read_is_in_the_next_window(total: int) -> None:
    share = LogShare(total, 10, 1200)
    assert (share.left, share.interval(logs=1, looked_for=0)) == (0, 1200)


def test_next_read_is_no_later_than_the_next_window() -> None:
    assert LogShare(100, 90, HOUR).interval(logs=30, looked_for=60) == HOUR
    assert LogShare(100, 0, 10).interval(logs=1, looked_for=60) == 10


@pytest.mark.django_db
@pytest.mark.parametrize(("setting", "total"), [("10%", 50), ("7", 7), ("0", 0)])
def test_share_is_a_number_or_a_part_of_the_limit(
    settings: Settings, setting: str, total: int
) -> None:
    settings.NORTHFLANK_LOG_REQUESTS = setting
    record_response(RateLimit(500, 400, 1800), at(0))
    budget_store.record_calls([], excluded_from_burst=1, log_requests=3)
    assert budget_store.load_log_share(at(600)) == LogShare(total, 3, 1200)


@pytest.mark.django_db
def test_each_window_has_its_own_share() -> None:
    record_response(RateLimit(1000, 900, 1800), at(0))
    RateBudget.objects.update(log_requests=40)
    assert budget_store.load_log_share(at(1801)) == LogShare(100, 0, HOUR)
    record_response(RateLimit(1000, 999, HOUR), at(1801))
    assert RateBudget.objects.get().log_requests == 0
    assert RateBudget.objects.get().resets_at == at(1801) + timedelta(hours=1)
