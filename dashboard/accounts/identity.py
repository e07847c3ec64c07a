"""Who sends a request and what they may do, by one statement instead of Django's four queries.

Django identifies the user of a session once. After that the session counts as identified as long as
everything from which that follows is unchanged in the database: the session, the account, its
groups, and all grants. So an ended session or a withdrawn grant counts at the next request.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

from django.conf import settings
from django.contrib import auth
from django.contrib.auth.models import User
from django.db.models import BigIntegerField, TextField
from django.http import HttpRequest

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.db.prepared import NOW, CombinedQuery, Parameter, Rows, Texts, joined
from dashboard.models import Grant, Session

MAX_SESSIONS = 2_000  # about 1 KB each

_USER = Parameter("user", BigIntegerField())


@dataclass(frozen=True, slots=True)
class Identity:
    """A signed-in user and their permissions."""

    user_pk: int
    username: str
    permissions: Permissions


@dataclass(frozen=True, slots=True)
class _KnownSession:
    facts: Rows
    identity: Identity


class Identities:
    """The identified sessions of this process."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, _KnownSession] = OrderedDict()

    @cached_property
    def _facts(self) -> CombinedQuery:
        return CombinedQuery(
            [
                Session.objects.filter(
                    session_key=Parameter("session", TextField()), expire_date__gt=NOW
                ).values_list("session_data"),
                User.objects.filter(pk=_USER).values_list(
                    "username", "password", "is_active", "is_staff", "is_superuser"
                ),
                User.groups.through.objects.filter(user=_USER).values_list(
                    Texts(joined("group_id", "group__name"))
                ),
                Grant.objects.values_list(
                    Texts(joined("action", "project_id", "stage", "group_id", "group__name"))
                ),
            ]
        )

    def identify(self, request: HttpRequest) -> Identity | None:
        """Return who sends the request; None if they are not signed in, or a message waits."""
        session_key = request.COOKIES.get(settings.SESSION_COOKIE_NAME)
        if not session_key:
            return None
        session = self._sessions.get(session_key)
        if session is not None:
            if self._load_facts(session_key, session.identity.user_pk) == session.facts:
                return session.identity
            self._sessions.pop(session_key, None)
        return self._identify_anew(request, session_key)

    def _identify_anew(self, request: HttpRequest, session_key: str) -> Identity | None:
        user_pk = request.session.get(auth.SESSION_KEY)
        if user_pk is None or "_messages" in request.session:
            return None
        facts = self._load_facts(session_key, int(user_pk))
        user = auth.get_user(request)
        # The request's session was read before: meanwhile it may have ended.
        is_session_stored = facts[0][1] is not None
        if not isinstance(user, User) or not is_session_stored:
            return None
        identity = Identity(user.pk, user.get_username(), permissions.for_user(user))
        if self._load_facts(session_key, user.pk) != facts:
            return None  # changed meanwhile: identified at the next request
        self._sessions[session_key] = _KnownSession(facts, identity)
        while len(self._sessions) > MAX_SESSIONS:
            self._sessions.popitem(last=False)
        return identity

    def _load_facts(self, session_key: str, user_pk: int) -> Rows:
        return self._facts.fetch(session=session_key, user=user_pk, now=db_threads.now())


def identity_of(request: HttpRequest) -> Identity | None:
    """Return who sends a request, if that was found out by `Identities`."""
    identity: Identity | None = getattr(request, "identity", None)
    return identity
