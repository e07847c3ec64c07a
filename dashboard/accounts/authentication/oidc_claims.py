"""What an OpenID provider says about a user: the subject, a name, an e-mail address, groups.

Claims come in the ID token, from the userinfo endpoint, or both. Any claim but the subject may be
missing or of any type: it then counts as missing.
"""

import re
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied

from dashboard.accounts import usernames

MAX_EMAIL_LENGTH = 254
MAX_USERNAME_LENGTH = 140  # leaves room for the number that makes it unique


class Reason(StrEnum):
    """Why a sign-in failed, as the access log has it."""

    DENIED = "The user or the provider denied it."
    STATE = "Unknown or expired attempt."
    UNREACHABLE = "The provider cannot be reached."
    PROVIDER = "The provider answered with an error."
    DISCOVERY = "The discovery document is invalid: check OIDC_ISSUER."
    CLOCK = "The ID token is not valid at this time: the clocks differ."
    AUDIENCE = "The ID token is for another client: check OIDC_CLIENT_ID."
    ISSUER = "The ID token is from another issuer: check OIDC_ISSUER."
    SIGNATURE = "The ID token is not signed with a key of the provider."
    NONCE = "The ID token belongs to another attempt."
    TOKEN = "The ID token or the userinfo is invalid."  # noqa: S105
    DOMAIN = "No verified e-mail address of an allowed domain."
    INACTIVE = "The account is inactive."
    RESERVED = "The account is the break-glass account, which signs in by password only."


class OIDCFailure(PermissionDenied):
    """A sign-in through the provider failed, of this account if any.

    `detail` adds facts for administrators, and no secrets; `next_url` is the page they asked for.
    allauth hands a PermissionDenied to its adapter, with the state of the attempt.
    """

    def __init__(self, reason: Reason, detail: str = "", user: User | None = None) -> None:
        super().__init__(f"{reason} {detail}".strip())
        self.reason = reason
        self.user = user
        self.next_url = ""


@dataclass(frozen=True, slots=True)
class Claims:
    """The claims about one user. A claim of the ID token, which is signed, comes first."""

    id_token: Mapping[str, Any]
    userinfo: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """The user's identifier at the provider; verified, and the same in both sources."""
        return str(self.id_token["sub"])

    @property
    def email(self) -> str:
        """An e-mail address, verified or not; empty: none."""
        return next(filter(None, map(_email, (self.id_token, self.userinfo))), "")

    @property
    def username(self) -> str:
        """A user name that Django accepts, not yet a unique one."""
        names = (self._find("preferred_username"), self.email.partition("@")[0], self.subject)
        return next(filter(None, map(_to_username, names)), "user")

    def groups(self, claim: str) -> list[str]:
        """Return the groups in a claim: the printable texts of a list, or one text.

        Anything else is no group: a missing claim, null, numbers, objects.
        """
        value = self._find(claim)
        values = value if isinstance(value, list) else [value]
        return [name for name in values if isinstance(name, str) and name.isprintable()]

    def has_verified_email(self, domains: Collection[str]) -> bool:
        """Return whether a source has a verified e-mail address of one of the domains."""
        return any(
            # Both from one source, or the other's address would count as verified.
            claims.get("email_verified") is True
            and _email(claims).rpartition("@")[2].lower() in domains
            for claims in (self.id_token, self.userinfo)
        )

    def _find(self, claim: str) -> Any:
        return self.id_token.get(claim, self.userinfo.get(claim))


def _email(claims: Mapping[str, Any]) -> str:
    email = claims.get("email")
    if isinstance(email, str) and email.isprintable() and len(email) <= MAX_EMAIL_LENGTH:
        return email if re.fullmatch(r"[^@\s]+@[^@\s]+", email) else ""
    return ""


def _to_username(text: object) -> str:
    if not isinstance(text, str):
        return ""
    name = re.sub(r"[^\w.@+-]+", "-", unicodedata.normalize("NFKC", text)).strip("-")
    return "" if usernames.is_mixed(name) else name[:MAX_USERNAME_LENGTH]
