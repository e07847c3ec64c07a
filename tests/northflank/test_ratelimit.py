"""What the x-ratelimit headers say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import RateLimit
from dashboard.northflank.ratelimit import parse

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


@given(st.dictionaries(st.sampled_from(list(FULL)), st.text()))
def test_any_header_is_survived(headers: dict[str, str]) -> None:
    parse(headers)
