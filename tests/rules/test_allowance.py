"""What is left of the hour, who spends it, and how fast reading may go. Pure."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import RateLimit
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.rate_budget import Allowance, Window

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
) -> Window:
    """A window of a thousand, as just heard."""
    return replace(Window(1000, remaining, at(left), T0, ours, before), **more)


def heard(
    known: Window | None, remaining: int, left: float, now: float = 0, limit: int = 1000
) -> Window:
    return rules.heard(known, RateLimit(limit, remaining, left), 100, at(now))


# What others spend


@pytest.mark.parametrize(
    ("remaining", "ours", "others"),
    [(1000, 0, 0), (990, 10, 0), (700, 100, 200), (995, 10, 0), (0, 0, 1000)],
)
def test_what_is_not_ours_is_others(remaining: int, ours: int, others: int) -> None:
    assert window(remaining, ours=ours).others == others


def test_others_rate_is_counted_from_the_windows_beginning() -> None:
    assert window(820, left=1800).others_per_second == 180 / 1800


def test_others_first_requests_are_no_flood() -> None:
    assert window(997, left=3599).others_per_second == 3 / 300


def test_others_habits_outlast_the_window() -> None:
    old = window(100, ours=0, left=1)  # others took 900
    new = heard(old, 999, 3600, now=2)
    assert (new.ours, new.others_per_second) == (1, pytest.approx(900 / 3599))


def test_others_habits_are_forgotten_in_a_few_windows() -> None:
    known = window(100, left=1)
    for hour in range(5):
        begun = heard(known, 999, 3600, now=2 + hour * 3600)
        known = replace(begun, seen_at=begun.resets_at - timedelta(seconds=1))
    assert known.others_per_second < 0.02


def test_what_others_will_take_is_left_to_them() -> None:
    spend = rules.allowance(window(600, ours=220, left=1800), 100, T0)  # others took 180
    assert (spend.requests, spend.others, spend.per_second) == (500, 180, 320 / 1800)


def test_others_who_seem_to_take_more_than_there_is_leave_a_quarter() -> None:
    # An estimate that is wrong must not stop reading until the window ends.
    spend = rules.allowance(window(500, left=1800), 100, T0)
    assert spend.others > spend.requests
    assert spend.per_second == 100 / 1800


def test_others_do_not_keep_aborts_from_being_followed() -> None:
    assert rules.allowance(window(200, left=1800), 100, T0).may_follow


# What an answer changes


def test_an_answer_is_one_request_of_ours() -> None:
    assert heard(window(990, ours=10), 989, 1800).ours == 11


def test_an_answer_that_was_overtaken_raises_nothing_but_is_counted() -> None:
    known = heard(window(980, ours=18), 983, 1801)
    assert (known.remaining, known.ours) == (980, 19)


def test_an_answer_from_the_last_window_changes_nothing() -> None:
    known = window(999, ours=1, left=3599)
    late = heard(known, 3, 1)
    assert (late.remaining, late.resets_at, late.ours) == (999, known.resets_at, 1)


def test_a_limit_that_drops_leaves_less_at_once() -> None:
    known = heard(window(900, ours=100), 399, 1800, limit=500)
    spend = rules.allowance(known, 50, T0)
    assert (known.ours, known.others, spend.requests) == (101, 0, 349)


def test_a_limit_that_rises_leaves_more_at_once() -> None:
    assert heard(window(10, ours=990), 1009, 1800, limit=2000).remaining == 1009


def test_an_answer_that_tells_nothing_is_counted() -> None:
    known = rules.heard(window(500, ours=500), None, 100, at(1))
    assert (known.remaining, known.ours, known.others) == (499, 501, 0)


def test_an_answer_that_tells_nothing_opens_no_window() -> None:
    known = rules.heard(window(500, left=10), None, 100, at(11))
    assert rules.allowance(known, 100, at(11)).requests == 900


def test_an_answer_that_tells_nothing_is_no_beginning() -> None:
    with pytest.raises(ValueError, match=r"^Nothing is known of the rate\.$"):
        rules.heard(None, None, 100, T0)


def test_the_first_answer_opens_a_window() -> None:
    assert heard(None, 499, 1800, now=5, limit=500) == Window(
        500, 499, at(1805), at(5), ours=1, others_before=None, ahead=1
    )


# Others have taken 60, and 72 in the hour before: 132 in an hour and a half. Ten seconds at the
# even rate are 4.2 requests.
KNOWN = window(900, ours=40, before=0.02, ahead=5.0, refused_until=at(70))


def without_pace(known: Window) -> Window:
    assert known.ahead == pytest.approx(5 - 4.2248 + 1, abs=1e-3)
    return replace(known, ahead=0)


def test_an_answer_of_the_same_window_is_believed_and_the_rest_is_kept() -> None:
    assert without_pace(heard(KNOWN, 890, 1791, now=10)) == Window(
        1000, 890, at(1801), at(10), 41, 0.02, 0, at(70)
    )


def test_an_answer_that_tells_nothing_is_taken_for_one_of_the_same_window() -> None:
    assert without_pace(rules.heard(KNOWN, None, 100, at(10))) == Window(
        1000, 899, at(1800), at(10), 41, 0.02, 0, at(70)
    )


def test_an_answer_of_another_window_begins_to_count_anew() -> None:
    assert without_pace(heard(KNOWN, 2999, 3600, now=10, limit=3000)) == Window(
        3000, 2999, at(3610), at(10), 1, 132 / 5400, 0, at(70)
    )


def test_an_answer_from_the_end_of_the_last_window_counts_for_the_pace_only() -> None:
    expected = replace(KNOWN, seen_at=at(10), ahead=0)
    assert without_pace(heard(KNOWN, 3, 20, now=10)) == expected


@pytest.mark.parametrize("left", [1770.1, 1829.9])
def test_two_answers_are_of_one_window_when_their_ends_are_near(left: float) -> None:
    assert heard(KNOWN, 890, left).ours == 41


@pytest.mark.parametrize("left", [1770, 1830])
def test_two_answers_are_of_two_windows_when_their_ends_are_not(left: float) -> None:
    assert heard(KNOWN, 890, left).ours == 1


def test_an_answer_that_ends_soon_is_of_the_last_window_only_within_half_a_minute() -> None:
    assert heard(KNOWN, 3, 29.9).remaining == 900
    assert heard(KNOWN, 3, 30).remaining == 3


def test_an_answer_at_a_windows_end_is_of_the_next() -> None:
    known = heard(window(500, ours=300, left=10), 999, 15, now=10)
    assert (known.remaining, known.ours) == (999, 1)


def test_an_answer_that_tells_nothing_at_a_windows_end_leaves_it_as_it_was() -> None:
    known = window(500, ours=300, left=10)
    after = rules.heard(known, None, 100, at(10))
    assert after == replace(known, seen_at=at(10), ahead=1)


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 0), (0, 0)])
def test_answers_that_tell_nothing_count_down_to_nothing(before: int, after: int) -> None:
    assert rules.heard(window(before), None, 100, T0).remaining == after


def test_the_reserve_slows_what_brings_a_burst_back_into_pace() -> None:
    known = window(900, ours=100, ahead=10.0)
    kept, none = (rules.heard(known, None, reserve, at(10)).ahead for reserve in (450, 0))
    assert (kept, none) == (pytest.approx(11 - 4500 / 1790), pytest.approx(11 - 9000 / 1790))


# What may be spent


def test_before_any_answer_an_hour_of_the_documented_limit_may_be_spent() -> None:
    expected = Allowance(900, 3600, 100, None, 0, 0, 100, kept=225)
    assert rules.allowance(None, 100, T0) == expected


def test_what_is_left_may_be_spent_until_the_window_ends() -> None:
    spend = rules.allowance(KNOWN, 100, at(10))
    assert (spend.requests, spend.seconds, spend.reserve, spend.slack) == (800, 1790, 100, 100)
    assert spend.others == pytest.approx(1790 * 132 / 5400)


@pytest.mark.parametrize("later", [1800, 1900])
def test_from_a_windows_end_on_a_full_one_may_be_spent(later: float) -> None:
    spend = rules.allowance(KNOWN, 100, at(later))
    assert (spend.requests, spend.seconds) == (900, 3600)
    assert spend.others == pytest.approx(3600 * 132 / 5400)


@pytest.mark.parametrize(("later", "until"), [(69, at(70)), (70, None), (71, None)])
def test_a_refusal_holds_until_its_end(later: float, until: datetime | None) -> None:
    assert rules.allowance(KNOWN, 100, at(later)).refused_until == until


def test_reading_is_as_far_ahead_as_the_even_rate_has_left_of_it() -> None:
    assert rules.allowance(KNOWN, 100, at(10)).ahead == pytest.approx(5 - 4.2248, abs=1e-3)
    assert rules.allowance(KNOWN, 100, at(100)).ahead == 0


def test_an_answer_from_the_future_leaves_the_pace_as_it_was() -> None:
    assert rules.allowance(KNOWN, 100, at(-10)).ahead == 5


def test_a_short_pause_keeps_what_good_answers_said() -> None:
    known = window(985, ours=15)
    after = rules.refused(known, 5, T0)
    assert after == replace(known, refused_until=at(5), refusals=1)
    assert rules.allowance(after, 100, at(5)).requests == 885


def test_a_pause_until_the_windows_end_says_that_the_hour_is_spent() -> None:
    after = rules.refused(window(985, ours=15), 1800, T0)
    assert (after.remaining, after.refused_until) == (0, at(1800))


def test_a_refusal_never_takes_back_what_was_ours() -> None:
    assert rules.refused(window(900, ours=1100), 1800, T0).ours == 1100


def test_a_refusal_says_nothing_of_others() -> None:
    before = window(500, ours=400)
    after = rules.refused(before, 1800, T0)
    assert (after.remaining, after.others) == (0, before.others)


@pytest.mark.parametrize(("asked", "seconds"), [(0, 1), (0.5, 1), (5, 5), (10**9, 3600)])
def test_a_pause_is_believed_within_bounds(asked: float, seconds: float) -> None:
    assert rules.refused(window(985), asked, T0).refused_until == at(seconds)
    assert rules.refused(None, asked, T0).refused_until == at(seconds)


def test_what_is_refused_during_a_pause_is_no_further_refusal() -> None:
    known = rules.refused(window(985), 5, T0)
    assert rules.refused(known, 5, at(1)) == replace(known, refused_until=at(6))
    assert rules.refused(known, 2, at(1)) == known
    assert rules.refused(known, None, at(4.9)) == known


def in_a_row(asked: float | None, times: int, known: Window) -> list[float]:
    """The seconds of each pause, where each is followed by another 429."""
    now, pauses = T0, []
    for _ in range(times):
        known = rules.refused(known, asked, now)
        assert known.refused_until is not None
        pauses.append((known.refused_until - now).total_seconds())
        now = known.refused_until
    return pauses


def test_each_429_after_a_pause_makes_the_next_longer() -> None:
    assert in_a_row(5, 4, window(985, left=3600)) == [5, 10, 20, 40]
    assert in_a_row(None, 4, window(985, left=3600)) == [60, 120, 240, 480]


def test_pauses_grow_to_a_quarter_of_an_hour_unless_more_is_asked_for() -> None:
    assert in_a_row(600, 3, window(985, left=7200)) == [600, 900, 900]
    assert in_a_row(1000, 3, window(985, left=7200)) == [1000, 1000, 1000]
    assert in_a_row(1, 12, window(985, left=7200))[-1] == 900


def test_a_pause_of_which_nothing_is_said_ends_with_the_window() -> None:
    assert in_a_row(None, 2, window(985, left=100)) == [60, 40]


def paused(seconds: float = 5) -> Window:
    return rules.refused(window(985, ours=15), seconds, T0)


@pytest.mark.parametrize(("later", "probing"), [(4.9, False), (5, True), (500, True)])
def test_after_a_pause_one_request_tries(later: float, probing: bool) -> None:
    spend = rules.allowance(paused(), 100, at(later))
    assert (spend.probing, spend.may_abort_many) == (probing, False)
    assert (rules.probe(paused(), at(later)) is not None) is probing


def test_one_request_tries_at_a_time() -> None:
    trying = rules.probe(paused(), at(6))
    assert trying is not None
    assert trying == replace(paused(), probe_until=at(26))
    assert rules.probe(trying, at(25.9)) is None
    assert rules.allowance(trying, 100, at(25.9)).probe_until == at(26)
    assert rules.probe(trying, at(26)) is not None


def test_nothing_tries_without_a_pause() -> None:
    assert rules.probe(window(985), T0) is None
    assert not rules.allowance(window(985), 100, T0).probing


def test_an_answer_to_what_was_asked_after_the_pause_ends_it() -> None:
    trying = rules.probe(paused(), at(6))
    after = rules.heard(trying, RateLimit(1000, 984, 1794), 100, at(6.2), asked_at=at(6))
    assert (after.refusals, after.refused_until, after.probe_until) == (0, None, None)
    assert after.remaining == 984


def test_an_answer_to_what_was_asked_before_the_pauses_end_does_not() -> None:
    after = rules.heard(paused(), RateLimit(1000, 984, 1794), 100, at(5.1), asked_at=at(4.9))
    assert (after.refusals, after.refused_until) == (1, at(5))


def test_a_429_to_the_one_that_tried_is_a_further_one() -> None:
    trying = rules.probe(paused(), at(6))
    after = rules.refused(trying, 5, at(6))
    assert (after.refusals, after.refused_until, after.probe_until) == (2, at(16), None)


def test_a_refusal_before_any_answer_assumes_the_documented_limit_and_no_others() -> None:
    known = rules.refused(None, 90, T0)
    assert (known.limit, known.remaining, known.others) == (1000, 0, 0)
    assert (known.seen_at, known.resets_at, known.refused_until) == (T0, at(90), at(90))


def test_a_refusal_that_says_nothing_lasts_until_the_window_ends_where_nothing_is_left() -> None:
    assert rules.refused(window(0, left=1800), None, T0).refused_until == at(1800)
    assert rules.refused(window(1, left=1800), None, T0).refused_until == at(60)


@pytest.mark.parametrize("left", [0, -10])
def test_a_refusal_that_says_nothing_after_the_windows_end_lasts_a_minute(left: float) -> None:
    assert rules.refused(window(500, left=left), None, T0).refused_until == at(60)


# First reads


@pytest.mark.parametrize(
    ("known", "may"),
    [
        (None, 575),  # a quarter of 900 is left for what is in flight, and the slack
        (window(1000, left=3600), 575),
        (window(1000, left=3600, ahead=40), 615),
        (window(1000, left=3600, ahead=400), 675),
        (window(600, ours=400, left=1800), 287),  # half an hour is left: a quarter of 450 is kept
        (window(325, ours=675, left=3600), 0),
        (window(500, ours=500, left=900), 243),
        (window(1000, left=3600, before=600 / 3600), 125),  # others take 600, as far as is known
        (window(1000, left=3600, before=2.0), 0),  # all, it seems
        (window(100, ours=900, left=1800), 0),
        (window(0, ours=900, left=1800), 0),
    ],
)
def test_first_reads_leave_the_reserve_others_part_and_something_to_follow_with(
    known: Window | None, may: int
) -> None:
    assert rules.allowance(known, 100, T0).first_reads == may


def test_what_the_next_hour_gives_goes_by_others_habits() -> None:
    spend = rules.allowance(window(600, ours=100, left=1800), 100, T0)  # others took 300
    following = spend.next_hour(1000)
    assert (following.requests, following.seconds, following.others) == (900, 3600, 600)
    assert following.first_reads == 125


# Pace


def burst(requests: int, known: Window | None = None) -> Window:
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
def test_a_burst_ends_at_the_slack(sent: int, discover: bool, read: bool) -> None:
    spend = rules.allowance(burst(sent) if sent else None, 100, T0)
    assert (spend.may_discover, spend.may_read) == (discover, read)


def test_the_even_rate_brings_a_burst_back_into_pace() -> None:
    known = burst(150)
    rate = rules.allowance(known, 100, T0).per_second
    assert rules.allowance(known, 100, at(40 / rate)).ahead == pytest.approx(110, abs=3)


def test_reading_at_the_even_rate_is_never_ahead() -> None:
    known = None
    for number in range(800):
        known = heard(known, 999 - number, 3600 - number * 4, now=number * 4)
        assert rules.allowance(known, 100, at(number * 4)).ahead <= 1.1


@pytest.mark.parametrize("requests", [0, -5])
def test_nothing_is_read_from_the_reserve(requests: int) -> None:
    assert not Allowance(requests, 60, reserve=100, slack=100).may_read


windows = st.builds(
    lambda limit, share, ours, left, before, ahead: Window(
        limit, int(limit * share), at(left), T0, ours, before, ahead
    ),
    st.integers(0, 100_000), st.floats(0, 1), st.integers(0, 100_000), st.floats(-10, 7200),
    st.none() | st.floats(0, 100), st.floats(0, 1000),
)  # fmt: skip


@given(windows, st.integers(0, 1000), st.floats(0, 7200))
def test_the_rate_never_spends_more_than_is_left(known: Window, kept: int, later: float) -> None:
    spend = rules.allowance(known, kept, at(later))
    assert 0 <= spend.per_second * spend.seconds <= max(spend.requests, 0) + 1e-6


@given(windows, st.integers(0, 1000), st.integers(0, 1000))
def test_a_larger_reserve_never_means_a_higher_rate(known: Window, one: int, other: int) -> None:
    less, more = sorted([one, other])
    rate = rules.allowance(known, more, T0).per_second
    assert rate <= rules.allowance(known, less, T0).per_second


@given(
    st.none() | windows,
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 7200)), max_size=8),
)
def test_whatever_is_said_what_is_known_stays_sane(
    known: Window | None, said: list[tuple[int, int, float]]
) -> None:
    for number, (limit, remaining, left) in enumerate(said):
        known = rules.heard(known, RateLimit(limit, remaining, left), 0, at(number))
        assert known.others >= 0
        assert known.ours >= 0
        assert known.ahead > 0
        assert known.others_per_second >= 0
