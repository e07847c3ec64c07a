"""Views for those who may view the access log."""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _

from dashboard.accounts import access_log


def require_view_permission[**P](
    view: Callable[Concatenate[HttpRequest, P], HttpResponseBase],
) -> Callable[Concatenate[HttpRequest, P], HttpResponseBase]:
    """Refuse other users with a 403."""

    @wraps(view)
    def wrapper(request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if not access_log.may_view(request.user):
            raise PermissionDenied(
                _("Only holders of the permission view_accessevent may view the access log.")
            )
        return view(request, *args, **kwargs)

    return wrapper  # type: ignore[return-value]  # `wraps` names the request in the type
