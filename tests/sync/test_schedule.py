"""How often a stage is read: by what is known of it, within the allowance."""

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dashboard.sync import schedule
from dashboard.sync.schedule import Demand, Plan, StageClass, StageFacts
from tests.support.world import T0, at


def facts(
    *,
    has_flow: bool | None = True,
    flying: int = 0,
    watched: float | None = None,
    active: float | None = None,
) -> StageFacts:
    return StageFacts(
        has_flow,
        flying,
        None if watched is None else at(-watched),
        None if active is None else at(-active),
    )


def class_of(**known: Any) -> StageClass:
    return schedule.class_of(facts(**known), T0)


def test_a_stage_without_flow_is_of_its_own_class_even_when_watched() -> None:
    assert class_of(has_flow=False, flying=1, watched=1, active=1) is StageClass.NO_FLOW


def test_a_watched_stage_with_runs_in_flight_is_watched() -> None:
    assert class_of(flying=1, watched=1) is StageClass.WATCHED


def test_a_stage_with_runs_in_flight_is_in_flight() -> None:
    assert class_of(flying=1) is StageClass.IN_FLIGHT


def test_a_look_counts_for_a_minute() -> None:
    assert class_of(flying=1, watched=60) is StageClass.IN_FLIGHT


def test_a_watched_stage_without_runs_in_flight_is_expected_to_have_some() -> None:
    assert class_of(watched=1) is StageClass.EXPECTED


def test_a_stage_that_changed_is_recent_for_half_an_hour() -> None:
    assert class_of(active=29 * 60) is StageClass.RECENT


def test_a_stage_that_changed_long_ago_is_idle() -> None:
    assert class_of(active=30 * 60) is StageClass.IDLE


def test_a_stage_of_which_nothing_is_known_is_idle() -> None:
    assert class_of(has_flow=None) is StageClass.IDLE


def test_classes_are_ordered_by_how_often_they_are_read() -> None:
    wanted = [kind.value for kind in StageClass]
    assert wanted == sorted(wanted)


HOURS = 3600.0


# Fitted to an hour of 900 requests: 0.25 a second
@pytest.mark.parametrize(
    ("demand", "pushed", "following", "discovery"),
    [
        (Demand(), False, 0.4, 1 / 3),  # nothing to read: at its floor, all of it
        (Demand(discovery=0.1), False, 0.4, 0.4),  # nothing in flight: all for discovery
        (Demand(discovery=0.01), False, 0.4, 1 / 3),  # little to discover: read no more than that
        (Demand(following=0.1, discovery=0.1), False, 0.1 / 0.225, 4),  # a tenth for discovery
        (Demand(following=0.1, discovery=0.1), True, 0.1 / 0.2375, 8),  # half of it while pushed
        (Demand(following=4.5, discovery=10), False, 20, 400),  # an hour for forty in flight
        (Demand(following=1, discovery=0.001), False, 1 / 0.247, 1 / 3),  # what it leaves is used
        (Demand(following=0.05, discovery=0.2), False, 0.4, 0.2 / 0.125),  # and the other way
        (Demand(following=1, discovery=1, unread=True), False, 8, 8),  # what nobody knows of yet
        (Demand(following=0.1, rung=0.05, discovery=1), False, 0.1 / 0.18, 1 / 0.02),  # the bell
        (Demand(following=1, rung=9, discovery=0), False, 8, 1 / 3),  # rings for half at most
        (Demand(4.5, 10, learning=True), False, 20 / 0.99, 400 / 0.99),  # a hundredth for learning
    ],
)
def test_what_is_wanted_is_fitted_to_the_rate(
    demand: Demand, pushed: bool, following: float, discovery: float
) -> None:
    plan = schedule.plan(demand, 0.25, push_alive=pushed)
    assert (plan.following, plan.discovery) == pytest.approx((following, discovery))


def test_webhooks_are_not_counted_on_unless_they_are_known_to_come() -> None:
    demand = Demand(following=0.1, discovery=0.1)
    assert schedule.plan(demand, 0.25) == schedule.plan(demand, 0.25, push_alive=False)


def test_with_nothing_to_spend_the_dates_stay_sane() -> None:
    assert schedule.plan(Demand(1, 1), 0) == Plan(1000, 10_000)


wanted = st.floats(0, 20)
demands = st.builds(Demand, wanted, wanted, wanted, st.booleans(), st.booleans())
rates = st.floats(0, 50)
POOREST = 1000  # past it dates only stay sane: the worker is held back by its pace


@given(demands, rates, st.booleans())
@example(Demand(following=1e-7, discovery=1e-7), 0.0, False)
def test_the_planned_rate_never_exceeds_the_allowance(
    demand: Demand, rate: float, pushed: bool
) -> None:
    plan = schedule.plan(demand, rate, push_alive=pushed)
    planned = [
        demanded / factor
        for demanded, factor in [
            (demand.following, plan.following),
            (demand.discovery, plan.discovery),
        ]
        if factor < POOREST
    ]
    planned.append(schedule.LEARNING * rate * demand.learning)
    # Of either part a billionth of a request a second is the least that is planned.
    assert sum(planned) <= rate * (1 + 1e-9) + 2.1e-9


