"""Data for every page: the upstream, disabled features, and the upstream error."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from django.conf import settings
from django.db.models import Value
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject, cached_property

from dashboard import __version__
from dashboard.aborts import messages as abort_messages
from dashboard.db import health as db_health
from dashboard.db.prepared import PreparedQuery
from dashboard.models import CatalogSync, Upstream
from dashboard.upstream import access_hint


@dataclass(frozen=True, slots=True)
class UpstreamError:
    """The upstream error: why Northflank can't be read, and since when."""

    text: str
    started_at: datetime
    hint: str = ""  # what to check if Northflank refuses the token or its role
    is_outage: bool = True  # False: only the list of projects is refused, known stages are read


class SiteContext:
    """Template context `site`; the database is queried only when a template uses it."""

    def __init__(self, theme: str = "") -> None:
        self.theme = theme
        self.sandbox = settings.SANDBOX
        self.read_only = settings.READ_ONLY
        self.aborts_disabled = not settings.ABORTS_ENABLED
        self.version = __version__

    @cached_property
    def database_down_since(self) -> datetime | None:
        """The start of the outage of a database that can be read: else no page is rendered.

        As of its first use, since the view may find the outage.
        """
        return db_health.down_since()

    @cached_property
    def upstream_error(self) -> UpstreamError | None:
        """The upstream error, else the refusal of the list of projects, else None."""
        # An outage comes before the refusal of the list of projects.
        for is_outage, error, message, since in sorted(_errors_query().fetch(), reverse=True):
            text = abort_messages.end_with_period(message)
            return UpstreamError(text, since, access_hint.describe(error), is_outage)
        return None

    @property
    def upstream_down(self) -> bool:
        """Whether Northflank can't be read, so that the data shown may be outdated."""
        return self.upstream_error is not None and self.upstream_error.is_outage


@cache
def _errors_query() -> PreparedQuery:
    columns = "error", "error_message", "error_since"
    upstream = Upstream.objects.exclude(error="")
    projects = CatalogSync.objects.filter(project=None, error__in=access_hint.CAUSES)
    outages, refusals = (
        rows.exclude(error_since=None).order_by().values_list(Value(is_outage), *columns)
        for rows, is_outage in ((upstream, True), (projects, False))
    )
    return PreparedQuery(outages.union(refusals, all=True))


# The entry of the navigation by the first part of an address.
_ENTRIES = {
    **{name: name for name in ("board", "aborts", "search", "health")},
    **dict.fromkeys(("", "away"), "now"),
    **dict.fromkeys(("account", "people", "notices", "access"), "my_account"),
}


def site_context(request: HttpRequest) -> dict[str, Any]:
    """Context processor: adds `site`, `nav`, and the name of the signed-in user."""

    def username() -> str:
        return request.user.get_username()

    first, *others = request.path_info.strip("/").split("/")
    is_project = first == "projects" and len(others) == 1  # its page is a board
    return {
        "site": for_request(request),
        "nav": "board" if is_project else _ENTRIES.get(first, ""),
        "username": SimpleLazyObject(username),
    }


def for_request(request: HttpRequest) -> SiteContext:
    """Return the site context, one object per request."""
    site: SiteContext | None = getattr(request, "_site_context", None)
    if site is None:
        site = request._site_context = SiteContext(theme(request))  # type: ignore[attr-defined]
    return site


def theme(request: HttpRequest) -> str:
    """Return the theme that the user chose; empty: the system's."""
    value = request.COOKIES.get("theme", "")
    return value if value in {"light", "dark"} else ""
