"""The list of bulk aborts, newest first."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_safe

from dashboard.models import Run
from dashboard.web.components import tab_title
from dashboard.web.components.aborts import bulk_abort_list
from dashboard.web.components.data_age import DataAge, list_data_age
from dashboard.web.components.lists import empty_states
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http import keys
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


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
    follows_all_changes = False
    before_pk: int | None = None

    @cached_property
    def newest(self) -> bulk_abort_list.PageOfBulkAborts:
        return bulk_abort_list.load_page(self.permissions, None)

    @cached_property
    def list_page(self) -> bulk_abort_list.PageOfBulkAborts:
        if self.before_pk is None:
            return self.newest
        return bulk_abort_list.load_page(self.permissions, self.before_pk)

    @property
    def is_aborting(self) -> bool:
        return self.list_page.under_way_count > 0

    @property
    def tag_values(self) -> tuple[object, ...]:
        return (self.list_page,)

    @cached_property
    def data_age(self) -> DataAge:
        return list_data_age(self.newest)

    @property
    def tab_title(self) -> TabTitle:
        return tab_title.bulk_aborts(self.newest.under_way_count, upstream_down=self.upstream_down)

    def context(self, request: HttpRequest) -> dict[str, Any]:
        return {
            "bulk_aborts": self.list_page.rows,
            "older_url": self.list_page.older_url,
            "newest_url": "" if self.before_pk is None else reverse("bulk_aborts"),
            "empty": empty_states.log(
                "bulk_aborts",
                is_past_end=self.before_pk is not None,
                sees_all=self.permissions.can_view_all,
            ),
        }

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        # Those of older pages, too: only the newest page decides the structure.
        template = "pages/aborts/bulk_aborts.html#bulk-abort"
        return [
            render_part(row.dom_id, template, bulk_abort=row)
            for row in bulk_abort_list.load_rows(self.permissions, runs)
        ]
