"""`manage.py rights`: what an account may view and abort, and why."""

from argparse import ArgumentParser
from collections.abc import Collection, Iterable
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError

from dashboard.accounts import permissions
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models.catalog import StageName
from dashboard.texts.rich_text import Message
from dashboard.web.components.rights import table, texts
from dashboard.web.http import lookup

NOTHING = "nothing"


class Command(RunbookCommand):
    help = (
        "Print what an account may do in each project and stage, with the grants that allow it; "
        "with --project or --stage, only there."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", type=arguments.clean_text, metavar="USER")
        parser.add_argument("--project", type=arguments.clean_id, help="In this project (ID).")
        parser.add_argument(
            "--stage", type=str.capitalize, choices=StageName.values, help="In this stage."
        )
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def run_command(self, **options: Any) -> None:
        user = User.objects.filter(username=options["username"]).first()
        if user is None:
            raise CommandError(f"The account “{options['username']}” does not exist.")
        user_permissions = permissions.for_user(user)
        if not user.is_active:
            self.stderr.write("The account is inactive.")
        if user_permissions.disabled_reason:
            self.stderr.write(str(user_permissions.disabled_reason))
        stages = [options["stage"]] if options["stage"] else StageName.values
        rows = (
            [_rights_in_project(user_permissions, options["project"], stages)]
            if options["project"]
            else _all_rights(user_permissions, stages)
        )
        if options["json"]:
            self.stdout.write(output.to_json({"username": user.username, "rights": rows}))
            return
        for row in rows:
            self.stdout.write(output.printable(_title(row), 200))
            for stage, right in row["stages"].items():
                reasons = "; ".join(right["reasons"])
                line = f"{stage}: {right['may']}"
                line += f" ({reasons})" if reasons else ""
                self.stdout.write(f"  {output.printable(line, 500)}")


def _rights_in_project(
    user_permissions: permissions.Permissions, project_id: str, stages: Collection[str]
) -> dict[str, Any]:
    project = lookup.find_project(project_id)
    if project is None:
        raise CommandError(f"The project “{project_id}” does not exist.")
    project_text = texts.project_text(str(project))
    rights = {stage: user_permissions.right_at(project.pk, stage) for stage in stages}
    return {
        "projects": [project.slug],
        "stages": {
            stage: _right(right.action, texts.reasons(user_permissions, right, project_text))
            for stage, right in rights.items()
        },
    }


def _all_rights(
    user_permissions: permissions.Permissions, stages: Collection[str]
) -> list[dict[str, Any]]:
    """Return the rights by pattern, with the ids of its projects; none: all others."""
    return [
        {
            "projects": [slug for slug, _name in row.projects],
            "stages": {
                cell.stage: _right(cell.action, cell.reasons)
                for cell in row.cells
                if cell.stage in stages
            },
        }
        for row in table.load(user_permissions)
    ]


def _right(action: str, reasons: Iterable[Message | str]) -> dict[str, Any]:
    return {"may": action or NOTHING, "reasons": [str(reason) for reason in reasons]}


def _title(row: dict[str, Any]) -> str:
    return ", ".join(row["projects"]) or "All other projects"