@given(demands, rates, st.booleans())
def test_the_floors_hold(demand: Demand, rate: float, pushed: bool) -> None:
    plan = schedule.plan(demand, rate, push_alive=pushed)
    assert 0.4 <= plan.following <= 1000
    assert 1 / 3 <= plan.discovery <= 10_000


@given(demands, rates)
def test_all_of_the_allowance_is_planned_unless_all_is_at_its_floor(
    demand: Demand, rate: float
) -> None:
    plan = schedule.plan(demand, rate)
    planned = demand.following / plan.following + demand.discovery / plan.discovery
    planned += min(demand.rung, rate / 2) + schedule.LEARNING * rate * demand.learning
    at_floor = plan.following == 0.4 and plan.discovery == 1 / 3
    assert at_floor or planned >= rate * (1 - 1e-9)


@given(demands, rates, rates)
def test_more_requests_never_mean_longer_intervals(
    demand: Demand, one: float, other: float
) -> None:
    less, more = sorted([one, other])
    poorer, richer = schedule.plan(demand, less), schedule.plan(demand, more)
    assert richer.following <= poorer.following * (1 + 1e-9)
    assert richer.discovery <= poorer.discovery * (1 + 1e-6)


@given(st.builds(Demand, wanted, wanted), rates)
def test_learning_makes_nothing_in_flight_older_by_more_than_its_share(
    demand: Demand, rate: float
) -> None:
    with_ = schedule.plan(replace(demand, learning=True), rate)
    # What is left to find new runs may lose nothing: then the rest bears it all.
    borne = schedule.LEARNING / (1 - schedule.DISCOVERY)
    assert with_.following <= schedule.plan(demand, rate).following / (1 - borne) + 1e-9


@pytest.mark.parametrize(("rate", "seconds"), [(0.25, 400), (1, 100), (0.01, 3600), (0, 3600)])
def test_details_are_read_for_learning_at_a_hundredth_of_the_rate(
    rate: float, seconds: float
) -> None:
    assert schedule.learning_interval(rate).total_seconds() == pytest.approx(seconds)


@given(demands, rates)
def test_webhooks_never_slow_what_is_in_flight(demand: Demand, rate: float) -> None:
    pushed = schedule.plan(demand, rate, push_alive=True)
    assert pushed.following <= schedule.plan(demand, rate).following


@pytest.mark.parametrize(
    ("known", "seconds"),
    [
        ({"flying": 1, "watched": 1}, 10),
        ({"flying": 3}, 20),
        ({"watched": 1}, 40),
        ({"active": 60}, 270),
        ({"has_flow": False}, 18 * 3600),
    ],
)
def test_each_part_has_its_own_stretch(known: dict[str, Any], seconds: float) -> None:
    interval = Plan(following=2, discovery=3).interval(facts(**known), T0)
    assert interval == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("has_flow", "seen", "due"),
    [
        (True, None, True), (None, None, True), (True, 11 * HOURS, False), (True, 12 * HOURS, True),
        (False, 1 * HOURS, False), (False, 2 * HOURS, True),
    ],
)  # fmt: skip
def test_a_flow_is_read_again_as_the_plan_says(
    has_flow: bool | None, seen: float | None, due: bool
) -> None:
    seen_at = None if seen is None else at(-seen)
    assert Plan(1, 2).flow_is_due(has_flow, seen_at, T0) is due


def test_the_past_is_not_read_at_a_first_visit() -> None:
    assert not Plan(1, 1).past_is_due(None, T0)


@given(st.floats(1, 3600), st.floats(0.5, 100))
def test_the_past_is_read_once_in_its_interval_however_often_the_stage_is(
    between: float, factor: float
) -> None:
    visits = [at(number * between) for number in range(200)]
    plan = Plan(1, factor)
    read = sum(plan.past_is_due(one, next_) for one, next_ in pairwise(visits))
    intervals = 199 * between / (600 * factor)
    assert read <= min(intervals + 1, 199)
    assert read >= min(intervals - 1, 198)


@pytest.mark.parametrize(
    ("since", "wait"), [(0, 2), (29, 2), (30, 5), (179, 5), (180, 15), (3599, 15), (3600, 60)]
)
def test_an_aborting_run_is_read_less_often_as_time_goes_by(since: int, wait: int) -> None:
    assert schedule.aborting_interval(timedelta(seconds=since)) == timedelta(seconds=wait)


CAUSES = ["", "timeout", "server_error", "unreachable", "unexpected_answer", "forbidden",
          "not_found", "feature_off", "refused"]  # fmt: skip


@given(st.integers(1, 10**6), st.sampled_from(CAUSES))
def test_rests_grow_with_each_failure_and_never_end_in_never(failures: int, cause: str) -> None:
    rest = schedule.after_failure(failures, cause)
    assert rest <= schedule.after_failure(failures + 1, cause) <= timedelta(minutes=15)


@pytest.mark.parametrize(
    ("cause", "first", "longest"),
    [
        ("server_error", 10, 300),
        ("timeout", 10, 60),
        ("forbidden", 60, 900),
        ("not_found", 60, 900),
    ],
)
def test_each_cause_has_its_rests(cause: str, first: int, longest: int) -> None:
    rests = [schedule.after_failure(failures, cause) for failures in (1, 2, 99)]
    assert [rest.total_seconds() for rest in rests] == [first, min(2 * first, longest), longest]
