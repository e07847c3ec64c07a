"""The access log, newest first, for holders of its permission."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.web.components import access_log as component
from dashboard.web.components.lists import empty_states
from dashboard.web.http.administrators import for_log_readers


@require_safe
@for_log_readers
def access_log(request: HttpRequest) -> HttpResponse:
    """Show one page of the events that match the query string, newest first."""
    access_filter = component.parse(request.GET)
    context = {
        "nav": "my_account",
        "tab": "access_log",
        "filter": access_filter,
        "page": component.load_page(access_filter),
        "empty": empty_states.log(
            "access_log",
            is_filtered=bool(access_filter.parameters),
            is_past_end=access_filter.before_pk is not None,
        ),
    }
    return render(request, "pages/accounts/access_log.html", context)
