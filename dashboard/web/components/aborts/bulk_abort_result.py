"""A bulk abort's page: one row per run with its outcome, and a summary."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from dashboard import aborts
from dashboard.aborts import bulk_messages as bulk_abort_messages
from dashboard.aborts.bulk_messages import ItemOutcome
from dashboard.accounts.permissions import Permissions
from dashboard.models import BulkAbort, BulkAbortItem
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.bulk_aborts import BulkAbortItemResult
from dashboard.web.components import tab_title
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.runs import run_row, stage_cell
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.components.tab_title import TabTitle

DEFERRED_FIELDS = "run__steps", "run__description"  # large, and not shown in lists
_GLYPHS = {
    "aborted": "stop",
    "aborting": "stop",
    "sending": "play",
    "waiting": "clock",
    "too_late": "skip",
    "status_changed": "warning",
    "not_stopped": "warning",
    "unconfirmed": "question",
    "not_arrived": "question",
    "retried": "retry",
    "not_allowed": "lock",
}


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One run of a bulk abort and its outcome."""

    dom_id: str
    run: RunRow
    outcome: ItemOutcome

    @property
    def label(self) -> str:
        """The outcome's badge text."""
        return self.outcome.label

    @property
    def glyph(self) -> str:
        """The badge's icon."""
        return _GLYPHS.get(self.outcome.kind, "cross")


@dataclass(frozen=True, slots=True)
class Summary:
    """The state of a bulk abort as a whole."""

    text: str
    is_finished: bool  # all outcomes are final
    pause: aborts.Pause | None  # after which the waiting runs are aborted, if there are any
    is_partial: bool  # it contains runs that the user may not see

    @property
    def tone(self) -> str:
        """The tone of the text."""
        return "neutral" if self.is_finished else "running"


def visible_items(bulk_abort_pk: int, permissions: Permissions) -> list[BulkAbortItem]:
    """Return the items of a bulk abort in stages that the user may see, in their order."""
    visible = BulkAbortItem.objects.filter(
        permissions.stage_filter("run__stage"), bulk_abort=bulk_abort_pk
    )
    with_relations = visible.select_related("bulk_abort", "abort", "run__stage__pipeline__project")
    return list(with_relations.defer(*DEFERRED_FIELDS).order_by("position"))


def load_outcomes(items: Collection[BulkAbortItem]) -> list[ItemOutcome]:
    """Return the outcome of each item, in order. Items must be loaded with run and abort."""
    # A retried abort is represented by the run's latest abort.
    retried_runs = [item.run for item in items if _is_retried(item)]
    latest = run_row.latest_aborts(retried_runs) if retried_runs else {}
    return [
        bulk_abort_messages.describe(
            BulkAbortItemResult(item.result),
            item.run,
            latest[item.run_id] if _is_retried(item) else item.abort,
            item.note,
        )
        for item in items
    ]


def _is_retried(item: BulkAbortItem) -> bool:
    return item.abort is not None and item.abort.state == AbortState.RETRIED


def item_rows(items: Collection[BulkAbortItem]) -> list[ItemRow]:
    """Return the rows of the items, in order."""
    return [
        ItemRow(f"item-{item.pk}", run_row.build_row(item.run, stage_cell.DENIED, None), outcome)
        for item, outcome in zip(items, load_outcomes(items), strict=True)
    ]


def summary(bulk_abort: BulkAbort, items: Collection[ItemRow], now: datetime) -> Summary:
    """Return the state of a bulk abort, from the rows that the user may see."""
    is_waiting = any(item.outcome.kind == "waiting" for item in items)
    is_partial = bulk_abort.items.count() > len(items)
    return Summary(
        str(bulk_abort_messages.summarize((item.outcome for item in items), is_partial=is_partial)),
        is_finished=all(item.outcome.is_final for item in items),
        pause=aborts.find_pause(bulk_abort, now) if is_waiting else None,
        is_partial=is_partial,
    )


def build_tab_title(items: Collection[ItemRow], *, upstream_down: bool) -> TabTitle:
    """Return the tab title, with the number of finished aborts of the total."""
    finished = sum(item.outcome.is_final for item in items)
    abort_severity = max(
        (item.run.abort_severity for item in items if not item.outcome.is_final), default=0
    )
    return tab_title.bulk_abort(
        finished,
        len(items),
        InFlightTotals(abort_severity=abort_severity),
        upstream_down=upstream_down,
    )
