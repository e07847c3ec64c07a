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
def test_every_form_of_a_time_reads_the_same(sent: Any) -> None:
    assert reading.moment(sent) == NOON
    assert reading.moment(sent).tzinfo is UTC  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "sent",
    [
        None, True, "", "soon", {}, [], 0, -1, 300, 1e300, float("nan"), float("inf"), 10**400,
        "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "1" * 500, 1609502460000000,
    ],
)  # fmt: skip
def test_an_absurd_time_is_none(sent: Any) -> None:
    assert reading.moment(sent) is None


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("a\x00b", "a\ufffdb"),
        ("a\ud800", "a\ufffd"),
        ("\x1b[31m", "\ufffd[31m"),
        ("a\nb", "a\ufffdb"),
    ],
)
def test_what_postgresql_refuses_is_replaced(sent: str, kept: str) -> None:
    assert reading.text(sent) == kept


def test_descriptions_keep_lines_and_tabs() -> None:
    assert reading.text("a\r\nb\tc\x00", lines=True) == "a\nb\tc\ufffd"


def test_a_long_text_is_kept_and_an_endless_one_cut() -> None:
    assert reading.text("x" * 10_240) == "x" * 10_240
    assert reading.text("x" * 99_999) == "x" * 20_000


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("pull https://user:pw@reg.io/a?sig=1 failed", "pull https://reg.io/… failed"),
        ("postgres://u:p/w@db/x", "postgres://…"),
        ("see http://h", "see http://h"),
    ],
)
def test_urls_lose_what_may_be_secret(sent: str, kept: str) -> None:
    assert reading.without_url_secrets(sent) == kept


@pytest.mark.parametrize(
    ("sent", "number"),
    [(3, 3), (3.0, 3), ("3", 3), (True, None), (3.5, None), ("${args.x}", None), (2**40, None)],
)
def test_whole_numbers(sent: Any, number: int | None) -> None:
    assert reading.integer(sent) == number


@given(st.text(st.characters(codec=None)))
def test_a_text_once_read_can_be_stored(sent: str) -> None:
    kept = reading.clean(sent, lines=True)
    assert "\x00" not in kept
    kept.encode()
