"""What an account may do: a table of the projects that grants name, and of stages."""

from dataclasses import dataclass

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
    """The rights in a project; None: in all others, or in all if this is the only row."""

    project: Project | None
    cells: list[RightCell]


def load(permissions: Permissions) -> list[RightRow]:
    """Return what `permissions` allow: in the projects that grants name, then in all others."""
    keys = {rule.project_id for rule in permissions.rules} - {0}
    projects = Project.objects.filter(pk__in=keys).order_by("name", "slug")
    return [row(permissions, project) for project in (*projects, None)]


def row(permissions: Permissions, project: Project | None) -> RightRow:
    """Return what `permissions` allow in a project; None: in those that no grant names."""
    projects = texts.project_text(str(project) if project else "")
    cells = []
    for stage in StageName.values:
        right = permissions.right_at(project.pk if project else 0, stage)
        reasons = texts.reasons(permissions, right, projects)
        cells.append(RightCell(stage, right.action, texts.action_label(right.action), reasons))
    return RightRow(project, cells)
