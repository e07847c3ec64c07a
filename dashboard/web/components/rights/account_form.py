"""The form of an account: what it shows and has sent, and what is wrong with it."""

from dataclasses import dataclass, field

from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.http import QueryDict

from dashboard.accounts.administration.account_changes import AccountSettings
from dashboard.web.http import keys


@dataclass
class AccountForm:
    """What the form of an account shows and has sent."""

    username: str = ""
    is_active: bool = True
    is_staff: bool = False
    is_superuser: bool = False
    group_keys: frozenset[int] = frozenset()
    hand_over: bool = False
    errors: dict[str, list[str]] = field(default_factory=dict)  # by field; "": of the whole form

    @property
    def settings(self) -> AccountSettings:
        """What the administrator has chosen."""
        return AccountSettings(
            self.is_active, self.is_staff, self.is_superuser, self.group_keys, self.hand_over
        )


def parse(form: QueryDict) -> AccountForm:
    """Return what a form has sent, without its password."""
    return AccountForm(
        # As it would be stored, which may be longer, and contain other characters.
        username=User.normalize_username(form.get("username", "").strip()),
        is_active="active" in form,
        is_staff="staff" in form,
        is_superuser="superuser" in form,
        group_keys=frozenset(keys.parse_pks(form.getlist("group"))),
        hand_over="hand_over" in form,
    )


def password_problems(password: str, user: User) -> list[str]:
    """Return why a password is not suitable for an account."""
    try:
        validate_password(password, user)
    except ValidationError as error:
        return error.messages
    return []
