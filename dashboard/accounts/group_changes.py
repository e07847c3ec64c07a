"""Add, rename and delete groups and their grants, as an administrator; what a change would do."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from django.conf import settings
from django.contrib.auth.models import Group, User
from django.utils.translation import gettext as _

from dashboard.accounts import demo, permissions, rights
from dashboard.accounts.administration import (
    AdministrationError,
    Author,
    recorded_change,
    require_existence,
    require_version,
)
from dashboard.accounts.permissions import Permission, Rule
from dashboard.models import Grant, Project
from dashboard.models.catalog import StageName
from dashboard.models.grants import Action

MAX_NAME_LENGTH = 150  # of Django's groups
_RANK = {"": 0, Action.VIEW.value: 1, Action.ABORT.value: 2}


@dataclass(frozen=True, slots=True)
class GrantScope:
    """What a grant allows and where; None and "" mean all."""

    project_key: int | None
    stage: str
    action: str


@dataclass(frozen=True, slots=True)
class Effect:
    """How many accounts a change of grants concerns: active ones that are no superusers."""

    gaining: int
    losing: int
    unchanged: int  # members of the group whom the change does not concern
    hides_everything: bool  # afterwards only superusers can view anything


def edit_permission(group: Group) -> Permission:
    """Return whether a group can be renamed and deleted."""
    if settings.READ_ONLY:
        return Permission(False, permissions.read_only_reason())
    if group.name == permissions.RELEASE_MANAGERS:
        text = _("Each upgrade adds this group again if it is missing. Remove its grants instead.")
        return Permission(False, text)
    if group.name == demo.GROUP:
        return Permission(False, _("The sandbox needs this group."))
    return Permission(True)


def add_group(author: Author, name: str) -> Group:
    """Add a group and return it; raise AdministrationError."""
    with recorded_change(author, "Added.") as before:
        group = Group.objects.create(name=_clean_name(name))
        before[rights.group(group.pk)] = None
    return group


def rename_group(author: Author, group: Group, name: str, version: str) -> None:
    """Rename a group; raise AdministrationError."""
    subject = rights.group(group.pk)
    with recorded_change(author, "Renamed.", subject) as before:
        require_version(before[subject], version)
        _require_permission(group)
        Group.objects.filter(pk=group.pk).update(name=_clean_name(name, except_key=group.pk))


def delete_group(author: Author, group: Group, version: str) -> None:
    """Delete a group with its grants; its members lose it. Raise AdministrationError."""
    subject = rights.group(group.pk)
    with recorded_change(author, "Deleted.", *rights.subjects_of_deletion([group])) as before:
        require_version(before[subject], version)
        _require_permission(group)
        Group.objects.filter(pk=group.pk).delete()


def add_grant(author: Author, group: Group | None, scope: GrantScope) -> None:
    """Add a grant to a group, None being everybody; raise AdministrationError."""
    key = group.pk if group is not None else None
    subject = rights.group(key)
    with recorded_change(author, "Grant added.", subject) as before:
        require_existence(before[subject])
        grant = _grant(key, scope)
        if find_grant(group, scope) is not None:
            raise AdministrationError(_("This grant exists."))
        grant.save()


def remove_grant(author: Author, grant: Grant) -> None:
    """Remove a grant; raise AdministrationError if it was removed meanwhile."""
    with recorded_change(author, "Grant removed.", rights.group(grant.group_id)):
        deleted, _rows = Grant.objects.filter(pk=grant.pk).delete()
        if not deleted:
            raise AdministrationError(_("The grant has been removed meanwhile."))


def find_grant(group: Group | None, scope: GrantScope) -> Grant | None:
    """Return the grant of a group with exactly this scope, or None."""
    return Grant.objects.filter(
        group=group, project=scope.project_key, stage=scope.stage, action=scope.action
    ).first()


def rule_of(group: Group | None, scope: GrantScope) -> Rule:
    """Return a grant as a rule, whether it exists or not."""
    name = group.name if group is not None else ""
    return Rule(scope.action, scope.project_key or 0, scope.stage, name)


def effect(
    group: Group | None, *, added: Iterable[Rule] = (), removed: Iterable[Rule] = ()
) -> Effect:
    """Return what a change of a group's grants would do, None being everybody."""
    before = permissions.load_rules()
    after = before - frozenset(removed) | frozenset(added)
    counts = {"gaining": 0, "losing": 0, "unchanged": 0}
    could_view = can_view = False
    for names in _memberships():
        old, new = (permissions.for_groups(names, rules) for rules in (before, after))
        could_view = could_view or bool(old.rules)
        can_view = can_view or bool(new.rules)
        if group is not None and group.name not in names:
            continue
        steps = {_step(old, new, project, stage) for project, stage in _scopes(before | after)}
        counts["gaining" if 1 in steps else "losing" if -1 in steps else "unchanged"] += 1
    return Effect(**counts, hides_everything=could_view and not can_view)


def _step(
    old: permissions.Permissions, new: permissions.Permissions, project: int, stage: str
) -> int:
    ranks = [_RANK[one.right_at(project, stage).action] for one in (old, new)]
    return (ranks[1] > ranks[0]) - (ranks[1] < ranks[0])


def _scopes(rules: Iterable[Rule]) -> list[tuple[int, str]]:
    """Return all projects and stages in which rules differ; 0: projects that no rule names."""
    projects = {0} | {rule.project_id for rule in rules}
    return [(project, stage) for project in projects for stage in StageName.values]


def _memberships() -> Collection[frozenset[str]]:
    """Return the groups of each active account that is no superuser."""
    names: dict[int, set[str]] = {}
    accounts = User.objects.filter(is_active=True, is_superuser=False)
    for key, name in accounts.values_list("pk", "groups__name"):
        names.setdefault(key, set()).update([name] if name else [])
    return [frozenset(one) for one in names.values()]


def _grant(group_key: int | None, scope: GrantScope) -> Grant:
    is_known = scope.action in Action.values and scope.stage in {"", *StageName.values}
    if not is_known:
        raise AdministrationError(_("Unknown stage or permission."))
    if scope.project_key and not Project.objects.filter(pk=scope.project_key).exists():
        raise AdministrationError(_("The project does not exist any more."))
    return Grant(
        group_id=group_key, project_id=scope.project_key, stage=scope.stage, action=scope.action
    )


def _clean_name(name: str, *, except_key: int = 0) -> str:
    cleaned = " ".join(name.replace("\0", " ").split())
    if not 0 < len(cleaned) <= MAX_NAME_LENGTH:
        text = _("A group’s name has 1 to %(max)d characters.")
        raise AdministrationError(text % {"max": MAX_NAME_LENGTH})
    if Group.objects.filter(name__iexact=cleaned).exclude(pk=except_key).exists():
        raise AdministrationError(_("A group with this name exists."))
    return cleaned


def _require_permission(group: Group) -> None:
    permission = edit_permission(group)
    if not permission.allowed:
        raise AdministrationError(permission.denied_reason)
