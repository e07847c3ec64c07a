"""`manage.py notify --test`: send a test to the channels of NOTIFY_URLS."""

import asyncio
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from dashboard.management.cli.command import OperatorCommand, shell_account
from dashboard.notices import channels, texts
from dashboard.notices.webhook import SendError


class Command(OperatorCommand):
    help = "Send a test to a channel of NOTIFY_URLS, or to all. Exits with 1 if one did not arrive."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--test", required=True, nargs="?", const="", metavar="CHANNEL", help="Default: all."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        names = [options["test"]] if options["test"] else list(settings.NOTIFY_URLS)
        if not names:
            raise CommandError("NOTIFY_URLS is not set.")
        failed = False
        for name in names:
            try:
                asyncio.run(channels.send(texts.of_test(name, shell_account())))
            except SendError as error:
                failed = True
                self.stderr.write(f"{name}: {error}")
            else:
                self.stdout.write(f"{name}: sent")
        if failed:
            raise SystemExit(1)
