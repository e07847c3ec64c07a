"""`manage.py abort RUN`: abort a run, or what it left, for an account, and report the result."""

import asyncio
import contextlib
import math
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import replace
from time import monotonic
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management.base import CommandError
from django.db import DatabaseError, InterfaceError, close_old_connections

from dashboard.aborts import left_running, target
from dashboard.aborts import messages as abort_messages
from dashboard.aborts import request as requests
from dashboard.aborts.reconcile import reconcile_open_aborts, release_lease
from dashboard.aborts.request import RESPONSE_TIMEOUT, AbortRequest, AbortResult, request_abort
from dashboard.aborts.send import send_abort, wait_for_response
from dashboard.accounts import permissions
from dashboard.db import health as db_health
from dashboard.db.threads import now, run_in_db_thread
from dashboard.management.cli import arguments, output
from dashboard.management.cli.command import RunbookCommand, shell_account
from dashboard.models import Abort, Run, Work
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.bulk_aborts import Via
from dashboard.northflank import NorthflankError
from dashboard.runs import removals
from dashboard.server.process import UpstreamMismatch, verify_database
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection, create_connection
from dashboard.web.api import serializers

POLL_INTERVAL = 0.5  # seconds between reads of the database
SYNC_INTERVAL = 5.0  # seconds between reads of what is aborted if no sync worker is alive


