"""End one's own sessions, and revoke one's own API tokens."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from dashboard.accounts import api_tokens, sessions
from dashboard.db.threads import now
from dashboard.web.http import database_outage
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address
from dashboard.web.pages.accounts.my_account import redirect_to_page


@require_POST
def end_session(request: HttpRequest, public_id: str) -> HttpResponse:
    """End one of the user's sessions."""
    database_outage.count_session_deletions(request)
    user, address = signed_in_user(request), client_address(request)
    if not sessions.end(user, public_id, now(), client_address=address):
        raise Http404
    return redirect_to_page(request, _("Session ended."))


@require_POST
def end_other_sessions(request: HttpRequest) -> HttpResponse:
    """End all of the user's sessions but this one."""
    database_outage.count_session_deletions(request)
    user, address = signed_in_user(request), client_address(request)
    key = request.session.session_key
    ended = sessions.end_others(user, key, now(), client_address=address)
    text = ngettext("%(n)d other session ended.", "%(n)d other sessions ended.", ended)
    return redirect_to_page(request, text % {"n": ended})


@require_POST
def token_revoke(request: HttpRequest, key: int) -> HttpResponse:
    """Revoke one of the user's API tokens."""
    user, address = signed_in_user(request), client_address(request)
    token = get_object_or_404(user.api_tokens, pk=key)
    detail = "On My account."
    api_tokens.revoke(token, now(), changed_by=user, client_address=address, detail=detail)
    return redirect_to_page(request, _("Token “%(name)s” revoked.") % {"name": token.name})
