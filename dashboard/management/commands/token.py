"""`manage.py token`: make, list and revoke what the JSON API is opened with (docs/api.md)."""

import re
from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.db.models import Q, QuerySet

from dashboard.db.threads import now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models import ApiToken
from dashboard.models.api_tokens import Scope

HEAD = ("ID", "BEGINS", "NAME", "ACCOUNT", "SCOPE", "STANDING", "MADE", "EXPIRES", "LAST USED")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


class Command(RunbookCommand):
    help = "Make, list and revoke tokens of the JSON API."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_subparsers(dest="what", required=True, metavar="make|list|revoke")
        make = what.add_parser("make", help="Make a token, and print its secret once.")
        make.add_argument("--user", required=True, type=arguments.text, help="Whom it acts for.")
        make.add_argument("--name", required=True, type=arguments.text, help="What uses it.")
        make.add_argument("--scope", choices=Scope.values, default=Scope.READ.value)
        make.add_argument("--expires", metavar="90d", help="After so long: 12h, 90d, 52w.")
        what.add_parser("list", help="List all tokens; their secrets are not kept.")
        revoke = what.add_parser("revoke", help="Have a token open nothing any more.")
        revoke.add_argument(
            "token",
            type=arguments.text,
            metavar="TOKEN",
            help="Its id, how it begins, or all of it.",
        )

    def act(self, **options: Any) -> None:
        match options["what"]:
            case "make":
                self._make(options["user"], options["name"], options["scope"], options["expires"])
            case "list":
                self._list()
            case "revoke":
                self._revoke(options["token"])

    def _make(self, username: str, name: str, scope: str, expires: str | None) -> None:
        if settings.READ_ONLY:
            raise CommandError("This dashboard is switched to read-only: no token is made.")
        moment = now()
        user = User.objects.filter(username=username).first()
        if user is None:
            raise CommandError(f"There is no account “{username}”.")
        if not user.is_active:
            raise CommandError(f"The account “{username}” is switched off.")
        name = " ".join(name.replace("\0", " ").split())
        most = ApiToken._meta.get_field("name").max_length or 0
        if not 0 < len(name) <= most:
            raise CommandError(f"Give --name some text, {most} characters at most.")
        expires_at = moment + _span(expires) if expires is not None else None
        made, secret = ApiToken.make(user, name, Scope(scope), moment, expires_at)
        self.stderr.write(
            f"Token {made.pk} of {username}, scope {made.scope}, expires: "
            f"{_until(made.expires_at)}. This is its secret; it can’t be told again:",
            self.style.NOTICE,
        )
        self.stdout.write(secret)

    def _list(self) -> None:
        moment = now()
        tokens = ApiToken.objects.select_related("user").order_by("name", "pk")
        rows = [
            (
                str(token.pk),
                f"{token.hint}…",
                token.name,
                token.user.get_username(),
                token.scope,
                token.standing(moment).value,
                output.clock(token.created_at),
                _until(token.expires_at),
                output.clock(token.used_at),
            )
            for token in tokens
        ]
        self.stdout.write(output.table(HEAD, rows) if rows else "There is no token.")

    def _revoke(self, given: str) -> None:
        found = list(_meant(given.strip().rstrip("…"))[:10])
        if not found:  # what was given may be a secret: it is not said again
            raise CommandError("No token has that id, or begins so: see `manage.py token list`.")
        if len(found) > 1:
            several = ", ".join(str(token.pk) for token in found)
            raise CommandError(f"Several tokens begin so; give the id of one: {several}.")
        [token] = found
        unrevoked = ApiToken.objects.filter(pk=token.pk, revoked_at=None)
        already = not unrevoked.update(revoked_at=now())
        token.refresh_from_db()
        was = "was revoked already, at" if already else "is revoked since"
        self.stdout.write(
            f"Token {token.pk}, {output.plain(token.name)} ({token.hint}…), {was} "
            f"{output.clock(token.revoked_at)}."
        )


def _span(text: str) -> timedelta:
    said = re.fullmatch(r"([1-9]\d{0,3})([hdw])", text)
    if said is None:
        raise CommandError(f"--expires {text!r} is no time: give a number and h, d or w, as 90d.")
    return int(said[1]) * _UNITS[said[2]]


def _until(when: datetime | None) -> str:
    return output.clock(when) if when is not None else "never"


def _meant(given: str) -> QuerySet[ApiToken]:
    if given.isascii() and given.isdecimal():
        return ApiToken.objects.filter(pk=int(given[:18]))
    return ApiToken.objects.filter(Q(hint=given) | Q(digest=ApiToken.digest_of(given)))
