"""Single values of JSON, each as its type or as none at all. Pure.

A value of the wrong type is the same as none, so that one odd field never costs us a run.
"""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Annotated

import msgspec

type Json = dict[str, object]

MAX_ID_LENGTH = 255  # characters
MAX_TEXT_LENGTH = 20_000  # characters kept of any one text; real ones are far shorter

# An id that can be stored and put into a path unchanged. A proxy may resolve dot segments even when
# they are quoted.
_Id = Annotated[
    str,
    msgspec.Meta(max_length=MAX_ID_LENGTH, pattern=r"\A(?!\.\.?\Z)[^\x00-\x1f\ud800-\udfff]+\Z"),
]
_Integer = Annotated[int, msgspec.Meta(gt=-(2**31), lt=2**31)]  # as a database stores it

# PostgreSQL stores neither NUL nor lone surrogates; other control characters only garble pages and
# logs.
_INVALID_CHARS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_INVALID_MULTILINE_CHARS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
# Characters that nobody can see: controls, formats, surrogates, spaces, marks without a letter, and
# the letters and the Braille pattern that are blank by definition.
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Me"}
_INVISIBLE_CHARS = set("\u115f\u1160\u2800\u3164\uffa0")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # also rejects zero values and durations
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_MIN_MILLISECONDS, _MAX_MILLISECONDS = 1e11, 1e13  # as seconds: the year 5138 and later


def clean(text: str, *, multiline: bool = False) -> str:
    """Return the text with invalid characters replaced, cut to MAX_TEXT_LENGTH characters.

    `multiline` keeps newlines and tabs.
    """
    text = text[:MAX_TEXT_LENGTH]
    if multiline:
        return _INVALID_MULTILINE_CHARS.sub("\ufffd", text.replace("\r\n", "\n"))
    return _INVALID_CHARS.sub("\ufffd", text)


def as_text(value: object, *, multiline: bool = False) -> str | None:
    """Return the text, cleaned; None for one without a visible character or another type."""
    if not isinstance(value, str) or not any(map(_is_visible, value[:MAX_TEXT_LENGTH])):
        return None
    return clean(value, multiline=multiline)


def _is_visible(char: str) -> bool:
    return unicodedata.category(char) not in _INVISIBLE_CATEGORIES and char not in _INVISIBLE_CHARS


def as_id(value: object) -> str | None:
    """Return the id; None unless it can be stored and put into a path unchanged."""
    return _convert(value, _Id)


def as_bool(value: object) -> bool | None:
    """Return the boolean, sent as such or as its name; or None."""
    return _convert(value, bool)


def as_int(value: object) -> int | None:
    """Return a whole number, sent as number or digits, that fits a database integer; or None."""
    return _convert(value, _Integer)


def as_array(value: object) -> list[object]:
    """Return the array, or an empty one for any other value."""
    return value if isinstance(value, list) else []


def as_object(value: object) -> Json:
    """Return the object, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def as_datetime(value: object) -> datetime | None:
    """Return a time as an aware datetime in UTC; None for an absurd one or another type.

    Takes ISO 8601 with a space or a T, any fraction, and Z, an offset or nothing (which is UTC);
    and Unix seconds, as a number or as digits, or milliseconds.
    """
    # The API's pages show `2021-01-01 12:01:00.000Z` for runs and whole seconds in nodes.
    if isinstance(value, int | float) and _MIN_MILLISECONDS < value < _MAX_MILLISECONDS:
        value /= 1000
    time = _convert(value, datetime)
    if time is None:
        return None
    time = time.replace(tzinfo=time.tzinfo or UTC)
    return time.astimezone(UTC) if _EARLIEST <= time < _LATEST else None


def _convert[T](value: object, kind: type[T]) -> T | None:
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, UnicodeEncodeError):  # the latter: half of a surrogate pair
        return None
