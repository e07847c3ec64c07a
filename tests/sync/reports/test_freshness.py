"""Freshness: the planned interval, and whether it was met."""

from datetime import UTC, datetime, timedelta

from dashboard.sync.reports import freshness
from dashboard.sync.reports.freshness import GRACE

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def test_never_read_data_is_not_stale() -> None:
    assert not freshness.is_stale(None, NOW)


def test_data_is_stale_only_after_grace_period() -> None:
    assert not freshness.is_stale(NOW - GRACE, NOW)
    assert freshness.is_stale(NOW - GRACE - timedelta(milliseconds=1), NOW)
