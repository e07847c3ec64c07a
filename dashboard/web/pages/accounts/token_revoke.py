"""Revoke one of one's own API tokens."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from dashboard.accounts import api_tokens
from dashboard.db.threads import now
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address
from dashboard.web.pages.accounts.my_account import redirect_to_page


@require_POST
def token_revoke(request: HttpRequest, key: int) -> HttpResponse:
    """Revoke one of the user's API tokens."""
    user = signed_in_user(request)
    token = get_object_or_404(user.api_tokens, pk=key)
    api_tokens.revoke(
        token,
        now(),
        changed_by=user,
        client_address=client_address(request),
        detail="On My account.",
    )
    return redirect_to_page(request, _("Token “%(name)s” revoked.") % {"name": token.name})
