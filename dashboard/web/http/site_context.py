"""Data for every page: the upstream, disabled features, and the upstream error."""

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
    """The upstream error: why Northflank can't be read, and since when."""

    text: str
    started_at: datetime


class SiteContext:
    """Template context `site`; the database is queried only when a template uses it."""

    def __init__(self, theme: str = "") -> None:
        self.theme = theme if theme in {"light", "dark"} else ""  # empty: the system's theme
        self.sandbox = settings.SANDBOX
        self.read_only = settings.READ_ONLY
        self.aborts_disabled = not settings.ABORTS_ENABLED

    @cached_property
    def upstream_error(self) -> UpstreamError | None:
        """The upstream error, or None if Northflank can be read."""
        upstream = Upstream.objects.exclude(error="").first()
        if upstream is None or upstream.error_since is None:
            return None
        return UpstreamError(
            abort_messages.end_with_period(upstream.error_message), upstream.error_since
        )

    @property
    def upstream_down(self) -> bool:
        """Whether Northflank can't be read, so that the data shown may be outdated."""
        return self.upstream_error is not None


def site_context(request: HttpRequest) -> dict[str, Any]:
    """Context processor: adds `site`."""
    return {"site": for_request(request)}


def for_request(request: HttpRequest) -> SiteContext:
    """Return the site context, one object per request."""
    site: SiteContext | None = getattr(request, "_site_context", None)
    if site is None:
        site = request._site_context = SiteContext(request.COOKIES.get("theme", ""))  # type: ignore[attr-defined]
    return site
