"""Single values of JSON: every form that Northflank sends or documents, and odd ones."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank.values import as_datetime, as_id, as_int, as_text, clean

NOON = datetime(2021, 1, 1, 12, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2021-01-01 12:01:00.000Z",
        "2021-01-01T12:01:00.000Z",
        "2021-01-01T12:01:00Z",
        "2021-01-01 12:01:00",
        "2021-01-01T13:01:00+01:00",
        "2021-01-01T12:01:00.000000000Z",
        1609502460,
        1609502460.0,
        "1609502460",
        1609502460000,
    ],
)
def test_time_in_every_form_is_parsed_the_same(value: Any) -> None:
    assert as_datetime(value) == NOON
    assert as_datetime(value).tzinfo is UTC  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "value",
    [
        None, True, "", "soon", {}, [], 0, -1, 300, 1e300, float("nan"), float("inf"), 10**400,
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "1" * 500, 1609502460000000,
        "X2021-01-01T12:01:00", "2021-01-01T12:01:00X",
    ],
)  # fmt: skip
def test_invalid_time_is_none(value: Any) -> None:
    assert as_datetime(value) is None


def test_time_is_valid_from_2000_until_2200() -> None:
    assert as_datetime("1999-12-31T23:59:59Z") is None
    assert as_datetime("2000-01-01T00:00:00Z") == datetime(2000, 1, 1, tzinfo=UTC)
    assert as_datetime("2199-12-31T23:59:59Z") == datetime(2199, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert as_datetime("2200-01-01T00:00:00Z") is None


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("a\x00b", "a\ufffdb"),
        ("a\ud800", "a\ufffd"),
        ("\x1b[31m", "\ufffd[31m"),
        ("a\nb", "a\ufffdb"),
    ],
)
def test_text_with_control_characters_has_them_replaced(text: str, cleaned: str) -> None:
    assert as_text(text) == cleaned


def test_text_is_cleaned_to_one_line_by_default() -> None:
    assert clean("a\nb\tc") == "a\ufffdb\ufffdc"


def test_multiline_text_keeps_lines_and_tabs() -> None:
    assert as_text("a\r\nb\tc\x00", multiline=True) == "a\nb\tc\ufffd"


BLANK_TEXTS = [
    "", " ", " \t\n", "\xa0\u2003\u3000", "\u200b\u200d\u2060\ufeff", "\u202e\u2066", "\x00\x1b",
    "\ud800", "\ufe0f\u034f", "\u3164\uffa0\u115f\u1160\u2800", "\u2028\u2029", " " * 20_001 + "x",
]  # fmt: skip


@pytest.mark.parametrize("payload", BLANK_TEXTS, ids=ascii)
def test_text_without_visible_character_is_none(payload: str) -> None:
    assert as_text(payload) is None
    assert as_text(payload, multiline=True) is None


@pytest.mark.parametrize("payload", [".", "\u200bx", "  é", "👩‍🚀", "ๆ", "\ue000"])
def test_text_with_visible_character_is_kept_as_sent(payload: str) -> None:
    assert as_text(payload) == payload


def test_long_text_is_truncated_at_20000_characters() -> None:
    assert as_text("x" * 10_240) == "x" * 10_240
    assert as_text("x" * 99_999) == "x" * 20_000


@pytest.mark.parametrize(
    ("value", "number"),
    [(3, 3), (3.0, 3), ("3", 3), (True, None), (3.5, None), ("${args.x}", None), (2**40, None)],
)
def test_integer_is_parsed_only_from_whole_numbers(value: Any, number: int | None) -> None:
    assert as_int(value) == number


def test_integer_is_parsed_only_within_the_range_of_a_database() -> None:
    most = 2**31 - 1
    assert [as_int(most), as_int(-most), as_int(str(most))] == [most, -most, most]
    assert as_int(most + 1) is None


def test_id_of_up_to_255_characters_is_kept() -> None:
    assert as_id("x" * 255) == "x" * 255
    assert as_id("x" * 256) is None


@given(st.text(st.characters(codec=None)))
def test_any_text_cleaned_is_storable(text: str) -> None:
    cleaned = clean(text, multiline=True)
    assert "\x00" not in cleaned
    cleaned.encode()
