"""*Refresh now* on the page of a stage or a run: have it read from Northflank at once."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from dashboard.accounts import permissions
from dashboard.models import Stage
from dashboard.sync import refresh
from dashboard.texts.rich_text import MessageTable, RichText
from dashboard.web.components.elements import rich_text
from dashboard.web.components.runs import removed_notice
from dashboard.web.http import links, lookup
from dashboard.web.http.responses.htmx import is_htmx

_text = MessageTable(
    {"requested": gettext_lazy("Being read from Northflank. This page shows it when it is read.")}
)


@require_POST
def refresh_stage(request: HttpRequest, **ids: str) -> HttpResponse:
    """Have a stage read; show that it is, or why not, on its page with the same query string."""
    stage = lookup.get_stage_or_404(permissions.for_user(request.user), **ids)
    reason = _removal(stage) or refresh.refresh_stage(stage)
    query = request.META.get("QUERY_STRING", "")
    url = links.stage_url(stage)
    return _respond(request, reason, f"{url}?{query}" if query else url)


@require_POST
def refresh_run(request: HttpRequest, **ids: str) -> HttpResponse:
    """Have a run read; show that it is, or why not, on its page."""
    run = lookup.get_run_or_404(permissions.for_user(request.user), **ids)
    reason = _removal(run.stage) or refresh.refresh_run(run)
    return _respond(request, reason, links.run_url(run))


def _removal(stage: Stage) -> RichText:
    removal = removed_notice.for_pipeline(stage.pipeline)
    return "" if removal is None else removal.text


def _respond(request: HttpRequest, reason: RichText, page_url: str) -> HttpResponse:
    tone = "warning" if reason else "info"
    text = rich_text(reason or _text("requested"))
    if not is_htmx(request):
        messages.add_message(request, messages.INFO, text, extra_tags=tone)
        return redirect(page_url)
    notice = {"notice": {"tone": tone, "text": text}}
    notice_html = render_to_string("components/notices.html#notice", notice)
    return HttpResponse(
        f'<hx-partial hx-target="#notices" hx-swap="innerHTML">{notice_html}</hx-partial>'
    )
