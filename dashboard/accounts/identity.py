"""Who sends a request and what they may do, by one statement instead of Django's four queries.

Django identifies the user of a session once. After that the session counts as identified as long as
everything from which that follows is unchanged in the database: the session, the account, its
groups, and all grants. So an ended session or a withdrawn grant counts at the next request; for the
expiry of a session, a cached page may be a second late (db/recent_reads.py).
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
from dashboard.db.prepared import NOW, CombinedQuery, Parameter, Texts, joined
from dashboard.models import Grant, Session

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
FACTS = 8  # the number of columns of `facts()`


def facts() -> list[QuerySet[Any, Any]]:
    """Return querysets of one row each, for a `CombinedQuery`: all from which an identity follows.

    `SESSION`, `USER` and `NOW` are given at each execution.
    """
    return [
        Session.objects.filter(session_key=SESSION, expire_date__gt=NOW).values_list(
            "session_data"
        ),
        User.objects.filter(pk=USER).values_list(
            "username", "password", "is_active", "is_staff", "is_superuser"
        ),
        User.groups.through.objects.filter(user=USER).values_list(
            Texts(joined("group_id", "group__name"))
        ),
        Grant.objects.values_list(
            Texts(joined("action", "project_id", "stage", "group_id", "group__name"))
        ),
    ]


@dataclass(frozen=True, slots=True)
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
        return CombinedQuery(facts())

    def find(self, request: HttpRequest) -> IdentifiedSession | None:
        """Return the session of a request as it was identified; its facts may have changed.

        None if the proxy does not send the user of the session.
        """
        session = self._sessions.get(request.COOKIES.get(settings.SESSION_COOKIE_NAME, ""))
        if session is None or session.identity.proxy_digest != auth_proxy.digest_of(request):
            return None
        return session

    def identify(self, request: HttpRequest) -> IdentifiedSession | None:
        """Return the session of a request; None if nobody is signed in, or a message waits.

        Also None if the proxy does not send the user of the session.
        """
        session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        if not session_key:
            return None
        return self.find_unchanged(request) or self._identify_anew(request, session_key)

    def find_unchanged(self, request: HttpRequest) -> IdentifiedSession | None:
        """Return the session of a request if it was identified before and its facts still hold."""
        session = self.find(request)
        if session is None:
            return None
        facts = self._load_facts(session.key, session.identity.user_pk)
        return session if facts == session.facts else None

    def _identify_anew(self, request: HttpRequest, session_key: str) -> IdentifiedSession | None:
        user_pk = request.session.get(auth.SESSION_KEY)
        if user_pk is None or "_messages" in request.session:
            return None
        proxy_digest = request.session.get(auth_proxy.SESSION_DIGEST, "")
        if proxy_digest != auth_proxy.digest_of(request):
            return None
        facts = self._load_facts(session_key, int(user_pk))
        user = auth.get_user(request)
        # The request's session was read before: meanwhile it may have ended.
        is_session_stored = facts[0] is not None
        if not isinstance(user, User) or not is_session_stored:
            return None
        identity = Identity(user.pk, user.get_username(), permissions.for_user(user), proxy_digest)
        if self._load_facts(session_key, user.pk) != facts:
            return None  # changed meanwhile: identified at the next request
        session = self._sessions[session_key] = IdentifiedSession(
            session_key, identity, facts, user
        )
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return session

    def _load_facts(self, session_key: str, user_pk: int) -> Facts:
        rows = self._query.fetch(session=session_key, user=user_pk, now=db_threads.now())
        return rows[0][1:]


class IdentityMiddleware(AuthenticationMiddleware):
    """Django's, without a query for the session and the user of an identified session."""

    def process_request(self, request: HttpRequest) -> None:
        super().process_request(request)
        if (session := session_of(request)) is not None:
            request.user = copy(session.user)

    def process_view(self, request: HttpRequest, view_func: Any, *_arguments: Any) -> None:
        """Find the session of a form, if the view has `with_identity`."""
        if session_of(request) is not None or not getattr(view_func, "is_identified", False):
            return
        identities: Identities = request.identities  # type: ignore[attr-defined]
        if (session := identities.find_unchanged(request)) is not None:
            request.identified_session = session  # type: ignore[attr-defined]
            request.user = copy(session.user)


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


def permissions_of(request: HttpRequest) -> Permissions:
    """Return the permissions of the user of a request, as of the request."""
    identity = identity_of(request)
    return identity.permissions if identity else permissions.for_user(request.user)
