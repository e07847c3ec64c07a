"""What an account may do: a table of the projects that grants name, and of stages."""

from typing import Any

from dashboard.accounts.permissions import Permissions
from dashboard.models import Project
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import texts


def load(permissions: Permissions) -> list[dict[str, Any]]:
    """Return what `permissions` allow: in the projects that grants name, then in all others."""
    keys = {rule.project_id for rule in permissions.rules} - {0}
    projects = Project.objects.filter(pk__in=keys).order_by("name", "slug")
    return [_row(permissions, project) for project in (*projects, None)]


def _row(permissions: Permissions, project: Project | None) -> dict[str, Any]:
    """Return what `permissions` allow in a project; None: in those that no grant names.

    A cell for each stage has the right, and one reason for each grant that it follows from.
    """
    projects = texts.project_text(str(project) if project else "")
    cells = []
    for stage in StageName.values:
        right = permissions.right_at(project.pk if project else 0, stage)
        cells.append(
            {
                "stage": stage,
                "action": right.action,
                "label": texts.action_label(right.action),
                "reasons": texts.reasons(permissions, right, projects),
            }
        )
    return {"project": project, "cells": cells}
