"""Rights in words: what a grant allows, where, and to whom."""

import re
from collections.abc import Iterable

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.accounts.administration.group_changes import Effect
from dashboard.accounts.permissions import Permissions, Right, Rule
from dashboard.models import Project
from dashboard.models.accounts.grants import Action
from dashboard.web.components import headings

# A name must not turn around the sentence that it stands in.
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def action_label(action: str) -> str:
    """Return a right as a word; "" is nothing."""
    return {Action.VIEW: _("view"), Action.ABORT: _("abort")}.get(action) or _("nothing")  # type: ignore[call-overload]


def project_text(name: str) -> str:
    """Return a project's name with its kind; "" means all."""
    if not name:
        return _("all projects")
    return _("project “%(project)s”") % {"project": _name(name)}


def place_text(stage: str, projects: str) -> str:
    """Return a project and a stage; "" means all stages."""
    text = _("%(stage)s of %(projects)s") if stage else _("all stages of %(projects)s")
    return text % {"stage": stage, "projects": projects}


def grant_text(action: str, stage: str, projects: str) -> str:
    """Return a grant without its group: “abort in Staging of all projects”."""
    text = (
        _("%(action)s in %(stage)s of %(projects)s") if stage else _("%(action)s in %(projects)s")
    )
    return text % {"action": action_label(action), "stage": stage, "projects": projects}


def group_text(group: str) -> str:
    """Return a group's name in quotes; "" is everybody."""
    return _("“%(group)s”") % {"group": _name(group)} if group else _("everybody who is signed in")


def _name(name: str) -> str:
    return headings.cut(_DIRECTION.sub("", name))


def rule_text(rule: Rule, projects: str) -> str:
    """Return a rule with its group; `projects` says where it applies."""
    return f"{group_text(rule.group)}: {grant_text(rule.action, rule.stage, projects)}"


def reasons(permissions: Permissions, right: Right, named_projects: str) -> list[str]:
    """Return why a right is held, one text for each grant; `named_projects` are those it names."""
    if permissions.is_superuser:
        return [_("superuser")]
    found = []
    for rule in right.rules:
        text = rule_text(rule, named_projects if rule.project_id else project_text(""))
        found.append(_("by group %(rule)s") % {"rule": text} if rule.group else text)
    return found


def project_names(rules: Iterable[Rule]) -> dict[int, str]:
    """Return the names of the projects that rules name, by key."""
    keys = {rule.project_id for rule in rules} - {0}
    return {project.pk: str(project) for project in Project.objects.filter(pk__in=keys)}


def effect_texts(effect: Effect, action: str) -> list[str]:
    """Return what a change does to how many accounts, as sentences."""
    label = action_label(action)
    texts = []
    if effect.gaining:
        text = ngettext(
            "%(n)d account gains the right to %(action)s there.",
            "%(n)d accounts gain the right to %(action)s there.",
            effect.gaining,
        )
        texts.append(text % {"n": effect.gaining, "action": label})
    if effect.losing:
        text = ngettext(
            "%(n)d account loses the right to %(action)s there.",
            "%(n)d accounts lose the right to %(action)s there.",
            effect.losing,
        )
        texts.append(text % {"n": effect.losing, "action": label})
    if effect.unchanged or not texts:
        text = ngettext(
            "Nothing changes for %(n)d account, because of other grants.",
            "Nothing changes for %(n)d accounts, because of other grants.",
            effect.unchanged,
        )
        if not effect.unchanged:
            text = _("The group has no active members: nothing changes for now.")
        texts.append(text % {"n": effect.unchanged})
    return texts


def loss_text(effect: Effect) -> str:
    """Return how many accounts can do less after a group has been deleted."""
    if not effect.losing:
        return _("Nobody’s rights change.")
    text = ngettext(
        "%(n)d account loses rights.",
        "%(n)d accounts lose rights.",
        effect.losing,
    )
    return text % {"n": effect.losing}
