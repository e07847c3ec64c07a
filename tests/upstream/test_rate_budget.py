"""The rate budget: requests left in the hour, their use, and the rate of reads. Pure."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import ceil, floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import RateLimit
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.rate_budget import RateLimitWindow, ReadBudget

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def window(
    remaining: int,
    *,
    own_requests: int = 0,
    reset_seconds: float = 1800,
    previous_other_rate: float | None = None,
    **fields: object,
) -> RateLimitWindow:
    """A window of a thousand requests, just reported."""
    return replace(
        RateLimitWindow(1000, remaining, at(reset_seconds), T0, own_requests, previous_other_rate),
        **fields,
    )


def apply_response(
    current: RateLimitWindow | None,
    remaining: int,
    reset_seconds: float,
    now: float = 0,
    limit: int = 1000,
) -> RateLimitWindow:
    return rules.after_response(current, RateLimit(limit, remaining, reset_seconds), 100, at(now))


# Other usage


@pytest.mark.parametrize(
    ("remaining", "own_requests", "other_requests"),
    [(1000, 0, 0), (990, 10, 0), (700, 100, 200), (995, 10, 0), (0, 0, 1000)],
)
def test_other_usage_is_total_minus_own_requests(
    remaining: int, own_requests: int, other_requests: int
) -> None:
    assert window(remaining, own_requests=own_requests).other_requests == other_requests


def test_other_usage_rate_is_measured_since_window_start() -> None:
    assert window(820, reset_seconds=1800).others_rate == 180 / 1800


def test_other_usage_rate_early_in_window_is_damped() -> None:
    assert window(997, reset_seconds=3599).others_rate == 3 / 300


def test_other_usage_rate_carries_over_to_next_window() -> None:
    previous = window(100, own_requests=0, reset_seconds=1)  # others took 900
    current = apply_response(previous, 999, 3600, now=2)
    assert (current.own_requests, current.others_rate) == (1, pytest.approx(900 / 3599))


def test_other_usage_rate_decays_over_several_windows() -> None:
    current = window(100, reset_seconds=1)
    for hour in range(5):
        new_window = apply_response(current, 999, 3600, now=2 + hour * 3600)
        current = replace(new_window, synced_at=new_window.resets_at - timedelta(seconds=1))
    assert current.others_rate < 0.02


def test_budget_leaves_expected_other_usage() -> None:
    spend = rules.compute(
        window(600, own_requests=220, reset_seconds=1800), 100, T0
    )  # others took 180
    assert (spend.requests, spend.other_requests, spend.requests_per_second) == (
        500,
        180,
        320 / 1800,
    )


def test_budget_keeps_a_quarter_when_other_usage_exceeds_it() -> None:
    # An estimate that is wrong must not stop reading until the window ends.
    spend = rules.compute(window(500, reset_seconds=1800), 100, T0)
    assert spend.other_requests > spend.requests
    assert spend.requests_per_second == 100 / 1800


def test_other_usage_does_not_block_reconciling_aborts() -> None:
    assert rules.compute(window(200, reset_seconds=1800), 100, T0).may_reconcile_aborts


# Responses


def test_response_counts_as_one_own_request() -> None:
    assert apply_response(window(990, own_requests=10), 989, 1800).own_requests == 11


def test_response_out_of_order_does_not_raise_remaining() -> None:
    current = apply_response(window(980, own_requests=18), 983, 1801)
    assert (current.remaining, current.own_requests) == (980, 19)


def test_response_from_previous_window_changes_nothing() -> None:
    current = window(999, own_requests=1, reset_seconds=3599)
    after = apply_response(current, 3, 1)
    assert (after.remaining, after.resets_at, after.own_requests) == (999, current.resets_at, 1)


def test_lower_limit_reduces_budget_at_once() -> None:
    current = apply_response(window(900, own_requests=100), 399, 1800, limit=500)
    spend = rules.compute(current, 50, T0)
    assert (current.own_requests, current.other_requests, spend.requests) == (101, 0, 349)


def test_higher_limit_raises_budget_at_once() -> None:
    assert apply_response(window(10, own_requests=990), 1009, 1800, limit=2000).remaining == 1009


def test_response_without_headers_counts_as_own_request() -> None:
    current = rules.after_response(window(500, own_requests=500), None, 100, at(1))
    assert (current.remaining, current.own_requests, current.other_requests) == (499, 501, 0)


def test_response_without_headers_after_window_end_opens_no_window() -> None:
    current = rules.after_response(window(500, reset_seconds=10), None, 100, at(11))
    assert rules.compute(current, 100, at(11)).requests == 900


def test_response_without_headers_and_no_window_raises_value_error() -> None:
    with pytest.raises(ValueError, match=r"^The rate limit is unknown\.$"):
        rules.after_response(None, None, 100, T0)


def test_first_response_opens_window() -> None:
    assert apply_response(None, 499, 1800, now=5, limit=500) == RateLimitWindow(
        500, 499, at(1805), at(5), own_requests=1, others_rate_before=None, burst=1
    )


# Others have taken 60, and 72 in the hour before: 132 in an hour and a half. Ten seconds at the
# even rate are 4.2 requests.
BASE_WINDOW = window(
    900, own_requests=40, previous_other_rate=0.02, burst=5.0, backoff_until=at(70)
)


def without_burst(rate_window: RateLimitWindow) -> RateLimitWindow:
    assert rate_window.burst == pytest.approx(5 - 4.2248 + 1, abs=1e-3)
    return replace(rate_window, burst=0)


def test_response_in_same_window_updates_remaining_and_keeps_rest() -> None:
    assert without_burst(apply_response(BASE_WINDOW, 890, 1791, now=10)) == RateLimitWindow(
        1000, 890, at(1801), at(10), 41, 0.02, 0, at(70)
    )


def test_response_without_headers_belongs_to_same_window() -> None:
    assert without_burst(rules.after_response(BASE_WINDOW, None, 100, at(10))) == RateLimitWindow(
        1000, 899, at(1800), at(10), 41, 0.02, 0, at(70)
    )


def test_response_in_new_window_resets_counts() -> None:
    assert without_burst(
        apply_response(BASE_WINDOW, 2999, 3600, now=10, limit=3000)
    ) == RateLimitWindow(3000, 2999, at(3610), at(10), 1, 132 / 5400, 0, at(70))


def test_response_from_end_of_previous_window_changes_only_burst() -> None:
    expected = replace(BASE_WINDOW, synced_at=at(10), burst=0)
    assert without_burst(apply_response(BASE_WINDOW, 3, 20, now=10)) == expected


@pytest.mark.parametrize("remaining", [890, 901])
@pytest.mark.parametrize("reset_seconds", [1770.1, 1829.9])
def test_responses_with_close_reset_times_share_a_window(
    reset_seconds: float, remaining: int
) -> None:
    assert apply_response(BASE_WINDOW, remaining, reset_seconds).own_requests == 41


@pytest.mark.parametrize("reset_seconds", [1770, 1830])
def test_responses_with_distant_reset_times_and_more_remaining_are_in_separate_windows(
    reset_seconds: float,
) -> None:
    after = apply_response(BASE_WINDOW, 901, reset_seconds)
    assert (after.own_requests, after.remaining) == (1, 901)


@pytest.mark.parametrize("remaining", [890, 900])
@pytest.mark.parametrize("step", [120, -600])
def test_window_keeps_its_counts_after_a_step_of_the_clock(step: int, remaining: int) -> None:
    after = apply_response(BASE_WINDOW, remaining, 1790, now=10 + step)
    assert (after.own_requests, after.others_rate_before) == (41, 0.02)
    assert (after.remaining, after.resets_at) == (remaining, at(1800 + step))


@pytest.mark.parametrize(("later", "own_requests"), [(29.9, 301), (30, 1)])
def test_response_soon_after_the_end_with_no_more_remaining_belongs_to_the_window(
    later: float, own_requests: int
) -> None:
    current = window(500, own_requests=300, reset_seconds=10)
    assert apply_response(current, 499, 0, now=10 + later).own_requests == own_requests


def test_response_in_the_last_seconds_of_a_window_counts() -> None:
    current = window(500, own_requests=300, reset_seconds=10)
    after = apply_response(current, 499, 9.5)
    assert (after.remaining, after.own_requests, after.resets_at) == (499, 301, at(9.5))


@pytest.mark.parametrize("rounded", [floor, ceil])
def test_whole_seconds_until_reset_turn_no_own_requests_into_those_of_others(
    rounded: Callable[[float], int],
) -> None:
    current = None
    for second in range(2 * 3600):
        elapsed = second % 3600
        reset_seconds = rounded(3600 - elapsed - 0.5)
        current = apply_response(
            current, 3999 - elapsed, reset_seconds, now=second + 0.5, limit=4000
        )
    assert current is not None
    assert current.others_rate == 0


def test_response_resetting_within_30_s_belongs_to_previous_window() -> None:
    assert apply_response(BASE_WINDOW, 3, 29.9).remaining == 900
    assert apply_response(BASE_WINDOW, 3, 30).remaining == 3


def test_response_at_window_end_opens_next_window() -> None:
    current = apply_response(window(500, own_requests=300, reset_seconds=10), 999, 15, now=10)
    assert (current.remaining, current.own_requests) == (999, 1)


def test_response_without_headers_at_window_end_keeps_window() -> None:
    current = window(500, own_requests=300, reset_seconds=10)
    after = rules.after_response(current, None, 100, at(10))
    assert after == replace(current, synced_at=at(10), burst=1)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 0), (0, 0)])
def test_response_without_headers_reduces_remaining_to_zero_at_least(
    before: int, after: int
) -> None:
    assert rules.after_response(window(before), None, 100, T0).remaining == after


def after_gateway_errors(current: RateLimitWindow, answers: int) -> RateLimitWindow:
    """A window after so many answers without headers in as many seconds."""
    for second in range(1, answers + 1):
        current = rules.after_response(current, None, 100, at(second))
    return current


def test_headers_after_answers_without_them_are_believed() -> None:
    """After 320 answers of a gateway 320 requests were not used until the window's end."""
    current = after_gateway_errors(window(900, own_requests=60), 320)
    assert current.remaining == 580
    for second, remaining in ((330, 898), (340, 893), (350, 879)):
        current = apply_response(current, remaining, 1800 - second, now=second)
        assert (current.remaining, current.resets_at) == (remaining, at(1800))


