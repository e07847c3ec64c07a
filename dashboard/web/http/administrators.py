"""Views for administrators only, and who makes a change by one of them."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _

from dashboard.accounts.administration import administrators
from dashboard.accounts.administration.administrators import Author
from dashboard.web.http.client_address import client_address
from dashboard.web.http.sign_in import signed_in_user


def for_administrators[**P](
    view: Callable[Concatenate[HttpRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Refuse other users with a 403; no browser keeps the page."""

    @wraps(view)
    def wrapper(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not administrators.may_administer(request.user):
            raise PermissionDenied(_("Only administrators may view and change rights."))
        response = view(request, *args, **kwargs)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    return wrapper  # type: ignore[return-value]  # `wraps` names the request in the type


def author(request: HttpRequest) -> Author:
    """Return who makes a change by this request."""
    return Author(signed_in_user(request), client_address(request))
