"""The forms of an account: of one that exists, and of a new one with its name and password."""

from typing import Any

from django import forms
from django.contrib.auth.models import User
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.utils.translation import gettext_lazy

from dashboard.accounts import usernames
from dashboard.accounts.administration import account_changes
from dashboard.accounts.administration.account_changes import AccountSettings

_LENGTH = gettext_lazy("User names must have 1 to %(max)d characters.") % {
    "max": usernames.MAX_LENGTH
}
_MISSING = str(account_changes.GROUP_MISSING)


class AccountForm(forms.Form):
    """What an administrator decides about an account."""

    active = forms.BooleanField(required=False, initial=True)
    superuser = forms.BooleanField(required=False)
    group = forms.ModelMultipleChoiceField(
        account_changes.choosable_groups(),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"invalid_choice": _MISSING, "invalid_pk_value": _MISSING},
    )
    hand_over = forms.BooleanField(required=False)

    @classmethod
    def of(cls, user: User) -> "AccountForm":
        """Return the form as it shows an account."""
        flags = {name: getattr(user, f"is_{name}") for name in ("active", "superuser")}
        return cls(initial=flags | {"group": list(user.groups.all())})

    @property
    def settings(self) -> AccountSettings:
        """What was chosen, in a valid form."""
        chosen = self.cleaned_data
        keys = frozenset(group.pk for group in chosen["group"])
        return AccountSettings(chosen["active"], chosen["superuser"], keys, chosen["hand_over"])


class NewAccountForm(AccountForm):
    """The same with the name and the password of a new account; empty: none."""

    username = forms.CharField(
        max_length=usernames.MAX_LENGTH,
        validators=[UnicodeUsernameValidator()],
        error_messages={"required": _LENGTH, "max_length": _LENGTH},
    )
    password = forms.CharField(required=False, strip=False)

    def __init__(self, data: Any = None) -> None:
        if data is not None:
            data = data.copy()
            # As it would be stored, which may be longer, and contain other characters.
            data["username"] = User.normalize_username(data.get("username", "").strip())
        super().__init__(data)

    def clean_password(self) -> str:
        """Return the password, empty or suitable for the account."""
        password: str = self.cleaned_data["password"]
        if password:
            validate_password(password, User(username=self.data["username"]))
        return password
