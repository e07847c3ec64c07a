"""Keys of rows in addresses and forms: what is none, or too large for a database, is left out."""

from collections.abc import Iterable

DIGITS = 18  # whatever has more may not fit a database's 64 bits


def read(text: str) -> int | None:
    """Return the key that a text is; None: it is none."""
    is_key = text.isascii() and text.isdecimal() and len(text) <= DIGITS
    return int(text) if is_key else None


def among(texts: Iterable[str]) -> list[int]:
    """Return the keys among texts."""
    return [key for key in map(read, texts) if key is not None]
