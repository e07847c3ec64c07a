"""Health: sync health, rate limit, workers, webhook, and the data age of each stage."""

from functools import cached_property
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_safe

from dashboard.accounts.administration import administrators
from dashboard.web.components import sync_report, tab_title, webhook_setup
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.tab_title import TabTitle
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.responses.htmx import is_htmx
from dashboard.web.live.page import LivePart, Page, page_response, render_part
from dashboard.web.live.snapshot import Snapshot


@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Show the state of the sync, with the stages in the worst state first."""
    page = HealthPage(Snapshot.for_request(request))
    response = page_response(request, page)
    response.holds_secret = page.holds_secret  # type: ignore[attr-defined]
    return response


class HealthPage(Page):
    name = "health"
    template = "pages/health.html"
    data_age = DataAge(None, is_stale=False)  # each row shows its own
    is_personal = True  # with the set-up of the webhook for administrators
    holds_secret = False  # that of the webhook

    @cached_property
    def status(self) -> dict[str, Any]:
        return sync_report.load_status(self.permissions, self.snapshot.report)

    @property
    def tab_title(self) -> TabTitle:
        report = self.snapshot.report
        return tab_title.build(
            _("Health"),
            upstream_down=self.upstream_down or not report.health.is_syncing,
            incomplete=not report.is_complete,
        )

    def context(self, request: HttpRequest) -> dict[str, Any]:
        user = signed_in_user(request)
        # In no live part, which all who may view the same stages share.
        self.holds_secret = administrators.may_administer(user) and not is_htmx(request)
        return {
            "status": self.status,
            "webhook_setup": webhook_setup.build_setup(
                request, self.status["webhook"], self.snapshot.report.new_runs_within
            )
            if self.holds_secret
            else None,
        }

    def own_status_parts(self) -> list[LivePart]:
        return [render_part("status", "pages/health.html#status", status=self.status)]
