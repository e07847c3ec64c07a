"""What every page shows: which upstream this is, what is switched off, and what is wrong."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import cached_property

from dashboard.aborts import messages as abort_messages
from dashboard.models import Upstream
from dashboard.web.http import timezones


@dataclass(frozen=True, slots=True)
class Trouble:
    """Northflank does not answer as it should: why, and since when."""

    text: str
    since: datetime


class Everywhere:
    """Read by templates; asks the database only where it is asked."""

    def __init__(self, theme: str = "") -> None:
        self.theme = theme if theme in {"light", "dark"} else ""  # else the system's
        self.sandbox = settings.SANDBOX
        self.read_only = settings.READ_ONLY
        self.aborts_enabled = settings.ABORTS_ENABLED

    @cached_property
    def trouble(self) -> Trouble | None:
        """What keeps us from reading Northflank, if anything does."""
        known = Upstream.objects.exclude(error="").first()
        if known is None or known.error_since is None:
            return None
        return Trouble(abort_messages.sentence(known.error_message), known.error_since)

    @property
    def other_zones(self) -> list[str]:
        """In which zones beside its own a page could write its times."""
        return timezones.others()

    @property
    def blind(self) -> bool:
        """Whether what is shown may be old because Northflank can't be read."""
        return self.trouble is not None


def everywhere(request: HttpRequest) -> dict[str, Any]:
    """Context processor: `everywhere`."""
    return {"everywhere": of(request)}


def of(request: HttpRequest) -> Everywhere:
    """Return what every page shows, the same for all parts of one request."""
    known: Everywhere | None = getattr(request, "_everywhere", None)
    if known is None:
        known = request._everywhere = Everywhere(request.COOKIES.get("theme", ""))  # type: ignore[attr-defined]
    return known
