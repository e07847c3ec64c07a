"""What an account may do in each project and stage, and who may do it there, with the reasons."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from django.contrib.auth.models import User
from django.db.models import Q, QuerySet

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions, Right, Rule
from dashboard.models.accounts.grants import Action
from dashboard.models.catalog import StageName


@dataclass(frozen=True, slots=True)
class Pattern:
    """Projects with the same rights for the same reasons; the right of each stage."""

    project_ids: tuple[int, ...]  # empty: all other projects, new ones included
    rights: tuple[Right, ...]  # in the order of StageName


def patterns(user_permissions: Permissions) -> list[Pattern]:
    """Return the rights of all projects: those that rules name, then all others."""
    project_ids = sorted({rule.project_id for rule in user_permissions.rules} - {0})
    by_reasons: dict[tuple[Right, ...], list[int]] = {}
    rights_of = {project: _rights(user_permissions, project) for project in (*project_ids, 0)}
    for project in project_ids:
        by_reasons.setdefault(tuple(map(_without_project, rights_of[project])), []).append(project)
    project_patterns = [Pattern(tuple(ids), rights_of[ids[0]]) for ids in by_reasons.values()]
    return [*project_patterns, Pattern((), rights_of[0])]


def _rights(user_permissions: Permissions, project_id: int) -> tuple[Right, ...]:
    return tuple(user_permissions.right_at(project_id, stage) for stage in StageName.values)


def _without_project(right: Right) -> Right:
    """Return the right with all projects alike, so that it can be compared."""
    return replace(
        right, rules=tuple(replace(r, project_id=min(r.project_id, 1)) for r in right.rules)
    )


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
    actions = {action, Action.ABORT}  # aborting includes viewing
    found = [rule for rule in rules if rule.action in actions and rule.overlaps(project_id, stage)]
    return sorted(found, key=lambda rule: (rule.project_id, rule.stage, rule.group))
