"""Parse primary keys from URLs and forms; invalid or too large ones are ignored."""

from collections.abc import Iterable

MAX_DIGITS = 18  # more may exceed a 64-bit integer column


def parse_pk(text: str) -> int | None:
    """Return the primary key in `text`, or None if it is not valid."""
    is_key = text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS
    return int(text) if is_key else None


def parse_pks(texts: Iterable[str]) -> list[int]:
    """Return the valid primary keys among `texts`."""
    return [key for key in map(parse_pk, texts) if key is not None]
