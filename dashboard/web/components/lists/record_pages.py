"""Pages of records that are only added, newest first: the filter in a query string, and one page.

A page starts below a key instead of having a number, so that paging neither repeats nor misses
records while others are added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

from django.db.models import Model
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

# Returns the rows with keys below the first argument (None: all), newest first, at most the second.
type Load[T] = Callable[[int | None, int], list[T]]


@dataclass
class RecordFilter:
    """The filter in a query string."""

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
    record_filter: RecordFilter, load: Load[T], build_row: Callable[[T], R], per_page: int
) -> RecordPage[R]:
    """Return the page of records that a filter selects."""
    records = load(record_filter.before_pk, per_page + 1)
    page_records = records[:per_page]
    return RecordPage(
        rows=[build_row(record) for record in page_records],
        older_url=record_filter.older_url(page_records[-1].pk) if len(records) > per_page else "",
    )
