"""Set the password of an account, and revoke its tokens; its page shows why that was refused."""

from functools import partial

from django.contrib.auth.hashers import make_password
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_POST

from dashboard.accounts.administration import account_changes
from dashboard.models import ApiToken
from dashboard.web.http import lookup
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.http.authentication import password_checks
from dashboard.web.pages.people.account import render_account


@require_POST
@for_administrators
@sensitive_post_parameters("password")
def account_password(request: HttpRequest, key: int) -> HttpResponse:
    """Set the password of an account, which ends its sessions."""
    password = request.POST.get("password", "")
    try:
        validate_password(password, lookup.get_account_or_404(key))
    except ValidationError as error:
        return render_account(request, key, status=422, password_errors=error.messages)

    def save(hashed: str) -> HttpResponse:
        return make_change(
            request,
            lambda author: account_changes.set_password(author, key, hashed),
            _("Password set."),
            reverse("account", args=[key]),
            partial(render_account, request, key),
        )

    return password_checks.queue_check(
        partial(make_password, password),
        then=save,
        render=lambda text: render_account(request, key, status=503, password_errors=[text]),
    )


@require_POST
@for_administrators
def account_token_revoke(request: HttpRequest, key: int, token_key: int) -> HttpResponse:
    """Revoke an API token of an account for good."""
    token = get_object_or_404(ApiToken.objects.select_related("user"), user=key, pk=token_key)
    return make_change(
        request,
        lambda author: account_changes.revoke_token(author, token),
        _("Token “%(name)s” revoked.") % {"name": token.name},
        reverse("account", args=[key]),
        partial(render_account, request, key),
    )
