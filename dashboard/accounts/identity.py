"""Who sends a request and what they may do, by one statement instead of Django's four queries.

Django identifies the user of a session once. After that the session counts as identified as long as
everything from which that follows is unchanged in the database: the session, the account, its
groups, and all grants. So an ended session or a withdrawn grant counts at the next request. The
same statement reads the latest change, which decides on finished pages (web/live/page_cache.py).
"""

from collections import OrderedDict
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.conf import settings
from django.contrib import auth
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import User
from django.db.models import BigIntegerField, QuerySet, TextField
from django.http import HttpRequest

from dashboard.accounts import permissions
from dashboard.accounts.authentication import auth_proxy
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.db.expressions import Texts, joined
from dashboard.db.prepared import NOW, CombinedQuery, Parameter
from dashboard.models import ChangeCounter, Grant, Session

MAX_SESSIONS = 2_000  # about 1 KB each

SESSION = Parameter("session", TextField())
USER = Parameter("user", BigIntegerField())


@dataclass(frozen=True, slots=True)
class Identity:
    """A signed-in user and their permissions."""

    user_pk: int
    username: str
    permissions: Permissions
    proxy_digest: str = ""  # what the proxy must send with the session's requests (auth_proxy.py)


type Facts = tuple[Any, ...]


def facts() -> list[QuerySet[Any, Any]]:
    """Return querysets of one row each, for a `CombinedQuery`: all from which an identity follows.

    `SESSION`, `USER` and `NOW` are given at each execution.
    """
    return [
        Session.objects.filter(session_key=SESSION, expire_date__gt=NOW).values_list(
            "session_data"
        ),
        User.objects.filter(pk=USER).values_list(
            "username", "password", "is_active", "is_superuser"
        ),
        User.groups.through.objects.filter(user=USER).values_list(
            Texts(joined("group_id", "group__name"))
        ),
        Grant.objects.values_list(
            Texts(joined("action", "project_id", "stage", "group_id", "group__name"))
        ),
    ]


@dataclass(frozen=True, slots=True, eq=False)  # as a key, quickly
class IdentifiedSession:
    """A session, who it belongs to, and the facts of which that is true."""

    key: str
    identity: Identity
    facts: Facts
    user: User  # its name, password and flags as in `facts`; the rest as it was


class Identities:
    """The identified sessions of this process."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, IdentifiedSession] = OrderedDict()

    @cached_property
    def _query(self) -> CombinedQuery:
        return CombinedQuery([*facts(), ChangeCounter.objects.filter(pk=1).values_list("value")])

    def find(self, request: HttpRequest) -> IdentifiedSession | None:
        """Return the session of a request if it was identified before and its facts still hold.

        It is set on the request, with the latest change. None if the proxy does not send the user
        of the session.
        """
        session = self._sessions.get(request.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))
        if session is None or session.identity.proxy_digest != auth_proxy.digest_of(request):
            return None
        facts, version = self._load(session.key, session.identity.user_pk)
        if facts != session.facts:
            self._sessions.pop(session.key, None)
            return None
        return _identified(request, session, version)

    def identify(self, request: HttpRequest) -> IdentifiedSession | None:
        """Return the session of a request; None if nobody is signed in, or a message waits.

        It is set on the request, with the latest change. Also None if the proxy does not send the
        user of the session.
        """
        session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        if not session_key:
            return None
        return self.find(request) or self._identify_anew(request, session_key)

    def _identify_anew(self, request: HttpRequest, session_key: str) -> IdentifiedSession | None:
        user_pk = request.session.get(auth.SESSION_KEY)
        if user_pk is None or "_messages" in request.session:
            return None
        proxy_digest = request.session.get(auth_proxy.SESSION_DIGEST, "")
        if proxy_digest != auth_proxy.digest_of(request):
            return None
        facts, version = self._load(session_key, int(user_pk))
        user = auth.get_user(request)
        # The request's session was read before: meanwhile it may have ended.
        is_session_stored = facts[0] is not None
        if not isinstance(user, User) or not is_session_stored:
            return None
        identity = Identity(user.pk, user.get_username(), permissions.for_user(user), proxy_digest)
        if self._load(session_key, user.pk)[0] != facts:
            return None  # changed meanwhile: identified at the next request
        session = self._sessions[session_key] = IdentifiedSession(
            session_key, identity, facts, user
        )
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return _identified(request, session, version)

    def _load(self, session_key: str, user_pk: int) -> tuple[Facts, int]:
        """Return the facts of a session and the latest change."""
        rows = self._query.fetch(session=session_key, user=user_pk, now=db_threads.now())
        _one, *facts, version = rows[0]
        return tuple(facts), version or 0


class IdentityMiddleware(AuthenticationMiddleware):
    """Django's, without a query for the session and the user of an identified session."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        identities: Identities = request.identities  # type: ignore[attr-defined]
        if request.method == "GET" and session_of(request) is None:
            identities.identify(request)
        _set_user(request)

    def process_view(self, request: HttpRequest, view_func: Any, *_arguments: Any) -> None:
        """Find the session of a form, if the view has `with_identity`."""
        if session_of(request) is None and getattr(view_func, "is_identified", False):
            identities: Identities = request.identities  # type: ignore[attr-defined]
            identities.find(request)
            _set_user(request)


def with_identity[View: Callable[..., Any]](view: View) -> View:
    """Decorate a view of forms: the user of an identified session takes it one statement.

    `request.user` may have an old e-mail address or time of sign-in: the view must not save it.
    """
    view.is_identified = True  # type: ignore[attr-defined]
    return view


def session_of(request: HttpRequest) -> IdentifiedSession | None:
    """Return the session of a request, if it was identified by `Identities`."""
    session: IdentifiedSession | None = getattr(request, "identified_session", None)
    return session


def identity_of(request: HttpRequest) -> Identity | None:
    """Return who sends a request, if that was found out by `Identities`."""
    session = session_of(request)
    return None if session is None else session.identity


def version_of(request: HttpRequest) -> int:
    """Return the latest change, read before anything else for the request."""
    version: int | None = getattr(request, "version", None)
    return ChangeCounter.latest() if version is None else version


def permissions_of(request: HttpRequest) -> Permissions:
    """Return the permissions of the user of a request, as of the request."""
    identity = identity_of(request)
    return identity.permissions if identity else permissions.for_user(request.user)


def _set_user(request: HttpRequest) -> None:
    if (session := session_of(request)) is not None:
        request.user = copy(session.user)


def _identified(
    request: HttpRequest, session: IdentifiedSession, version: int
) -> IdentifiedSession:
    request.identified_session, request.version = session, version  # type: ignore[attr-defined]
    return session
