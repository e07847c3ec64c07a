"""Tolerant readers of single values: each takes any JSON value and never raises. Pure.

A value of the wrong type reads like a missing one, so that one odd field never costs us a run.
"""

import math
import re
from datetime import UTC, datetime

MAX_TEXT_LENGTH = 20_000  # characters kept of any one text; real ones are far shorter
MAX_ID_LENGTH = 255

# PostgreSQL stores neither NUL nor lone surrogates; other control characters only garble pages and
# logs.
_INVALID_CHARS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_INVALID_ID_CHARS = re.compile("[\x00-\x1f\ud800-\udfff]")  # no other costs a run
_INVALID_MULTILINE_CHARS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_INTEGER = re.compile(r"-?[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
# A URL may carry a secret before the host (credentials), in its path (chat webhooks) or behind it.
_URL = re.compile(r"\b([a-z][a-z0-9+.-]{1,20}://)([^\s\"'<>]*)", re.IGNORECASE)

_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)  # also rejects zero values and durations
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_MIN_MILLISECONDS = 1e11  # as seconds it would be the year 5138
_MAX_INTEGER = 2**31 - 1


def clean(text: str, *, multiline: bool = False) -> str:
    """Return the text as it can be stored and shown, at most LONGEST_TEXT characters of it.

    `lines` keeps newlines and tabs.
    """
    text = text[:MAX_TEXT_LENGTH]
    if multiline:
        return _INVALID_MULTILINE_CHARS.sub("\ufffd", text.replace("\r\n", "\n"))
    return _INVALID_CHARS.sub("\ufffd", text)


def redact_urls(text: str) -> str:
    """Return the text with each URL reduced to its scheme and host."""
    return _URL.sub(_redact_url, text)


def _redact_url(url: re.Match[str]) -> str:
    authority, slash, rest = re.split(r"([/?#]|$)", url[2], maxsplit=1)
    if "@" in rest:
        # An unquoted password may hold a slash: what looks like the host may be a user.
        return f"{url[1]}…"
    host = authority.rpartition("@")[2]
    return f"{url[1]}{host}/…" if slash else f"{url[1]}{host}"


def as_text(value: object, *, multiline: bool = False) -> str | None:
    """Read a text; None where there is none, or an empty one."""
    return clean(value, multiline=multiline) or None if isinstance(value, str) else None


def as_id(value: object) -> str | None:
    """Read an id; None unless it can be stored, and put into a path, exactly as it is."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_LENGTH:
        return None
    if _INVALID_ID_CHARS.search(value):
        return None
    # A proxy may resolve dot segments even when they are quoted.
    return None if value in {".", ".."} else value


def as_bool(value: object) -> bool | None:
    """Read a boolean."""
    return value if isinstance(value, bool) else None


def as_int(value: object) -> int | None:
    """Read a whole number that fits a database's integer, written as a number or as digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and abs(value) <= _MAX_INTEGER else None


def as_object(value: object) -> dict[str, object]:
    """Read an object; an empty one where there is none."""
    return value if isinstance(value, dict) else {}


def as_array(value: object) -> list[object]:
    """Read an array; an empty one where there is none."""
    return value if isinstance(value, list) else []


def as_datetime(value: object) -> datetime | None:
    """Read a time as an aware datetime in UTC; None for none, and for an absurd one.

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
