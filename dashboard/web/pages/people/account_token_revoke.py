"""Revoke an API token of an account."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from dashboard.accounts.administration import account_changes
from dashboard.accounts.administration.administrators import AdministrationError
from dashboard.models import ApiToken
from dashboard.web.http.administrators import (
    author,
    for_administrators,
    redirect_after_change,
    refuse_change,
)
from dashboard.web.pages.people.account import render_account


@require_POST
@for_administrators
def account_token_revoke(request: HttpRequest, key: int, token_key: int) -> HttpResponse:
    """Revoke an API token of an account for good."""
    token = get_object_or_404(ApiToken.objects.select_related("user"), user=key, pk=token_key)
    try:
        account_changes.revoke_token(author(request), token)
    except AdministrationError as error:

        def show(text: str, status: int) -> HttpResponse:
            return render_account(request, key, {"": [text]}, status)

        return refuse_change(request, error, show)
    text = _("Token “%(name)s” revoked.") % {"name": token.name}
    return redirect_after_change(request, text, "account", key=key)
