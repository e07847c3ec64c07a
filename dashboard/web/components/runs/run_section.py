"""A section of a page: a list of runs with its heading and count, or why it is empty.

It is one live part, so that heading and rows change together. The event stream sends a placeholder
for each row that the page has already (see `fill`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from dashboard.models import Run
from dashboard.texts.rich_text import Message, RichText
from dashboard.web.components.lists.empty_states import EmptyState
from dashboard.web.components.runs.row_queries import RowKey


@dataclass(frozen=True, slots=True)
class RunsBelow:
    """Further runs below a row: those that wait behind its run and are listed elsewhere on the
    page, or those that failed before it by the same cause.
    """

    kind: str  # "waiting", "same-cause"
    key: int  # of the run that keeps them in place while others come: of the row, or of the last
    count: int
    runs: list[Run]  # the first ones

    @property
    def more_count(self) -> int:
        return self.count - len(self.runs)


@dataclass(frozen=True, slots=True)
class RunSection:
    """A section, prepared for its template."""

    name: str  # of its heading's element
    title: str
    caption: str
    count: int
    rows: list[RowKey]
    note: RichText = ""  # behind the count
    is_incomplete: bool = False  # there may be more runs than have been read
    truncated_text: Message | str = ""  # empty: all rows are shown
    empty: EmptyState | None = None
    is_hidden: bool = False
    is_announced: bool = False  # a run that joins it is announced to screen readers
    below: Mapping[int, RunsBelow] = field(default_factory=dict)  # by run key
    lists_ended: bool = False  # its runs have ended: their time is that of the end
    fold_after: int | None = None  # rows that are shown before those that a reader unfolds
    fold_text: Message | str = ""

    @property
    def id(self) -> str:
        """The id of its element."""
        return f"section-{self.name}"

    def render(self, html_by_pk: Mapping[int, SafeString]) -> SafeString:
        """Return its markup, with a placeholder for each row that is not in `html_by_pk`."""
        rows = []
        for key in self.rows:
            row = html_by_pk.get(key.pk) or placeholder(key)
            below = self.below.get(key.pk)
            rows.append(row + _render("below", {"below": below}) if below else row)
        context = {"section": self, "rows": rows[: self.fold_after]}
        if self.fold_after is not None:
            context["folded_rows"] = rows[self.fold_after :]
        return _render("section", context)


def placeholder(key: RowKey) -> SafeString:
    """Return an element that stands for a row: an open page keeps the row it has (live.js)."""
    return format_html('<tr id="{}" data-unchanged></tr>', key.dom_id)


def fill(html: str, keys: Iterable[RowKey], html_by_pk: Mapping[int, SafeString]) -> SafeString:
    """Replace the placeholders of some rows of a rendered section."""
    for key in keys:
        if key.pk in html_by_pk:
            html = html.replace(placeholder(key), html_by_pk[key.pk], 1)
    return mark_safe(html)  # noqa: S308


def _render(partial: str, context: Mapping[str, object]) -> SafeString:
    markup = render_to_string(f"components/run_section.html#{partial}", dict(context))
    return mark_safe(markup.strip())  # noqa: S308
