"""What an account or a group may do: a table of projects, collapsed by pattern, and stages."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from dashboard.accounts.administration import rights_overview
from dashboard.accounts.administration.rights_overview import Pattern
from dashboard.accounts.permissions import Permissions
from dashboard.models import Project
from dashboard.models.catalog import StageName
from dashboard.texts.rich_text import Message
from dashboard.web.components.rights import texts


@dataclass(frozen=True, slots=True)
class RightCell:
    """The right in one stage, with one reason for each grant that it follows from."""

    stage: str
    action: str
    label: Message
    reasons: list[Message | str]


@dataclass(frozen=True, slots=True)
class RightRow:
    """Projects with the same rights, by id and name; none: all others, or all in the only row."""

    projects: list[tuple[str, str]]
    cells: list[RightCell]


def load(permissions: Permissions) -> list[RightRow]:
    """Return the rows of what `permissions` allow, the projects that grants name first."""
    patterns = rights_overview.patterns(permissions)
    keys = {key for pattern in patterns for key in pattern.project_ids}
    named = {
        project.pk: (project.slug, str(project)) for project in Project.objects.filter(pk__in=keys)
    }
    return [
        _row(permissions, pattern, [named[key] for key in pattern.project_ids if key in named])
        for pattern in patterns
    ]


def _row(permissions: Permissions, pattern: Pattern, projects: list[tuple[str, str]]) -> RightRow:
    named = _("each of these projects") if len(projects) > 1 else _("this project")
    cells = [
        RightCell(
            stage,
            right.action,
            texts.action_label(right.action),
            texts.reasons(permissions, right, named),
        )
        for stage, right in zip(StageName.values, pattern.rights, strict=True)
    ]
    return RightRow(projects, cells)
