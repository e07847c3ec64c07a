"""Star a pipeline or a project, or remove its star."""

from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from dashboard.accounts import permissions, stars
from dashboard.models import Pipeline, Project
from dashboard.web.components import macros
from dashboard.web.http import keys
from dashboard.web.http.authentication import sign_in
from dashboard.web.http.responses.htmx import is_htmx


@require_POST
def change_star(request: HttpRequest) -> HttpResponse:
    """Star the subject that `star` names, or remove the star of that of `unstar`.

    It is named `pipeline-<key>` or `project-<key>`. `next` is the page with the button, which with
    htmx stays as it is otherwise.
    """
    name = request.POST.get("star") or request.POST.get("unstar", "")
    kind, _separator, key = name.partition("-")
    pk, user_permissions = keys.parse_pk(key), permissions.for_user(request.user)
    model = {"pipeline": Pipeline, "project": Project}.get(kind)
    if pk is None or model is None:
        raise Http404
    visible = user_permissions.project_filter("project" if model is Pipeline else "")
    subject: Any = get_object_or_404(model, visible, pk=pk)
    is_starred = "star" in request.POST
    stars.change(sign_in.signed_in_user(request), subject, is_starred=is_starred)
    if is_htmx(request):
        button = macros.render("board.html#star", kind, pk, str(subject), is_starred=is_starred)
        selector = f".star[value='{kind}-{pk}']"
        return HttpResponse(
            f'<hx-partial hx-target="{selector}" hx-swap="outerMorph">{button}</hx-partial>'
        )
    url = request.POST.get("next", "")
    is_ours = url_has_allowed_host_and_scheme(url, allowed_hosts=None)
    response = redirect(url if is_ours else reverse("board"))
    response.status_code = 303
    return response
