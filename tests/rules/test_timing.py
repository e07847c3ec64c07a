"""What is usual, and from when on something is overdue."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from dashboard.models import typical_duration
from dashboard.models.typical_duration import Overdue, Usual


def minutes(*them: float) -> list[timedelta]:
    return [timedelta(minutes=each) for each in them]


def test_of_fewer_than_five_nothing_is_known() -> None:
    assert typical_duration.usual(minutes(1, 1, 1, 1)) is None


def test_the_median_and_the_longest_of_ninety_five_in_a_hundred() -> None:
    known = typical_duration.usual(minutes(*range(1, 21)))
    assert known == Usual(timedelta(minutes=10.5), timedelta(minutes=19))


def test_only_the_latest_twenty_count() -> None:
    assert typical_duration.usual(minutes(*[2] * 20, *[90] * 50)) == Usual(*minutes(2, 2))


def test_one_outlier_among_few_is_the_longest_usual() -> None:
    assert typical_duration.usual(minutes(1, 1, 1, 1, 60)) == Usual(*minutes(1, 60))


def test_durations_that_make_no_sense_are_left_out() -> None:
    assert typical_duration.usual(minutes(-5, 1, 1, 1, 1)) is None


@pytest.mark.parametrize(
    ("usual", "late", "again"),
    [
        ((10, 12), 15, 30),  # once and a half the usual
        ((10, 20), 20, 30),  # what 95 % take is longer
        ((10, 40), 40, 80),  # and longer than three times the usual
        ((0.1, 0.1), 1.1, 2.2),  # nobody is told of a minute more or less
    ],
)
def test_from_when_on_it_is_overdue(usual: tuple[float, float], late: float, again: float) -> None:
    known = Usual(*minutes(*usual))
    assert [known.late_after, known.very_late_after] == minutes(late, again)


def test_the_factors_are_settings(settings: Settings) -> None:
    settings.OVERDUE_FACTOR, settings.OVERDUE_AGAIN_FACTOR = 2, 5
    known = Usual(*minutes(10, 12))
    assert [known.late_after, known.very_late_after] == minutes(20, 50)


def test_the_floor_is_a_setting(settings: Settings) -> None:
    settings.OVERDUE_FLOOR = 300
    known = Usual(*minutes(1, 1))
    assert [known.late_after, known.very_late_after] == minutes(6, 12)


@pytest.mark.parametrize(
    ("took", "level"),
    [(15, Overdue.NO), (15.1, Overdue.YES), (30, Overdue.YES), (31, Overdue.VERY)],
)
def test_how_far_something_is_overdue(took: float, level: Overdue) -> None:
    assert Usual(*minutes(10, 12)).judge(timedelta(minutes=took)) is level


@given(st.lists(st.timedeltas(timedelta(), timedelta(days=30)), min_size=5))
def test_what_is_usual_lies_among_what_was_seen(took: list[timedelta]) -> None:
    known = typical_duration.usual(took)
    assert known is not None
    assert min(took[:20]) <= known.median <= known.p95 <= max(took[:20])
    assert known.p95 <= known.late_after <= known.very_late_after
