"""The status page: sync health, rate limit, workers, webhook, and the data age of each stage."""

from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.accounts import access_log
from dashboard.accounts.administration import administrators
from dashboard.web.components import sync_report, tab_title
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.sync_report import SyncStatus
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


@require_safe
def status(request: HttpRequest) -> HttpResponse:
    """Show the state of the sync, with the stages in the worst state first."""
    return page_response(request, StatusPage(Snapshot.for_request(request)))


class StatusPage(Page):
    name = nav = "status"
    template = "pages/status.html"
    data_age = DataAge(None, is_stale=False)  # each row shows its own

    @cached_property
    def status(self) -> SyncStatus:
        return sync_report.load_status(self.permissions, self.snapshot.now)

    @property
    def tag_values(self) -> tuple[object, ...]:
        return (self.status,)

    @property
    def tab_title(self) -> TabTitle:
        return tab_title.status(
            upstream_down=self.upstream_down or not self.status.health.is_syncing,
            incomplete=bool(self.status.incomplete_text),
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        user = signed_in_user(request)
        # Only of these, since it takes two queries.
        has_admin_role = user.is_superuser or user.is_staff
        return {
            "status": self.status,
            "may_view_access_log": has_admin_role and access_log.may_view(user),
            "may_administer": has_admin_role and administrators.may_administer(user),
        }

    def own_status_parts(self) -> list[LivePart]:
        return [render_part("status", "pages/status.html#status", status=self.status)]
