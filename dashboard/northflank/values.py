"""Single values of JSON, each as its type or as none at all. Pure.

Each `as_` function takes any JSON value and never raises. A value of the wrong type is the same as
none, so that one odd field never costs us a run.
"""

import math
import re
import unicodedata
from datetime import UTC, datetime

MAX_ID_LENGTH = 255  # characters
MAX_TEXT_LENGTH = 20_000  # characters kept of any one text; real ones are far shorter

# PostgreSQL stores neither NUL nor lone surrogates; other control characters only garble pages and
# logs.
_INVALID_CHARS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_INVALID_MULTILINE_CHARS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_INVALID_ID_CHARS = re.compile("[\x00-\x1f\ud800-\udfff]")  # no other costs a run
# Characters that nobody can see: controls, formats, surrogates, spaces, marks without a letter, and
# the letters and the Braille pattern that are blank by definition.
_INVISIBLE_CATEGORIES = {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Me"}
_INVISIBLE_CHARS = set("\u115f\u1160\u2800\u3164\uffa0")
_INTEGER = re.compile(r"-?[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
_MAX_INTEGER = 2**31 - 1
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # also rejects zero values and durations
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_MIN_MILLISECONDS = 1e11  # as seconds it would be the year 5138


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
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        return None
    if _INVALID_ID_CHARS.search(value):
        return None
    # A proxy may resolve dot segments even when they are quoted.
    return None if value in {".", ".."} else value


def as_bool(value: object) -> bool | None:
    """Return the boolean, or None."""
    return value if isinstance(value, bool) else None


def as_int(value: object) -> int | None:
    """Return a whole number, sent as number or digits, that fits a database integer; or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and abs(value) <= _MAX_INTEGER else None


def as_array(value: object) -> list[object]:
    """Return the array, or an empty one for any other value."""
    return value if isinstance(value, list) else []


def as_object(value: object) -> dict[str, object]:
    """Return the object, or an empty one for any other value."""
    return value if isinstance(value, dict) else {}


def as_datetime(value: object) -> datetime | None:
    """Return a time as an aware datetime in UTC; None for an absurd one or another type.

    Takes ISO 8601 with a space or a T, any fraction, and Z, an offset or nothing (which is UTC);
    and Unix seconds or milliseconds, as a number or as digits.
    """
    # The API's pages show `2021-01-01 12:01:00.000Z` for runs and whole seconds in nodes.
    try:
        if isinstance(value, str):
            # One documented example carries a stray quote.
            value = value.strip(" \"'")
            if not _NUMBER.fullmatch(value):
                parsed_time = datetime.fromisoformat(value)
                return _plausible(
                    parsed_time.replace(tzinfo=parsed_time.tzinfo or UTC).astimezone(UTC)
                )
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if not math.isfinite(value):
            return None
        seconds = value / 1000 if value > _MIN_MILLISECONDS else value
        return _plausible(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):
        return None


def _plausible(time: datetime) -> datetime | None:
    return time if _EARLIEST <= time < _LATEST else None
