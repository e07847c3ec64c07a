"""End one of one's own sessions, or all others."""

from django.http import Http404, HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from dashboard.accounts import sessions
from dashboard.db.threads import now
from dashboard.web.http import database_outage
from dashboard.web.http.authentication.sign_in import signed_in_user
from dashboard.web.http.client_address import client_address
from dashboard.web.pages.accounts.my_account import redirect_to_page


@require_POST
def end_session(request: HttpRequest, public_id: str) -> HttpResponse:
    """End one of the user's sessions."""
    database_outage.count_session_deletions(request)
    is_ended = sessions.end(
        signed_in_user(request), public_id, now(), client_address=client_address(request)
    )
    if not is_ended:
        raise Http404
    return redirect_to_page(request, _("Session ended."))


@require_POST
def end_other_sessions(request: HttpRequest) -> HttpResponse:
    """End all of the user's sessions but this one."""
    database_outage.count_session_deletions(request)
    ended = sessions.end_others(
        signed_in_user(request),
        request.session.session_key,
        now(),
        client_address=client_address(request),
    )
    text = ngettext("%(n)d other session ended.", "%(n)d other sessions ended.", ended)
    return redirect_to_page(request, text % {"n": ended})
