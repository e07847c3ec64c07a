"""When stages and runs are read beside the plan: flows, older runs, failures, aborts."""

from datetime import timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Stage
from dashboard.sync import schedule
from tests.support.world import T0, at

HOURS = 3600.0


@pytest.mark.parametrize(
    ("has_flow", "missing_ago", "idle"),
    [
        (True, None, False),
        (None, None, False),  # it may have one
        (False, None, True),
        (False, 24 * HOURS - 1, False),  # one may come yet
        (False, 24 * HOURS, True),
    ],
)
def test_stage_without_flow_is_hardly_read_unless_one_may_come(
    has_flow: bool | None, missing_ago: float | None, idle: bool
) -> None:
    missing_since = None if missing_ago is None else at(-missing_ago)
    assert schedule.is_idle_without_flow(has_flow, missing_since, T0) is idle


@pytest.mark.parametrize(
    ("has_flow", "synced_ago", "is_decisive", "due"),
    [
        (None, None, False, True), (False, None, False, True), (False, 0, False, True),
        (True, None, True, True), (True, None, False, False),
        (True, 5 * HOURS, True, False), (True, 6 * HOURS, True, True),
        (True, 20 * HOURS, False, False),
    ],
)  # fmt: skip
def test_flow_is_due_where_it_decides_something(
    has_flow: bool | None, synced_ago: float | None, is_decisive: bool, due: bool
) -> None:
    synced_at = None if synced_ago is None else at(-synced_ago)
    stage = Stage(pk=1, has_flow=has_flow, flow_synced_at=synced_at, synced_at=at(-60))
    assert schedule.is_flow_due(stage, T0, is_decisive=is_decisive) is due


def test_other_flows_are_read_once_a_day_spread_over_the_day() -> None:
    due_at = {
        minute: sum(
            schedule.is_flow_due(
                Stage(pk=pk, has_flow=True, synced_at=at(60 * (minute - 10))),
                at(60 * minute),
                is_decisive=False,
            )
            for pk in range(1, 289)
        )
        for minute in range(0, 24 * 60, 10)
    }
    assert sum(due_at.values()) == 288
    assert max(due_at.values()) <= 4


def test_run_history_is_not_due_at_first_read() -> None:
    assert not schedule.is_history_due(None, timedelta(minutes=1), T0)


@given(st.floats(1, 3600))
def test_run_history_is_due_with_every_fourth_read_each_10_min_at_most(seconds: float) -> None:
    visits = [at(number * seconds) for number in range(200)]
    read_count = sum(
        schedule.is_history_due(visit, timedelta(seconds=seconds), next_visit)
        for visit, next_visit in pairwise(visits)
    )
    intervals = 199 * seconds / max(600, 4 * seconds)
    assert read_count <= min(intervals + 1, 199)
    assert read_count >= min(intervals - 1, 198)


@pytest.mark.parametrize(
    ("since", "wait"), [(0, 2), (29, 2), (30, 5), (179, 5), (180, 15), (599, 15), (600, 60)]
)
def test_aborting_run_interval_grows_with_time(since: int, wait: int) -> None:
    assert schedule.aborting_interval(timedelta(seconds=since)) == timedelta(seconds=wait)


@pytest.mark.parametrize(("open_aborts", "wait"), [(0, 2), (1, 2), (2, 2), (3, 3), (20, 20)])
def test_aborting_run_interval_grows_with_the_number_of_open_aborts(
    open_aborts: int, wait: int
) -> None:
    interval = schedule.aborting_interval(timedelta(), open_aborts)
    assert interval == timedelta(seconds=wait)


@given(st.lists(st.integers(0, 7200), min_size=1, max_size=50))
def test_open_aborts_are_read_at_most_twice_as_often_as_one(ages: list[int]) -> None:
    recent = [age for age in ages if age < schedule.STUCK_ABORT_AGE.total_seconds()]
    stuck = [age for age in ages if age not in recent]
    for alike in filter(None, (recent, stuck)):
        waits = [schedule.aborting_interval(timedelta(seconds=age), len(alike)) for age in alike]
        shortest = schedule.aborting_interval(timedelta(seconds=min(alike)))
        assert sum(1 / wait.total_seconds() for wait in waits) <= 2.001 / shortest.total_seconds()


def test_stage_or_run_is_watched_for_a_minute_after_a_view() -> None:
    assert not schedule.is_watched(None, T0)
    assert schedule.is_watched(T0, at(59.9))
    assert not schedule.is_watched(T0, at(60))


CAUSES = ["", "timeout", "server_error", "unreachable", "unexpected_response", "forbidden",
          "not_found", "feature_off", "rejected"]  # fmt: skip


@given(st.integers(1, 10**6), st.sampled_from(CAUSES))
def test_back_off_grows_with_failures_up_to_15_min(failures: int, cause: str) -> None:
    delay = schedule.failure_backoff(failures, cause)
    assert delay <= schedule.failure_backoff(failures + 1, cause) <= timedelta(minutes=15)


@pytest.mark.parametrize(
    ("cause", "first", "longest"),
    [
        ("server_error", 10, 300),
        ("timeout", 10, 60),
        ("forbidden", 60, 900),
        ("not_found", 60, 900),
    ],
)
def test_back_off_depends_on_error_cause(cause: str, first: int, longest: int) -> None:
    delays = [schedule.failure_backoff(failures, cause) for failures in (1, 2, 99)]
    assert [delay.total_seconds() for delay in delays] == [first, min(2 * first, longest), longest]
