"""The tolerant readers of single values."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import reading

NOON = datetime(2021, 1, 1, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "sent",
    [
        "2021-01-01 12:01:00.000Z",
        "2021-01-01T12:01:00.000Z",
        "2021-01-01T12:01:00Z",
        "2021-01-01 12:01:00",
        "2021-01-01T12:01",
        "2021-01-01T13:01:00+01:00",
        "2021-01-01T12:01:00.000000000Z",
        '"2021-01-01T12:01:00.000Z',
        1609502460,
        1609502460.0,
        "1609502460",
        1609502460000,
        "1609502460000",
    ],
)
def test_time_in_every_form_is_parsed_the_same(sent: Any) -> None:
    assert reading.as_datetime(sent) == NOON
    assert reading.as_datetime(sent).tzinfo is UTC  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "sent",
    [
        None, True, "", "soon", {}, [], 0, -1, 300, 1e300, float("nan"), float("inf"), 10**400,
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "1" * 500, 1609502460000000,
    ],
)  # fmt: skip
def test_invalid_time_is_none(sent: Any) -> None:
    assert reading.as_datetime(sent) is None


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a\x00b", "a\ufffdb"),
        ("a\ud800", "a\ufffd"),
        ("\x1b[31m", "\ufffd[31m"),
        ("a\nb", "a\ufffdb"),
    ],
)
def test_text_with_control_characters_has_them_replaced(sent: str, kept: str) -> None:
    assert reading.as_text(sent) == kept


def test_multiline_text_keeps_lines_and_tabs() -> None:
    assert reading.as_text("a\r\nb\tc\x00", multiline=True) == "a\nb\tc\ufffd"


def test_long_text_is_truncated_at_20000_characters() -> None:
    assert reading.as_text("x" * 10_240) == "x" * 10_240
    assert reading.as_text("x" * 99_999) == "x" * 20_000


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("pull https://user:pw@reg.io/a?sig=1 failed", "pull https://reg.io/… failed"),
        ("postgres://u:p/w@db/x", "postgres://…"),
        ("see http://h", "see http://h"),
    ],
)
def test_urls_in_text_lose_secrets(sent: str, kept: str) -> None:
    assert reading.redact_urls(sent) == kept


@pytest.mark.parametrize(
    ("sent", "number"),
    [(3, 3), (3.0, 3), ("3", 3), (True, None), (3.5, None), ("${args.x}", None), (2**40, None)],
)
def test_integer_is_parsed_only_from_whole_numbers(sent: Any, number: int | None) -> None:
    assert reading.as_int(sent) == number


@given(st.text(st.characters(codec=None)))
def test_any_text_cleaned_is_storable(sent: str) -> None:
    kept = reading.clean(sent, multiline=True)
    assert "\x00" not in kept
    kept.encode()
