"""What the x-ratelimit headers say."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import RateLimit
from dashboard.northflank.ratelimit import parse

WEEK = 7 * 24 * 3600
# What looks like a number and may be none.
NEARLY = st.from_regex(r"[ ]?[-+]?[0-9_]{1,13}([.,][0-9]{0,10})?(e[0-9])?[ ]?", fullmatch=True)
FULL = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "998", "x-ratelimit-reset": "3541.5"}


def test_the_three_headers_are_read_in_any_case() -> None:
    shouted = {name.upper(): value for name, value in FULL.items()}
    assert parse(FULL) == parse(shouted) == RateLimit(1000, 998, 3541.5)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("value", [None, "", "-1", "many", "nan", "inf", "1_000", "1, 2", "٣"])
def test_a_missing_or_odd_header_tells_nothing(name: str, value: str | None) -> None:
    headers = {key: sent for key, sent in (FULL | {name: value}).items() if sent is not None}
    assert parse(headers) is None


def test_a_reset_that_is_a_unix_time_is_not_taken_for_seconds() -> None:
    assert parse(FULL | {"x-ratelimit-reset": "1760000000"}) is None


@given(
    st.tuples(
        st.integers(0, 10**12 - 1),
        st.integers(0, 10**12 - 1),
        st.decimals(0, WEEK, places=3),
    )
)
def test_any_plain_numbers_are_read(sent: tuple[int, int, Decimal]) -> None:
    limit, remaining, reset = sent
    headers = {name: f" {number} " for name, number in zip(FULL, sent, strict=True)}
    assert parse(headers) == RateLimit(limit, remaining, float(reset))


@given(st.sampled_from(list(FULL)), st.text() | NEARLY)
def test_any_header_tells_nothing_or_what_it_says(name: str, value: str) -> None:
    headers = FULL | {name: value}
    told = parse(headers)
    if told is None:
        return
    limit, remaining, reset = (float(headers[name]) for name in FULL)
    assert told == RateLimit(int(limit), int(remaining), reset)
    assert min(limit, remaining, reset) >= 0
    assert reset <= WEEK
