"""How often a stage is read: by what is known of it, within the allowance."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.sync import schedule
from dashboard.sync.schedule import StageClass, StageFacts
from tests.sync.conftest import T0, at


def class_of(
    *,
    has_flow: bool | None = True,
    flying: int = 0,
    watched: float | None = None,
    active: float | None = None,
) -> StageClass:
    facts = StageFacts(
        has_flow,
        flying,
        None if watched is None else at(-watched),
        None if active is None else at(-active),
    )
    return schedule.class_of(facts, T0)


def test_a_stage_without_flow_is_of_its_own_class_even_when_watched() -> None:
    assert class_of(has_flow=False, flying=1, watched=1, active=1) is StageClass.NO_FLOW


def test_a_watched_stage_with_runs_in_flight_is_watched() -> None:
    assert class_of(flying=1, watched=1) is StageClass.WATCHED


def test_a_stage_with_runs_in_flight_is_in_flight() -> None:
    assert class_of(flying=1) is StageClass.IN_FLIGHT


def test_a_look_counts_for_a_minute() -> None:
    assert class_of(flying=1, watched=60) is StageClass.IN_FLIGHT


def test_a_watched_stage_without_runs_in_flight_is_recent() -> None:
    assert class_of(watched=1) is StageClass.RECENT


def test_a_stage_that_changed_is_recent_for_half_an_hour() -> None:
    assert class_of(active=29 * 60) is StageClass.RECENT


def test_a_stage_that_changed_long_ago_is_idle() -> None:
    assert class_of(active=30 * 60) is StageClass.IDLE


def test_a_stage_of_which_nothing_is_known_is_idle() -> None:
    assert class_of(has_flow=None) is StageClass.IDLE


def test_classes_are_ordered_by_how_often_they_are_read() -> None:
    wanted = [kind.value for kind in StageClass]
    assert wanted == sorted(wanted)


stages = st.dictionaries(st.sampled_from(StageClass), st.integers(0, 2000))
# Below, the factor's cap keeps dates sane, and the worker does not read anyway.
rates = st.floats(0.5, 50)


@given(stages, rates)
def test_the_planned_rate_never_exceeds_the_allowance(
    count: dict[StageClass, int], rate: float
) -> None:
    factor = schedule.stretch(count, rate)
    planned = sum(number / (kind.value * factor) for kind, number in count.items())
    assert planned <= rate * (1 + 1e-9) or factor == 1000


@given(stages, st.floats(0, 50))
def test_the_factor_is_never_below_one(count: dict[StageClass, int], rate: float) -> None:
    assert 1 <= schedule.stretch(count, rate) <= 1000


@given(stages, rates)
def test_the_factor_is_no_larger_than_needed(count: dict[StageClass, int], rate: float) -> None:
    factor = schedule.stretch(count, rate)
    planned = sum(number / (kind.value * factor) for kind, number in count.items())
    assert factor in {1, 1000} or planned >= rate * (1 - 1e-9)


@given(stages, st.floats(0, 50), st.floats(0, 50))
def test_more_requests_never_mean_a_larger_factor(
    count: dict[StageClass, int], one: float, other: float
) -> None:
    less, more = sorted([one, other])
    assert schedule.stretch(count, more) <= schedule.stretch(count, less)


def test_no_stage_needs_no_stretching() -> None:
    assert schedule.stretch({}, 0) == 1


@pytest.mark.parametrize(
    ("since", "wait"), [(0, 2), (29, 2), (30, 5), (179, 5), (180, 15), (3599, 15), (3600, 60)]
)
def test_an_aborting_run_is_read_less_often_as_time_goes_by(since: int, wait: int) -> None:
    assert schedule.aborting_interval(timedelta(seconds=since)) == timedelta(seconds=wait)


@given(st.integers(0, 10**9))
def test_a_failing_stage_rests_five_minutes_at_most(failures: int) -> None:
    assert schedule.after_failure(failures) <= timedelta(minutes=5)


@given(st.integers(0, 10**6))
def test_a_failing_stage_never_rests_shorter_than_before(failures: int) -> None:
    assert schedule.after_failure(failures) <= schedule.after_failure(failures + 1)


def test_a_stage_that_failed_once_rests_ten_seconds() -> None:
    assert schedule.after_failure(1) == timedelta(seconds=10)
