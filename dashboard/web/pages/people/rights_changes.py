"""Changes of rights, newest first, for administrators."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from dashboard.web.components.lists import empty_states
from dashboard.web.components.rights import changes as component
from dashboard.web.http.administrators import for_administrators


@require_safe
@for_administrators
def rights_changes(request: HttpRequest) -> HttpResponse:
    """Show one page of the changes that match the query string, newest first."""
    change_filter = component.parse(request.GET)
    context = {
        "nav": "my_account",
        "tab": "rights_changes",
        "filter": change_filter,
        "changes": component.load_page(change_filter),
        "empty": empty_states.log(
            "rights_changes",
            is_filtered=bool(change_filter.parameters),
            is_past_end=change_filter.before_pk is not None,
        ),
    }
    return render(request, "pages/people/rights_changes.html", context)
