"""The polling interval of a stage: by what is known of it, within the rate budget."""

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
    in_flight: int = 0,
    watched: float | None = None,
    changed: float | None = None,
    missing: float | None = None,
) -> StageFacts:
    return StageFacts(
        has_flow,
        in_flight,
        None if watched is None else at(-watched),
        None if changed is None else at(-changed),
        None if missing is None else at(-missing),
    )


def class_of(**fields: Any) -> StageClass:
    return schedule.classify(facts(**fields), T0)


def test_stage_without_flow_has_its_own_class_even_when_watched() -> None:
    assert class_of(has_flow=False, in_flight=1, watched=1, changed=1) is StageClass.NO_FLOW


def test_watched_stage_with_runs_in_flight_has_class_watched() -> None:
    assert class_of(in_flight=1, watched=1) is StageClass.WATCHED


def test_stage_with_runs_in_flight_has_class_in_flight() -> None:
    assert class_of(in_flight=1) is StageClass.IN_FLIGHT


def test_stage_is_watched_for_a_minute() -> None:
    assert class_of(in_flight=1, watched=60) is StageClass.IN_FLIGHT


def test_watched_stage_without_runs_in_flight_has_class_expected() -> None:
    assert class_of(watched=1) is StageClass.EXPECTED


def test_stage_changed_within_half_an_hour_has_class_recent() -> None:
    assert class_of(changed=29 * 60) is StageClass.RECENT


def test_stage_changed_long_ago_has_class_idle() -> None:
    assert class_of(changed=30 * 60) is StageClass.IDLE


def test_stage_with_unknown_flow_has_class_idle() -> None:
    assert class_of(has_flow=None) is StageClass.IDLE


def test_stage_classes_are_ordered_by_interval() -> None:
    names = [kind.value for kind in StageClass]
    assert names == sorted(names)


HOURS = 3600.0


def test_stage_whose_flow_was_missing_once_keeps_its_class() -> None:
    assert class_of(has_flow=True, missing=1, watched=1) is StageClass.EXPECTED


def test_stage_that_may_get_a_flow_is_read_like_an_idle_one_for_a_day() -> None:
    assert class_of(has_flow=False, missing=24 * HOURS - 1) is StageClass.IDLE
    assert class_of(has_flow=False, missing=24 * HOURS) is StageClass.NO_FLOW


# For 900 requests an hour: 0.25 a second
@pytest.mark.parametrize(
    ("demand", "webhook_alive", "tracking", "discovery"),
    [
        (Demand(), False, 0.4, 1 / 3),  # nothing to read: at its floor, all of it
        (Demand(discovery=0.1), False, 0.4, 0.4),  # nothing in flight: all for discovery
        (Demand(discovery=0.01), False, 0.4, 1 / 3),  # little to discover: read no more than that
        (Demand(tracking=0.1, discovery=0.1), False, 0.1 / 0.225, 4),  # a tenth for discovery
        (Demand(tracking=0.1, discovery=0.1), True, 0.1 / 0.2375, 8),  # half of it with webhooks
        (Demand(tracking=4.5, discovery=10), False, 20, 400),  # an hour for forty in flight
        (Demand(tracking=1, discovery=0.001), False, 1 / 0.247, 1 / 3),  # the rest is used
        (Demand(tracking=0.05, discovery=0.2), False, 0.4, 0.2 / 0.125),  # and vice versa
        (Demand(tracking=1, discovery=1, has_gaps=True), False, 8, 8),  # unread stages
        (
            Demand(tracking=0.1, webhook_reads=0.05, discovery=1),
            False,
            0.1 / 0.18,
            1 / 0.02,
        ),  # webhook events
        (
            Demand(tracking=1, webhook_reads=9, discovery=0),
            False,
            8,
            1 / 3,
        ),  # take half at most
        (
            Demand(4.5, 10, has_baseline_reads=True),
            False,
            20 / 0.99,
            400 / 0.99,
        ),  # a hundredth for baselines
    ],
)
def test_plan_fits_demand_to_rate(
    demand: Demand, webhook_alive: bool, tracking: float, discovery: float
) -> None:
    plan = schedule.make_plan(demand, 0.25, webhook_alive=webhook_alive)
    assert (plan.tracking, plan.discovery) == pytest.approx((tracking, discovery))


@pytest.mark.parametrize("has_gaps", [True, False])
def test_plan_says_whether_stages_have_gaps(has_gaps: bool) -> None:
    assert schedule.make_plan(Demand(1, 1, has_gaps=has_gaps), 0.25).has_gaps is has_gaps


def test_plan_by_default_expects_no_webhooks() -> None:
    demand = Demand(tracking=0.1, discovery=0.1)
    assert schedule.make_plan(demand, 0.25) == schedule.make_plan(demand, 0.25, webhook_alive=False)


def test_plan_without_rate_has_finite_intervals() -> None:
    assert schedule.make_plan(Demand(1, 1), 0) == Plan(1000, 10_000)


request_rates = st.floats(0, 20)
demands = st.builds(
    Demand, request_rates, request_rates, request_rates, st.booleans(), st.booleans()
)
rates = st.floats(0, 50)
POOREST = 1000  # above it factors only stay finite: the worker is limited by the rate


