"""`manage.py token`: create, list and revoke tokens of the JSON API (docs/build/api.md)."""

import re
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.db import transaction
from django.db.models import Q, QuerySet

from dashboard.accounts import access_log, api_tokens
from dashboard.db.threads import now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models import ApiToken
from dashboard.models.accounts.access import AccessKind
from dashboard.models.accounts.api_tokens import Scope

HEADINGS = ("ID", "PREFIX", "NAME", "ACCOUNT", "SCOPE", "STATUS", "CREATED", "EXPIRES", "LAST USED")
_DURATION_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class Command(RunbookCommand):
    help = "Create, list and revoke API tokens."

    def add_arguments(self, parser: ArgumentParser) -> None:
        subcommands = parser.add_subparsers(
            dest="subcommand", required=True, metavar="create|list|revoke"
        )
        create = subcommands.add_parser("create", help="Create a token and print its secret once.")
        create.add_argument(
            "--user", required=True, type=arguments.clean_text, help="Account the token acts for."
        )
        create.add_argument(
            "--name", required=True, type=arguments.clean_text, help="What the token is for."
        )
        create.add_argument("--scope", choices=Scope.values, default=Scope.READ.value)
        create.add_argument("--expires", metavar="90d", help="Lifetime, such as 12h, 90d or 52w.")
        subcommands.add_parser("list", help="List all tokens, without their secrets.")
        revoke = subcommands.add_parser("revoke", help="Revoke a token.")
        revoke.add_argument(
            "token",
            type=arguments.clean_text,
            metavar="TOKEN",
            help="ID, prefix or secret of the token.",
        )

    def run_command(self, **options: Any) -> None:
        match options["subcommand"]:
            case "create":
                self._create(options["user"], options["name"], options["scope"], options["expires"])
            case "list":
                self._list()
            case "revoke":
                self._revoke(options["token"])

    def _create(self, username: str, name: str, scope: str, expires: str | None) -> None:
        if settings.READ_ONLY:
            raise CommandError("This dashboard is read-only: tokens cannot be created.")
        created_at = now()
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"The account “{username}” does not exist.")
        if not user.is_active:
            raise CommandError(f"The account “{username}” is inactive.")
        name = " ".join(name.replace("\0", " ").split())
        max_length = ApiToken._meta.get_field("name").max_length or 0
        if not 0 < len(name) <= max_length:
            raise CommandError(f"--name must have 1 to {max_length} characters.")
        expires_at = created_at + _parse_duration(expires) if expires is not None else None
        with transaction.atomic():
            token, secret = ApiToken.create_token(user, name, Scope(scope), created_at, expires_at)
            access_log.record(
                AccessKind.TOKEN_CREATED,
                created_at,
                user=user,
                token_name=name,
                detail=f"Scope {scope}, expires: {_format_expiry(expires_at)}. By manage.py token.",
            )
        expiry = f"It expires {_format_expiry(expires_at)}."
        if expires_at is None:
            expiry = "It never expires. To limit it, create another one with --expires."
        self.stderr.write(
            f"Token {token.pk} of {username}, scope {token.scope}. {expiry} "
            "The secret below is not shown again:",
            self.style.NOTICE,
        )
        self.stdout.write(secret)

    def _list(self) -> None:
        at = now()
        tokens = ApiToken.objects.select_related("user").order_by("name", "pk")
        rows = [
            (
                str(token.pk),
                f"{token.prefix}…",
                token.name,
                token.user.get_username(),
                token.scope,
                token.status(at).value,
                output.format_time(token.created_at),
                _format_expiry(token.expires_at),
                output.format_time(token.last_used_at),
            )
            for token in tokens
        ]
        self.stdout.write(output.format_table(HEADINGS, rows) if rows else "No tokens.")

    def _revoke(self, identifier: str) -> None:
        matches = list(_matching_tokens(identifier.strip().rstrip("…"))[:10])
        if not matches:  # the argument may be a secret: do not print it
            raise CommandError(
                "No token with that ID, prefix or secret: see `manage.py token list`."
            )
        if len(matches) > 1:
            several = ", ".join(str(token.pk) for token in matches)
            raise CommandError(f"Several tokens have this prefix. Use an ID instead: {several}.")
        [token] = matches
        is_revoked = api_tokens.revoke(
            token, now(), changed_by=None, client_address=None, detail="By manage.py token."
        )
        state_text = "revoked at" if is_revoked else "already revoked at"
        self.stdout.write(
            f"Token {token.pk}, {output.printable(token.name)} ({token.prefix}…), {state_text} "
            f"{output.format_time(token.revoked_at)}."
        )


def _parse_duration(text: str) -> timedelta:
    match = re.fullmatch(r"([1-9]\d{0,3})([hdw])", text)
    if match is None:
        raise CommandError(
            f"--expires {text!r} is invalid: use a number with h, d or w, such as 90d."
        )
    return int(match[1]) * _DURATION_UNITS[match[2]]


def _format_expiry(when: datetime | None) -> str:
    return output.format_time(when) if when is not None else "never"


def _matching_tokens(identifier: str) -> QuerySet[ApiToken]:
    if identifier.isascii() and identifier.isdecimal():
        return ApiToken.objects.filter(pk=int(identifier[:18]))
    return ApiToken.objects.filter(
        Q(prefix=identifier) | Q(digest=ApiToken.hash_secret(identifier))
    )
