"""The tabs of the pages behind “Settings”: each user sees those that they may open."""

from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from dashboard.accounts import access_log
from dashboard.accounts.administration import administrators


def tabs(request: HttpRequest) -> list[tuple[str, str, bool]]:
    """Return the address and label of each tab, and whether it is the current one."""
    found = [("my_account", _("My account"))]
    if administrators.may_administer(request.user):
        found += [
            ("people", _("Accounts")),
            ("groups", _("Groups and grants")),
            ("who_may", _("Who may do what")),
            ("rights_changes", _("Changes")),
        ]
    if access_log.may_view(request.user):
        found.append(("access_log", _("Access log")))
    labels = {reverse(name): label for name, label in found}
    current = max(filter(request.path.startswith, labels), key=len, default="")
    return [(url, label, url == current) for url, label in labels.items()]
