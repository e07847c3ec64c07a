"""Lines of logs as they are shown."""

import json

import pytest

from dashboard.northflank import SecretValues, show_lines
from dashboard.northflank.log_lines import MAX_SHOWN, Span

NONE = SecretValues()


def show(line: str) -> str:
    [shown] = show_lines([line], NONE)
    return shown.text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("2023-04-13T08:18:13.944190216Z stdout F TEST", "TEST"),
        ("2023-04-13T08:18:13.944+02:00 stderr F TEST", "TEST"),
        ("stdout F This is a log line", "This is a log line"),
        ("stdout F", ""),
        ("stdout Found", "stdout Found"),
        ("2023-04-13T08:18:13Z started", "2023-04-13T08:18:13Z started"),
        ("done\r\n", "done"),
        ("10 %\r50 %\r100 %", "100 %"),
        ("10 %\r100 %\r\r\n", "100 %"),
        ("one\r\ntwo\r\n\r\nthree\r\n", "one\ntwo\n\nthree"),
        ("10 %\r100 %\r\n1 MB\r2 MB", "100 %\n2 MB"),
        ("\tindented", "\tindented"),
        ("a\0b\x08c\x7fd\x85", "a␀b␈c\ufffdd\ufffd"),
        ("a\u202eb\u2066", "a<U+202E>b<U+2066>"),
        (json.loads(r'"half \ud83d of a pair"'), "half \ufffd of a pair"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("a\x1b[2K\x1b[1;1Hb\x1b[?25lc", "abc"),
        ("\x1b]8;;https://h\x1b\\link\x1b]8;;\x07 \x1b]0;title\x07x", "link x"),
        ("a\x1b]never ended", "anever ended"),
        ("a\x1b[31", "a31"),
        ("a\x1b", "a"),
        ("a\x1b(Bb\x1b=c\x9b31md", "abcd"),
        ("", ""),
    ],
)
def test_lines_lose_what_is_not_text(line: str, shown: str) -> None:
    assert show(line) == shown


@pytest.mark.parametrize(
    ("codes", "style"),
    [
        ("31", "red"),
        ("1;32", "bold green"),
        ("94", "bright blue"),
        ("1", "bold"),
        ("4;7;3;45", ""),
        ("38;5;9", "bright red"),
        ("38;5;200", ""),
        ("38;2;1;31;1", ""),
        ("38;2", ""),
        ("48;5;1;33", "yellow"),
        ("31;39", ""),
        ("1;31;22", "red"),
        ("1;31;0", ""),
        ("1;31;", ""),
        ("31;999999999999999999999", "red"),
    ],
)
def test_colours_and_bold_become_styles(codes: str, style: str) -> None:
    [line] = show_lines([f"a\x1b[{codes}mb\x1b[mc"], NONE)
    assert line.spans == [Span("a", ""), Span("b", style), Span("c", "")]


def test_parts_of_a_line_become_one() -> None:
    lines = ["stdout P to", "stdout P ken=", "stdout F pw", "next", "stdout P last"]
    assert [(line.index, line.text) for line in show_lines(lines, NONE)] == [
        (0, "token=[redacted]"),
        (3, "next"),
        (4, "last"),
    ]


def test_secrets_with_escapes_in_them_are_removed_with_the_styles_of_the_line() -> None:
    lines = ["\x1b[33mpass\x1b[1mword\x1b[0m=\x1b[36mhunt\x1b[31mer2", "\x1b[31mred"]
    shown = show_lines(lines, NONE)
    assert [(line.spans, line.is_redacted) for line in shown] == [
        ([Span("password=[redacted]", "")], True),
        ([Span("red", "red")], False),
    ]


def test_long_lines_are_cut() -> None:
    [line] = show_lines(["\x1b[31m" + "x" * 100_000], NONE)
    assert line.spans == [Span("x" * MAX_SHOWN, "red")]
    assert line.omitted == 100_000 - MAX_SHOWN
    assert show_lines(["x" * MAX_SHOWN], NONE)[0].omitted == 0


def test_secrets_at_the_cut_are_removed_whole() -> None:
    [line] = show_lines(
        ["x" * (MAX_SHOWN - 5) + " " + "argument-1" * 3], SecretValues(["argument-1"])
    )
    assert "argu" not in line.text
    assert line.omitted > 0


def test_no_lines_are_none() -> None:
    assert show_lines([], NONE) == []


@pytest.mark.parametrize(
    "part", ["\x1b", "\x1b[", "\x1b]", "\x1b]a", "\x1b[1;", "\x1b[31m", "\x9b", "\r", "\0", "1;"]
)
def test_time_is_linear_in_the_length(part: str) -> None:
    show("\x1b[" + part * (100_000 // len(part)))
