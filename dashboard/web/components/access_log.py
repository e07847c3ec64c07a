"""The access log on a page: parse its filter from the query string, and load one page of events.

Invalid parameters are ignored with a warning.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from dashboard.models import AccessEvent
from dashboard.models.accounts.access import AccessKind
from dashboard.texts.rich_text import MessageTable
from dashboard.web.components.lists import record_pages
from dashboard.web.components.lists.record_pages import MAX_QUOTED, RecordFilter, RecordPage

PER_PAGE = 100
PARAMETERS = ("username", "kind")
MAX_NAME_LENGTH = 150  # of Django's user names
TONES = dict.fromkeys(
    (
        AccessKind.BREAK_GLASS,
        AccessKind.SIGN_IN_FAILED,
        AccessKind.PASSWORD_REFUSED,
        AccessKind.TOKEN_REFUSED,
    ),
    "warning",
)
_text = MessageTable({"unknown_kind": gettext_lazy("Unknown kind “%(kind)s” ignored.")})
GLYPHS = {"warning": "warning", "neutral": "check"}


@dataclass
class AccessFilter(RecordFilter):
    """The filter in a query string, and the choices of the filter form."""

    username: str = ""
    kind: str = ""

    @property
    def kinds(self) -> list[tuple[str, str | Promise]]:
        """The choices of `kind`, with their labels."""
        return list(AccessKind.choices)


def parse(query: Mapping[str, str]) -> AccessFilter:
    """Return the filter in a query string; ignore invalid parameters and add warnings."""
    access_filter = AccessFilter()
    values = access_filter.read(query, PARAMETERS)
    if username := values["username"][:MAX_NAME_LENGTH]:
        access_filter.username = access_filter.parameters["username"] = username
    if (kind := values["kind"]) in AccessKind.values:
        access_filter.kind = access_filter.parameters["kind"] = kind
    elif kind:
        access_filter.warnings.append(_text("unknown_kind", kind=kind[:MAX_QUOTED]))
    return access_filter


def load_events(
    access_filter: AccessFilter, before_pk: int | None, limit: int
) -> list[AccessEvent]:
    """Return up to `limit` matching events, newest first, with keys below `before_pk` if given."""
    events = AccessEvent.objects.order_by("-pk")
    if access_filter.username:
        events = events.filter(username=access_filter.username)
    if access_filter.kind:
        events = events.filter(kind=access_filter.kind)
    if before_pk is not None:
        events = events.filter(pk__lt=before_pk)
    return list(events[:limit])


def load_page(access_filter: AccessFilter) -> RecordPage[dict[str, Any]]:
    """Return the page of events that a filter selects."""
    load = partial(load_events, access_filter)
    return record_pages.load_page(access_filter, load, _row, PER_PAGE)


def _row(event: AccessEvent) -> dict[str, Any]:
    kind = AccessKind(event.kind)
    tone = TONES.get(kind, "neutral")
    return {"event": event, "tone": tone, "glyph": GLYPHS[tone], "label": str(kind.label)}
