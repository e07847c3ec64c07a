"""What the x-ratelimit headers say."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import RateLimit
from dashboard.northflank.ratelimit import parse_rate_limit

WEEK = 7 * 24 * 3600
# What looks like a number and may be none.
NUMBER_LIKE = st.from_regex(r"[ ]?[-+]?[0-9_]{1,13}([.,][0-9]{0,10})?(e[0-9])?[ ]?", fullmatch=True)
FULL = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "998", "x-ratelimit-reset": "3541.5"}


def test_rate_limit_headers_are_case_insensitive() -> None:
    upper_case = {name.upper(): value for name, value in FULL.items()}
    assert parse_rate_limit(FULL) == parse_rate_limit(upper_case) == RateLimit(1000, 998, 3541.5)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("value", [None, "", "-1", "many", "nan", "inf", "1_000", "1, 2", "٣"])
def test_missing_or_invalid_header_gives_no_rate_limit(name: str, value: str | None) -> None:
    headers = {key: sent for key, sent in (FULL | {name: value}).items() if sent is not None}
    assert parse_rate_limit(headers) is None


def test_unix_time_as_reset_gives_no_rate_limit() -> None:
    assert parse_rate_limit(FULL | {"x-ratelimit-reset": "1760000000"}) is None


@given(
    st.tuples(
        st.integers(0, 10**12 - 1),
        st.integers(0, 10**12 - 1),
        st.decimals(0, WEEK, places=3),
    )
)
def test_any_plain_numbers_are_parsed(sent: tuple[int, int, Decimal]) -> None:
    limit, remaining, reset = sent
    headers = {name: f" {number} " for name, number in zip(FULL, sent, strict=True)}
    assert parse_rate_limit(headers) == RateLimit(limit, remaining, float(reset))


@given(st.sampled_from(list(FULL)), st.text() | NUMBER_LIKE)
def test_any_header_gives_its_value_or_no_rate_limit(name: str, value: str) -> None:
    headers = FULL | {name: value}
    parse_html = parse_rate_limit(headers)
    if parse_html is None:
        return
    limit, remaining, reset = (float(headers[name]) for name in FULL)
    assert parse_html == RateLimit(int(limit), int(remaining), reset)
    assert min(limit, remaining, reset) >= 0
    assert reset <= WEEK
