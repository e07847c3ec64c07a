"""A list that is being aborted, as its page shows it: a row for each run, and all in a sentence."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from dashboard import aborts
from dashboard.aborts import bulk_messages as bulk_abort_messages
from dashboard.aborts.bulk_messages import Told
from dashboard.accounts.permissions import Rights
from dashboard.models import AbortBatch, BatchItem
from dashboard.models.aborts import AbortState
from dashboard.models.bulk_aborts import ItemResult
from dashboard.web.components import run_row, stage_cell, tab_title
from dashboard.web.components.in_flight import Flights
from dashboard.web.components.run_row import Row
from dashboard.web.components.tab_title import Title

HEAVY = "run__steps", "run__raw", "run__description"  # columns that no list shows
_GLYPHS = {
    "aborted": "stop", "aborting": "stop", "sending": "play", "waits": "clock", "ended": "skip",
    "turned": "warning", "not_stopped": "warning", "unclear": "question", "lost": "question",
    "not_allowed": "lock",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One run of the list and what came of it."""

    dom_id: str
    run: Row
    told: Told

    @property
    def word(self) -> str:
        """What came of it, as a badge says it."""
        return self.told.word

    @property
    def glyph(self) -> str:
        """The badge's shape."""
        return _GLYPHS.get(self.told.kind, "cross")


@dataclass(frozen=True, slots=True)
class Summary:
    """How the list stands."""

    text: str
    over: bool  # nothing more is to come
    held_until: datetime | None  # Northflank takes no more requests for lists before
    partly: bool  # it holds runs that the person may not see


def items(batch_pk: int, rights: Rights) -> list[BatchItem]:
    """Return the items of a list whose places the person may see, in their order."""
    seen = BatchItem.objects.filter(rights.places("run__stage"), batch=batch_pk)
    loaded = seen.select_related("batch", "abort", "run__stage__pipeline__project")
    return list(loaded.defer(*HEAVY).order_by("position"))


def told(its: Collection[BatchItem]) -> list[Told]:
    """Say what became of each of these items, which are loaded with run and abort."""
    # What was tried again is told by the act that took its place.
    again = [item.run for item in its if item.abort and item.abort.state == AbortState.TRIED_AGAIN]
    latest = run_row.latest_aborts(again) if again else {}
    return [
        bulk_abort_messages.of(
            ItemResult(item.result), item.run, latest.get(item.run_id, item.abort), item.note
        )
        for item in its
    ]


def item_rows(its: Collection[BatchItem]) -> list[ItemRow]:
    """Prepare items for the template."""
    return [
        ItemRow(f"item-{item.pk}", run_row.row(item.run, stage_cell.UNSEEN, None), of_it)
        for item, of_it in zip(its, told(its), strict=True)
    ]


def summary(batch: AbortBatch, its: Collection[ItemRow], now: datetime) -> Summary:
    """Say how a list stands."""
    waits = any(item.told.kind == "waits" for item in its)
    partly = batch.items.count() > len(its)
    return Summary(
        bulk_abort_messages.summary((item.told for item in its), partly=partly),
        over=all(item.told.over for item in its),
        held_until=aborts.held_until(batch, now) if waits else None,
        partly=partly,
    )


def title(its: Collection[ItemRow], *, blind: bool) -> Title:
    """Name the tab: how many have come to their end, of how many."""
    over = sum(item.told.over for item in its)
    aborting = max((item.run.aborting_level for item in its if not item.told.over), default=0)
    return tab_title.batch(over, len(its), Flights(aborting=aborting), blind=blind)
