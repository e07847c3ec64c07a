"""Lists of runs that were aborted by one press, for whoever looks for one of them later.

A list is found where the person may see the place of one of its runs, and speaks of those only.
"""

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime

from django.urls import reverse

from dashboard.aborts import bulk_messages as bulk_abort_messages
from dashboard.aborts.bulk_messages import Told
from dashboard.accounts.permissions import Rights
from dashboard.models import AbortBatch, BatchItem
from dashboard.web.components import abort_details, bulk_abort_result

PER_PAGE = 20


@dataclass(frozen=True, slots=True)
class ListRow:
    """What templates need of a list."""

    url: str
    who: str
    came_by: str
    address: str
    requested_at: datetime
    reason: str
    summary: str
    over: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Lists, the newest first, and the address of what comes after them."""

    rows: list[ListRow]
    older_url: str

    @property
    def under_way(self) -> int:
        """How many of them are not over."""
        return sum(not row.over for row in self.rows)


def page(rights: Rights, before: int | None) -> Page:
    """Return a page of the lists of which the person may see anything, below a key if given."""
    items = BatchItem.objects.filter(rights.places("run__stage"))
    seen = AbortBatch.objects.filter(pk__in=items.order_by().values("batch")).order_by("-pk")
    found = list((seen if before is None else seen.filter(pk__lt=before))[: PER_PAGE + 1])
    shown = found[:PER_PAGE]
    asked_for: dict[int, int] = defaultdict(int)
    for key in BatchItem.objects.order_by().filter(batch__in=shown).values_list("batch", flat=True):
        asked_for[key] += 1
    told: dict[int, list[Told]] = defaultdict(list)
    its = list(
        items.filter(batch__in=shown).select_related("abort", "run").defer(*bulk_abort_result.HEAVY)
    )
    for item, of_it in zip(its, bulk_abort_result.told(its), strict=True):
        told[item.batch_id].append(of_it)
    return Page(
        rows=[_row(each, told[each.pk], asked_for[each.pk]) for each in shown],
        older_url=f"?before={shown[-1].pk}" if len(found) > PER_PAGE else "",
    )


def _row(of: AbortBatch, told: list[Told], asked_for: int) -> ListRow:
    return ListRow(
        url=reverse("batch", args=[of.pk]),
        who=of.username,
        came_by=abort_details.came_by(of),
        address=of.client_address or "",
        requested_at=of.requested_at,
        reason=of.reason,
        summary=bulk_abort_messages.summary(told, partly=asked_for > len(told)),
        over=all(each.over for each in told),
    )
