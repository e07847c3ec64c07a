"""Points in time as text in the deployment's time zone, with its name."""

from datetime import datetime

from django.utils import timezone
from django.utils.dates import MONTHS_3


def format_full(when: datetime) -> str:
    """Return a point in time with date and zone: "2026-01-31 20:30:00 CET"."""
    return format_local(timezone.localtime(when))


def format_local(local: datetime) -> str:
    """Like `format_full`, of a time that is in the deployment's zone already."""
    return f"{local.date().isoformat()} {format_time(local)} {_zone_name(local)}"


def format_clock(when: datetime) -> str:
    """Return a point in time without its date: "20:30:00 CET"."""
    local = timezone.localtime(when)
    return f"{format_time(local)} {_zone_name(local)}"


def format_clock_time(when: datetime, reference: datetime | None) -> str:
    """Return the time of day, with its date if that differs from the date of `reference`."""
    local = timezone.localtime(when)
    if reference is None or timezone.localdate(reference) == local.date():
        return format_time(local)
    return format_with_day(local, reference)


def format_with_day(local: datetime, reference: datetime | None = None) -> str:
    """Return a local time with its date: "3 Jan 04:05:06".

    The year is included ("3 Jan 2025 04:05:06") if it differs from that of `reference`, which
    defaults to now.
    """
    same_year = local.year == (reference or timezone.now()).astimezone(local.tzinfo).year
    # As Django's format "j M Y H:i:s", which takes ten times as long.
    month = str(MONTHS_3[local.month]).title()
    year = "" if same_year else f" {local.year}"
    return f"{local.day} {month}{year} {format_time(local)}"


def format_time(local: datetime) -> str:
    """Return the time of day: "20:30:00"."""
    return local.time().isoformat("seconds")


def _zone_name(local: datetime) -> str:
    # Many zones have no name, only an offset such as "-03".
    name = local.tzname() or ""
    return name if name[:1].isalpha() else f"UTC{name}"
