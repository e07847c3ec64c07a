"""Views for those who may view the access log."""

from collections.abc import Callable
from functools import wraps

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.utils.translation import gettext as _

from dashboard.accounts import access_log

type View = Callable[[HttpRequest], HttpResponseBase]


def require_view_permission(view: View) -> View:
    """Refuse other users with a 403."""

    @wraps(view)
    def wrapper(request: HttpRequest) -> HttpResponseBase:
        if not access_log.may_view(request.user):
            raise PermissionDenied(
                _("Only holders of the permission view_accessevent may view the access log.")
            )
        return view(request)

    return wrapper