def test_requests_that_northflank_has_not_counted_are_not_own_ones() -> None:
    current = after_gateway_errors(window(900, own_requests=60), 320)
    assert (current.own_requests, current.other_requests) == (380, 40)
    current = apply_response(current, 899, 1470, now=330)
    assert (current.own_requests, current.other_requests) == (61, 40)


def test_more_requests_not_counted_than_own_ones_leave_the_one_answered() -> None:
    current = after_gateway_errors(window(900, own_requests=2), 5)
    current = apply_response(current, 999, 1790, now=10)
    assert (current.own_requests, current.other_requests) == (1, 0)


@pytest.mark.parametrize(("sent_at", "remaining"), [(4, 895), (7, 895), (7.1, 898)])
def test_headers_raise_what_remains_if_requested_some_time_after_the_last_answer(
    sent_at: float, remaining: int
) -> None:
    current = after_gateway_errors(window(900, own_requests=100), 5)
    after = rules.after_response(
        current, RateLimit(1000, 898, 1790), 100, at(10), requested_at=at(sent_at)
    )
    assert (after.remaining, after.own_requests) == (remaining, 106 if remaining == 895 else 102)


def test_reserve_slows_recovery_from_burst() -> None:
    current = window(900, own_requests=100, burst=10.0)
    with_reserve, without_reserve = (
        rules.after_response(current, None, reserve, at(10)).burst for reserve in (450, 0)
    )
    assert (with_reserve, without_reserve) == (
        pytest.approx(11 - 4500 / 1790),
        pytest.approx(11 - 9000 / 1790),
    )


