"""`manage.py rights`: what an account may view and abort, and why."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError

from dashboard.accounts import permissions
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models.catalog import StageName
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
        parser.add_argument("--project", type=arguments.clean_text, help="In this project (ID).")
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
        rows = (
            [_answer(user_permissions, options)]
            if options["project"] or options["stage"]
            else _all_rights(user_permissions)
        )
        if options["json"]:
            self.stdout.write(output.to_json({"username": user.username, "rights": rows}))
            return
        for row in rows:
            self.stdout.write(output.printable(_title(row), 200))
            for stage, right in row["stages"].items():
                reasons = "; ".join(right["reasons"])
                line = f"{stage or 'All stages'}: {right['may']}"
                line += f" ({reasons})" if reasons else ""
                self.stdout.write(f"  {output.printable(line, 500)}")


def _answer(user_permissions: permissions.Permissions, options: dict[str, Any]) -> dict[str, Any]:
    project = lookup.find_project(options["project"] or "")
    if options["project"] and project is None:
        raise CommandError(f"The project “{options['project']}” does not exist.")
    stage = options["stage"] or ""
    right = user_permissions.right_at(project.pk if project else 0, stage)
    project_text = texts.project_text(str(project) if project else "")
    reasons = [str(reason) for reason in texts.reasons(user_permissions, right, project_text)]
    may = right.action or NOTHING
    return {
        "projects": [project.slug] if project else [],
        "stages": {stage: {"may": may, "reasons": reasons}},
    }


def _all_rights(user_permissions: permissions.Permissions) -> list[dict[str, Any]]:
    """Return the rights by pattern, with the ids of its projects; none: all others."""
    return [
        {
            "projects": [slug for slug, _name in row.projects],
            "stages": {
                cell.stage: {
                    "may": cell.action or NOTHING,
                    "reasons": [str(reason) for reason in cell.reasons],
                }
                for cell in row.cells
            },
        }
        for row in table.load(user_permissions).rows
    ]


def _title(row: dict[str, Any]) -> str:
    return ", ".join(row["projects"]) or "All other projects"
