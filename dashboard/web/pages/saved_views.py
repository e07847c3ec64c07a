"""Saved views of a stage's page: saved, deleted, and made the one that it opens with."""

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Rights
from dashboard.models import SavedView, Stage
from dashboard.runs import saved_views
from dashboard.web.components import filters, run_row
from dashboard.web.components.filters import RunFilter
from dashboard.web.http import errors, lookup, sign_in


@require_POST
def save(request: HttpRequest, project: str, pipeline: str, stage: str) -> HttpResponse:
    """Keep the page's filter under a name."""
    person, rights, here = _asked(request, project, pipeline, stage)
    asked = _filter(request, here, person)
    shared = request.POST.get("shared") == "1"
    try:
        view = saved_views.save(
            person, rights, request.POST.get("name", ""), asked.query, shared=shared
        )
        if request.POST.get("default") == "1":
            saved_views.open_with(person, view.pk)
    except saved_views.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except saved_views.Refused as refused:
        return _back(request, here, asked, str(refused), tone="warning")
    return _back(request, here, asked, _("“%(name)s” is saved.") % {"name": view.name})


@require_POST
def change(request: HttpRequest, project: str, pipeline: str, stage: str, key: int) -> HttpResponse:
    """Delete a view, have stage pages open with it, or no more."""
    person, _rights, here = _asked(request, project, pipeline, stage)
    asked = _filter(request, here, person)
    try:
        match request.POST.get("do"):
            case "delete":
                name = saved_views.delete(person, key)
                text = _("“%(name)s” is deleted.")
            case "open":
                name = saved_views.open_with(person, key).name
                text = _("Stage pages now open with “%(name)s” for you.")
            case "open-all":
                saved_views.open_with_all(person)
                name, text = "", _("Stage pages now open with all runs for you.")
            case _:
                name, text = "", _("Nothing was changed.")
    except saved_views.NotAllowed as refused:
        return errors.forbidden(request, str(refused))
    except saved_views.Refused as refused:
        return _back(request, here, asked, str(refused), tone="warning")
    return _back(request, here, asked, text % {"name": name})


def _asked(
    request: HttpRequest, project: str, pipeline: str, stage: str
) -> tuple[User, Rights, Stage]:
    rights = permissions.rights(request.user)
    return sign_in.person(request), rights, lookup.stage(rights, project, pipeline, stage)


def _filter(request: HttpRequest, here: Stage, person: User) -> RunFilter:
    """The filter of the page that the form was on."""
    return filters.read(QueryDict(request.POST.get("query", "")), here, person)


def _back(
    request: HttpRequest, here: Stage, asked: RunFilter, text: str, *, tone: str = "good"
) -> HttpResponse:
    messages.add_message(request, messages.INFO, text, extra_tags=tone)
    # Django leads to no address of any length; one that is too long to be saved is none to keep.
    where = asked.url if len(asked.query) <= SavedView.QUERY_LENGTH else filters.ALL_RUNS
    response = redirect(reverse("stage", args=run_row.place_args(here)) + where)
    response.status_code = 303
    return response
