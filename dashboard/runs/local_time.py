"""Points in time as text in the deployment's time zone, with its name."""

from datetime import datetime

from django.utils import timezone


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


def format_time(local: datetime) -> str:
    """Return the time of day: "20:30:00"."""
    return local.time().isoformat("seconds")


def _zone_name(local: datetime) -> str:
    # Many zones have no name, only an offset such as "-03".
    name = local.tzname() or ""
    return name if name[:1].isalpha() else f"UTC{name}"
