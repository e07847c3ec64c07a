"""Freshness: the planned interval, and whether it was met."""

from datetime import UTC, datetime, timedelta

from dashboard.sync import schedule
from dashboard.sync.schedule import GRACE

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def test_never_read_data_is_not_stale() -> None:
    assert not schedule.is_stale(None, NOW)


def test_data_is_stale_only_after_grace_period() -> None:
    assert not schedule.is_stale(NOW - GRACE, NOW)
    assert schedule.is_stale(NOW - GRACE - timedelta(milliseconds=1), NOW)
