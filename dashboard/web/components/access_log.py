"""The access log on a page: parse its filter from the query string, and load one page of events.

Invalid parameters are ignored with a warning.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.utils.functional import Promise
from django.utils.translation import gettext as _

from dashboard.accounts import access_log
from dashboard.models import AccessEvent
from dashboard.models.accounts.access import AccessKind
from dashboard.web.http import keys

PER_PAGE = 100
PARAMETERS = ("username", "kind", "before")
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
GLYPHS = {"warning": "warning", "neutral": "check"}


@dataclass
class AccessFilter:
    """The filter in a query string, and the choices of the filter form."""

    username: str = ""
    kind: str = ""
    before_pk: int | None = None  # an event's key: only events with lower keys match
    warnings: list[str] = field(default_factory=list)  # about ignored parameters, for the user

    @property
    def kinds(self) -> list[tuple[str, str | Promise]]:
        """The choices of `kind`, with their labels."""
        return list(AccessKind.choices)

    @property
    def parameters(self) -> dict[str, str]:
        """The valid parameters, without the position in the list."""
        values = {"username": self.username, "kind": self.kind}
        return {name: value for name, value in values.items() if value}

    @property
    def query_string(self) -> str:
        """The filter as a query string, without the position in the list."""
        return urlencode(self.parameters)


def parse(query: Mapping[str, str]) -> AccessFilter:
    """Return the filter in a query string; ignore invalid parameters and add warnings."""
    values = {name: query.get(name, "").replace("\0", "").strip() for name in PARAMETERS}
    access_filter = AccessFilter(
        username=values["username"][:MAX_NAME_LENGTH], before_pk=keys.parse_pk(values["before"])
    )
    access_filter.warnings += [
        _("Unknown filter “%(name)s” ignored.") % {"name": name[:80]}
        for name in query
        if name not in PARAMETERS
    ]
    if values["kind"] in AccessKind.values:
        access_filter.kind = values["kind"]
    elif values["kind"]:
        access_filter.warnings.append(
            _("Unknown kind “%(kind)s” ignored.") % {"kind": values["kind"][:80]}
        )
    if values["before"] and access_filter.before_pk is None:
        access_filter.warnings.append(
            _("Invalid position “%(before)s”; showing newest events.")
            % {"before": values["before"][:80]}
        )
    return access_filter


@dataclass(frozen=True, slots=True)
class AccessRow:
    """An event as the page shows it."""

    event: AccessEvent
    tone: str
    glyph: str
    label: str


@dataclass(frozen=True, slots=True)
class PageOfEvents:
    """One page of the log, newest first; `older_url` is empty on the last."""

    rows: list[AccessRow]
    older_url: str


def load_events(
    access_filter: AccessFilter, before_pk: int | None, limit: int
) -> list[AccessEvent]:
    """Return up to `limit` matching events, newest first, with keys below `before_pk` if given."""
    events = access_log.find_events(
        username=access_filter.username, kind=access_filter.kind, before_pk=before_pk
    )
    return list(events[:limit])


def load_page(access_filter: AccessFilter) -> PageOfEvents:
    """Return the page of events that a filter selects."""
    events = load_events(access_filter, access_filter.before_pk, PER_PAGE + 1)
    shown = events[:PER_PAGE]
    older = {**access_filter.parameters, "before": str(shown[-1].pk)} if shown else {}
    return PageOfEvents(
        rows=[_row(event) for event in shown],
        older_url=f"?{urlencode(older)}" if len(events) > PER_PAGE else "",
    )


def _row(event: AccessEvent) -> AccessRow:
    kind = AccessKind(event.kind)
    tone = TONES.get(kind, "neutral")
    return AccessRow(event, tone, GLYPHS[tone], str(kind.label))
