"""Rights in words: what a grant allows, where, and to whom."""

import re
from collections.abc import Iterable, Mapping

from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.utils.translation import gettext_lazy, ngettext

from dashboard.accounts.administration.group_changes import Effect
from dashboard.accounts.permissions import Permissions, Right, Rule
from dashboard.models import Grant, Project
from dashboard.models.accounts.grants import Action
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components import headings

# A name must not turn around the sentence that it stands in.
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_text = MessageTable(
    {
        # Actions.
        "view": gettext_lazy("view"),
        "logs": gettext_lazy("see logs"),
        "abort": gettext_lazy("abort"),
        "nothing": gettext_lazy("nothing"),
        # Places.
        "project": gettext_lazy("project “%(project)s”"),
        "projects": gettext_lazy("all projects"),
        "any_project": gettext_lazy("any project"),
        "place_stage": gettext_lazy("%(stage)s of %(projects)s"),
        # Sentences begin with who holds the grant.
        "members": gettext_lazy("Members may"),
        "everybody_may": gettext_lazy("All signed-in users may"),
        # Questions.
        "anywhere": gettext_lazy("%(action)s anywhere"),
        # Grants, and why a right is held.
        "grant": gettext_lazy("%(action)s in %(projects)s"),
        "grant_stage": gettext_lazy("%(action)s in %(stage)s of %(projects)s"),
        "group": gettext_lazy("“%(group)s”"),
        "everybody": gettext_lazy("all signed-in users"),
        "rule": gettext_lazy("by group %(rule)s"),
        "superuser": gettext_lazy("superuser"),
        # What a change of grants does.
        "gaining": lambda n: ngettext(
            "%(n)d account gains the right to %(action)s there.",
            "%(n)d accounts gain the right to %(action)s there.",
            n,
        ),
        "losing": lambda n: ngettext(
            "%(n)d account loses the right to %(action)s there.",
            "%(n)d accounts lose the right to %(action)s there.",
            n,
        ),
        "unchanged": lambda n: ngettext(
            "Nothing changes for %(n)d account, because of other grants.",
            "Nothing changes for %(n)d accounts, because of other grants.",
            n,
        ),
        "superusers_only": gettext_lazy("Nobody gains or loses access."),
        "deletion": lambda n: ngettext(
            "%(n)d account loses rights.", "%(n)d accounts lose rights.", n
        ),
        "deletion_no_loss": gettext_lazy("Nobody’s rights change."),
    }
)


def action_label(action: str) -> Message:
    """Return a right as a word; "" is nothing."""
    return _text(action if action in Action.values else "nothing")


def project_text(name: str) -> Message:
    """Return a project's name with its kind; "" means all."""
    return _text("project", project=_name(name)) if name else _text("projects")


def place_text(stage: str, project: str) -> Message:
    """Return a stage and a project by their names; "" means all."""
    projects = project_text(project)
    return _text("place_stage", stage=stage, projects=projects) if stage else projects


def holders(group: Group | None) -> str:
    """Return how the sentence of a grant begins: who may; None is everybody."""
    return str(_text("members" if group else "everybody_may"))


def grant_text(action: str, stage: str, projects: Message | str) -> Message:
    """Return a grant without its group: “abort in Staging of all projects”."""
    key = "grant_stage" if stage else "grant"
    return _text(key, action=action_label(action), stage=stage, projects=projects)


def stored_grant_text(grant: Grant) -> Message:
    """Return a stored grant without its group."""
    return grant_text(
        grant.action, grant.stage, project_text(str(grant.project) if grant.project else "")
    )


def grants_by_key(group: Group | None) -> list[tuple[int, Message]]:
    """Return the key and the text of each grant of a group; None is everybody."""
    grants = _ordered_grants().filter(group=group)
    return [(grant.pk, stored_grant_text(grant)) for grant in grants]


def grants_by_group() -> dict[int | None, list[Message]]:
    """Return the texts of all grants by the key of their group; None is everybody."""
    texts: dict[int | None, list[Message]] = {}
    for grant in _ordered_grants():
        texts.setdefault(grant.group_id, []).append(stored_grant_text(grant))
    return texts


def _ordered_grants() -> QuerySet[Grant]:
    grants = Grant.objects.select_related("project")
    return grants.order_by("project__slug", "stage", "action", "pk")


def django_permissions(group: Group) -> str:
    """Return the names of the permissions of Django that a group gives, or an empty text."""
    names = group.permissions.values_list("content_type__app_label", "codename")
    return ", ".join(sorted(f"{app}.{name}" for app, name in names))


def group_text(group: str) -> Message:
    """Return a group's name in quotes; "" is everybody."""
    return _text("group", group=_name(group)) if group else _text("everybody")


def _name(name: str) -> str:
    return headings.cut(_DIRECTION.sub("", name))


def rule_text(rule: Rule, projects: Message | str) -> str:
    """Return a rule with its group; `projects` says where it applies."""
    return f"{group_text(rule.group)}: {grant_text(rule.action, rule.stage, projects)}"


def reasons(
    permissions: Permissions, right: Right, named_projects: Message | str
) -> list[Message | str]:
    """Return why a right is held, one text for each grant; `named_projects` are those it names."""
    if permissions.is_superuser:
        return [_text("superuser")]
    found: list[Message | str] = []
    for rule in right.rules:
        text = rule_text(rule, named_projects if rule.project_id else project_text(""))
        found.append(_text("rule", rule=text) if rule.group else text)
    return found


def project_names(rules: Iterable[Rule]) -> dict[int, str]:
    """Return the names of the projects that rules name, by key."""
    keys = {rule.project_id for rule in rules} - {0}
    return {project.pk: str(project) for project in Project.objects.filter(pk__in=keys)}


def question(action: str, stage: str, project: str) -> Message:
    """Return what is asked of a place; empty names mean any stage and any project."""
    if not stage and not project:
        return _text("anywhere", action=action_label(action))
    return grant_text(action, stage, project_text(project) if project else _text("any_project"))


def places(
    rules: Iterable[Rule], names: Mapping[int, str], *, is_superuser: bool
) -> list[Message | str]:
    """Return where rules apply and by which group; `names` are those of their projects, by key."""
    if is_superuser:
        return [_text("superuser")]
    return [rule_text(rule, project_text(names.get(rule.project_id, ""))) for rule in rules]


def effect_texts(effect: Effect, action: str) -> list[Message]:
    """Return what a change does to how many accounts, as sentences."""
    counts = {"gaining": effect.gaining, "losing": effect.losing, "unchanged": effect.unchanged}
    label = action_label(action)
    texts = [_text(key, n=n, action=label) for key, n in counts.items() if n]
    return texts or [_text("superusers_only")]


def loss_text(effect: Effect) -> Message:
    """Return how many accounts can do less after a group has been deleted."""
    return _text("deletion", n=effect.losing) if effect.losing else _text("deletion_no_loss")