class Command(RunbookCommand):
    help = (
        "Abort a run on behalf of an account. Exits with 0 once Northflank has accepted the abort "
        "(with --wait: once the run has ended as aborted), otherwise with 1. With --left "
        "it aborts a job run or build, and exits with 0 also if that has ended."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        arguments.add_run_argument(parser)
        parser.add_argument(
            "--as",
            required=True,
            type=arguments.clean_text,
            metavar="USERNAME",
            help="Account that requests the abort.",
        )
        parser.add_argument(
            "--reason", default="", type=arguments.clean_text, help="Reason, recorded in the audit."
        )
        parser.add_argument(
            "--left",
            type=arguments.clean_text,
            metavar="ID",
            help="Abort what the run has left running; the id is in `manage.py run RUN --json`.",
        )
        parser.add_argument(
            "--again",
            action="store_true",
            help="Abort again, though an abort that had no effect is open.",
        )
        parser.add_argument(
            "--wait",
            type=_seconds,
            metavar="SECONDS",
            help="Wait up to SECONDS for the end.",
        )
        parser.add_argument(
            "--json", action="store_true", help="Print JSON like POST /api/runs/RUN/abort/."
        )

    def run_command(self, **options: Any) -> None:
        user = _get_user(options["as"])
        run = arguments.find_run(options, permissions.for_user(user).stage_filter("stage"))
        _check_can_send()
        work, open_abort = _find_target(run, options["left"])
        abort_request = AbortRequest(
            user, options["reason"], via=Via.COMMAND, origin=shell_account()
        )
        try:
            again_of_pk = open_abort.pk if open_abort and options["again"] else None
            result = request_abort(run, abort_request, work=work, again_of_pk=again_of_pk)
        except requests.NotAllowed as refused:
            raise CommandError(str(refused)) from refused
        except requests.ReasonMissing as missing:
            raise CommandError(f"{missing} Give --reason.") from missing
        except requests.NotInFlight:
            self._report_not_in_flight(run, work, as_json=options["json"])
            return
        recorded = (
            "The abort is recorded and the dashboard continues it: see "
            f"`manage.py run {run.run_id}`."
        )
        try:
            asyncio.run(_send_and_wait(result, options["wait"]))
            close_old_connections()  # the server may have ended this thread's meanwhile
            self._report(run, result, options["wait"], as_json=options["json"])
        except KeyboardInterrupt:
            raise CommandError(f"Interrupted. {recorded}") from None
        except (DatabaseError, InterfaceError) as error:
            raise CommandError(f"{recorded}\nDatabase error: {error}") from error

    def _report_not_in_flight(self, run: Run, work: Work | None, *, as_json: bool) -> None:
        if as_json:
            run_json = serializers.run(run)
            self.stdout.write(output.to_json({"joined": False, "abort": None, "run": run_json}))
        if work is None and (run.has_unknown_end or run.status != "aborted"):
            why = "The run has already ended."
            if run.has_unknown_end:
                why = str(removals.unknown_end_reason(run))
            raise CommandError(f"Nothing was sent. {why}\n{output.run_text(run)}")
        if not as_json:
            self.stdout.write("It had already ended; nothing was sent.")

    def _report(
        self, requested_run: Run, result: AbortResult, wait: float | None, *, as_json: bool
    ) -> None:
        run = Run.objects.with_stage().without_detail().get(pk=requested_run.pk)
        # With --wait, report the latest abort: another user may have aborted again meanwhile.
        abort = Abort.every.get(pk=result.abort.pk) if wait is None else _latest(result.abort)
        if as_json:
            abort_json = serializers.abort(abort, run)
            response = {
                "joined": not result.is_new,
                "abort": abort_json,
                "run": serializers.run(run),
            }
            self.stdout.write(output.to_json(response))
        else:
            if not result.is_new:
                self.stdout.write("Joined an abort already in progress.")
            self.stdout.write(output.abort_text(abort, run))
        if abort.outcome == "aborted" or (wait is None and abort.state == AbortState.ACCEPTED):
            return
        if abort.work_id and abort.state in {AbortState.CONCLUDED, AbortState.TOO_LATE}:
            return  # it has no status that means aborted: it has ended
        if wait is not None and abort.settled_at is None:
            raise CommandError(
                f"Not ended after {wait:g} s. {abort_messages.describe(abort, run).plain_text}"
            )
        raise CommandError(abort_messages.describe(abort, run).plain_text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a positive number of seconds.")
    return seconds


def _get_user(name: str) -> User:
    user = User.objects.filter(username=name, is_active=True).first()
    if user is None:
        raise CommandError(f"There is no active account “{name}”.")
    return user


def _find_target(run: Run, left_id: str | None) -> tuple[Work | None, Abort | None]:
    """Return what is aborted, None for the run itself, with its open abort."""
    if left_id is None:
        return None, run.aborts.open().first()
    left = left_running.find(run, left_id)
    if left is None:
        raise CommandError(f"“{left_id}” is nothing that the abort of this run has left running.")
    return left.work, left.open_abort


def _check_can_send() -> None:
    """Raise CommandError if no process could send an abort, before anything is written."""
    if settings.SANDBOX and (problem := output.sync_problem(now())):
        # The sandbox runs inside `serve`, and only that process can send to it.
        raise CommandError(f"In sandbox mode only `serve` can send aborts. {problem}")
    try:
        verify_database()
    except UpstreamMismatch as error:
        raise CommandError(str(error)) from error


async def _send_and_wait(result: AbortResult, wait: float | None) -> None:
    """Send the abort, wait for the response, then up to `wait` seconds for the end."""
    if settings.SANDBOX:
        if result.is_new:
            await run_in_db_thread(release_lease, result.abort)
        await wait_for_response(replace(result, is_new=False))
        await _wait_for_end(result.abort, wait, None)
        return
    connection = create_connection(settings.NORTHFLANK_API_BASE_URL, settings.NORTHFLANK_API_TOKEN)
    try:
        if result.is_new:
            await send_abort(connection, result.abort.pk)
        else:
            await wait_for_response(result)
        await _wait_for_end(result.abort, wait, connection)
    finally:
        await connection.close()


async def _wait_for_end(abort: Abort, seconds: float | None, connection: Connection | None) -> None:
    """Wait until the latest abort has settled, for up to `seconds`; outages count."""
    started_at = last_read_at = monotonic()
    while seconds is not None and monotonic() - started_at < seconds:
        try:
            if (latest := await run_in_db_thread(_latest, abort)).settled_at is not None:
                return
            if connection is not None and monotonic() - last_read_at >= SYNC_INTERVAL:
                last_read_at = monotonic()
                if await run_in_db_thread(_must_read):
                    with contextlib.suppress(NorthflankError):  # retried in the next round
                        await target.read(connection, latest, RESPONSE_TIMEOUT)
                    await reconcile_open_aborts(connection)
        except (DatabaseError, InterfaceError) as error:
            if not db_health.is_outage(error):
                raise
        await asyncio.sleep(POLL_INTERVAL)


def _must_read() -> bool:
    """Return whether no worker reads it, and a request is allowed now.

    It is while the reserve for sending aborts is left, and unless a 429 asked to wait.
    """
    if not output.sync_problem(now()):
        return False
    read_budget = budget_store.load(now())
    is_left = read_budget.may_reconcile_aborts or read_budget.is_probing
    return is_left and read_budget.backoff_until is None


def _latest(abort: Abort) -> Abort:
    """Return the latest abort of what this one aborts."""
    of_target = Abort.every.filter(run=abort.run_id, work=abort.work_id)
    return of_target.with_target().latest("pk")
