"""Bulk aborts on pages: each as a whole, and those of its runs that have no abort.

A user sees the runs in stages that they may see, and the bulk aborts with at least one of them.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, QuerySet
from django.utils.translation import gettext_lazy

from dashboard.aborts import categories
from dashboard.accounts.permissions import Permissions
from dashboard.models import BulkAbort, BulkAbortItem
from dashboard.models.bulk_aborts import BulkAbortItemResult
from dashboard.runs.statuses import StatusDisplay
from dashboard.texts.rich_text import Message, MessageTable

# How a run without an abort is shown: label, tone and icon.
_WITHOUT_ABORT = {
    BulkAbortItemResult.WAITING: (gettext_lazy("Waiting"), "waiting", "clock"),
    BulkAbortItemResult.JOINED: (gettext_lazy("Aborted elsewhere"), "warning", "stop"),
    BulkAbortItemResult.ENDED: (gettext_lazy("Already ended"), "neutral", "skip"),
    BulkAbortItemResult.NOT_ALLOWED: (gettext_lazy("Not allowed"), "bad", "lock"),
}
_text = MessageTable(
    {
        "summary": gettext_lazy("%(n)d requested: %(counts)s."),
        "partial_summary": gettext_lazy("%(n)d requested (only runs you may view): %(counts)s."),
    }
)


@dataclass(frozen=True, slots=True)
class BulkAbortRow:
    """A bulk abort as a whole, with the runs that the user may see."""

    bulk_abort: BulkAbort
    items: list[BulkAbortItem]  # at least one
    is_partial: bool  # it contains runs that the user may not see

    @property
    def is_finished(self) -> bool:
        """Whether how its runs stand is final."""
        return not any(map(is_open, self.items))

    @property
    def is_waiting(self) -> bool:
        """Whether some of its runs are still to be processed."""
        return any(item.result == BulkAbortItemResult.WAITING for item in self.items)

    @property
    def summary(self) -> Message:
        """As in “12 requested: 7 aborted, 3 under way, 1 already ended, 1 waiting.”."""
        counts = Counter(label(item) for item in self.items).most_common()
        texts = (f"{count} {name[:1].lower()}{name[1:]}" for name, count in counts)
        key = "partial_summary" if self.is_partial else "summary"
        return _text(key, n=len(self.items), counts=", ".join(texts))


def load_rows(permissions: Permissions, bulk_aborts: Collection[BulkAbort]) -> list[BulkAbortRow]:
    """Return the rows of bulk aborts that the user may see, in order."""
    all_items = BulkAbortItem.objects.filter(bulk_abort__in=bulk_aborts)
    item_counts = Counter(all_items.order_by().values_list("bulk_abort", flat=True))
    visible = all_items.filter(permissions.stage_filter("run__stage"))
    # Without what is large, and not shown in lists.
    items = visible.select_related("abort", "run__stage__pipeline__project").defer(
        "run__steps", "run__description"
    )
    by_bulk_abort: dict[int, list[BulkAbortItem]] = {}
    for item in items:
        by_bulk_abort.setdefault(item.bulk_abort_id, []).append(item)
    return [
        BulkAbortRow(bulk, own_items, is_partial=item_counts[bulk.pk] > len(own_items))
        for bulk in bulk_aborts
        if (own_items := by_bulk_abort.get(bulk.pk))
    ]


def visible_bulk_aborts(permissions: Permissions) -> QuerySet[BulkAbort]:
    """Return the bulk aborts with a run in a stage that the user may see."""
    items = BulkAbortItem.objects.filter(permissions.stage_filter("run__stage")).order_by()
    return BulkAbort.objects.filter(Exists(items.filter(bulk_abort=OuterRef("pk"))))


def is_open(item: BulkAbortItem) -> bool:
    """Return whether a run waits for its abort, or its abort is under way."""
    if item.abort is None:
        return item.result == BulkAbortItemResult.WAITING
    return item.abort.settled_at is None


def label(item: BulkAbortItem) -> str:
    """Return how a run stands, in a few words: the category of its abort, or why it has none."""
    if item.abort is None:
        return str(_WITHOUT_ABORT[BulkAbortItemResult(item.result)][0])
    return str(categories.CATEGORIES[categories.category(item.abort, item.run)].label)


def display_without_abort(item: BulkAbortItem) -> StatusDisplay:
    """Return how a run without an abort is shown."""
    name, tone, glyph = _WITHOUT_ABORT[BulkAbortItemResult(item.result)]
    return StatusDisplay(str(name), "", tone, glyph)