# Budget


def test_budget_before_first_response_is_documented_limit() -> None:
    expected = ReadBudget(900, 3600, reserve=100)
    assert rules.compute(None, 100, T0) == expected


def test_budget_is_remaining_minus_reserve_until_window_end() -> None:
    spend = rules.compute(BASE_WINDOW, 100, at(10))
    assert (spend.requests, spend.seconds, spend.reserve, spend.margin) == (800, 1790, 100, 100)
    assert spend.other_requests == pytest.approx(1790 * 132 / 5400)


@pytest.mark.parametrize("later", [10, 1798.5])
def test_first_reads_leave_a_quarter_of_our_even_rate_to_runs_in_flight(later: float) -> None:
    spend = rules.compute(BASE_WINDOW, 100, at(later))
    own_requests_per_hour = 900 - 3600 * 132 / 5400
    assert spend.in_flight_requests / spend.seconds * 3600 == pytest.approx(
        own_requests_per_hour / 4
    )


def test_first_reads_leave_requests_to_runs_in_flight_however_many_others_use() -> None:
    spend = rules.compute(window(100, reset_seconds=1800), 100, at(10))  # others took 900
    assert spend.in_flight_requests / spend.seconds * 3600 == pytest.approx(900 / 4 / 4)


@pytest.mark.parametrize("later", [1800, 1900])
def test_budget_after_window_end_is_a_full_window(later: float) -> None:
    spend = rules.compute(BASE_WINDOW, 100, at(later))
    assert (spend.requests, spend.seconds) == (900, 3600)
    assert spend.other_requests == pytest.approx(3600 * 132 / 5400)


