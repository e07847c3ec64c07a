"""What query strings of lists share: the dates `from` and `to`, and a text to search for."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.translation import gettext_lazy

from dashboard.texts.rich_text import Message, MessageTable

MAX_LENGTH = 200  # characters of a text
_YEARS = range(1970, 9000)  # other years overflow in time zone conversion or in a database
_PRECISIONS = {len("2026-03-31"): timedelta(1), len("2026-03-31T14:30"): timedelta(minutes=1)}
_text = MessageTable(
    {
        "invalid_date": gettext_lazy(
            "Invalid date “%(day)s” ignored; use 2026-03-31 or 2026-03-31T14:30."
        ),
        "text_cut": gettext_lazy(
            "Only the first %(count)d characters of “%(text)s…” are searched."
        ),
    }
)


def cut_text(text: str, warnings: list[Message]) -> str:
    """Return a text without what databases refuse, cut at MAX_LENGTH with a warning."""
    text = text.replace("\0", "").strip()
    if len(text) > MAX_LENGTH:
        warnings.append(_text("text_cut", count=MAX_LENGTH, text=text[:40]))
    return text[:MAX_LENGTH].strip()


def read_dates(
    query: Mapping[str, str], warnings: list[Message]
) -> tuple[dict[str, datetime], dict[str, str]]:
    """Return the bounds, the first inclusive and the second not, and their valid texts, by name.

    Each is the day or minute of an ISO 8601 text in the current time zone; others are ignored, with
    a warning.
    """
    bounds, texts = {}, {}
    for name in ("from", "to"):
        if not (value := query.get(name, "").strip()):
            continue
        start, precision = _parse_date(value), _PRECISIONS.get(len(value))
        if start is None or precision is None:
            warnings.append(_text("invalid_date", day=value[:80]))
            continue
        # Added before the zone is attached: a day has not always 24 hours.
        bounds[name] = timezone.make_aware(start if name == "from" else start + precision)
        texts[name] = start.isoformat(timespec="minutes")[: len(value)]
    return bounds, texts


def _parse_date(text: str) -> datetime | None:
    try:
        start = datetime.fromisoformat(text)
    except ValueError:
        return None
    return start if start.tzinfo is None and start.year in _YEARS else None
