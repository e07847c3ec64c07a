"""Where a page of runs begins: a run's place in the list, as addresses carry it."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATTERN = re.compile(r"([01])\.(-?\d{1,18})\.(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """Where a run stands in the list: in flight on top, then newest first; the top is greatest."""

    in_flight: bool
    created_at: datetime
    pk: int

    @property
    def encoded_text(self) -> str:
        """The place as part of an address."""
        microseconds = (self.created_at - _EPOCH) // timedelta(microseconds=1)
        return f"{self.in_flight:d}.{microseconds}.{self.pk}"

    @classmethod
    def decode(cls, text: str) -> Self | None:
        """Read what `written` wrote; None: it is no place. One that is made up is harmless."""
        parts = _PATTERN.fullmatch(text)
        if parts is None:
            return None
        try:
            created_at = _EPOCH + timedelta(microseconds=int(parts[2]))
        except OverflowError:
            return None
        return cls(parts[1] == "1", created_at, int(parts[3]))
