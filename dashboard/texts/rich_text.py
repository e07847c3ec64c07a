"""Messages, which are texts by key with parameters, and their forms on pages and in lines. Pure.

A module has one table of its texts by key (`MessageTable`). A message is a key and parameters:
tests assert these, and `tests/texts.txt` pins the words. Each text is a whole sentence, with
placeholders for its names and times.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import cast

from django.utils.functional import Promise
from django.utils.translation import gettext as _

from dashboard.models.typical_duration import TypicalDuration
from dashboard.texts import durations, local_time

_PLACEHOLDER = re.compile(r"%\((\w+)\)[sd]")


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The time since `at`: "for 18 min"."""

    at: datetime


@dataclass(frozen=True, slots=True)
class Countdown:
    """The time until `at`: "in 40 s", and then "due now"."""

    at: datetime


@dataclass(frozen=True, slots=True)
class ClockTime:
    """A point in time; as text, the local time of day.

    A message may be kept for days, so its text does not depend on today: the date is included if it
    differs from that of `reference`.
    """

    at: datetime
    reference: datetime | None

    def __str__(self) -> str:
        return local_time.format_clock_time(self.at, self.reference)


class ExternalText(str):
    """Text not written by us, on one line and cut to a length; pages isolate it in `<bdi>`."""

    __slots__ = ()

    def __new__(cls, text: str, max_length: int = 80) -> "ExternalText":
        """Fold whitespace and cut the text to `max_length` characters."""
        folded = " ".join(text.split())
        return super().__new__(
            cls, folded if len(folded) <= max_length else f"{folded[: max_length - 1]}…"
        )


class Link(str):
    """A URL; dialog.js makes it absolute by the page's own address."""

    __slots__ = ()


type Part = str | Elapsed | Countdown | ClockTime
type RichText = Part | Message | tuple[RichText, ...]
type Value = int | TypicalDuration | RichText
# A text, or a function from a number `n` to it. (`ngettext_lazy` is not safe between threads.)
type Template = str | Promise | Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Message:
    """A text of a table, by its key, with the values of its placeholders."""

    key: str
    params: Mapping[str, Value] = field(hash=False)
    template: Template = field(compare=False, repr=False)

    def __str__(self) -> str:
        return "".join(map(str, self.parts()))

    def parts(self) -> Iterator[Part]:
        """Yield the parts of the text."""
        template = self.template
        text = template(cast("int", self.params["n"])) if callable(template) else str(template)
        for index, piece in enumerate(_split(text)):
            if index % 2:
                yield from parts(self.params[piece])
            elif piece:
                yield piece


@cache  # of the texts of the tables only
def _split(text: str) -> list[str]:
    """Return what is between the placeholders, and at odd positions their names."""
    return [piece.replace("%%", "%") for piece in _PLACEHOLDER.split(text)]


class MessageTable:
    """The texts of a module by key; called with a key and parameters, it returns the message."""

    def __init__(self, templates: Mapping[str, Template]) -> None:
        self._templates = templates

    def __call__(self, key: str, /, **params: Value) -> Message:
        return Message(key, params, self._templates[key])

    def __contains__(self, key: str) -> bool:
        return key in self._templates

    def __iter__(self) -> Iterator[str]:
        return iter(self._templates)


def parts(value: Value) -> Iterator[Part]:
    """Yield the parts of a text: strings, and times that a page keeps current; no empty ones."""
    match value:
        case Message():
            yield from value.parts()
        case tuple():
            for text in value:
                yield from parts(text)
        case TypicalDuration():
            yield durations.format_typical(value)
        case int():
            yield str(value)
        case _ if value != "":
            yield value


def join_texts(*texts: RichText, separator: str = " ") -> tuple[RichText, ...]:
    """Return the texts with a separator between them, without empty ones."""
    result: list[RichText] = []
    for text in texts:
        if text and result:
            result.append(separator)
        if text:
            result.append(text)
    return tuple(result)


def to_text(text: RichText, now: datetime | None = None) -> str:
    """Return rich text as plain text; its elapsed times and countdowns, if any, are as of `now`."""
    return "".join(
        format_time_part(part, now) if now and isinstance(part, Elapsed | Countdown) else str(part)
        for part in parts(text)
    )


def to_dated_text(text: RichText) -> str:
    """Return rich text as plain text in which each clock time has its date and time zone."""
    return "".join(
        local_time.format_full(part.at) if isinstance(part, ClockTime) else str(part)
        for part in parts(text)
    )


def format_time_part(part: Elapsed | Countdown, now: datetime) -> str:
    """Return the text of a time part as of `now`."""
    if isinstance(part, Elapsed):
        return _("for %(time)s") % {"time": durations.format_elapsed(now - part.at)}
    if part.at <= now:
        return _("due now")
    return _("in %(time)s") % {"time": durations.format_elapsed(part.at - now)}
