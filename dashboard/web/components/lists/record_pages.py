"""Pages of records that are only added, newest first: the filter in a query string, and one page.

A page starts below a key instead of having a number, so that paging neither repeats nor misses
records while others are added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.db.models import Model, Q, QuerySet
from django.utils.translation import gettext_lazy

from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.http import keys

POSITION = "before"
MAX_QUOTED = 80  # characters of a parameter that a warning repeats
_text = MessageTable(
    {
        "unknown_filter": gettext_lazy("Unknown filter “%(name)s” ignored."),
        "invalid_position": gettext_lazy("Invalid position “%(before)s”; showing the newest."),
    }
)


@dataclass(kw_only=True)
class RecordFilter:
    """The filter in a query string."""

    condition: Q = field(default_factory=Q)  # on the records
    before_pk: int | None = None  # a record's key: only records with lower keys match
    parameters: dict[str, str] = field(default_factory=dict)  # the valid ones, without `before`
    warnings: list[Message] = field(default_factory=list)  # about ignored parameters, for the user

    @property
    def query_string(self) -> str:
        """The filter as a query string, without the position in the list."""
        return urlencode(self.parameters)

    @property
    def newest_url(self) -> str:
        """The relative address of the first page; empty on the first page."""
        return f"?{self.query_string}" if self.before_pk is not None else ""

    def older_url(self, pk: int) -> str:
        """Return the relative address of the page that follows the record with key `pk`."""
        return "?" + urlencode({**self.parameters, POSITION: str(pk)})

    def narrow(self, name: str, value: str, condition: Q) -> None:
        """Add a parameter and its condition to the filter."""
        self.parameters[name] = value
        self.condition &= condition

    def matching[S: QuerySet[Any]](self, records: S, before_pk: int | None) -> S:
        """Return the matching records, newest first; only keys below `before_pk` if it is given."""
        found = records.filter(self.condition).order_by("-pk")
        return found if before_pk is None else found.filter(pk__lt=before_pk)

    def read(self, query: Mapping[str, str], names: Sequence[str]) -> dict[str, str]:
        """Read the position, and return the values of the parameters with these names.

        Others and an invalid position are ignored with a warning.
        """
        parameters = {*names, POSITION}
        values = {name: query.get(name, "").replace("\0", "").strip() for name in parameters}
        self.warnings += [
            _text("unknown_filter", name=name[:MAX_QUOTED])
            for name in query
            if name not in parameters
        ]
        before = values.pop(POSITION)
        self.before_pk = keys.parse_pk(before)
        if before and self.before_pk is None:
            self.warnings.append(_text("invalid_position", before=before[:MAX_QUOTED]))
        return values


@dataclass(frozen=True, slots=True)
class RecordPage[R]:
    """One page of a list, newest first; `older_url` is empty on the last."""

    rows: list[R]
    older_url: str


def load_page[T: Model, R](
    record_filter: RecordFilter, records: QuerySet[T], build_row: Callable[[T], R], per_page: int
) -> RecordPage[R]:
    """Return the page of records that a filter selects."""
    found = list(record_filter.matching(records, record_filter.before_pk)[: per_page + 1])
    return RecordPage(
        rows=[build_row(record) for record in found[:per_page]],
        older_url=record_filter.older_url(found[per_page - 1].pk) if len(found) > per_page else "",
    )
