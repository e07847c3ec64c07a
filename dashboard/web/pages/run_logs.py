"""What a run waits for, with the newest lines of its log."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

from dashboard.accounts import access_log, permissions
from dashboard.db import threads as db_threads
from dashboard.models import Run
from dashboard.runs import steps, waiting_for, works
from dashboard.sync import log_reader, watchers
from dashboard.sync.log_reader import LogView
from dashboard.web.components.runs import log_panel
from dashboard.web.components.runs.log_panel import LogQuery
from dashboard.web.http import links, lookup
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.client_address import client_address
from dashboard.web.http.responses.deferred import Deferred
from dashboard.web.http.responses.htmx import render_page


@require_safe
def run_logs(
    request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str, run_id: str
) -> HttpResponse:
    """Show what a run waits for, and its log to those who may see it, read now if it is due."""
    user_permissions = permissions.for_user(request.user)
    run = lookup.get_run_or_404(user_permissions, project_id, pipeline_id, stage_id, run_id)
    watchers.watch_run(run, db_threads.now())
    awaited = works.awaited_work(run, steps.decode(run.steps))
    if awaited is None:
        return _render(request, run, None)
    permission = user_permissions.logs_permission(run.stage)
    query = LogQuery.parse(request.GET.get("lines", ""), request.GET.get("find", ""))

    def render(view: LogView) -> HttpResponse:
        if permission.allowed:
            access_log.record_logs_opened(
                sign_in.signed_in_user(request),
                run,
                str(waiting_for.name(awaited[1], view.work)),
                db_threads.now(),
                client_address=client_address(request),
            )
        panel = log_panel.panel(run, awaited, view, query, permission.denied_reason)
        return _render(request, run, panel)

    return Deferred(
        lambda: log_reader.get_reader().look(
            run, awaited, max_lines=query.max_lines, with_lines=permission.allowed
        ),
        render,
    )


def _render(request: HttpRequest, run: Run, panel: dict[str, Any] | None) -> HttpResponse:
    context = {
        "run": run,
        "panel": panel,
        "now": db_threads.now(),
        "run_url": links.run_url(run),
        "stage_urls": links.stage_urls(run.stage),
        "logs_url": links.logs_url(run),
    }
    return render_page(request, "pages/run_logs.html", "panel", context)
