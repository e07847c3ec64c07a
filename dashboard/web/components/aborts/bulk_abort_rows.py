"""Bulk aborts on pages: each as a whole, and its runs with their outcomes.

A user sees the runs in stages that they may see, and the bulk aborts with at least one of them.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from django.db.models import Exists, OuterRef, QuerySet
from django.urls import reverse

from dashboard.aborts import bulk_messages as bulk_abort_messages
from dashboard.aborts.bulk_messages import ItemOutcome
from dashboard.accounts.permissions import Permissions
from dashboard.models import BulkAbort, BulkAbortItem
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.bulk_aborts import BulkAbortItemResult
from dashboard.web.components.runs import row_queries, run_row, stage_cell
from dashboard.web.components.runs.run_row import RunRow


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One run of a bulk abort and its outcome."""

    item: BulkAbortItem
    row: RunRow
    outcome: ItemOutcome


@dataclass(frozen=True, slots=True)
class BulkAbortRow:
    """A bulk abort as a whole, by the outcomes of the runs that the user may see."""

    bulk_abort: BulkAbort
    summary: str
    is_finished: bool  # all outcomes are final
    is_partial: bool  # it contains runs that the user may not see

    @property
    def dom_id(self) -> str:
        """The beginning of the id of its element."""
        return f"bulk-abort-{self.bulk_abort.pk}"

    @property
    def url(self) -> str:
        """The address of its page."""
        return reverse("bulk_abort", args=[self.bulk_abort.pk])


def build_row(
    bulk_abort: BulkAbort, outcomes: Collection[ItemOutcome], item_count: int
) -> BulkAbortRow:
    """Return the row of a bulk abort of `item_count` runs; `outcomes` are of the visible ones."""
    is_partial = item_count > len(outcomes)
    return BulkAbortRow(
        bulk_abort,
        str(bulk_abort_messages.summarize(outcomes, is_partial=is_partial)),
        is_finished=all(outcome.is_final for outcome in outcomes),
        is_partial=is_partial,
    )


def load_rows(permissions: Permissions, bulk_aborts: Collection[BulkAbort]) -> list[BulkAbortRow]:
    """Return the rows of bulk aborts, in order."""
    all_items = BulkAbortItem.objects.order_by().filter(bulk_abort__in=bulk_aborts)
    item_counts = Counter(all_items.values_list("bulk_abort", flat=True))
    items = list(visible_items(permissions).filter(bulk_abort__in=bulk_aborts))
    outcomes: dict[int, list[ItemOutcome]] = defaultdict(list)
    for item, outcome in zip(items, _load_outcomes(items), strict=True):
        outcomes[item.bulk_abort_id].append(outcome)
    return [build_row(bulk, outcomes[bulk.pk], item_counts[bulk.pk]) for bulk in bulk_aborts]


def visible_bulk_aborts(permissions: Permissions) -> QuerySet[BulkAbort]:
    """Return the bulk aborts with a run in a stage that the user may see."""
    items = BulkAbortItem.objects.filter(permissions.stage_filter("run__stage")).order_by()
    return BulkAbort.objects.filter(Exists(items.filter(bulk_abort=OuterRef("pk"))))


def visible_items(permissions: Permissions) -> QuerySet[BulkAbortItem]:
    """Return the items of all bulk aborts in stages that the user may see, in their order."""
    visible = BulkAbortItem.objects.filter(permissions.stage_filter("run__stage"))
    # Without what is large, and not shown in lists.
    return visible.select_related("abort", "run").defer("run__steps", "run__description")


def item_rows(items: Collection[BulkAbortItem]) -> list[ItemRow]:
    """Return the rows of items that were loaded with the stage of their run, in order."""
    return [
        ItemRow(item, run_row.build_row(item.run, stage_cell.DENIED, None), outcome)
        for item, outcome in zip(items, _load_outcomes(items), strict=True)
    ]


def _load_outcomes(items: Collection[BulkAbortItem]) -> list[ItemOutcome]:
    # Of a run that was aborted again, the latest abort is shown.
    runs_aborted_again = [item.run for item in items if _is_aborted_again(item)]
    latest = row_queries.latest_aborts(runs_aborted_again) if runs_aborted_again else {}
    return [
        bulk_abort_messages.describe(
            BulkAbortItemResult(item.result),
            item.run,
            latest[item.run_id] if _is_aborted_again(item) else item.abort,
            item.note,
        )
        for item in items
    ]


def _is_aborted_again(item: BulkAbortItem) -> bool:
    return item.abort is not None and item.abort.state == AbortState.ABORTED_AGAIN
