"""Create and delete saved views of the stage page, and set the default view."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_POST

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.models import SavedView, Stage
from dashboard.runs import saved_views
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components.lists import filters
from dashboard.web.components.lists.filters import RunFilter
from dashboard.web.http import errors, links, lookup
from dashboard.web.http.authentication import sign_in

_text = MessageTable(
    {
        "saved": gettext_lazy("“%(name)s” saved."),
        "deleted": gettext_lazy("“%(name)s” deleted."),
        "default": gettext_lazy("“%(name)s” is now your default view."),
        "default_removed": gettext_lazy("Default view removed; stage pages open with all runs."),
        "nothing_changed": gettext_lazy("Nothing was changed."),
    }
)


@require_POST
def create_saved_view(
    request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str
) -> HttpResponse:
    """Save the page's filter under a name."""
    user, user_permissions, stage = _load_form_target(request, project_id, pipeline_id, stage_id)
    run_filter = _form_filter(request, stage, user)
    shared = request.POST.get("shared") == "1"
    try:
        view = saved_views.save(
            user,
            user_permissions,
            request.POST.get("name", ""),
            run_filter.query_string,
            shared=shared,
        )
        if request.POST.get("default") == "1":
            saved_views.set_default(user, view.pk)
    except saved_views.NotAllowed as error:
        return errors.forbidden(request, str(error))
    except saved_views.SavedViewError as error:
        return _redirect_to_stage(request, stage, run_filter, str(error), tone="warning")
    return _redirect_to_stage(request, stage, run_filter, _text("saved", name=view.name))


@require_POST
def update_saved_view(
    request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str, key: int
) -> HttpResponse:
    """Delete a view, make it the user's default, or clear the default."""
    user, _user_permissions, stage = _load_form_target(request, project_id, pipeline_id, stage_id)
    run_filter = _form_filter(request, stage, user)
    try:
        match request.POST.get("action"):
            case "delete":
                text = _text("deleted", name=saved_views.delete(user, key))
            case "set-default":
                text = _text("default", name=saved_views.set_default(user, key).name)
            case "clear-default":
                saved_views.clear_default(user)
                text = _text("default_removed")
            case _:
                text = _text("nothing_changed")
    except saved_views.NotAllowed as error:
        return errors.forbidden(request, str(error))
    except saved_views.SavedViewError as error:
        return _redirect_to_stage(request, stage, run_filter, str(error), tone="warning")
    return _redirect_to_stage(request, stage, run_filter, text)


def _load_form_target(
    request: HttpRequest, project_id: str, pipeline_id: str, stage_id: str
) -> tuple[User, Permissions, Stage]:
    user_permissions = permissions.for_user(request.user)
    return (
        sign_in.signed_in_user(request),
        user_permissions,
        lookup.get_stage_or_404(user_permissions, project_id, pipeline_id, stage_id),
    )


def _form_filter(request: HttpRequest, stage: Stage, user: User) -> RunFilter:
    """Return the filter of the page that contained the form."""
    return filters.parse(QueryDict(request.POST.get("query", "")), stage, user)


def _redirect_to_stage(
    request: HttpRequest,
    stage: Stage,
    run_filter: RunFilter,
    text: Message | str,
    *,
    tone: str = "good",
) -> HttpResponse:
    messages.add_message(request, messages.INFO, str(text), extra_tags=tone)
    # Django limits the length of a redirect's URL: drop a query that is too long to be saved.
    query = (
        run_filter.url
        if len(run_filter.query_string) <= SavedView.QUERY_LENGTH
        else filters.ALL_RUNS_URL
    )
    response = redirect(links.stage_url(stage) + query)
    response.status_code = 303
    return response