@given(demands, rates, st.booleans())
@example(Demand(tracking=1e-7, discovery=1e-7), 0.0, False)
def test_plan_never_exceeds_rate(demand: Demand, rate: float, webhook_alive: bool) -> None:
    plan = schedule.make_plan(demand, rate, webhook_alive=webhook_alive)
    planned = [
        demand_rate / factor
        for demand_rate, factor in [
            (demand.tracking, plan.tracking),
            (demand.discovery, plan.discovery),
        ]
        if factor < POOREST
    ]
    planned.append(schedule.BASELINE_SHARE * rate * demand.has_baseline_reads)
    # At least a billionth of a request a second is planned for each part.
    assert sum(planned) <= rate * (1 + 1e-9) + 2.1e-9


@given(demands, rates, st.booleans())
def test_plan_factors_stay_within_limits(demand: Demand, rate: float, webhook_alive: bool) -> None:
    plan = schedule.make_plan(demand, rate, webhook_alive=webhook_alive)
    assert 0.4 <= plan.tracking <= 1000
    assert 1 / 3 <= plan.discovery <= 10_000


@given(demands, rates)
def test_plan_uses_whole_rate_unless_at_minimum_intervals(demand: Demand, rate: float) -> None:
    plan = schedule.make_plan(demand, rate)
    planned = demand.tracking / plan.tracking + demand.discovery / plan.discovery
    planned += (
        min(demand.webhook_reads, rate / 2)
        + schedule.BASELINE_SHARE * rate * demand.has_baseline_reads
    )
    at_floor = plan.tracking == 0.4 and plan.discovery == 1 / 3
    assert at_floor or planned >= rate * (1 - 1e-9)


@given(demands, rates, rates)
def test_plan_with_higher_rate_has_no_longer_intervals(
    demand: Demand, rate: float, other: float
) -> None:
    lower, higher = sorted([rate, other])
    lower_plan, higher_plan = schedule.make_plan(demand, lower), schedule.make_plan(demand, higher)
    assert higher_plan.tracking <= lower_plan.tracking * (1 + 1e-9)
    assert higher_plan.discovery <= lower_plan.discovery * (1 + 1e-6)


@given(st.builds(Demand, request_rates, request_rates), rates)
def test_plan_with_baseline_reads_slows_in_flight_reads_only_by_its_share(
    demand: Demand, rate: float
) -> None:
    with_baseline_reads = schedule.make_plan(replace(demand, has_baseline_reads=True), rate)
    # If discovery is at its minimum, the other part is reduced.
    share = schedule.BASELINE_SHARE / (1 - schedule.DISCOVERY_SHARE)
    assert (
        with_baseline_reads.tracking
        <= schedule.make_plan(demand, rate).tracking / (1 - share) + 1e-9
    )


@pytest.mark.parametrize(("rate", "seconds"), [(0.25, 400), (1, 100), (0.01, 3600), (0, 3600)])
def test_baseline_read_interval_is_a_hundredth_of_rate(rate: float, seconds: float) -> None:
    assert schedule.baseline_interval(rate).total_seconds() == pytest.approx(seconds)


@given(demands, rates)
def test_plan_with_webhooks_never_slows_stages_in_flight(demand: Demand, rate: float) -> None:
    with_webhooks = schedule.make_plan(demand, rate, webhook_alive=True)
    assert with_webhooks.tracking <= schedule.make_plan(demand, rate).tracking


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [
        ({"in_flight": 1, "watched": 1}, 10),
        ({"in_flight": 3}, 20),
        ({"watched": 1}, 40),
        ({"changed": 60}, 270),
        ({"has_flow": False}, 18 * 3600),
    ],
)
def test_stage_interval_is_multiplied_by_factor_of_its_class(
    fields: dict[str, Any], seconds: float
) -> None:
    interval = Plan(tracking=2, discovery=3).stage_interval(facts(**fields), T0)
    assert interval == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("has_flow", "synced_ago", "due"),
    [
        (True, None, True), (None, None, True), (True, 11 * HOURS, False), (True, 12 * HOURS, True),
        (False, None, True), (False, 0, True),  # it is read for this alone
    ],
)  # fmt: skip
def test_flow_is_due_after_interval_of_plan(
    has_flow: bool | None, synced_ago: float | None, due: bool
) -> None:
    synced_at = None if synced_ago is None else at(-synced_ago)
    assert Plan(1, 2).is_flow_due(has_flow, synced_at, T0) is due


def test_run_history_is_not_due_at_first_read() -> None:
    assert not Plan(1, 1).is_history_due(None, T0)


@given(st.floats(1, 3600), st.floats(0.5, 100))
def test_run_history_is_due_once_per_interval(visit_interval: float, factor: float) -> None:
    visits = [at(number * visit_interval) for number in range(200)]
    plan = Plan(1, factor)
    read_count = sum(
        plan.is_history_due(visit, next_visit) for visit, next_visit in pairwise(visits)
    )
    intervals = 199 * visit_interval / (600 * factor)
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


@pytest.mark.parametrize(
    ("read", "now", "due"),
    [
        (None, 1, True), (0, 899, False), (60, 120, False), (0, 900, True), (899, 900, True),
        (900, 1799, False), (901, 1800, True), (-60, 1, True),  # last read before its flow failed
    ],
)  # fmt: skip
def test_flow_that_cannot_be_read_is_tried_every_15_min(
    read: float | None, now: float, due: bool
) -> None:
    read_at = None if read is None else at(read)
    assert schedule.is_flow_retry_due(T0, read_at, at(now)) is due


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
