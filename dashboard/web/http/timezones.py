"""The zone of a page's times: the dashboard's, unless this browser has chosen another.

The choice is a cookie, so that the server writes all times of a page in one zone, with JavaScript
or without. A page keeps its zone for as long as it is open, whatever another tab has chosen since:
htmx sends it by a header with all that it fetches for the page, and so with its stream.
"""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from django.urls import reverse
from django.utils import timezone

COOKIE = "zone"
HEADER = "Time-Zone"  # base.html has htmx send it
KEPT_FOR = 365 * 24 * 3600  # seconds


def known(name: str) -> ZoneInfo | None:
    """Return the zone of that name, or None where this machine knows none."""
    # Asked for by its name alone, ZoneInfo takes it for a path and fails in many ways.
    return ZoneInfo(name) if name in _names() else None


def of(request: HttpRequest) -> ZoneInfo | None:
    """Return the zone of what answers a request; None is the dashboard's.

    The admin keeps to that: its pages don't say in which zone they are.
    """
    if request.path.startswith(reverse("admin:index")):
        return None
    asked = request.headers.get(HEADER) or request.COOKIES.get(COOKIE, "")
    return None if asked == settings.TIME_ZONE else known(asked)


def others() -> list[str]:
    """Return the zones that a page offers beside its own, without the browser's: that knows it."""
    shown = timezone.get_current_timezone_name()
    return [name for name in dict.fromkeys([settings.TIME_ZONE, "UTC"]) if name != shown]


def label(local: datetime) -> str:
    """Return what the zone of a local time is called: "CET", or "UTC-03" where it has no name."""
    name = f"{local:%Z}"
    return name if name[:1].isalpha() else f"UTC{name}"


class ZoneMiddleware:
    """Has each answer written in the zone of its page."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        # Not activate(): threads outlive requests here.
        with timezone.override(of(request)):
            return self.get_response(request)


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())
