"""`manage.py abort RUN`: abort a run from a runbook, as somebody who may, and say how it went."""

import asyncio
import contextlib
import getpass
import math
import socket
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import replace
from time import monotonic
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import CommandError

from dashboard import aborts
from dashboard.aborts import Press, Pressed
from dashboard.aborts import messages as abort_messages
from dashboard.accounts import permissions
from dashboard.db.threads import in_database, now
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand
from dashboard.models import Abort, Run
from dashboard.models.aborts import AbortState
from dashboard.models.bulk_aborts import Via
from dashboard.northflank import NorthflankError
from dashboard.server.process import OtherUpstream, check_upstream
from dashboard.sync.stage_reader import read_run
from dashboard.upstream.connection import Connection
from dashboard.web.api import serializers

LOOK_EVERY = 0.5  # seconds between two looks into the database
READ_EVERY = 5.0  # seconds between two questions of ours, where no worker asks Northflank


class Command(RunbookCommand):
    help = (
        "Abort a run, as an account that may. Ends with 0 once Northflank has accepted the abort, "
        "with --wait once the run has ended as aborted, and otherwise with 1."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_run(parser)
        parser.add_argument(
            "--as",
            required=True,
            type=arguments.text,
            metavar="USERNAME",
            help="Whose abort it is.",
        )
        parser.add_argument("--reason", default="", type=arguments.text, help="Kept in the audit.")
        parser.add_argument(
            "--again", action="store_true", help="Try an abort again that is long overdue."
        )
        parser.add_argument(
            "--wait", type=_seconds, metavar="SECONDS", help="Follow the run for so long."
        )
        parser.add_argument("--json", action="store_true", help="As POST /api/runs/RUN/abort/.")

    def act(self, **options: Any) -> None:
        user = _account(options["as"])
        run = arguments.run(options, permissions.rights(user).places("stage"))
        _check_that_it_can_be_sent()
        open_one = run.aborts.open().first() if options["again"] else None
        shell = f"{getpass.getuser()}@{socket.gethostname()}"
        press = Press(user, options["reason"], via=Via.COMMAND, origin=shell)
        try:
            pressed = aborts.request(run, press, again=open_one.pk if open_one else None)
        except aborts.NotAllowed as refused:
            raise CommandError(str(refused)) from refused
        except aborts.ReasonMissing as missing:
            raise CommandError(f"{missing} Give --reason.") from missing
        except aborts.NotInFlight:
            self._tell_of_one_that_had_ended(run, as_json=options["json"])
            return
        try:
            asyncio.run(_see_through(pressed, options["wait"]))
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted. The abort is written down, and the dashboard sees to it: see "
                f"`manage.py run {run.run_id}`."
            ) from None
        self._tell(run, pressed, options["wait"], as_json=options["json"])

    def _tell_of_one_that_had_ended(self, run: Run, *, as_json: bool) -> None:
        if as_json:
            whole = serializers.run(run, None)
            self.stdout.write(output.json({"joined": False, "abort": None, "run": whole}))
        if run.status != "aborted":
            raise CommandError(f"Nothing was sent, for the run is over.\n{output.of_run(run)}")
        if not as_json:
            self.stdout.write("The run had been aborted already; nothing was sent.")

    def _tell(self, of: Run, pressed: Pressed, wait: float | None, *, as_json: bool) -> None:
        run = Run.objects.with_place().without_detail().get(pk=of.pk)
        # With --wait somebody may have tried it again meanwhile, and that one counts.
        abort = Abort.objects.get(pk=pressed.abort.pk) if wait is None else _latest(run.pk)
        if as_json:
            of_act = serializers.abort(abort, run)
            said = {"joined": not pressed.made, "abort": of_act, "run": serializers.run(run, abort)}
            self.stdout.write(output.json(said))
        else:
            if not pressed.made:
                self.stdout.write("It joined an abort that was under way.")
            self.stdout.write(output.of_abort(abort, run))
        if abort.outcome == "aborted" or (wait is None and abort.state == AbortState.ACCEPTED):
            return
        if wait is not None and abort.settled_at is None:
            raise CommandError(
                f"After {wait:g} s the run has not ended. {abort_messages.of(abort, run).sentence}"
            )
        raise CommandError(abort_messages.of(abort, run).sentence)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text!r} is no number of seconds.")
    return seconds


def _account(name: str) -> User:
    user = User.objects.filter(username=name).first()
    if user is None:
        raise CommandError(f"There is no account “{name}”.")
    if not user.is_active:
        raise CommandError(f"The account “{name}” is switched off.")
    return user


def _check_that_it_can_be_sent() -> None:
    """Raise CommandError where nobody could send an abort: before anything is written."""
    if settings.SANDBOX and (blind := output.why_blind(now())):
        # The sandbox lives in `serve`, and only that process can send to it.
        raise CommandError(f"Without NORTHFLANK_API_TOKEN a worker has to send it. {blind}")
    try:
        check_upstream()
    except OtherUpstream as error:
        raise CommandError(str(error)) from error


async def _see_through(pressed: Pressed, wait: float | None) -> None:
    """Have the abort sent, wait for Northflank's answer and, for so long, for the run's end."""
    if settings.SANDBOX:
        if pressed.made:
            await in_database(aborts.hand_over, pressed.abort)
        await aborts.answered(replace(pressed, made=False))
        await _follow(pressed.abort.run_id, wait, None)
        return
    to = Connection(
        settings.NORTHFLANK_API_TOKEN,
        settings.NORTHFLANK_API_BASE_URL,
        settings.NORTHFLANK_TEAM_ID or None,
    )
    try:
        if pressed.made:
            await aborts.send(to, pressed.abort.pk)
        else:
            await aborts.answered(pressed)
        await _follow(pressed.abort.run_id, wait, to)
    finally:
        await to.close()


async def _follow(run: int, seconds: float | None, to: Connection | None) -> None:
    """Wait until the run's latest abort has settled, at most so long."""
    begun = asked_at = monotonic()
    while seconds is not None and monotonic() - begun < seconds:
        if (await in_database(_latest, run)).settled_at is not None:
            return
        if to is not None and monotonic() - asked_at >= READ_EVERY:
            asked_at = monotonic()
            if await in_database(output.why_blind, now()):  # nobody else asks
                with contextlib.suppress(NorthflankError):  # it is asked again
                    await read_run(to, await in_database(_with_place, run))
                await aborts.look_after_open_aborts(to)
        await asyncio.sleep(LOOK_EVERY)


def _latest(run: int) -> Abort:
    return Abort.objects.filter(run=run).latest("pk")


def _with_place(run: int) -> Run:
    return Run.objects.with_place().get(pk=run)
