"""Add, rename and delete groups and their grants, as an administrator; what a change would do."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy

from dashboard.accounts import demo, permissions, rights_changes
from dashboard.accounts.administration.administrators import (
    AdministrationError,
    Author,
    change_permission,
    recorded_change,
    require,
)
from dashboard.accounts.permissions import Permission, Rule
from dashboard.models import Grant
from dashboard.models.accounts.grants import RANKS
from dashboard.models.catalog import StageName
from dashboard.texts.rich_text import MessageTable

MAX_NAME_LENGTH = 150  # of Django's groups
_text = MessageTable(
    {
        "release_managers": gettext_lazy(
            "This group stays: an upgrade would add it again. Remove its grants instead."
        ),
        "demo": gettext_lazy("The sandbox needs this group."),
        "grant_exists": gettext_lazy("This grant already exists."),
        "name_length": gettext_lazy("Group names must have 1 to %(max)d characters."),
        "name_invisible": gettext_lazy("Group names cannot contain invisible characters."),
        "name_reserved": gettext_lazy("This name is reserved for the sandbox."),
        "name_taken": gettext_lazy("A group with this name already exists."),
    }
)


@dataclass(frozen=True, slots=True)
class Effect:
    """How many accounts a change of grants concerns: active ones that are no superusers."""

    gaining: int
    losing: int
    unchanged: int  # members of the group whom the change does not concern
    hides_everything: bool  # afterwards only superusers can view anything


def edit_permission(group: Group) -> Permission:
    """Return whether a group can be renamed and deleted."""
    if group.name == permissions.RELEASE_MANAGERS:
        return Permission(False, _text("release_managers"))
    if group.name == demo.GROUP:
        return Permission(False, _text("demo"))
    return change_permission()


def add_group(author: Author, name: str) -> Group:
    """Add a group and return it; raise AdministrationError."""
    with recorded_change(author, "Added.") as before:
        group = Group.objects.create(name=_clean_name(name))
        before[rights_changes.group(group.pk)] = None
    return group


def rename_group(author: Author, group: Group, name: str, version: str) -> None:
    """Rename a group; raise AdministrationError."""
    with recorded_change(author, "Renamed.", rights_changes.group(group.pk), version=version):
        require(edit_permission(group))
        Group.objects.filter(pk=group.pk).update(name=_clean_name(name, except_key=group.pk))


def delete_group(author: Author, group: Group, version: str) -> None:
    """Delete a group with its grants; its members lose it. Raise AdministrationError.

    Conflict if it is not as `version` any more.
    """
    subject = rights_changes.group(group.pk)
    with recorded_change(author, "Deleted.", subject, version=version) as before:
        # Under the lock: nobody can join it any more.
        members = group.user_set.values_list("pk", flat=True)
        before.update(rights_changes.snapshot(*map(rights_changes.account, members)))
        require(edit_permission(group))
        Group.objects.filter(pk=group.pk).delete()


def add_grant(author: Author, grant: Grant) -> None:
    """Store a new grant; raise AdministrationError."""
    with recorded_change(author, "Grant added.", rights_changes.group(grant.group_id)):
        if same_grants(grant).exists():
            raise AdministrationError(_text("grant_exists"))
        grant.save()


def remove_grant(author: Author, grant: Grant, version: str) -> None:
    """Remove a grant; raise AdministrationError.

    Conflict if it was removed meanwhile, or its group is not as `version` any more.
    """
    subject = rights_changes.group(grant.group_id)
    with recorded_change(author, "Grant removed.", subject, version=version):
        Grant.objects.filter(pk=grant.pk).delete()


def same_grants(grant: Grant) -> QuerySet[Grant]:
    """Return the other grants of its group that allow exactly the same."""
    same = Grant.objects.filter(
        group=grant.group_id, project=grant.project_id, stage=grant.stage, action=grant.action
    )
    return same.exclude(pk=grant.pk)


def effect_of_addition(grant: Grant) -> Effect:
    """Return what the addition of a grant would do."""
    return _effect(grant.group, added=[_rule(grant)])


def effect_of_removal(grant: Grant) -> Effect:
    """Return what the removal of a grant would do: nothing if the same exists once more."""
    return _effect(grant.group, removed=[] if same_grants(grant).exists() else [_rule(grant)])


def effect_of_deletion(group: Group) -> Effect:
    """Return what the deletion of a group would do."""
    return _effect(group, removed=[r for r in permissions.load_rules() if r.group == group.name])


def _rule(grant: Grant) -> Rule:
    name = grant.group.name if grant.group else ""
    return Rule(grant.action, grant.project_id or 0, grant.stage, name)


def _effect(
    group: Group | None, *, added: Iterable[Rule] = (), removed: Iterable[Rule] = ()
) -> Effect:
    """Return what a change of a group's grants would do, None being everybody.

    Grants are either added or removed.
    """
    before = permissions.load_rules()
    after = before - frozenset(removed) | frozenset(added)
    changed = before ^ after
    counts = {"gaining": 0, "losing": 0, "unchanged": 0}
    could_view = can_view = False
    for names, account_count in _memberships().items():
        old, new = (permissions.for_groups(names, rules) for rules in (before, after))
        could_view = could_view or bool(old.rules)
        can_view = can_view or bool(new.rules)
        if group is not None and group.name not in names:
            continue
        scopes = _scopes(changed, old.rules | new.rules)
        # A change of grants gives or takes, never both: the first difference decides.
        step = next(filter(None, (_step(old, new, *scope) for scope in scopes)), 0)
        counts["gaining" if step > 0 else "losing" if step < 0 else "unchanged"] += account_count
    return Effect(**counts, hides_everything=could_view and not can_view)


def _step(
    old: permissions.Permissions, new: permissions.Permissions, project: int, stage: str
) -> int:
    ranks = [
        RANKS[user_permissions.right_at(project, stage).action] for user_permissions in (old, new)
    ]
    return (ranks[1] > ranks[0]) - (ranks[1] < ranks[0])


def _scopes(changed: Iterable[Rule], rules: Iterable[Rule]) -> Iterator[tuple[int, str]]:
    """Yield the projects and stages that changed rules cover; 0: projects that no rule names."""
    named = sorted({0} | {rule.project_id for rule in rules})
    for rule in changed:
        for project in [rule.project_id] if rule.project_id else named:
            for stage in StageName.values:
                if rule.covers(project, stage):
                    yield project, stage


def _memberships() -> Counter[frozenset[str]]:
    """Return how many active accounts, superusers aside, are in the same groups."""
    names: dict[int, set[str]] = {}
    accounts = User.objects.filter(is_active=True, is_superuser=False)
    for key, name in accounts.values_list("pk", "groups__name"):
        names.setdefault(key, set()).update([name] if name else [])
    return Counter(map(frozenset, names.values()))


def _clean_name(name: str, *, except_key: int = 0) -> str:
    """Return the name that a group gets; raise AdministrationError if it may not have it."""
    cleaned = " ".join(name.replace("\0", " ").split())
    if not 0 < len(cleaned) <= MAX_NAME_LENGTH:
        raise AdministrationError(_text("name_length", max=MAX_NAME_LENGTH))
    if not cleaned.isprintable():
        raise AdministrationError(_text("name_invisible"))
    if unicodedata.normalize("NFKC", cleaned).casefold() == demo.GROUP.casefold():
        raise AdministrationError(_text("name_reserved"))
    # Not by the database: SQLite folds the case of ASCII letters only.
    names = Group.objects.exclude(pk=except_key).values_list("name", flat=True)
    if cleaned.casefold() in map(str.casefold, names):
        raise AdministrationError(_text("name_taken"))
    return cleaned
