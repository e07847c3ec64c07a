"""Who signs an account in other than its password, and its groups: the proxy or OpenID provider
decides them, at each sign-in.

A group that it does not report is taken away, whoever added the user to it. Only groups that exist
in the dashboard count; none is created.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import Group, User
from django.db import transaction

from dashboard.accounts import demo, rights_changes
from dashboard.models import ProxyAccount

PROXY, OIDC = "proxy", "oidc"


def find_source(account: User) -> tuple[str, bool]:
    """Return what signs an account in, and whether its groups follow that at each sign-in.

    An empty text: at most its password.
    """
    if settings.AUTH_PROXY_HEADER and ProxyAccount.objects.filter(user=account).exists():
        return PROXY, bool(settings.AUTH_PROXY_GROUPS_HEADER)
    if settings.OIDC_ISSUER:
        # Not imported: the application is installed only with a provider.
        model = apps.get_app_config("socialaccount").get_model("SocialAccount")
        accounts = model._default_manager.filter(provider=settings.OIDC_ISSUER)
        if accounts.filter(user=account).exists():
            return OIDC, bool(settings.OIDC_GROUPS_CLAIM)
    return "", False


def synchronise_groups(
    user: User,
    external_names: Iterable[str],
    group_map: Mapping[str, str],
    at: datetime,
    *,
    source: str,
    client_address: str | None,
) -> bool:
    """Make `user` a member of exactly the reported groups; return whether that changed anything.

    `group_map` gives the dashboard's name for an external one; if empty, the names are the same. A
    change is recorded, with `source` ("OpenID Connect") as its reason.
    """
    names = {group_map.get(name, "") if group_map else name for name in external_names}
    with transaction.atomic():
        rights_changes.lock()
        groups = set(Group.objects.filter(name__in=names).exclude(name=demo.GROUP))
        if groups == set(user.groups.all()):
            return False
        before = rights_changes.snapshot(rights_changes.account(user.pk))
        user.groups.set(groups)
        rights_changes.record_changes(
            before,
            f"Groups set by {source}.",
            at,
            changed_by=None,
            client_address=client_address,
        )
    return True