@pytest.mark.parametrize(("later", "until"), [(69, at(70)), (70, None), (71, None)])
def test_budget_is_refused_until_pause_ends(later: float, until: datetime | None) -> None:
    assert rules.compute(BASE_WINDOW, 100, at(later)).backoff_until == until


def test_burst_shrinks_at_even_rate() -> None:
    assert rules.compute(BASE_WINDOW, 100, at(10)).burst == pytest.approx(5 - 4.2248, abs=1e-3)
    assert rules.compute(BASE_WINDOW, 100, at(100)).burst == 0


def test_burst_is_unchanged_by_response_from_the_future() -> None:
    assert rules.compute(BASE_WINDOW, 100, at(-10)).burst == 5


def test_short_pause_keeps_remaining() -> None:
    current = window(985, own_requests=15)
    after = rules.after_rate_limited(current, 5, T0)
    assert after == replace(current, backoff_until=at(5), refusals=1)
    assert rules.compute(after, 100, at(5)).requests == 885


def test_pause_until_window_end_sets_remaining_to_zero() -> None:
    after = rules.after_rate_limited(window(985, own_requests=15), 1800, T0)
    assert (after.remaining, after.backoff_until) == (0, at(1800))


@pytest.mark.parametrize(("reset_seconds", "remaining"), [(35, 0), (36, 985)])
def test_pause_until_half_a_minute_before_window_end_sets_remaining_to_zero(
    reset_seconds: float, remaining: int
) -> None:
    current = window(985, own_requests=15, reset_seconds=reset_seconds)
    assert rules.after_rate_limited(current, 5, T0).remaining == remaining


def test_refusal_at_window_end_keeps_counts_of_the_window() -> None:
    current = window(985, own_requests=15, reset_seconds=10)
    assert rules.after_rate_limited(current, 5, at(10)).remaining == 985


def test_second_refusal_lengthens_the_pause_before_any_answer() -> None:
    first = rules.after_rate_limited(None, 5, T0)
    second = rules.after_rate_limited(first, 5, at(6))
    assert (first.refusals, second.refusals, second.backoff_until) == (1, 2, at(16))


def test_refusal_keeps_own_request_count() -> None:
    assert rules.after_rate_limited(window(900, own_requests=1100), 1800, T0).own_requests == 1100


def test_refusal_keeps_other_usage() -> None:
    before = window(500, own_requests=400)
    after = rules.after_rate_limited(before, 1800, T0)
    assert (after.remaining, after.other_requests) == (0, before.other_requests)


@pytest.mark.parametrize(("retry_after", "seconds"), [(0, 1), (0.5, 1), (5, 5), (10**9, 3600)])
def test_refusal_pause_is_limited_to_1_s_to_1_h(retry_after: float, seconds: float) -> None:
    assert rules.after_rate_limited(window(985), retry_after, T0).backoff_until == at(seconds)
    assert rules.after_rate_limited(None, retry_after, T0).backoff_until == at(seconds)


def test_refusal_during_pause_is_not_counted() -> None:
    current = rules.after_rate_limited(window(985), 5, T0)
    assert rules.after_rate_limited(current, 5, at(1)) == replace(current, backoff_until=at(6))
    assert rules.after_rate_limited(current, 2, at(1)) == current
    assert rules.after_rate_limited(current, None, at(4.9)) == current


