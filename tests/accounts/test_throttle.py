"""The counters of failed attempts."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.accounts.authentication import throttle
from dashboard.models import FailureCounter

OFFICE = "192.0.2.1"


def test_counters_are_purged(db: None) -> None:
    now = timezone.now()
    throttle.count([throttle.Counter(throttle.ACCOUNT, "a")], now - timedelta(days=1))
    throttle.count([throttle.Counter(throttle.ACCOUNT, "b")], now)
    assert FailureCounter.objects.count() == 1


def test_remaining_wait_takes_one_query(db: None) -> None:
    counters = [
        throttle.Counter(throttle.ACCOUNT, "a"),
        throttle.Counter(throttle.ADDRESS, throttle.network(OFFICE)),
    ]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert throttle.remaining_wait(counters, timezone.now()) == timedelta()
    assert len(queries) == 1


def test_wait_is_one_interval_after_the_burst(db: None) -> None:
    now = timezone.now()
    counters = [throttle.Counter(throttle.ACCOUNT, "a")]
    first = [throttle.count(counters, now) for _ in range(throttle.ACCOUNT.burst)]
    assert first == [True, *[False] * (throttle.ACCOUNT.burst - 1)]
    assert throttle.remaining_wait(counters, now) == throttle.ACCOUNT.interval
    assert throttle.remaining_wait(counters, now + throttle.ACCOUNT.interval) == timedelta()


@pytest.mark.parametrize(
    ("one", "other", "is_shared"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", None, False),
    ],
)
def test_addresses_of_one_ipv6_network_share_a_counter(
    one: str, other: str | None, is_shared: bool
) -> None:
    assert (throttle.network(one) == throttle.network(other)) is is_shared
