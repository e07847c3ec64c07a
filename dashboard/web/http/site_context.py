"""What every page shows: which upstream this is, what is switched off, and what is wrong."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.functional import cached_property

from dashboard.aborts import messages as abort_messages
from dashboard.models import Upstream


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """Northflank does not answer as it should: why, and since when."""

    text: str
    started_at: datetime


class SiteContext:
    """Read by templates; asks the database only where it is asked."""

    def __init__(self, theme: str = "") -> None:
        self.theme = theme if theme in {"light", "dark"} else ""  # else the system's
        self.sandbox = settings.SANDBOX
        self.read_only = settings.READ_ONLY
        self.aborts_disabled = not settings.ABORTS_ENABLED

    @cached_property
    def upstream_error(self) -> UpstreamError | None:
        """What keeps us from reading Northflank, if anything does."""
        upstream = Upstream.objects.exclude(error="").first()
        if upstream is None or upstream.error_since is None:
            return None
        return UpstreamError(
            abort_messages.end_with_period(upstream.error_message), upstream.error_since
        )

    @property
    def upstream_down(self) -> bool:
        """Whether what is shown may be old because Northflank can't be read."""
        return self.upstream_error is not None


def site_context(request: HttpRequest) -> dict[str, Any]:
    """Context processor: adds `site`."""
    return {"site": for_request(request)}


def for_request(request: HttpRequest) -> SiteContext:
    """Return what every page shows, the same for all parts of one request."""
    site: SiteContext | None = getattr(request, "_site_context", None)
    if site is None:
        site = request._site_context = SiteContext(request.COOKIES.get("theme", ""))  # type: ignore[attr-defined]
    return site
