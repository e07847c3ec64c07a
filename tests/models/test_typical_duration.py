"""Typical durations, and the times after which something is overdue."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from dashboard.models import typical_duration
from dashboard.models.severity import Severity
from dashboard.models.typical_duration import TypicalDuration


def minutes(*values: float) -> list[timedelta]:
    return [timedelta(minutes=value) for value in values]


def test_typical_duration_of_fewer_than_five_is_none() -> None:
    assert typical_duration.estimate(minutes(1, 1, 1, 1)) is None


def test_typical_duration_is_median_and_95th_percentile() -> None:
    typical = typical_duration.estimate(minutes(*range(1, 21)))
    assert typical == TypicalDuration(timedelta(minutes=10.5), timedelta(minutes=19))


def test_typical_duration_uses_latest_twenty() -> None:
    assert typical_duration.estimate(minutes(*[2] * 20, *[90] * 50)) == TypicalDuration(
        *minutes(2, 2)
    )


def test_success_that_was_stuck_for_long_does_not_show_what_is_usual() -> None:
    assert typical_duration.estimate(minutes(1, 1, 1, 1, 3)) == TypicalDuration(*minutes(1, 3))
    assert typical_duration.estimate(minutes(1, 1, 1, 1, 60)) == TypicalDuration(*minutes(1, 1))


def test_typical_duration_ignores_negative_durations() -> None:
    assert typical_duration.estimate(minutes(-5, 1, 1, 1, 1)) is None


@pytest.mark.parametrize(
    ("median_and_p95", "overdue_minutes", "critical_minutes"),
    [
        ((10, 12), 15, 30),  # one and a half times the median
        ((10, 20), 20, 30),  # the 95th percentile is longer
        ((10, 40), 40, 80),  # and longer than three times the median
        ((0.1, 0.1), 1.1, 2.2),  # at least a minute more
    ],
)
def test_overdue_limits_follow_typical_duration(
    median_and_p95: tuple[float, float], overdue_minutes: float, critical_minutes: float
) -> None:
    typical = TypicalDuration(*minutes(*median_and_p95))
    assert [typical.warning_after, typical.critical_after] == minutes(
        overdue_minutes, critical_minutes
    )


def test_overdue_factors_come_from_settings(settings: Settings) -> None:
    settings.OVERDUE_FACTOR, settings.OVERDUE_CRITICAL_FACTOR = 2, 5
    typical = TypicalDuration(*minutes(10, 12))
    assert [typical.warning_after, typical.critical_after] == minutes(20, 50)


@pytest.mark.parametrize(
    ("minutes_elapsed", "level"),
    [(15, Severity.OK), (15.1, Severity.WARNING), (30, Severity.WARNING), (31, Severity.CRITICAL)],
)
def test_overdue_severity_follows_elapsed_time(minutes_elapsed: float, level: Severity) -> None:
    assert TypicalDuration(*minutes(10, 12)).classify(timedelta(minutes=minutes_elapsed)) is level


@given(st.lists(st.timedeltas(timedelta(), timedelta(days=30)), min_size=5))
def test_typical_duration_lies_within_observed_durations(durations: list[timedelta]) -> None:
    typical = typical_duration.estimate(durations)
    assert typical is not None
    assert min(durations[:20]) <= typical.median <= typical.p95 <= max(durations[:20])
    assert typical.p95 <= typical.warning_after <= typical.critical_after
