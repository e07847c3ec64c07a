"""The list of bulk aborts, newest first."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dashboard.models import BulkAbort, Run
from dashboard.web.components import tab_title
from dashboard.web.components.aborts import bulk_abort_rows
from dashboard.web.components.aborts.bulk_abort_rows import BulkAbortRow
from dashboard.web.components.data_age import DataAge, list_data_age
from dashboard.web.components.lists import empty_states
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import keys
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot

PER_PAGE = 20


@require_safe
def bulk_aborts(request: HttpRequest) -> HttpResponse:
    """Show one page of bulk aborts, newest first."""
    page = BulkAbortsPage(Snapshot.for_request(request))
    page.before_pk = keys.parse_pk(request.GET.get("before", ""))
    return page_response(request, page)


class BulkAbortsPage(Page):
    """One page of the list; tab title and data age are those of the newest page."""

    name = "bulk_aborts"
    template = "pages/aborts/bulk_aborts.html"
    reloads_while_aborting = True
    nav = "aborts"
    before_pk: int | None = None

    @cached_property
    def newest(self) -> list[BulkAbortRow]:
        return self._load(None)

    @cached_property
    def rows(self) -> list[BulkAbortRow]:
        return self.newest if self.before_pk is None else self._load(self.before_pk)

    def _load(self, before_pk: int | None) -> list[BulkAbortRow]:
        """Return the rows of one page, and of one more bulk abort if there is an older page."""
        bulk_aborts = bulk_abort_rows.visible_bulk_aborts(self.permissions).order_by("-pk")
        if before_pk is not None:
            bulk_aborts = bulk_aborts.filter(pk__lt=before_pk)
        return bulk_abort_rows.load_rows(self.permissions, list(bulk_aborts[: PER_PAGE + 1]))

    @property
    def is_aborting(self) -> bool:
        return not all(row.is_finished for row in self.rows[:PER_PAGE])

    @cached_property
    def data_age(self) -> DataAge:
        return list_data_age(self.newest)

    @property
    def tab_title(self) -> TabTitle:
        under_way_count = sum(not row.is_finished for row in self.newest[:PER_PAGE])
        name = _("Bulk aborts")
        return tab_title.under_way(name, under_way_count, upstream_down=self.upstream_down)

    def context(self, request: HttpRequest) -> dict[str, Any]:
        rows = self.rows[:PER_PAGE]
        return {
            "rows": rows,
            "older_url": f"?before={rows[-1].bulk_abort.pk}" if rows != self.rows else "",
            "newest_url": "" if self.before_pk is None else reverse("bulk_aborts"),
            "empty": empty_states.log(
                "bulk_aborts",
                is_past_end=self.before_pk is not None,
                sees_all=self.permissions.can_view_all,
            ),
        }

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        # Those of older pages, too: only the newest page decides the structure.
        bulk_aborts = BulkAbort.objects.filter(items__run__in=runs).distinct().order_by("pk")
        template = "pages/aborts/bulk_aborts.html#bulk-abort"
        return [
            render_part(row.dom_id, template, row=row)
            for row in bulk_abort_rows.load_rows(self.permissions, list(bulk_aborts))
        ]
