"""Groups of users who sign in through an identity provider or a proxy: it decides, at each sign-in.

A group that it does not report is taken away, whoever added the user to it. Only groups that exist
in the dashboard count; none is created.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime

from django.contrib.auth.models import Group, User
from django.db import transaction

from dashboard.accounts import demo, rights_changes


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
