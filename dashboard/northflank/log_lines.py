"""Lines of a log as they can be shown: without secrets, control characters and escapes. Pure."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dashboard.northflank.secret_values import SecretValues
from dashboard.northflank.secrets_in_texts import redact_lines

MAX_SHOWN = 4_000  # characters of a line
# Secrets are looked for well beyond what is shown, so that none is cut in two.
_MAX_READ = 4 * MAX_SHOWN

# What a container's runtime puts before a line: time, stream, and F for its end or P for a part.
# https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
_PREFIX = re.compile(
    r"(?:\d{4}-\d\d-\d\dT[\d:.]{8,20}(?:Z|[+-]\d\d:\d\d) )?(?:stdout|stderr) (?P<tag>[FP])(?: |\Z)"
)
# Terminal escapes (ECMA-48): styles; other sequences; strings, such as the address of a link.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)(?:(?P<styles>[0-9;]*+)m|[0-?]*+[ -/]*+[@-~])"
    r"|\x1b[\]PX^_][^\x07\x1b\x9c]*+(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*+[0-~]?"
)
_COLOURS = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
# Characters that cannot be seen, or reorder others, get a visible form. The latter get it after
# secrets are removed, since they may be within one.
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"}
_CONTROLS |= dict.fromkeys([*range(0x7F, 0xA0), *range(0xD800, 0xE000)], "\ufffd")
_REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Span(NamedTuple):
    """A part of a line, and its style: any of “bold”, “bright” and a colour, in this order."""

    text: str
    style: str


@dataclass(frozen=True, slots=True)
class ShownLine:
    """A line as it can be shown, cut to MAX_SHOWN characters."""

    index: int  # of the first of the lines that it was made of
    spans: list[Span]  # of a line with secrets one, without style
    is_redacted: bool
    omitted: int  # characters that were cut off

    @property
    def text(self) -> str:
        """The line without styles."""
        return "".join(span.text for span in self.spans)


def show_lines(lines: Sequence[str], values: SecretValues) -> list[ShownLine]:
    """Return the lines of a log, oldest first, without secrets, such as the `values` of the run.

    A line that the runtime has cut into parts is one again; of a progress bar the last state
    counts. All lines have to be passed at one time: a private key has several.
    """
    joined = [(index, _last_state(line)) for index, line in _join_parts(lines)]
    parsed = [list(_parse(line[:_MAX_READ])) for _index, line in joined]
    texts = ["".join(span.text for span in spans)[:_MAX_READ] for spans in parsed]
    shown = []
    # Escapes may be within a secret, so they go first.
    for (index, line), spans, (text, is_redacted) in zip(
        joined, parsed, redact_lines(texts, values), strict=True
    ):
        kept, excess = _cut([Span(text, "")] if is_redacted else spans)
        omitted = excess + max(len(line) - _MAX_READ, 0)
        shown.append(ShownLine(index, kept, is_redacted, omitted))
    return shown


def _join_parts(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield each whole line without the runtime's prefixes, with the index of its first part."""
    parts: list[str] = []
    for index, line in enumerate(lines, start=1):
        prefix = _PREFIX.match(line)
        parts.append(line[prefix.end() :] if prefix else line)
        if prefix is None or prefix["tag"] == "F" or index == len(lines):
            yield index - len(parts), "".join(parts)
            parts = []


def _last_state(line: str) -> str:
    """Return what a terminal shows of each line that returns to its start to write it anew."""
    lines = line.replace("\r\n", "\n").rstrip("\r\n").split("\n")
    return "\n".join(part.rstrip("\r").rpartition("\r")[2] for part in lines)


def _parse(line: str) -> Iterator[Span]:
    position, bold, colour = 0, "", ""
    for escape in _ESCAPES.finditer(line):
        yield from _span(line[position : escape.start()], bold, colour)
        position = escape.end()
        if escape["styles"] is not None:
            bold, colour = _restyle(escape["styles"], bold, colour)
    yield from _span(line[position:], bold, colour)


def _span(text: str, bold: str, colour: str) -> list[Span]:
    style = " ".join(filter(None, (bold, colour)))
    return [Span(text.translate(_CONTROLS), style)] if text else []


def _restyle(codes: str, bold: str, colour: str) -> tuple[str, str]:
    """Return weight and colour after an escape; all but bold and 16 colours of text is ignored."""
    rest = iter([int(code[-4:] or 0) for code in codes.split(";")])
    for code in rest:
        if code == 0:
            bold, colour = "", ""
        elif code in {1, 22}:
            bold = "bold" if code == 1 else ""
        elif code in {38, 48, 58}:  # more colours: 5;n or 2;r;g;b
            others = [next(rest, 0) for _ in range({5: 1, 2: 3}.get(next(rest, 0), 0))]
            if code == 38:
                colour = _colour(*others) if len(others) == 1 else ""
        elif 30 <= code <= 37 or 90 <= code <= 97:
            colour = _colour(code - 30 if code < 40 else code - 82)
        elif code == 39:
            colour = ""
    return bold, colour


def _colour(number: int) -> str:
    """Return the name of one of the 16 colours; of others none."""
    return ("bright " if number > 7 else "") + _COLOURS[number % 8] if number < 16 else ""


def _cut(spans: list[Span]) -> tuple[list[Span], int]:
    """Return the first MAX_SHOWN characters, and how many follow."""
    kept: list[Span] = []
    room = MAX_SHOWN
    for span in spans:
        text = _REORDERING.sub(lambda mark: f"<U+{ord(mark[0]):04X}>", span.text)
        if room > 0:
            kept.append(Span(text[:room], span.style))
        room -= len(text)
    return kept, max(-room, 0)
