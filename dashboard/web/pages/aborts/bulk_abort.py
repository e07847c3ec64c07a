"""A bulk abort's page: its aborts as in the abort log, and why other runs have none."""

from collections.abc import Collection, Iterable
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dashboard.aborts.bulk_send import pause_end
from dashboard.accounts.permissions import Permissions
from dashboard.models import Abort, BulkAbortItem, Run, Work
from dashboard.web.components import macros, tab_title
from dashboard.web.components.aborts import abort_log, bulk_abort_rows
from dashboard.web.components.aborts.bulk_abort_rows import BulkAbortRow
from dashboard.web.components.data_age import DataAge, stages_data_age
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import links
from dashboard.web.http.lookup import PageNotFound
from dashboard.web.live.page import LivePart, Page, PageRemoved, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


@require_safe
def bulk_abort(request: HttpRequest, pk: int) -> HttpResponse:
    """Show a bulk abort and how each of its runs stands."""
    try:
        return page_response(request, BulkAbortPage(Snapshot.for_request(request), key=pk))
    except PageRemoved:
        raise PageNotFound(_("Bulk abort not found.")) from None


class BulkAbortPage(Page):
    name = "bulk_abort"
    template = "pages/aborts/bulk_abort.html"

    @classmethod
    def is_visible(cls, permissions: Permissions, key: int) -> bool:
        return bulk_abort_rows.visible_bulk_aborts(permissions).filter(pk=key).exists()

    @cached_property
    def row(self) -> BulkAbortRow:
        bulk_aborts = bulk_abort_rows.visible_bulk_aborts(self.permissions).filter(pk=self.key)
        rows = bulk_abort_rows.load_rows(self.permissions, bulk_aborts)
        if not rows:
            raise PageRemoved
        return rows[0]

    @property
    def reloads(self) -> bool:
        return not self.row.is_finished

    @cached_property
    def data_age(self) -> DataAge:
        return stages_data_age([item.run.stage for item in self.row.items], self.snapshot.now)

    @property
    def tab_title(self) -> TabTitle:
        items = self.row.items
        unfinished = [item for item in items if bulk_abort_rows.is_open(item)]
        name = _("%(over)d of %(all)d · Bulk abort")
        severities = (item.run.abort_severity for item in unfinished)
        return tab_title.build(
            name % {"over": len(items) - len(unfinished), "all": len(items)},
            InFlightTotals(abort_severity=max(severities, default=0)),
            upstream_down=self.upstream_down and bool(unfinished),
            in_flight=bool(unfinished),
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        return {**self._summary(), "items": [part.html for part in _parts(self.row.items)]}

    def own_status_parts(self) -> list[LivePart]:
        template = "pages/aborts/bulk_abort.html#bulk-abort-summary"
        return [render_part("summary", template, **self._summary())]

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        changed = {run.pk for run in runs}
        return _parts(item for item in self.row.items if item.run_id in changed)

    def _summary(self) -> dict[str, Any]:
        """Return the bulk abort, the end of a pause, and the jobs and builds that still run."""
        row = self.row
        paused_until = pause_end(row.bulk_abort, self.snapshot.now) if row.is_waiting else None
        aborted = [item.run for item in row.items if item.abort_id]
        works = Work.objects.running().filter(run__in=aborted, run__in_flight=False)
        run_of_key = {run.pk: run for run in aborted}
        left_running = [
            {"name": work.name, "run_url": links.run_url(run_of_key[work.run_id])}
            for work in works.filter(is_probable=False).exclude(status="").order_by("pk")
        ]
        return {"row": row, "paused_until": paused_until, "left_running": left_running}


def _parts(items: Iterable[BulkAbortItem]) -> list[LivePart]:
    """Return each item with its abort's row of the log or, without one, with its own."""
    items = list(items)
    aborts = Abort.every.filter(pk__in=[item.abort_id for item in items if item.abort_id])
    row_of_abort = abort_log.render_rows(abort_log.load_keys(aborts))
    return [_part(item, row_of_abort.get(item.abort_id or 0)) for item in items]


def _part(item: BulkAbortItem, row: SafeString | None) -> LivePart:
    status = bulk_abort_rows.label(item)
    if row is None:
        display = bulk_abort_rows.display_without_abort(item)
        row = macros.render(
            "abort_row.html#row_without_abort", item, display, links.run_url(item.run)
        )
    template = "pages/aborts/bulk_abort.html#bulk-abort-item"
    return render_part(f"item-{item.pk}", template, item=item, status=status, row=row)
