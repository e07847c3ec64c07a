"""Users of an authenticating proxy: check its header, keep the session.

The rules are in accounts/authentication/auth_proxy.py.

The API, the webhook and the probes have secrets of their own, or none: for them the header means
nothing.
"""

from collections.abc import Callable, Sequence

import structlog
from django.conf import settings
from django.contrib.auth import SESSION_KEY, login
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.translation import gettext as _

from dashboard.accounts import access_log
from dashboard.accounts.authentication import auth_proxy
from dashboard.accounts.authentication.auth_proxy import Headers, Refused
from dashboard.accounts.identity import identity_of
from dashboard.db.threads import now
from dashboard.models.accounts.access import AccessKind
from dashboard.web.http import errors
from dashboard.web.http.client_address import client_address, peer_address

log = structlog.get_logger(__name__)

# Who has no session is signed in by a request for a page. OPTIONS shows none; all others
# are answered as signed out: a new session has another token against forged forms.
_SIGN_IN_METHODS = {"GET", "HEAD"}
_OTHER_PATHS = ("/api/", "/hooks/")

type GetResponse = Callable[[HttpRequest], HttpResponseBase]


def header_middleware(get_response: GetResponse) -> GetResponse:
    """Read the user from the header of the proxy; refuse the header if others send it.

    Whoever sends it past the proxy gets a 403, not a sign-in page: a proxy that is missing in
    `AUTH_PROXY_TRUSTED` is then noticed at once.
    """

    def respond(request: HttpRequest) -> HttpResponseBase:
        if not _is_concerned(request):
            return get_response(request)
        # As they were sent: Django joins those that were sent twice.
        headers: Headers = getattr(request, "scope", {}).get("headers", [])
        peer = peer_address(request)
        if auth_proxy.is_trusted(peer):
            try:
                request.proxy_user = auth_proxy.read_user(headers)  # type: ignore[attr-defined]
            except Refused as refusal:
                return _refuse(request, str(refusal), _sign_out_links(), peer=peer)
        elif auth_proxy.has_user_header(headers):
            message = _("Only the proxy may send the header %(name)s. This request bypassed it.")
            return _refuse(request, message % {"name": settings.AUTH_PROXY_HEADER}, peer=peer)
        return get_response(request)

    return respond


def session_middleware(get_response: GetResponse) -> GetResponse:
    """Begin a session for the proxy's user, and end it when the proxy sends another or none.

    Where an identity was found (accounts/identity.py), it is the proxy's user.
    """

    def respond(request: HttpRequest) -> HttpResponseBase:
        if _is_concerned(request) and identity_of(request) is None:
            try:
                _update_session(request)
            except Refused as refusal:
                return _refuse(request, str(refusal), _sign_out_links())
        return get_response(request)

    return respond


def _refuse(
    request: HttpRequest, message: str, links: Sequence[tuple[str, str]] = (), **fields: object
) -> HttpResponse:
    """Return a 403 that says why, with links (label, URL) to continue."""
    address = client_address(request)
    log.warning("auth_proxy.refused", why=message, client_address=address, **fields)
    response = errors.forbidden(request, message, links)
    response._has_been_logged = True  # type: ignore[attr-defined]
    return response


def _update_session(request: HttpRequest) -> None:
    """Make the session that of the proxy's user; raise Refused if there can be none."""
    user, at, address = auth_proxy.user_of(request), now(), client_address(request)
    session_digest = request.session.get(auth_proxy.SESSION_DIGEST, "")
    if user is None:
        if session_digest:
            _end_session(request, "The proxy sent no user.")
        return
    account = request.user
    if session_digest and isinstance(account, User) and account.get_username() == user.name:
        if session_digest != user.digest:
            auth_proxy.update_groups(account, user, at, address)
            request.session[auth_proxy.SESSION_DIGEST] = user.digest
        return
    if SESSION_KEY in request.session:
        _end_session(request, "The proxy sent another user.")
    if request.method not in _SIGN_IN_METHODS:
        return
    account = auth_proxy.find_account(user, at, address)
    auth_proxy.update_groups(account, user, at, address)
    login(request, account, backend=auth_proxy.BACKEND)
    request.session[auth_proxy.SESSION_DIGEST] = user.digest


def _end_session(request: HttpRequest, detail: str) -> None:
    if isinstance(request.user, User):
        access_log.record(
            AccessKind.SESSION_ENDED,
            now(),
            user=request.user,
            client_address=client_address(request),
            detail=detail,
        )
    request.session.flush()
    request.user = AnonymousUser()


def _sign_out_links() -> list[tuple[str, str]]:
    url = settings.AUTH_PROXY_SIGN_OUT_URL
    return [(_("Sign out of the proxy"), url)] if url else []


def _is_concerned(request: HttpRequest) -> bool:
    return bool(settings.AUTH_PROXY_HEADER) and not request.path_info.startswith(_OTHER_PATHS)
