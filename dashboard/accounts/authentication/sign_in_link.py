"""A link that signs an account in once: for whoever is kept out, from whoever runs commands here.

Its token is the account's key, signed together with its password and its last sign-in: any sign-in
and a new password invalidate it. It needs neither a password nor the provider or the proxy.
"""

from datetime import timedelta

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.core import signing

from dashboard.db.threads import now

MAX_AGE = timedelta(minutes=10)
BACKEND = "dashboard.accounts.authentication.sign_in_link.SignInLinkBackend"


class SignInLinkBackend(BaseBackend):
    """Sessions that began with a link. It checks no password."""

    source = "Sign-in link"

    def get_user(self, user_id: int) -> User | None:
        """Return the active account of a session, or None."""
        return User.objects.filter(pk=user_id, is_active=True).first()


def create_token(user: User) -> str:
    """Return the token of a link for an account, valid for MAX_AGE."""
    return _signer(user).sign(str(user.pk))


def find_account(token: str) -> User | None:
    """Return the account that a token signs in; None if it is invalid, used or too old."""
    key = token.partition(":")[0]
    if not (key.isascii() and key.isdecimal()):
        return None
    user = User.objects.filter(pk=key[:18], is_active=True).first()
    if user is None:
        return None
    try:
        _signer(user).unsign(token, max_age=MAX_AGE)
    except signing.BadSignature:
        return None
    return user


def use(account: User) -> bool:
    """Use up the link of an account that was found; False: another request was faster."""
    unused = User.objects.filter(pk=account.pk, last_login=account.last_login)
    return bool(unused.update(last_login=now()))


def _signer(user: User) -> signing.TimestampSigner:
    return signing.TimestampSigner(salt=f"{__name__} {user.last_login} {user.password}")
