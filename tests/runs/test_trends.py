"""Figures of weeks, from sums of days."""

from collections import Counter
from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.runs import abort_reasons, trends
from dashboard.runs.trends import Measure, Period

WEDNESDAY = date(2026, 7, 1)


def seconds(*values: float) -> Period:
    words = (trends.word(Measure.QUEUEING, timedelta(seconds=value)) for value in values)
    return Period(WEDNESDAY, WEDNESDAY, Counter(words))


@given(st.floats(1, 1e8))
def test_duration_is_known_to_five_percent(value: float) -> None:
    typical = seconds(value).typical(Measure.QUEUEING)
    assert typical
    assert typical.median.total_seconds() == pytest.approx(value, rel=0.05)


def test_typical_durations_are_the_median_and_the_95th_percentile() -> None:
    typical = seconds(*range(1, 101)).typical(Measure.QUEUEING)
    assert typical
    assert typical.n == 100
    assert typical.median.total_seconds() == pytest.approx(50, rel=0.05)
    assert typical.p95.total_seconds() == pytest.approx(95, rel=0.05)


@pytest.mark.parametrize("value", [0, 0.9, -5])
def test_less_than_a_second_is_nothing(value: float) -> None:
    typical = seconds(value).typical(Measure.QUEUEING)
    assert typical
    assert typical.p95 == timedelta()


def test_other_words_are_no_durations() -> None:
    period = Period(WEDNESDAY, WEDNESDAY, Counter({"q1": 0, "q": 1, "d1": 1, "queued": 2}))
    assert period.typical(Measure.QUEUEING) is None


def test_weeks_begin_on_monday_and_are_cut_at_both_ends() -> None:
    days = [(WEDNESDAY + timedelta(days=n), {"success": 1}) for n in range(8)]
    weeks = trends.by_week([*days, days[-1]], WEDNESDAY, WEDNESDAY + timedelta(days=7))
    assert [(week.first, week.last, week.runs) for week in weeks] == [
        (WEDNESDAY, date(2026, 7, 5), 5),
        (date(2026, 7, 6), date(2026, 7, 8), 4),
    ]
    total = trends.total(weeks)
    assert (total.first, total.last, total.runs) == (WEDNESDAY, date(2026, 7, 8), 9)


def test_failure_rate_is_that_of_runs_that_succeeded_or_failed() -> None:
    period = Period(WEDNESDAY, WEDNESDAY, Counter(success=3, failure=1, aborted=9, other=1))
    assert period.failure_rate == 0.25
    assert period.runs == 14
    assert Period(WEDNESDAY, WEDNESDAY, Counter(aborted=1)).failure_rate is None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Stuck", "stuck"),
        ("Wrong version: 4712", "version"),
        ("Stuckish", "other"),
        ("4712 is wrong", "other"),
        (" ", "none"),
    ],
)
def test_reason_of_an_abort_counts_as_the_one_that_was_picked(text: str, key: str) -> None:
    assert abort_reasons.find(text) == key
