"""Pagination cursor for runs: a run's position in the list, encoded for query strings."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATTERN = re.compile(r"([01])\.(-?\d{1,18})\.(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A run's position in the list (in flight first, then newest first)."""

    in_flight: bool
    created_at: datetime
    pk: int

    @property
    def encoded_text(self) -> str:
        """The position as text for a query string; `decode` reads it."""
        microseconds = (self.created_at - _EPOCH) // timedelta(microseconds=1)
        return f"{self.in_flight:d}.{microseconds}.{self.pk}"

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """Return the cursor for an `encoded_text`, or None if the text is not valid.

        The text is not authenticated: a forged cursor only selects another position in the list.
        """
        parts = _PATTERN.fullmatch(text)
        if parts is None:
            return None
        try:
            created_at = _EPOCH + timedelta(microseconds=int(parts[2]))
        except OverflowError:
            return None
        return cls(parts[1] == "1", created_at, int(parts[3]))
