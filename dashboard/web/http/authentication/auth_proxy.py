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
from dashboard.accounts.authentication.auth_proxy import AccountRefused, Headers, InvalidHeader
from dashboard.accounts.identity import identity_of
from dashboard.db.threads import now
from dashboard.models.accounts.access import AccessKind
from dashboard.web.http import errors
from dashboard.web.http.client_address import client_address, peer_address

log = structlog.get_logger(__name__)

# Who has no session is signed in by a request for a page. OPTIONS and TRACE show none; all others
# are answered as signed out: a new session has another token against forged forms.
_SIGN_IN_METHODS = {"GET", "HEAD"}
_OTHER_PATHS = ("/api/", "/hooks/")

type GetResponse = Callable[[HttpRequest], HttpResponseBase]


class HeaderMiddleware:
    """Read the user from the header of the proxy; refuse the header if others send it.

    Whoever sends it past the proxy gets a 403, not a sign-in page: a proxy that is missing in
    `AUTH_PROXY_TRUSTED` is then noticed at once.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not _is_concerned(request):
            return self.get_response(request)
        headers, peer = _headers(request), peer_address(request)
        if not auth_proxy.is_trusted(peer):
            if not auth_proxy.has_user_header(headers):
                return self.get_response(request)
            message = _("Only the proxy may send the header %(name)s. This request bypassed it.")
            return _refuse(request, message % {"name": settings.AUTH_PROXY_HEADER}, peer=peer)
        try:
            request.proxy_user = auth_proxy.read_user(headers)  # type: ignore[attr-defined]
        except InvalidHeader as error:
            return _refuse(request, str(error), _sign_out_links(), peer=peer)
        return self.get_response(request)


class ProxySessionMiddleware:
    """Begin a session for the proxy's user, and end it when the proxy sends another or none.

    Where an identity was found (accounts/identity.py), it is the proxy's user.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if not _is_concerned(request) or identity_of(request) is not None:
            return self.get_response(request)
        try:
            _update_session(request)
        except AccountRefused as refusal:
            return _refuse(request, str(refusal), _sign_out_links())
        return self.get_response(request)


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
    """Make the session that of the proxy's user; raise AccountRefused if there can be none."""
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


def _headers(request: HttpRequest) -> Headers:
    # As they were sent: Django joins those that were sent twice.
    headers: Headers = getattr(request, "scope", {}).get("headers", [])
    return headers
