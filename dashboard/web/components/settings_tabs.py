"""The tabs of the pages behind “Settings”: each user sees those that they may open."""

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils.translation import gettext as _

from dashboard.accounts import access_log
from dashboard.accounts.administration import administrators


def tabs(user: AbstractBaseUser | AnonymousUser) -> list[tuple[str, str]]:
    """Return the name of each tab's address, and its label; of a user without a role only one."""
    found = [("my_account", _("My account"))]
    if administrators.may_administer(user):
        found += [
            ("people", _("Accounts")),
            ("groups", _("Groups and grants")),
            ("who_may", _("Who may do what")),
            ("rights_changes", _("Changes")),
        ]
    if access_log.may_view(user):
        found.append(("access_log", _("Access log")))
    return found
