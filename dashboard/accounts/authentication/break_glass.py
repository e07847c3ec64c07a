"""The break-glass account: it signs in with its password when nobody else may or can.

Each of its sign-ins is recorded, and logged as a warning.
"""

from typing import Any

import structlog
from django.conf import settings
from django.contrib.auth.backends import ModelBackend
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.utils.crypto import get_random_string
from django.views.decorators.debug import sensitive_variables

log = structlog.get_logger(__name__)


def is_name(username: str) -> bool:
    """Return whether this is the name of the break-glass account, in upper or lower case."""
    name: str = settings.BREAK_GLASS_ACCOUNT
    return bool(name) and username.casefold() == name.casefold()


def may_use_password(user: User) -> bool:
    """Return whether a password can sign an account in, if it has one."""
    return settings.PASSWORD_SIGN_IN or user.username == settings.BREAK_GLASS_ACCOUNT


def warn_if_unusable() -> None:
    """Log a warning if the break-glass account could not sign in: there is time to repair it."""
    name: str = settings.BREAK_GLASS_ACCOUNT
    user = User.objects.filter(username=name).first()
    if user is None:
        reason = "There is no such account."
    elif not user.is_active:
        reason = "It is inactive."
    else:
        reason = "" if user.has_usable_password() else "It has no password."
    if name and reason:
        log.warning("break_glass.unusable", username=name, why=reason)


class BreakGlassBackend(ModelBackend):
    """Accept the password of the break-glass account only.

    With `PASSWORD_SIGN_IN=false` it is in the place of Django's backend, whose sessions then end.
    """

    @sensitive_variables("password")
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **credentials: Any,
    ) -> Any:
        """Return the break-glass account if its password is right. Any name takes as long."""
        if username != settings.BREAK_GLASS_ACCOUNT:
            password = get_random_string(22)  # hashed as well
        return super().authenticate(request, username=username, password=password)

    def get_user(self, user_id: int) -> User | None:
        user = super().get_user(user_id)
        is_allowed = isinstance(user, User) and user.username == settings.BREAK_GLASS_ACCOUNT
        return user if is_allowed else None
