"""A bulk abort's page: the outcome of each of its runs."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dashboard.aborts.bulk_send import find_pause
from dashboard.accounts.permissions import Permissions
from dashboard.models import BulkAbort, BulkAbortItem, Run
from dashboard.web.components import tab_title
from dashboard.web.components.aborts import bulk_abort_rows
from dashboard.web.components.aborts.bulk_abort_rows import ItemRow
from dashboard.web.components.data_age import DataAge, stages_data_age
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http.lookup import PageNotFound
from dashboard.web.live.page import LivePart, Page, PageRemoved, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


@require_safe
def bulk_abort(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a bulk abort and the outcome of each of its runs."""
    page = BulkAbortPage(Snapshot.for_request(request), key=pk)
    if not page.items:
        raise PageNotFound(_("Bulk abort not found."))
    return page_response(request, page)


class BulkAbortPage(Page):
    name = "bulk_abort"
    template = "pages/aborts/bulk_abort.html"

    @classmethod
    def is_visible(cls, permissions: Permissions, key: int) -> bool:
        return bulk_abort_rows.visible_bulk_aborts(permissions).filter(pk=key).exists()

    @cached_property
    def items(self) -> list[BulkAbortItem]:
        items = bulk_abort_rows.visible_items(self.permissions).filter(bulk_abort=self.key)
        return list(items.select_related("bulk_abort", "abort", "run__stage__pipeline__project"))

    @cached_property
    def bulk_abort(self) -> BulkAbort:
        if not self.items:
            raise PageRemoved
        bulk_abort: BulkAbort = self.items[0].bulk_abort
        return bulk_abort

    @cached_property
    def rows(self) -> list[ItemRow]:
        return bulk_abort_rows.item_rows(self.items)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The row of the bulk abort, and the pause after which the waiting runs are aborted."""
        outcomes = [row.outcome for row in self.rows]
        row = bulk_abort_rows.build_row(self.bulk_abort, outcomes, self.bulk_abort.items.count())
        is_waiting = any(outcome.kind == "waiting" for outcome in outcomes)
        pause = find_pause(self.bulk_abort, self.snapshot.now) if is_waiting else None
        return {"row": row, "pause": pause}

    @property
    def reloads(self) -> bool:
        return not self.summary["row"].is_finished

    @cached_property
    def data_age(self) -> DataAge:
        return stages_data_age([item.run.stage for item in self.items], self.snapshot.now)

    @property
    def tab_title(self) -> TabTitle:
        unfinished = [row for row in self.rows if not row.outcome.is_final]
        total = len(self.rows)
        name = _("%(over)d of %(all)d · Bulk abort")
        severities = (row.item.run.abort_severity for row in unfinished)
        return tab_title.build(
            name % {"over": total - len(unfinished), "all": total},
            InFlightTotals(abort_severity=max(severities, default=0)),
            upstream_down=self.upstream_down and bool(unfinished),
            in_flight=bool(unfinished),
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        return {"bulk_abort": self.bulk_abort, "items": self.rows, "summary": self.summary}

    def own_status_parts(self) -> list[LivePart]:
        template = "pages/aborts/bulk_abort.html#bulk-abort-summary"
        return [render_part("summary", template, summary=self.summary)]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        changed_runs = {run.pk for run in runs}
        items = [item for item in self.items if item.run_id in changed_runs]
        return [
            render_part(
                f"item-{row.item.pk}", "pages/aborts/bulk_abort.html#bulk-abort-item", item=row
            )
            for row in bulk_abort_rows.item_rows(items)
        ]
