"""Parse primary keys from addresses and forms; invalid or too large ones are left out."""

from collections.abc import Iterable

MAX_DIGITS = 18  # whatever has more may not fit a database's 64 bits


def parse_pk(text: str) -> int | None:
    """Return the primary key in `text`, or None if it is no valid one."""
    is_key = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
    return int(text) if is_key else None


def parse_pks(texts: Iterable[str]) -> list[int]:
    """Return the valid primary keys among `texts`."""
    return [key for key in map(parse_pk, texts) if key is not None]
