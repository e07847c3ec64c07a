"""What Northflank's x-ratelimit headers say. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

_NUMBER_PATTERN = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?")
# The window is an hour. A "reset" beyond a week is not the seconds it is documented to be (a Unix
# time, say); believing it would silence us for years.
_MAX_RESET_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class RateLimit:
    """The account's request limit, as one answer tells it."""

    limit: int  # requests in a window
    remaining: int  # requests left in this window
    reset_seconds: float  # from the answer until the window ends


def parse_rate_limit(headers: Mapping[str, str]) -> RateLimit | None:
    """Return the rate limit that an answer's headers tell, or None if they tell none clearly."""
    # https://northflank.com/docs/v1/api/use-the-api
    lowercase_headers = {name.lower(): value for name, value in headers.items()}
    limit = parse_number(lowercase_headers.get("x-ratelimit-limit"))
    remaining = parse_number(lowercase_headers.get("x-ratelimit-remaining"))
    reset = parse_number(lowercase_headers.get("x-ratelimit-reset"))
    if limit is None or remaining is None or reset is None or reset > _MAX_RESET_SECONDS:
        return None
    return RateLimit(int(limit), int(remaining), reset)


def parse_number(value: str | None) -> float | None:
    """Return a header's plain non-negative number, or None."""
    value = (value or "").strip()
    return float(value) if _NUMBER_PATTERN.fullmatch(value) else None
