"""The abort log: every abort requested here."""

from collections.abc import Collection
from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dashboard.models import Abort, Run
from dashboard.web.components import tab_title
from dashboard.web.components.aborts import abort_log
from dashboard.web.components.aborts.abort_log import AbortFilter
from dashboard.web.components.data_age import DataAge, list_data_age
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.lists import empty_states
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.live.page import LivePart, Page, page_response
from dashboard.web.live.snapshot import Snapshot


@require_safe
def aborts(request: HttpRequest) -> HttpResponse:
    """Show one page of the aborts that match the query string, newest first."""
    page = AbortsPage(Snapshot.for_request(request))
    page.filter = abort_log.parse(request, page.permissions)
    return page_response(request, page)


class AbortsPage(Page):
    """One page of the log; tab title and data age are those of the newest page without a filter."""

    name = "aborts"
    template = "pages/aborts/aborts.html"
    filter: AbortFilter

    @cached_property
    def newest(self) -> abort_log.PageOfAborts:
        return abort_log.newest_page(self.permissions)

    @cached_property
    def log_page(self) -> abort_log.PageOfAborts:
        return self.newest if self.filter.is_newest_page else abort_log.load_page(self.filter)

    @cached_property
    def data_age(self) -> DataAge:
        return list_data_age(self.newest)

    @property
    def tab_title(self) -> TabTitle:
        return tab_title.under_way(
            _("Aborts"),
            self.newest.under_way_count,
            InFlightTotals(abort_severity=self.newest.abort_severity),
            upstream_down=self.upstream_down,
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        self.is_personal = "by_me" in self.filter.parameters
        keys = self.log_page.keys
        return {
            "filter": self.filter,
            "entries": abort_log.group_rows(self.permissions, keys, abort_log.render_rows(keys)),
            "count": len(keys),
            "bulk_aborts": abort_log.bulk_aborts_without_aborts(self.permissions)
            if "bulk" in self.filter.parameters and self.filter.before_pk is None
            else [],
            "older_url": self.log_page.older_url,
            "empty": empty_states.log(
                "aborts", self.filter, sees_all=self.permissions.can_view_all
            ),
        }

    def changed_parts(self, runs: Collection[Run]) -> list[LivePart]:
        # New aborts change the page's structure.
        aborts = Abort.every.filter(run__in=runs).order_by("pk")
        rows = abort_log.render_rows(abort_log.load_keys(aborts))
        return [LivePart(f"abort-{pk}", row) for pk, row in rows.items()]
