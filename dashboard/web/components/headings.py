"""Names in headings and tab titles: Northflank's may have thousands of characters."""

MAX_LENGTH = 120  # characters: five lines on a phone


def cut(name: str) -> str:
    """Return a name of at most MAX_LENGTH characters; the end of a longer one becomes “…”."""
    return name if len(name) <= MAX_LENGTH else f"{name[: MAX_LENGTH - 1]}…"
