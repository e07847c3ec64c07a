"""Responses: the message of an error, the rate limit in headers."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dashboard.northflank import NorthflankError, RateLimit, responses
from dashboard.northflank.responses import parse_rate_limit
from tests.support import payloads

WEEK = 7 * 24 * 3600
# Looks like a number, and may not be one.
NUMBER_LIKE = st.from_regex(r"[ ]?[-+]?[0-9_]{1,13}([.,][0-9]{0,10})?(e[0-9])?[ ]?", fullmatch=True)
FULL = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": "998", "x-ratelimit-reset": "3541.5"}


def failure(status: int, body: Any) -> NorthflankError:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(NorthflankError) as error:
        responses.decode(status, {}, content, "TKN-1")
    return error.value


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "Not now"}},
        {"error": "Not now"},
        {"message": "Not now", "code": "conflict", "status": 409},
        {"error": {"message": "  Not\n\tnow\x00 "}},
    ],
)
def test_error_message_is_found_in_any_form_of_body(body: Any) -> None:
    assert str(failure(409, body)) == "Northflank refused (409): Not now"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<html>502</html>", b"upstream connect error", b"[]", b"null", b'{"error":',
        b"[" * 99999, b"\xff\xfe",
        b'{"error":{"message":7}}',
    ],
)  # fmt: skip
def test_error_without_message_shows_status_only(body: bytes) -> None:
    assert str(failure(502, body)) == "Northflank server error (502)."


def test_error_message_is_truncated() -> None:
    assert (
        len(str(failure(400, payloads.error("x" * 5000))))
        <= len("Northflank refused (400): ") + 300
    )


def test_error_message_redacts_token_and_url_secrets() -> None:
    message = "bad token TKN-1 for https://user:pw@api/x?key=abc"
    assert str(failure(400, payloads.error(message))) == (
        "Northflank refused (400): bad token … for https://[redacted]@api/…"
    )


@pytest.mark.parametrize(
    ("value", "error_id"),
    [("nf-1", "nf-1"), (None, None), ({}, None), ("x" * 999, "x" * 100)],
)
def test_error_id_is_kept(value: Any, error_id: str | None) -> None:
    assert failure(500, payloads.error("no", id=value)).error_id == error_id


# --- the rate limit ------------------------------------------------------------------------------


def test_rate_limit_is_parsed_as_documented() -> None:
    assert parse_rate_limit(FULL) == RateLimit(1000, 998, 3541.5)


@pytest.mark.parametrize("name", FULL)
@pytest.mark.parametrize("value", [None, "", "-1", "many", "nan", "inf", "1_000", "1, 2", "٣"])
def test_missing_or_invalid_header_gives_no_rate_limit(name: str, value: str | None) -> None:
    headers = {
        header: content for header, content in (FULL | {name: value}).items() if content is not None
    }
    assert parse_rate_limit(headers) is None


def test_unix_time_as_reset_gives_no_rate_limit() -> None:
    assert parse_rate_limit(FULL | {"x-ratelimit-reset": "1760000000"}) is None


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [("0", "0"), ("0.9", "0"), ("1000001", "1"), (str(2**31), "1"), ("9" * 12, "1")],
)
def test_implausible_limit_gives_no_rate_limit(limit: str, remaining: str) -> None:
    headers = FULL | {"x-ratelimit-limit": limit, "x-ratelimit-remaining": remaining}
    assert parse_rate_limit(headers) is None


@pytest.mark.parametrize("remaining", ["1001", str(2**31), "9" * 12])
def test_more_requests_left_than_the_limit_give_no_rate_limit(remaining: str) -> None:
    assert parse_rate_limit(FULL | {"x-ratelimit-remaining": remaining}) is None


@given(
    st.integers(1, 1_000_000).flatmap(
        lambda limit: st.tuples(
            st.just(limit), st.integers(0, limit), st.decimals(0, WEEK, places=3)
        )
    )
)
@example((1, 0, Decimal(0)))
@example((1_000_000, 1_000_000, Decimal(WEEK)))
def test_any_plausible_numbers_are_parsed(numbers: tuple[int, int, Decimal]) -> None:
    limit, remaining, reset = numbers
    headers = {name: f" {number} " for name, number in zip(FULL, numbers, strict=True)}
    assert parse_rate_limit(headers) == RateLimit(limit, remaining, float(reset))


@given(st.sampled_from(list(FULL)), st.text() | NUMBER_LIKE)
def test_any_header_gives_its_value_or_no_rate_limit(name: str, value: str) -> None:
    headers = FULL | {name: value}
    rate_limit = parse_rate_limit(headers)
    if rate_limit is None:
        return
    limit, remaining, reset = (float(headers[name]) for name in FULL)
    assert rate_limit == RateLimit(int(limit), int(remaining), reset)
    assert 1 <= int(limit) <= 1_000_000
    assert 0 <= int(remaining) <= int(limit)
    assert reset >= 0
    assert reset <= WEEK
