"""Views for administrators or holders of a permission only; the changes that the first make."""

from collections.abc import Callable

from django.conf import settings
from django.contrib import messages
from django.contrib.auth.decorators import user_passes_test
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy

from dashboard.accounts import access_log
from dashboard.accounts.administration import administrators
from dashboard.accounts.administration.administrators import AdministrationError, Author
from dashboard.web.http import errors
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address


def _only[View: Callable[..., HttpResponseBase]](
    may_view: Callable[[AbstractBaseUser | AnonymousUser], bool], text: str | Promise
) -> Callable[[View], View]:
    """Return a decorator of views that refuses other users with a 403."""

    def verify(user: AbstractBaseUser | AnonymousUser) -> bool:
        if not may_view(user):
            raise PermissionDenied(str(text))
        return True

    return user_passes_test(verify)


for_administrators = _only(
    administrators.may_administer,
    gettext_lazy("Only administrators may open this page."),
)
for_log_readers = _only(
    access_log.may_view,
    gettext_lazy("Ask a superuser for the permission “Can view access event”."),
)


def make_change[T](
    request: HttpRequest,
    change: Callable[[Author], T],
    text: str,
    address: str | Callable[[T], str],
    render: Callable[[str, int], HttpResponse],
) -> HttpResponse:
    """Make a change, and show the page at `address`, or that of what it returns, with `text`.

    By a 303, so that reloading it repeats nothing. Without a `text` the page says what came of it.
    If the change is refused, `render` is given the reason and the status; who can change nothing
    any more gets a 403 without the page.
    """
    try:
        changed = change(Author(signed_in_user(request), client_address(request)))
    except AdministrationError as error:
        user = User.objects.filter(pk=signed_in_user(request).pk).first()
        if settings.READ_ONLY or user is None or not administrators.may_administer(user):
            return errors.forbidden(request, str(error))
        return render(str(error), error.status)
    if text:
        messages.success(request, text, extra_tags="good")
    response = redirect(address if isinstance(address, str) else address(changed))
    response.status_code = 303
    return response
