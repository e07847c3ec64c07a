"""Revoke an API token of an account."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from dashboard.accounts.administration import account_changes
from dashboard.models import ApiToken
from dashboard.web.http.administrators import for_administrators, make_change
from dashboard.web.pages.people.account import render_account


@require_POST
@for_administrators
def account_token_revoke(request: HttpRequest, key: int, token_key: int) -> HttpResponse:
    """Revoke an API token of an account for good."""
    token = get_object_or_404(ApiToken.objects.select_related("user"), user=key, pk=token_key)
    return make_change(
        request,
        lambda author: account_changes.revoke_token(author, token),
        _("Token “%(name)s” revoked.") % {"name": token.name},
        lambda _changed: reverse("account", args=[key]),
        lambda text, status: render_account(request, key, {"": [text]}, status),
    )
