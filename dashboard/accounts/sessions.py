"""Sessions of accounts: begin, record their use, list and end them, and which still hold."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.backends.base import SessionBase
from django.db import DEFAULT_DB_ALIAS, DatabaseError, transaction
from django.db.models import F, Value
from django.db.models.functions import Least
from django.utils.crypto import constant_time_compare

from dashboard.accounts import access_log, permissions
from dashboard.accounts.permissions import Permissions
from dashboard.db import health as db_health
from dashboard.models import Session
from dashboard.models.accounts import sessions as session_model
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.sessions import USE_INTERVAL

CLEANUP_INTERVAL = 600.0  # seconds between two looks for expired sessions
BATCH_SIZE = 500  # sessions that are deleted at once
MAX_LISTED = 100  # a program that signs in again and again has any number


def begin(store: SessionBase, at: datetime, *, client_address: str | None, browser: str) -> None:
    """Note in a session that somebody signs in, and when it ends at the latest."""
    store[session_model.CREATED_AT] = at.isoformat()
    store[session_model.CLIENT_ADDRESS] = client_address
    store[session_model.BROWSER] = browser[: session_model.LABEL_LENGTH]
    store.set_expiry(at + timedelta(seconds=settings.SESSION_MAX_AGE))


# --- Use -----------------------------------------------------------------------------------------


def record_use(session_key: str, at: datetime) -> None:
    """Record a page view or form of a valid session, once in USE_INTERVAL.

    Without waiting for a lock, and not during an outage: pages are shown then, too.
    """
    last = session_model.recorded_uses.get(session_key)
    if (last is not None and abs(at - last) < USE_INTERVAL) or not db_health.is_available():
        return
    ends_at = F("ends_at")
    timeout = session_model.idle_timeout()
    session = Session.objects.filter(session_key=session_key)
    try:
        with db_health.without_lock_wait():
            is_recorded = session.filter(last_used_at__lte=at - USE_INTERVAL).update(
                last_used_at=at,
                expire_date=Least(ends_at, Value(at + timeout)) if timeout else ends_at,
            )
            if not is_recorded:  # another process has recorded one, or this one before a restart
                last_used_at = session.values_list("last_used_at", flat=True).first()
                at = min(at, last_used_at or at)  # it is later if the clock was set back
    except DatabaseError as error:
        if not db_health.is_outage(error):
            raise
        return
    session_model.remember_use(session_key, at)


# --- The sessions of an account ------------------------------------------------------------------


def valid_sessions(user: User, at: datetime) -> list[Session]:
    """Return the sessions of `user`, the MAX_LISTED last used, the latest first.

    Those of an earlier password are not listed: nobody can use them.
    """
    stored = user.sessions.filter(expire_date__gt=at).order_by("-last_used_at")
    return [session for session in stored[:MAX_LISTED] if is_of_password(session, user)]


def is_of_password(session: Session, user: User) -> bool:
    """Return whether the session is of the account's present password: a new one ends it."""
    stored = session.get_decoded().get(HASH_SESSION_KEY, "")
    return constant_time_compare(stored, user.get_session_auth_hash())


def end(user: User, public_id: str, at: datetime, *, client_address: str | None) -> bool:
    """End a session of `user`, and record that; False: they have none of this name."""
    for session in valid_sessions(user, at):
        if constant_time_compare(session.public_id, public_id):
            break
    else:
        return False
    with transaction.atomic():
        deleted, _ = user.sessions.filter(pk=session.pk).delete()
        if deleted:
            access_log.record(
                AccessKind.SESSION_ENDED,
                at,
                user=user,
                client_address=client_address,
                detail=f"Ended on My account: {session.browser or 'unknown browser'}"
                f" at {session.client_address or 'unknown address'}.",
            )
    return bool(deleted)


def end_others(
    user: User, session_key: str | None, at: datetime, *, client_address: str | None
) -> int:
    """End all sessions of `user` but the given one, record that, and return their number."""
    with transaction.atomic():
        ended = delete_others(user, session_key, at)
        if ended:
            access_log.record(
                AccessKind.SESSION_ENDED,
                at,
                user=user,
                client_address=client_address,
                detail=f"Ended on My account: all {ended} others.",
            )
    return ended


def delete_others(user: User, session_key: str | None, at: datetime) -> int:
    """Delete all sessions of `user` but the given one; return how many were valid."""
    others = user.sessions.exclude(pk=session_key or "")
    unexpired = others.filter(expire_date__gt=at)
    valid_count = sum(is_of_password(session, user) for session in unexpired)
    others.delete()
    return valid_count


def delete_expired(at: datetime) -> None:
    """Delete the sessions that had expired by `at`; strangers can begin any number."""
    expired = Session.objects.filter(expire_date__lt=at).values_list("pk", flat=True)
    while keys := list(expired[:BATCH_SIZE]):
        # Without loading the rows and notifying of each, as `delete` would.
        Session.objects.filter(pk__in=keys)._raw_delete(DEFAULT_DB_ALIAS)


# --- Open streams --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedInSession:
    """A session, and the password's hash at its sign-in: another password ends it."""

    key: str
    password: str


def current_permissions(
    sessions: Collection[SignedInSession], at: datetime
) -> dict[SignedInSession, Permissions]:
    """Return the permissions of each session that still holds. Two statements, however many."""
    accounts: dict[SignedInSession, tuple[bool, set[str]]] = {}
    rows = Session.objects.filter(
        pk__in=[session.key for session in sessions], expire_date__gt=at, user__is_active=True
    ).values_list("pk", "user__password", "user__is_superuser", "user__groups__name")
    for key, password, is_superuser, group in rows:
        _, groups = accounts.setdefault(SignedInSession(key, password), (is_superuser, set()))
        if group is not None:
            groups.add(group)
    rules = permissions.load_rules()
    return {
        session: permissions.build(is_superuser, groups, rules)
        for session, (is_superuser, groups) in accounts.items()
    }
