"""`manage.py sign_in_link USER`: a link that signs an account in once (docs/run/sign-in.md)."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.urls import reverse

from dashboard.accounts.authentication import sign_in_link
from dashboard.management.cli import arguments
from dashboard.management.cli.command import RunbookCommand
from dashboard.web.http import links


class Command(RunbookCommand):
    help = "Print a link that signs an account in once, within ten minutes."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("username", type=arguments.clean_text, metavar="USER")

    def run_command(self, **options: Any) -> None:
        username = options["username"]
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"The account “{username}” does not exist.")
        if not user.is_active:
            raise CommandError(f"The account “{username}” is inactive.")
        path = reverse("sign_in_link", args=[sign_in_link.create_token(user)])
        self.stderr.write(
            f"This link signs “{username}” in, once, within ten minutes. Send it to nobody else.",
            self.style.NOTICE,
        )
        if settings.BASE_URL:
            self.stdout.write(links.absolute_url(path))
        else:
            self.stderr.write(
                "BASE_URL is not set: put the address of the dashboard in the place of "
                "http://127.0.0.1:8000, if it is another."
            )
            self.stdout.write(f"http://127.0.0.1:8000{path}")
