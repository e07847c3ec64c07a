"""Who may do something in a place, and by which grants."""

from collections.abc import Iterable

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Rule


def accounts_with(action: str, project_id: int, stage: str) -> QuerySet[User]:
    """Return the active accounts that may do `action` anywhere in a place, by name.

    0 and "" mean any project and any stage.
    """
    groups = {rule.group for rule in rules_for(permissions.load_rules(), action, project_id, stage)}
    active = User.objects.filter(is_active=True).order_by("username")
    if "" in groups:  # everybody
        return active
    members = User.groups.through.objects.filter(group__name__in=groups).values("user")
    return active.filter(Q(is_superuser=True) | Q(pk__in=members))


def rules_for(rules: Iterable[Rule], action: str, project_id: int, stage: str) -> list[Rule]:
    """Return the rules that allow `action` anywhere in a place, as for `accounts_with`."""
    found = [rule for rule in rules if rule.allows(action) and rule.overlaps(project_id, stage)]
    return sorted(found, key=lambda rule: (rule.project_id, rule.stage, rule.group))