def pauses_after_repeated_429(
    retry_after: float | None, times: int, rate_window: RateLimitWindow
) -> list[float]:
    """The seconds of each pause, where each is followed by another 429."""
    now, pauses = T0, []
    for _ in range(times):
        rate_window = rules.after_rate_limited(rate_window, retry_after, now)
        assert rate_window.backoff_until is not None
        pauses.append((rate_window.backoff_until - now).total_seconds())
        now = rate_window.backoff_until
    return pauses


def test_repeated_429_doubles_pause() -> None:
    assert pauses_after_repeated_429(5, 4, window(985, reset_seconds=3600)) == [5, 10, 20, 40]
    assert pauses_after_repeated_429(None, 4, window(985, reset_seconds=3600)) == [
        60,
        120,
        240,
        480,
    ]


def test_repeated_429_pause_grows_to_15_min_unless_header_is_longer() -> None:
    assert pauses_after_repeated_429(600, 3, window(985, reset_seconds=7200)) == [600, 900, 900]
    assert pauses_after_repeated_429(1000, 3, window(985, reset_seconds=7200)) == [1000, 1000, 1000]
    assert pauses_after_repeated_429(1, 12, window(985, reset_seconds=7200))[-1] == 900


def test_pause_without_header_ends_with_window() -> None:
    assert pauses_after_repeated_429(None, 2, window(985, reset_seconds=100)) == [60, 40]


def paused(seconds: float = 5) -> RateLimitWindow:
    return rules.after_rate_limited(window(985, own_requests=15), seconds, T0)


@pytest.mark.parametrize(("later", "is_probe"), [(4.9, False), (5, True), (500, True)])
def test_budget_after_pause_allows_one_probe(later: float, is_probe: bool) -> None:
    spend = rules.compute(paused(), 100, at(later))
    assert (spend.is_probing, spend.may_bulk_abort) == (is_probe, False)


def test_probe_without_pause_is_none() -> None:
    assert not rules.compute(window(985), 100, T0).is_probing


def test_response_to_request_after_pause_ends_refusal() -> None:
    after = rules.after_response(
        paused(), RateLimit(1000, 984, 1794), 100, at(6.2), requested_at=at(6)
    )
    assert (after.refusals, after.backoff_until) == (0, None)
    assert after.remaining == 984


def test_response_to_request_sent_when_the_pause_ends_clears_refusal() -> None:
    after = rules.after_response(
        paused(), RateLimit(1000, 984, 1794), 100, at(5.2), requested_at=at(5)
    )
    assert (after.refusals, after.backoff_until) == (0, None)


def test_response_without_headers_after_a_pause_counts_in_the_window() -> None:
    current = paused()
    after = rules.after_response(current, None, 100, at(6.2), requested_at=at(6))
    assert after.refusals == 0
    assert (after.remaining, after.own_requests) == (
        current.remaining - 1,
        current.own_requests + 1,
    )


def test_response_to_request_during_pause_keeps_refusal() -> None:
    after = rules.after_response(
        paused(), RateLimit(1000, 984, 1794), 100, at(5.1), requested_at=at(4.9)
    )
    assert (after.refusals, after.backoff_until) == (1, at(5))


def test_probe_answered_with_429_lengthens_pause() -> None:
    after = rules.after_rate_limited(paused(), 5, at(6))
    assert (after.refusals, after.backoff_until) == (2, at(16))


def test_refusal_before_first_response_assumes_documented_limit() -> None:
    current = rules.after_rate_limited(None, 90, T0)
    assert (current.limit, current.remaining, current.other_requests) == (1000, 0, 0)
    assert (current.synced_at, current.resets_at, current.backoff_until) == (T0, at(90), at(90))


def test_refusal_without_header_lasts_until_window_end_when_budget_is_spent() -> None:
    assert rules.after_rate_limited(window(0, reset_seconds=1800), None, T0).backoff_until == at(
        1800
    )
    assert rules.after_rate_limited(window(1, reset_seconds=1800), None, T0).backoff_until == at(60)


@pytest.mark.parametrize("reset_seconds", [0, -10])
def test_refusal_without_header_after_window_end_lasts_a_minute(reset_seconds: float) -> None:
    assert rules.after_rate_limited(
        window(500, reset_seconds=reset_seconds), None, T0
    ).backoff_until == at(60)


# First reads


