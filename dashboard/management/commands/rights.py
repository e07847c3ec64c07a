"""`manage.py rights`: what an account may do, and why."""

from argparse import ArgumentParser
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import CommandError

from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permissions
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models import Project
from dashboard.models.catalog import StageName
from dashboard.web.components.rights import table


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
        rows: list[dict[str, Any]] = [
            {
                "projects": [row["project"].slug] if row["project"] else [],
                "stages": {
                    cell["stage"]: {
                        "may": cell["action"] or "nothing",
                        "reasons": [str(reason) for reason in cell["reasons"]],
                    }
                    for cell in row["cells"]
                    if options["stage"] in {None, cell["stage"]}
                },
            }
            for row in _rows(user_permissions, options["project"])
        ]
        if options["json"]:
            self.stdout.write(output.to_json({"username": user.username, "rights": rows}))
            return
        for row in rows:
            title = ", ".join(row["projects"]) or "All other projects"
            self.stdout.write(output.printable(title, 200))
            for stage, right in row["stages"].items():
                reasons = "; ".join(right["reasons"])
                line = f"{stage}: {right['may']}"
                line += f" ({reasons})" if reasons else ""
                self.stdout.write(f"  {output.printable(line, 500)}")


def _rows(user_permissions: Permissions, project_id: str | None) -> list[dict[str, Any]]:
    if not project_id:
        return table.load(user_permissions)
    project = Project.objects.filter(slug=project_id).first()
    if project is None:
        raise CommandError(f"The project “{project_id}” does not exist.")
    return [table.row(user_permissions, project)]
