"""The list of bulk aborts, page by page.

A bulk abort is listed if the user may see the stage of at least one of its runs. Its summary
covers only the runs that the user may see.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Exists, OuterRef, QuerySet
from django.urls import reverse

from dashboard.aborts import bulk_messages as bulk_abort_messages
from dashboard.aborts.bulk_messages import ItemOutcome
from dashboard.accounts.permissions import Permissions
from dashboard.models import BulkAbort, BulkAbortItem, Run
from dashboard.web.components.aborts import abort_details, bulk_abort_result

PER_PAGE = 20


@dataclass(frozen=True, slots=True)
class BulkAbortRow:
    """One bulk abort, prepared for templates."""

    dom_id: str
    url: str
    username: str
    via_label: str
    client_address: str
    requested_at: datetime
    reason: str
    summary: str
    is_finished: bool


@dataclass(frozen=True, slots=True)
class PageOfBulkAborts:
    """One page of bulk aborts, newest first."""

    rows: list[BulkAbortRow]
    older_url: str

    @property
    def under_way_count(self) -> int:
        """The number of bulk aborts on this page that are not finished."""
        return sum(not row.is_finished for row in self.rows)


def load_page(permissions: Permissions, before_pk: int | None) -> PageOfBulkAborts:
    """Return a page of bulk aborts with at least one visible run.

    With `before_pk`, only bulk aborts with lower keys.
    """
    has_visible_run = Exists(_visible_items(permissions).filter(bulk_abort=OuterRef("pk")))
    visible = BulkAbort.objects.filter(has_visible_run).order_by("-pk")
    bulk_aborts = list(
        (visible if before_pk is None else visible.filter(pk__lt=before_pk))[: PER_PAGE + 1]
    )
    page_bulk_aborts = bulk_aborts[:PER_PAGE]
    return PageOfBulkAborts(
        rows=_load_rows(permissions, page_bulk_aborts),
        older_url=f"?before={page_bulk_aborts[-1].pk}" if len(bulk_aborts) > PER_PAGE else "",
    )


def load_rows(permissions: Permissions, runs: Collection[Run]) -> list[BulkAbortRow]:
    """Return the rows of the bulk aborts with any of these runs, all of them visible."""
    of_runs = BulkAbortItem.objects.filter(run__in=runs).order_by()
    bulk_aborts = BulkAbort.objects.filter(pk__in=of_runs.values("bulk_abort")).order_by("pk")
    return _load_rows(permissions, list(bulk_aborts))


def _visible_items(permissions: Permissions) -> QuerySet[BulkAbortItem]:
    return BulkAbortItem.objects.filter(permissions.stage_filter("run__stage"))


def _load_rows(permissions: Permissions, bulk_aborts: list[BulkAbort]) -> list[BulkAbortRow]:
    item_counts: dict[int, int] = defaultdict(int)
    for key in (
        BulkAbortItem.objects.order_by()
        .filter(bulk_abort__in=bulk_aborts)
        .values_list("bulk_abort", flat=True)
    ):
        item_counts[key] += 1
    outcomes: dict[int, list[ItemOutcome]] = defaultdict(list)
    visible_items = list(
        _visible_items(permissions)
        .filter(bulk_abort__in=bulk_aborts)
        .select_related("abort", "run")
        .defer(*bulk_abort_result.DEFERRED_FIELDS)
    )
    for item, outcome in zip(
        visible_items, bulk_abort_result.load_outcomes(visible_items), strict=True
    ):
        outcomes[item.bulk_abort_id].append(outcome)
    return [
        _row(bulk_abort, outcomes[bulk_abort.pk], item_counts[bulk_abort.pk])
        for bulk_abort in bulk_aborts
    ]


def _row(bulk_abort: BulkAbort, outcomes: list[ItemOutcome], item_count: int) -> BulkAbortRow:
    return BulkAbortRow(
        dom_id=f"bulk-abort-{bulk_abort.pk}",
        url=reverse("bulk_abort", args=[bulk_abort.pk]),
        username=bulk_abort.username,
        via_label=abort_details.via_label(bulk_abort),
        client_address=bulk_abort.client_address or "",
        requested_at=bulk_abort.requested_at,
        reason=bulk_abort.reason,
        summary=str(bulk_abort_messages.summarize(outcomes, is_partial=item_count > len(outcomes))),
        is_finished=all(outcome.is_final for outcome in outcomes),
    )