@pytest.mark.parametrize(
    ("current", "requests"),
    [
        (None, 575),  # a quarter of 900 remains for runs in flight, and the margin
        (window(1000, reset_seconds=3600), 575),
        (window(1000, reset_seconds=3600, burst=40), 615),
        (window(1000, reset_seconds=3600, burst=400), 675),
        (
            window(600, own_requests=400, reset_seconds=1800),
            287,
        ),  # half an hour remains: a quarter of 450 is kept
        (window(325, own_requests=675, reset_seconds=3600), 0),
        (window(500, own_requests=500, reset_seconds=900), 243),
        (
            window(1000, reset_seconds=3600, previous_other_rate=600 / 3600),
            125,
        ),  # others take 600, as far as is known
        (window(1000, reset_seconds=3600, previous_other_rate=2.0), 0),  # all
        (window(100, own_requests=900, reset_seconds=1800), 0),
        (window(0, own_requests=900, reset_seconds=1800), 0),
    ],
)
def test_first_reads_leave_reserve_other_usage_and_in_flight_share(
    current: RateLimitWindow | None, requests: int
) -> None:
    assert rules.compute(current, 100, T0).first_read_requests == requests


# Pace


def burst(requests: int, current: RateLimitWindow | None = None) -> RateLimitWindow:
    """A window with this many requests sent at its start."""
    for number in range(requests):
        current = apply_response(current, 999 - number, 3600)
    assert current is not None
    return current


@pytest.mark.parametrize(
    ("requests", "may_read_planned", "may_read"),
    [
        (0, True, True),
        (99, True, True),
        (100, False, True),
        (199, False, True),
        (200, False, False),
    ],
)
def test_burst_is_limited_by_margin(requests: int, may_read_planned: bool, may_read: bool) -> None:
    spend = rules.compute(burst(requests) if requests else None, 100, T0)
    assert (spend.may_read_planned, spend.may_read) == (may_read_planned, may_read)


def test_even_rate_reduces_burst() -> None:
    current = burst(150)
    rate = rules.compute(current, 100, T0).requests_per_second
    assert rules.compute(current, 100, at(40 / rate)).burst == pytest.approx(110, abs=3)


def test_reading_at_even_rate_causes_no_burst() -> None:
    current = None
    for number in range(800):
        current = apply_response(current, 999 - number, 3600 - number * 4, now=number * 4)
        assert rules.compute(current, 100, at(number * 4)).burst <= 1.1


@pytest.mark.parametrize("requests", [0, -5])
def test_budget_without_requests_may_not_read(requests: int) -> None:
    assert not ReadBudget(requests, 60, reserve=100).may_read


windows = st.builds(
    lambda limit, share, own_requests, reset_seconds, previous_other_rate, burst: RateLimitWindow(
        limit, int(limit * share), at(reset_seconds), T0, own_requests, previous_other_rate, burst
    ),
    st.integers(0, 100_000), st.floats(0, 1), st.integers(0, 100_000), st.floats(-10, 7200),
    st.none() | st.floats(0, 100), st.floats(0, 1000),
)  # fmt: skip


@given(windows, st.integers(0, 1000), st.floats(0, 7200))
def test_rate_never_exceeds_remaining_budget(
    current: RateLimitWindow, reserve: int, later: float
) -> None:
    spend = rules.compute(current, reserve, at(later))
    assert 0 <= spend.requests_per_second * spend.seconds <= max(spend.requests, 0) + 1e-6


@given(windows, st.integers(0, 1000), st.integers(0, 1000))
def test_rate_does_not_rise_with_reserve(
    current: RateLimitWindow, reserve: int, other_reserve: int
) -> None:
    lower, higher = sorted([reserve, other_reserve])
    rate = rules.compute(current, higher, T0).requests_per_second
    assert rate <= rules.compute(current, lower, T0).requests_per_second


@given(
    st.none() | windows,
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 7200)), max_size=8),
)
def test_window_after_any_responses_has_no_negative_values(
    current: RateLimitWindow | None, responses: list[tuple[int, int, float]]
) -> None:
    for number, (limit, remaining, reset_seconds) in enumerate(responses):
        current = rules.after_response(
            current, RateLimit(limit, remaining, reset_seconds), 0, at(number)
        )
        assert current.other_requests >= 0
        assert current.own_requests >= 0
        assert current.burst > 0
        assert current.others_rate >= 0
