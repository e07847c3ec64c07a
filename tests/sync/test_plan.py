"""How often stages are read: in proportion to their weight and rate of change, within the rate."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.sync import plan
from dashboard.sync.plan import RunFacts

MINUTES = timedelta(minutes=1)
urgencies = st.lists(st.floats(1e-4, 1), min_size=1, max_size=200)
rates = st.floats(0.001, 20)


def reads_per_second(stage_urgencies: list[float], made: plan.Plan) -> float:
    return sum(1 / made.interval(urgency) for urgency in stage_urgencies)


@given(urgencies, rates)
def test_reads_use_the_rate_and_no_more(stage_urgencies: list[float], rate: float) -> None:
    made = plan.make_plan(stage_urgencies, rate)
    possible = len(stage_urgencies) / plan.SHORTEST_INTERVAL
    longest_only = len(stage_urgencies) / made.longest
    assert reads_per_second(stage_urgencies, made) == pytest.approx(
        max(min(rate, possible), longest_only), rel=1e-3
    )


@given(urgencies, rates)
def test_no_interval_exceeds_an_hour_or_twice_the_even_one(
    stage_urgencies: list[float], rate: float
) -> None:
    made = plan.make_plan(stage_urgencies, rate)
    longest = max(3600, 2 * len(stage_urgencies) / rate)
    assert max(map(made.interval, stage_urgencies)) <= longest * 1.001


def test_intervals_are_in_inverse_proportion_to_urgencies() -> None:
    made = plan.make_plan([0.01] * 10 + [0.04] * 10, 0.1)
    assert made.interval(0.01) == pytest.approx(4 * made.interval(0.04))


def test_waiting_is_least(subtests: pytest.Subtests) -> None:
    """Any other distribution of the same reads lets changes wait longer."""
    stage_urgencies = [0.02, 0.05, 0.1]
    made = plan.make_plan(stage_urgencies, 0.05)

    def waiting(intervals: list[float]) -> float:
        return sum(u * u * interval for u, interval in zip(stage_urgencies, intervals, strict=True))

    best = [made.interval(urgency) for urgency in stage_urgencies]
    for first, second in ((0, 1), (1, 2), (2, 0)):
        other = list(best)
        other[first] = 1 / (1 / other[first] + 1e-3)
        other[second] = 1 / (1 / other[second] - 1e-3)
        with subtests.test(first=first):
            assert waiting(best) < waiting(other)


def test_reads_outside_the_plan_leave_it_a_quarter_of_the_rate() -> None:
    assert plan.make_plan([0.01], 0.1, other_reads=0.06) == plan.make_plan([0.01], 0.04)
    assert plan.make_plan([0.01], 0.1, other_reads=9.0) == plan.make_plan([0.01], 0.025)


@pytest.mark.parametrize(("shares", "seconds"), [(0, 20), (1, 20), (5, 40), (50, 400)])
def test_watched_pages_share_half_of_the_rate(shares: float, seconds: float) -> None:
    made = plan.make_plan([0.01] * 10, 0.25, watched_shares=shares)
    assert made.watched == pytest.approx(seconds)
    assert reads_per_second([0.01] * 10, made) == pytest.approx(0.25 - shares / seconds, rel=1e-3)


def test_page_just_opened_is_read_every_20_s_whoever_else_watches() -> None:
    made = plan.make_plan([0.01], 0.25, watched_shares=50)
    assert made.watched_interval(1.0, timedelta(seconds=119)) == 20
    assert made.watched_interval(1.0, timedelta(seconds=120)) == pytest.approx(400)
    assert made.watched_interval(plan.PIPELINE_SHARE, timedelta()) == 80


@pytest.mark.parametrize("name", ["Staging", "Development", "Preview"])
def test_production_is_read_more_often(name: str) -> None:
    ratio = plan.urgency("Production", 1e-4) / plan.urgency(name, 1e-4)
    assert ratio == (2 if name == "Staging" else 4)


def test_stage_with_more_runs_is_read_more_often() -> None:
    few, many = (plan.start_rate(starts, account_rate=1e-5) for starts in (1, 100))
    assert many == pytest.approx(100 / plan.HISTORY.total_seconds(), rel=0.1)
    assert few < many / 10


def test_stage_without_history_is_taken_to_be_like_the_others() -> None:
    assert plan.start_rate(0, account_rate=1e-4) == pytest.approx(
        1 / (plan.HISTORY.total_seconds() + 1e4)
    )
    assert plan.start_rate(0, account_rate=0.0) > 0


@pytest.mark.parametrize(
    ("elapsed", "usual", "minutes"),
    [(0, 5, 5), (4, 5, 5), (50, 5, 50), (0, None, 20), (30, None, 30)],
)
def test_run_is_expected_to_end_within_its_usual_duration(
    elapsed: int, usual: int | None, minutes: int
) -> None:
    run = RunFacts(elapsed * MINUTES, usual * MINUTES if usual else None)
    assert plan.end_rate(run) == pytest.approx(1 / (minutes * 60))


def test_overdue_run_in_development_is_more_urgent_than_one_in_production() -> None:
    overdue = RunFacts(5 * MINUTES, 5 * MINUTES, is_urgent=True)
    usual = RunFacts(5 * MINUTES, 5 * MINUTES)
    assert plan.urgency("Development", 0, [overdue]) > plan.urgency("Production", 0, [usual])


def test_stage_of_which_every_second_read_is_a_detail_is_read_more_often() -> None:
    runs = [RunFacts(5 * MINUTES, 5 * MINUTES)] * 2
    queued = [RunFacts(5 * MINUTES, 5 * MINUTES, is_started=False)] * 2
    assert plan.urgency("Staging", 1e-5, runs) > plan.urgency("Staging", 1e-5, queued)


@pytest.mark.parametrize(
    ("count", "elapsed", "rate"),
    [(12, 10, 0.1), (30, 300, 0.1), (60, 600, 0.1), (60, 86_400, 0.1)],
)
def test_rate_of_other_reads_is_that_of_ten_minutes_or_since_the_start(
    count: int, elapsed: float, rate: float
) -> None:
    assert plan.other_reads_rate(count, elapsed) == rate


@pytest.mark.parametrize(("burst", "rate"), [(0, 0.0), (50, 0.0), (80, 0.1), (110, 0.2)])
def test_plan_leaves_requests_for_those_sent_ahead_of_the_even_rate(
    burst: float, rate: float
) -> None:
    assert plan.payback_rate(burst, margin=100) == rate
