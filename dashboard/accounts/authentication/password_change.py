"""Change one's own password: throttled like a sign-in, and recorded whether it succeeds or not."""

from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password
from django.contrib.auth.models import User
from django.db import transaction
from django.utils.translation import gettext_lazy
from django.views.decorators.debug import sensitive_variables

from dashboard.accounts import access_log, demo, permissions, sessions
from dashboard.accounts.authentication import break_glass, sign_in
from dashboard.accounts.authentication.sign_in import Attempt, Refusal
from dashboard.db.threads import now
from dashboard.models.accounts.access import AccessKind
from dashboard.texts.rich_text import Message, MessageTable

_text = MessageTable(
    {
        "no_password_sign_in": gettext_lazy("Password sign-in is disabled."),
        "demo": gettext_lazy("Demo accounts have a fixed password."),
        "no_password": gettext_lazy(
            "Your account has no password here: you sign in through another service."
        ),
    }
)


@dataclass(frozen=True, slots=True)
class CheckedChange:
    """The hashes of the password that was checked, and of the one that replaces it."""

    old_hash: str
    new_hash: str


def denied_reason(user: User) -> Message | str:
    """Return why `user` cannot change their password; empty: they can."""
    if settings.READ_ONLY:
        return permissions.read_only_reason()
    if user.has_usable_password():
        is_used = break_glass.may_use_password(user)
        return "" if is_used else _text("no_password_sign_in")
    if user.groups.filter(name=demo.GROUP).exists():
        return _text("demo")
    return _text("no_password")


@sensitive_variables("old_password", "new_password")
def check(
    user: User, attempt: Attempt, old_password: str, new_password: str
) -> CheckedChange | Refusal:
    """Return what `save` needs if the old password is right; else a refusal, which is counted.

    Takes a second: for the password queue.
    """
    if wait := sign_in.remaining_wait(attempt, now()):
        return Refusal(wait)
    # Not the account's own method, which may save it with a new hash of the old password.
    if check_password(old_password, user.password):
        return CheckedChange(user.password, make_password(new_password))
    return sign_in.refuse(attempt, AccessKind.PASSWORD_REFUSED, user, "Wrong password.")


def save(
    user: User,
    change: CheckedChange,
    session_key: str | None,
    at: datetime,
    *,
    client_address: str | None,
) -> bool:
    """Save the new password, record that, and end all sessions of `user` but the given one.

    False if the account, its password or that session has changed since the check: nothing is
    saved. `user` then has the old password, else the new one.
    """
    with transaction.atomic():
        unchanged = User.objects.select_for_update().filter(
            pk=user.pk, password=change.old_hash, is_active=True
        )
        if not unchanged.exists() or not user.sessions.filter(pk=session_key).exists():
            return False
        ended = sessions.delete_others(user, session_key, at)
        user.password = change.new_hash
        user.save(update_fields=["password"])
        access_log.record(
            AccessKind.PASSWORD_CHANGED,
            at,
            user=user,
            client_address=client_address,
            detail=f"On My account. Other sessions ended: {ended}.",
        )
    return True
