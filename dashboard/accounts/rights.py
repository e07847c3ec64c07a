"""Changes of rights, for the access log: whose rights changed, by whom, and what they are now."""

from collections.abc import Iterable
from datetime import datetime

from django.contrib.auth.models import Group, Permission, User
from django.db.models import Model, QuerySet

from dashboard.accounts import access_log
from dashboard.models import AccessEvent, ProxyAccount
from dashboard.models.access import AccessKind


def record_change(
    changed: Model,
    change: str,
    at: datetime,
    *,
    changed_by: User | None,
    client_address: str | None,
) -> AccessEvent:
    """Record that an account, group or grant was added, changed or is about to be deleted.

    `change` says what was done, as a sentence; the rights as they are now are added to it.
    """
    if isinstance(changed, ProxyAccount):
        changed, change = changed.user, "Handed over to the proxy."
    return access_log.record(
        AccessKind.RIGHTS_CHANGED,
        at,
        user=changed if isinstance(changed, User) else None,
        changed_by=changed_by,
        client_address=client_address,
        detail=f"{change} {describe(changed)}",
    )


def describe(changed: Model) -> str:
    """Return the rights of an account or group as they are in the database; else its name."""
    if isinstance(changed, User):
        states = {
            "active": changed.is_active,
            "staff": changed.is_staff,
            "superuser": changed.is_superuser,
        }
        groups = changed.groups.order_by("name").values_list("name", flat=True)
        return " ".join(
            [
                _list("Now", [name for name, is_set in states.items() if is_set]),
                _list("Groups", groups),
                _list("Permissions", _names(changed.user_permissions.all())),
            ]
        )
    if isinstance(changed, Group):
        return f"Group “{changed.name}”. {_list('Permissions', _names(changed.permissions.all()))}"
    return f"Grant “{changed}”."


def _names(permissions: QuerySet[Permission]) -> list[str]:
    return sorted(
        f"{app}.{name}"
        for app, name in permissions.values_list("content_type__app_label", "codename")
    )


def _list(heading: str, names: Iterable[str]) -> str:
    return f"{heading}: {', '.join(names) or 'none'}."
