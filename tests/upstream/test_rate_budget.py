"""The rate budget: requests left in the hour, their use, and the rate of reads. Pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

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
    ours: int = 0,
    left: float = 1800,
    before: float | None = None,
    **more: object,
) -> RateLimitWindow:
    """A window of a thousand, as just heard."""
    return replace(RateLimitWindow(1000, remaining, at(left), T0, ours, before), **more)


def heard(
    known: RateLimitWindow | None, remaining: int, left: float, now: float = 0, limit: int = 1000
) -> RateLimitWindow:
    return rules.after_response(known, RateLimit(limit, remaining, left), 100, at(now))


# What others spend


@pytest.mark.parametrize(
    ("remaining", "ours", "others"),
    [(1000, 0, 0), (990, 10, 0), (700, 100, 200), (995, 10, 0), (0, 0, 1000)],
)
def test_other_usage_is_total_minus_own_requests(remaining: int, ours: int, others: int) -> None:
    assert window(remaining, ours=ours).other_requests == others


def test_other_usage_rate_is_measured_since_window_start() -> None:
    assert window(820, left=1800).others_rate == 180 / 1800


def test_other_usage_rate_early_in_window_is_damped() -> None:
    assert window(997, left=3599).others_rate == 3 / 300


def test_other_usage_rate_carries_over_to_next_window() -> None:
    old = window(100, ours=0, left=1)  # others took 900
    new = heard(old, 999, 3600, now=2)
    assert (new.own_requests, new.others_rate) == (1, pytest.approx(900 / 3599))


def test_other_usage_rate_decays_over_several_windows() -> None:
    known = window(100, left=1)
    for hour in range(5):
        new_window = heard(known, 999, 3600, now=2 + hour * 3600)
        known = replace(new_window, synced_at=new_window.resets_at - timedelta(seconds=1))
    assert known.others_rate < 0.02


def test_budget_leaves_expected_other_usage() -> None:
    spend = rules.compute(window(600, ours=220, left=1800), 100, T0)  # others took 180
    assert (spend.requests, spend.other_requests, spend.requests_per_second) == (
        500,
        180,
        320 / 1800,
    )


def test_budget_keeps_a_quarter_when_other_usage_exceeds_it() -> None:
    # An estimate that is wrong must not stop reading until the window ends.
    spend = rules.compute(window(500, left=1800), 100, T0)
    assert spend.other_requests > spend.requests
    assert spend.requests_per_second == 100 / 1800


def test_other_usage_does_not_block_reconciling_aborts() -> None:
    assert rules.compute(window(200, left=1800), 100, T0).may_reconcile_aborts


# What an answer changes


def test_response_counts_as_one_own_request() -> None:
    assert heard(window(990, ours=10), 989, 1800).own_requests == 11


def test_response_out_of_order_does_not_raise_remaining() -> None:
    known = heard(window(980, ours=18), 983, 1801)
    assert (known.remaining, known.own_requests) == (980, 19)


def test_response_from_previous_window_changes_nothing() -> None:
    known = window(999, ours=1, left=3599)
    late = heard(known, 3, 1)
    assert (late.remaining, late.resets_at, late.own_requests) == (999, known.resets_at, 1)


def test_lower_limit_reduces_budget_at_once() -> None:
    known = heard(window(900, ours=100), 399, 1800, limit=500)
    spend = rules.compute(known, 50, T0)
    assert (known.own_requests, known.other_requests, spend.requests) == (101, 0, 349)


def test_higher_limit_raises_budget_at_once() -> None:
    assert heard(window(10, ours=990), 1009, 1800, limit=2000).remaining == 1009


def test_response_without_headers_counts_as_own_request() -> None:
    known = rules.after_response(window(500, ours=500), None, 100, at(1))
    assert (known.remaining, known.own_requests, known.other_requests) == (499, 501, 0)


def test_response_without_headers_after_window_end_opens_no_window() -> None:
    known = rules.after_response(window(500, left=10), None, 100, at(11))
    assert rules.compute(known, 100, at(11)).requests == 900


def test_response_without_headers_and_no_window_raises_value_error() -> None:
    with pytest.raises(ValueError, match=r"^The rate limit is unknown\.$"):
        rules.after_response(None, None, 100, T0)


def test_first_response_opens_window() -> None:
    assert heard(None, 499, 1800, now=5, limit=500) == RateLimitWindow(
        500, 499, at(1805), at(5), own_requests=1, others_rate_before=None, burst=1
    )


# Others have taken 60, and 72 in the hour before: 132 in an hour and a half. Ten seconds at the
# even rate are 4.2 requests.
BASE_WINDOW = window(900, ours=40, before=0.02, burst=5.0, backoff_until=at(70))


def without_burst(known: RateLimitWindow) -> RateLimitWindow:
    assert known.burst == pytest.approx(5 - 4.2248 + 1, abs=1e-3)
    return replace(known, burst=0)


def test_response_in_same_window_updates_remaining_and_keeps_rest() -> None:
    assert without_burst(heard(BASE_WINDOW, 890, 1791, now=10)) == RateLimitWindow(
        1000, 890, at(1801), at(10), 41, 0.02, 0, at(70)
    )


def test_response_without_headers_belongs_to_same_window() -> None:
    assert without_burst(rules.after_response(BASE_WINDOW, None, 100, at(10))) == RateLimitWindow(
        1000, 899, at(1800), at(10), 41, 0.02, 0, at(70)
    )


def test_response_in_new_window_resets_counts() -> None:
    assert without_burst(heard(BASE_WINDOW, 2999, 3600, now=10, limit=3000)) == RateLimitWindow(
        3000, 2999, at(3610), at(10), 1, 132 / 5400, 0, at(70)
    )


def test_response_from_end_of_previous_window_changes_only_burst() -> None:
    expected = replace(BASE_WINDOW, synced_at=at(10), burst=0)
    assert without_burst(heard(BASE_WINDOW, 3, 20, now=10)) == expected


@pytest.mark.parametrize("left", [1770.1, 1829.9])
def test_responses_with_close_reset_times_share_a_window(left: float) -> None:
    assert heard(BASE_WINDOW, 890, left).own_requests == 41


@pytest.mark.parametrize("left", [1770, 1830])
def test_responses_with_distant_reset_times_are_in_separate_windows(left: float) -> None:
    assert heard(BASE_WINDOW, 890, left).own_requests == 1


def test_response_resetting_within_30_s_belongs_to_previous_window() -> None:
    assert heard(BASE_WINDOW, 3, 29.9).remaining == 900
    assert heard(BASE_WINDOW, 3, 30).remaining == 3


def test_response_at_window_end_opens_next_window() -> None:
    known = heard(window(500, ours=300, left=10), 999, 15, now=10)
    assert (known.remaining, known.own_requests) == (999, 1)


def test_response_without_headers_at_window_end_keeps_window() -> None:
    known = window(500, ours=300, left=10)
    after = rules.after_response(known, None, 100, at(10))
    assert after == replace(known, synced_at=at(10), burst=1)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 0), (0, 0)])
def test_response_without_headers_reduces_remaining_to_zero_at_least(
    before: int, after: int
) -> None:
    assert rules.after_response(window(before), None, 100, T0).remaining == after


def test_reserve_slows_recovery_from_burst() -> None:
    known = window(900, ours=100, burst=10.0)
    kept, none = (rules.after_response(known, None, reserve, at(10)).burst for reserve in (450, 0))
    assert (kept, none) == (pytest.approx(11 - 4500 / 1790), pytest.approx(11 - 9000 / 1790))


# What may be spent


def test_budget_before_first_response_is_documented_limit() -> None:
    expected = ReadBudget(900, 3600, 100, None, 0, 0, 100, in_flight_requests=225)
    assert rules.compute(None, 100, T0) == expected


def test_budget_is_remaining_minus_reserve_until_window_end() -> None:
    spend = rules.compute(BASE_WINDOW, 100, at(10))
    assert (spend.requests, spend.seconds, spend.reserve, spend.margin) == (800, 1790, 100, 100)
    assert spend.other_requests == pytest.approx(1790 * 132 / 5400)


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
    known = window(985, ours=15)
    after = rules.after_rate_limited(known, 5, T0)
    assert after == replace(known, backoff_until=at(5), refusals=1)
    assert rules.compute(after, 100, at(5)).requests == 885


def test_pause_until_window_end_sets_remaining_to_zero() -> None:
    after = rules.after_rate_limited(window(985, ours=15), 1800, T0)
    assert (after.remaining, after.backoff_until) == (0, at(1800))


def test_refusal_keeps_own_request_count() -> None:
    assert rules.after_rate_limited(window(900, ours=1100), 1800, T0).own_requests == 1100


def test_refusal_keeps_other_usage() -> None:
    before = window(500, ours=400)
    after = rules.after_rate_limited(before, 1800, T0)
    assert (after.remaining, after.other_requests) == (0, before.other_requests)


@pytest.mark.parametrize(("asked", "seconds"), [(0, 1), (0.5, 1), (5, 5), (10**9, 3600)])
def test_refusal_pause_is_limited_to_1_s_to_1_h(asked: float, seconds: float) -> None:
    assert rules.after_rate_limited(window(985), asked, T0).backoff_until == at(seconds)
    assert rules.after_rate_limited(None, asked, T0).backoff_until == at(seconds)


def test_refusal_during_pause_is_not_counted() -> None:
    known = rules.after_rate_limited(window(985), 5, T0)
    assert rules.after_rate_limited(known, 5, at(1)) == replace(known, backoff_until=at(6))
    assert rules.after_rate_limited(known, 2, at(1)) == known
    assert rules.after_rate_limited(known, None, at(4.9)) == known


def repeated_pauses(asked: float | None, times: int, known: RateLimitWindow) -> list[float]:
    """The seconds of each pause, where each is followed by another 429."""
    now, pauses = T0, []
    for _ in range(times):
        known = rules.after_rate_limited(known, asked, now)
        assert known.backoff_until is not None
        pauses.append((known.backoff_until - now).total_seconds())
        now = known.backoff_until
    return pauses


def test_repeated_429_doubles_pause() -> None:
    assert repeated_pauses(5, 4, window(985, left=3600)) == [5, 10, 20, 40]
    assert repeated_pauses(None, 4, window(985, left=3600)) == [60, 120, 240, 480]


def test_repeated_429_pause_grows_to_15_min_unless_header_is_longer() -> None:
    assert repeated_pauses(600, 3, window(985, left=7200)) == [600, 900, 900]
    assert repeated_pauses(1000, 3, window(985, left=7200)) == [1000, 1000, 1000]
    assert repeated_pauses(1, 12, window(985, left=7200))[-1] == 900


def test_pause_without_header_ends_with_window() -> None:
    assert repeated_pauses(None, 2, window(985, left=100)) == [60, 40]


def paused(seconds: float = 5) -> RateLimitWindow:
    return rules.after_rate_limited(window(985, ours=15), seconds, T0)


@pytest.mark.parametrize(("later", "probing"), [(4.9, False), (5, True), (500, True)])
def test_budget_after_pause_allows_one_probe(later: float, probing: bool) -> None:
    spend = rules.compute(paused(), 100, at(later))
    assert (spend.is_probing, spend.may_bulk_abort) == (probing, False)
    assert (rules.start_probe(paused(), at(later)) is not None) is probing


def test_probe_blocks_further_probes() -> None:
    trying = rules.start_probe(paused(), at(6))
    assert trying is not None
    assert trying == replace(paused(), probe_until=at(26))
    assert rules.start_probe(trying, at(25.9)) is None
    assert rules.compute(trying, 100, at(25.9)).probe_until == at(26)
    assert rules.start_probe(trying, at(26)) is not None


def test_probe_without_pause_is_none() -> None:
    assert rules.start_probe(window(985), T0) is None
    assert not rules.compute(window(985), 100, T0).is_probing


def test_response_to_request_after_pause_ends_refusal() -> None:
    trying = rules.start_probe(paused(), at(6))
    after = rules.after_response(
        trying, RateLimit(1000, 984, 1794), 100, at(6.2), requested_at=at(6)
    )
    assert (after.refusals, after.backoff_until, after.probe_until) == (0, None, None)
    assert after.remaining == 984


def test_response_to_request_during_pause_keeps_refusal() -> None:
    after = rules.after_response(
        paused(), RateLimit(1000, 984, 1794), 100, at(5.1), requested_at=at(4.9)
    )
    assert (after.refusals, after.backoff_until) == (1, at(5))


def test_probe_answered_with_429_lengthens_pause() -> None:
    trying = rules.start_probe(paused(), at(6))
    after = rules.after_rate_limited(trying, 5, at(6))
    assert (after.refusals, after.backoff_until, after.probe_until) == (2, at(16), None)


def test_refusal_before_first_response_assumes_documented_limit() -> None:
    known = rules.after_rate_limited(None, 90, T0)
    assert (known.limit, known.remaining, known.other_requests) == (1000, 0, 0)
    assert (known.synced_at, known.resets_at, known.backoff_until) == (T0, at(90), at(90))


def test_refusal_without_header_lasts_until_window_end_when_budget_is_spent() -> None:
    assert rules.after_rate_limited(window(0, left=1800), None, T0).backoff_until == at(1800)
    assert rules.after_rate_limited(window(1, left=1800), None, T0).backoff_until == at(60)


@pytest.mark.parametrize("left", [0, -10])
def test_refusal_without_header_after_window_end_lasts_a_minute(left: float) -> None:
    assert rules.after_rate_limited(window(500, left=left), None, T0).backoff_until == at(60)


# First reads


@pytest.mark.parametrize(
    ("known", "may"),
    [
        (None, 575),  # a quarter of 900 is left for what is in flight, and the slack
        (window(1000, left=3600), 575),
        (window(1000, left=3600, burst=40), 615),
        (window(1000, left=3600, burst=400), 675),
        (window(600, ours=400, left=1800), 287),  # half an hour is left: a quarter of 450 is kept
        (window(325, ours=675, left=3600), 0),
        (window(500, ours=500, left=900), 243),
        (window(1000, left=3600, before=600 / 3600), 125),  # others take 600, as far as is known
        (window(1000, left=3600, before=2.0), 0),  # all, it seems
        (window(100, ours=900, left=1800), 0),
        (window(0, ours=900, left=1800), 0),
    ],
)
def test_first_reads_leave_reserve_other_usage_and_in_flight_share(
    known: RateLimitWindow | None, may: int
) -> None:
    assert rules.compute(known, 100, T0).first_read_requests == may


def test_next_hour_budget_expects_same_other_usage() -> None:
    spend = rules.compute(window(600, ours=100, left=1800), 100, T0)  # others took 300
    following = spend.next_window(1000)
    assert (following.requests, following.seconds, following.other_requests) == (900, 3600, 600)
    assert following.first_read_requests == 125


# Pace


def burst(requests: int, known: RateLimitWindow | None = None) -> RateLimitWindow:
    """Send so many at once, from the beginning of a window."""
    for number in range(requests):
        known = heard(known, 999 - number, 3600)
    assert known is not None
    return known


@pytest.mark.parametrize(
    ("sent", "discover", "read"),
    [
        (0, True, True),
        (99, True, True),
        (100, False, True),
        (199, False, True),
        (200, False, False),
    ],
)
def test_burst_is_limited_by_margin(sent: int, discover: bool, read: bool) -> None:
    spend = rules.compute(burst(sent) if sent else None, 100, T0)
    assert (spend.may_discover, spend.may_read) == (discover, read)


def test_even_rate_reduces_burst() -> None:
    known = burst(150)
    rate = rules.compute(known, 100, T0).requests_per_second
    assert rules.compute(known, 100, at(40 / rate)).burst == pytest.approx(110, abs=3)


def test_reading_at_even_rate_causes_no_burst() -> None:
    known = None
    for number in range(800):
        known = heard(known, 999 - number, 3600 - number * 4, now=number * 4)
        assert rules.compute(known, 100, at(number * 4)).burst <= 1.1


@pytest.mark.parametrize("requests", [0, -5])
def test_budget_without_requests_may_not_read(requests: int) -> None:
    assert not ReadBudget(requests, 60, reserve=100, margin=100).may_read


windows = st.builds(
    lambda limit, share, ours, left, before, ahead: RateLimitWindow(
        limit, int(limit * share), at(left), T0, ours, before, ahead
    ),
    st.integers(0, 100_000), st.floats(0, 1), st.integers(0, 100_000), st.floats(-10, 7200),
    st.none() | st.floats(0, 100), st.floats(0, 1000),
)  # fmt: skip


@given(windows, st.integers(0, 1000), st.floats(0, 7200))
def test_rate_never_exceeds_remaining_budget(
    known: RateLimitWindow, kept: int, later: float
) -> None:
    spend = rules.compute(known, kept, at(later))
    assert 0 <= spend.requests_per_second * spend.seconds <= max(spend.requests, 0) + 1e-6


@given(windows, st.integers(0, 1000), st.integers(0, 1000))
def test_rate_does_not_rise_with_reserve(known: RateLimitWindow, one: int, other: int) -> None:
    less, more = sorted([one, other])
    rate = rules.compute(known, more, T0).requests_per_second
    assert rate <= rules.compute(known, less, T0).requests_per_second


@given(
    st.none() | windows,
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 7200)), max_size=8),
)
def test_window_after_any_responses_has_no_negative_values(
    known: RateLimitWindow | None, said: list[tuple[int, int, float]]
) -> None:
    for number, (limit, remaining, left) in enumerate(said):
        known = rules.after_response(known, RateLimit(limit, remaining, left), 0, at(number))
        assert known.other_requests >= 0
        assert known.own_requests >= 0
        assert known.burst > 0
        assert known.others_rate >= 0
