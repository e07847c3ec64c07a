"""The commands of runbooks: errors in a sentence, and aborts beside a dashboard that runs."""

import contextlib
import getpass
import io
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, ApiToken, Run, Stage
from dashboard.sandbox import Sandbox, parse_fault
from tests.support import factories, processes
from tests.support.flights import eventually
from tests.support.processes import Running, environment, manage, running, upstream
from tests.support.services import POSTGRES


def said(*arguments: str) -> str:
    """What a command writes to standard output."""
    out = io.StringIO()
    call_command(*arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def refused(*arguments: str) -> str:
    """Why a command did not do it; nothing has been written."""
    before = (Abort.objects.count(), ApiToken.objects.count())
    with pytest.raises(CommandError) as error:
        call_command(*arguments, stdout=io.StringIO(), stderr=io.StringIO())
    assert (Abort.objects.count(), ApiToken.objects.count()) == before
    return str(error.value)


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage("Staging")


# --- tokens ------------------------------------------------------------------------------------


def made(user: User, *more: str) -> str:
    return said("token", "make", "--user", user.username, "--name", "PagerDuty", *more).strip()


def test_a_tokens_secret_is_all_that_is_written(viewer: User) -> None:
    secret = made(viewer)
    assert ApiToken.objects.known_by(secret) == ApiToken.objects.get()
    assert secret.startswith("rfd_")


def test_a_token_is_for_reading_unless_it_is_said(viewer: User) -> None:
    made(viewer)
    made(viewer, "--scope", "abort")
    assert list(ApiToken.objects.order_by("pk").values_list("scope", flat=True)) == [
        "read", "abort",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "span"),
    [("12h", timedelta(hours=12)), ("90d", timedelta(days=90)), ("2w", timedelta(weeks=2))],
)
def test_a_token_expires_after_so_long(viewer: User, given: str, span: timedelta) -> None:
    made(viewer, "--expires", given)
    token = ApiToken.objects.get()
    assert token.expires_at == token.created_at + span


@pytest.mark.parametrize("given", ["", "90", "0d", "-5d", "90 d", "1y", "99999w", "٣d"])
def test_a_time_that_is_none_is_refused(viewer: User, given: str) -> None:
    arguments = ["--user", "viewer", "--name", "x", f"--expires={given}"]
    assert "give a number and h, d or w" in refused("token", "make", *arguments)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--user", "nobody", "--name", "x"], "There is no account “nobody”."),
        (["--user", "viewer", "--name", " "], "Give --name some text"),
        (["--user", "viewer", "--name", "x" * 101], "100 characters at most"),
        (["--user", "viewer"], "--name"),
        (["--name", "x"], "--user"),
        (["--user", "viewer", "--name", "x", "--scope", "all"], "invalid choice: 'all'"),
    ],
)
def test_a_token_for_nobody_or_nothing_is_refused(
    viewer: User, arguments: list[str], why: str
) -> None:
    assert why in refused("token", "make", *arguments)


def test_an_account_that_is_switched_off_gets_none(viewer: User) -> None:
    User.objects.update(is_active=False)
    assert "switched off" in refused("token", "make", "--user", "viewer", "--name", "x")


def test_who_may_change_nothing_makes_no_token_but_revokes_one(
    viewer: User, settings: Settings
) -> None:
    secret = made(viewer)
    settings.READ_ONLY = True
    assert "read-only" in refused("token", "make", "--user", "viewer", "--name", "x")
    assert "is revoked since" in said("token", "revoke", secret)


def test_the_list_tells_all_but_the_secret(viewer: User) -> None:
    secret = made(viewer, "--expires", "90d")
    listed = said("token", "list")
    token = ApiToken.objects.get()
    assert all(word in listed for word in (f"{token.hint}…", "PagerDuty", "viewer", "read", "good"))
    assert secret not in listed
    assert token.digest not in listed


def test_where_there_is_no_token_it_says_so(db: None) -> None:
    assert said("token", "list") == "There is no token.\n"


@pytest.mark.parametrize("by", ["id", "hint", "hint as shown", "secret"])
def test_a_token_is_revoked_by_whatever_tells_which_it_is(viewer: User, by: str) -> None:
    secret = made(viewer)
    token = ApiToken.objects.get()
    names = {
        "id": str(token.pk), "hint": token.hint, "hint as shown": f"{token.hint}…",
        "secret": secret,
    }  # fmt: skip
    answer = said("token", "revoke", names[by])
    assert "is revoked since" in answer
    assert secret not in answer
    assert ApiToken.objects.get().revoked_at is not None


def test_a_token_that_was_revoked_keeps_its_time(viewer: User) -> None:
    made(viewer)
    ApiToken.objects.update(revoked_at=timezone.now() - timedelta(days=1))
    before = ApiToken.objects.get().revoked_at
    assert "was revoked already" in said("token", "revoke", str(ApiToken.objects.get().pk))
    assert ApiToken.objects.get().revoked_at == before


def test_of_two_tokens_that_begin_alike_none_is_revoked(viewer: User) -> None:
    made(viewer)
    made(viewer)
    ApiToken.objects.update(hint="rfd_same")
    first, second = ApiToken.objects.order_by("pk")
    assert f"{first.pk}, {second.pk}" in refused("token", "revoke", "rfd_same")
    assert not ApiToken.objects.exclude(revoked_at=None).exists()


@pytest.mark.parametrize("given", ["999", "9" * 30, "rfd_none", "rfd_" + "s3cr3t" * 7, ""])
def test_an_unknown_token_is_not_said_again(viewer: User, given: str) -> None:
    why = refused("token", "revoke", given)
    assert "No token has that id" in why
    assert "s3cr3t" not in why


# --- looking -----------------------------------------------------------------------------------


def test_nothing_in_flight_is_said(stage: Stage) -> None:
    factories.run(stage, status="success")
    assert said("runs") == "Nothing is in flight.\n"


def test_the_runs_in_flight_are_a_table(stage: Stage) -> None:
    factories.run(stage, "a-long-id-of-a-run", status="approval_wait", step="ask")
    factories.run(stage, "r-1")
    head, *lines = said("runs").splitlines()
    assert head.split()[:2] == ["RUN", "STATUS"]
    assert [row[head.index("STATUS") :].split("  ")[0] for row in lines] == [
        "Running", "Needs approval",
    ]  # fmt: skip


def test_they_can_be_narrowed_down(stage: Stage) -> None:
    factories.run(stage, "r-1")
    factories.run(factories.stage("Production"), "r-2")
    assert "r-1" not in said("runs", "--stage", "production")
    assert "r-2" in said("runs", "--stage", "production", "--project", "shop")
    assert said("runs", "--project", "unknown") == "Nothing is in flight.\n"


@pytest.mark.parametrize("command", [["runs"], ["run", "r-1"]])
def test_hostile_text_moves_no_cursor(stage: Stage, command: list[str]) -> None:
    factories.run(stage, "r-1", name="\x1b[2J\r\nx\u202e", step="\x1b]0;x\x07")
    shown = said(*command)
    assert not {c for c in shown if not c.isprintable()} - {"\n"}


def test_the_json_is_that_of_the_api(stage: Stage, manager: User) -> None:
    run = factories.run(stage, "r-1")
    factories.abort(run, manager).note("requested", timezone.now())
    [listed] = json.loads(said("runs", "--json"))["runs"]
    alone = json.loads(said("run", "r-1", "--json"))
    story = {"aborts", "looking"}
    assert listed == {name: value for name, value in alone.items() if name not in story}
    assert alone["aborts"][0]["trail"][0]["text"] == "Requested by manager."


def test_a_run_is_told_with_its_story(stage: Stage, manager: User) -> None:
    run = factories.run(stage, "r-1", name="Nightly", step="migrate")
    factories.abort(run, manager, reason="Stuck").note("requested", timezone.now())
    shown = said("run", "r-1")
    for words in ("Nightly (r-1)", "shop / checkout / Staging", "Step: migrate", "“Stuck”"):
        assert words in shown


def test_a_trail_is_told_with_its_days(stage: Stage, manager: User) -> None:
    run = factories.run(stage, "r-1")
    factories.abort(run, manager).note("sent", datetime(2026, 3, 31, 12, 0, tzinfo=UTC))
    assert "2026-03-31 12:00:00 UTC  Sent to Northflank." in said("run", "r-1")


@pytest.mark.parametrize("command", [["runs"], ["run", "r-1"]])
def test_it_is_said_that_nobody_reads(stage: Stage, command: list[str]) -> None:
    factories.run(stage, "r-1")
    aside = io.StringIO()
    call_command(*command, stdout=io.StringIO(), stderr=aside)
    assert "No worker was heard of yet" in aside.getvalue()
    factories.worker()
    aside = io.StringIO()
    call_command(*command, stdout=io.StringIO(), stderr=aside)
    assert aside.getvalue() == ""


# --- aborts that are refused -------------------------------------------------------------------


@pytest.fixture
def run(stage: Stage) -> Run:
    factories.worker()
    return factories.run(stage, "r-1")


def test_whose_abort_it_is_has_to_be_said(run: Run) -> None:
    assert "--as" in refused("abort", "r-1")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["r-1", "--as", "nobody"], "There is no account “nobody”."),
        (["r-1", "--as", "viewer"], "Only members of the group “Release managers”"),
        (["r-9", "--as", "manager"], "No run “r-9” is known here."),
        (["r-1", "--as", "manager", "--stage", "production"], "No run “r-1” is known here."),
        (["r-1", "--as", "manager", "--stage", "moon"], "invalid choice"),
        (["r-1", "--as", "manager", "--wait", "-1"], "'-1' is no number of seconds."),
        (["r-1", "--as", "manager", "--wait", "nan"], "'nan' is no number of seconds."),
        (["r-1", "--as", "manager", "--wait", "inf"], "'inf' is no number of seconds."),
        (["r-\udcff", "--as", "manager"], "No run “r-?” is known here."),
        (["r-2", "--as", "manager"], "takes a reason. Give --reason."),
        (["r-3", "--as", "manager"], "Nothing was sent, for the run is over."),
    ],
)
def test_an_abort_that_cannot_be_is_refused(
    run: Run, manager: User, viewer: User, arguments: list[str], why: str
) -> None:
    factories.run(factories.stage("Production"), "r-2")
    factories.run(run.stage, "r-3", status="success")
    assert why in refused("abort", *arguments)


def test_a_hidden_run_is_unknown_to_whoever_may_not_see_it(run: Run, manager: User) -> None:
    from dashboard.models import Grant

    Grant.objects.all().delete()
    assert refused("abort", "r-1", "--as", "manager") == "No run “r-1” is known here."


def test_an_account_that_is_switched_off_aborts_nothing(run: Run, manager: User) -> None:
    User.objects.update(is_active=False)
    assert refused("abort", "r-1", "--as", "manager") == "The account “manager” is switched off."


@pytest.mark.parametrize(("switch", "value"), [("READ_ONLY", True), ("ABORTS_ENABLED", False)])
def test_a_switch_stops_the_command_too(
    run: Run, manager: User, settings: Any, switch: str, value: bool
) -> None:
    setattr(settings, switch, value)
    assert "switched" in refused("abort", "r-1", "--as", "manager")


def test_an_id_in_several_places_is_told_with_all_of_them(run: Run, manager: User) -> None:
    factories.run(factories.stage("Production"), "r-1")
    why = refused("abort", "r-1", "--as", "manager")
    assert "shop / checkout / Production" in why
    assert "shop / checkout / Staging" in why


def test_with_the_sandbox_a_worker_has_to_be_there(run: Run, manager: User) -> None:
    from dashboard.models import Worker

    Worker.objects.update(beat_at=timezone.now() - timedelta(seconds=31))
    why = refused("abort", "r-1", "--as", "manager")
    assert "No worker was heard of since" in why


def test_the_goal_that_is_reached_is_no_failure(run: Run, manager: User) -> None:
    factories.run(run.stage, "r-4", status="aborted")
    assert "aborted already" in said("abort", "r-4", "--as", "manager")
    assert json.loads(said("abort", "r-4", "--as", "manager", "--json"))["abort"] is None


# --- aborts beside a dashboard that runs -------------------------------------------------------


@dataclass
class Outside:
    """A database that mirrors a sandbox of this process, and the settings for both."""

    given: dict[str, str]
    sandbox: Sandbox
    dashboard: Running | None = None

    def run(self) -> str:
        """Start a run, have it looked at, so that the dashboard knows it, and return its id."""
        assert self.dashboard is not None
        flow = self.sandbox.world.flow("payments", "ledger", "Staging")
        assert flow is not None
        run = self.sandbox.world.start(flow, self.sandbox.clock(), {}).id
        page = f"/projects/payments/pipelines/ledger/release-flows/staging/runs/{run}/"
        boss = self.dashboard.person("boss")
        read = (
            "SELECT 1 FROM dashboard_stage JOIN dashboard_pipeline p ON pipeline_id = p.id"
            " WHERE p.slug = 'ledger' AND dashboard_stage.name = 'Staging' AND path <> ''"
        )
        eventually(lambda: rows(self.given["DATABASE_URL"], read), processes.PATIENCE)
        eventually(lambda: boss.get(page).status_code == 200, processes.PATIENCE)
        return run

    def abort(self, run: str, *more: str) -> subprocess.CompletedProcess[str]:
        return manage("abort", run, "--as=boss", *more, **self.given)

    def acts(self, run: str, columns: str) -> list[tuple[Any, ...]]:
        """What the audit has of a run."""
        return acts(self.given["DATABASE_URL"], columns, run)


def acts(database: str, columns: str, run: str) -> list[tuple[Any, ...]]:
    of_run = f"SELECT id FROM dashboard_run WHERE run_id = '{run}'"
    return rows(database, f"SELECT {columns} FROM dashboard_abort WHERE run_id IN ({of_run})")


def rows(database: str, question: str) -> list[tuple[Any, ...]]:
    if database.startswith("sqlite"):
        file = database.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return connection.execute(question).fetchall()
    with psycopg.connect(database) as server:
        return server.execute(question).fetchall()  # type: ignore[call-overload, no-any-return]


@contextlib.contextmanager
def mirrored(database: str) -> Iterator[Outside]:
    with upstream() as (url, sandbox):
        given = {
            "DATABASE_URL": database,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
            "DJANGO_SUPERUSER_PASSWORD": "boss",
        }
        assert manage("migrate", "-v0", **given).returncode == 0
        manage("createsuperuser", "--noinput", "--username=boss", "--email=", **given)
        yield Outside(given, sandbox)


@contextlib.contextmanager
def empty(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database of this kind."""
    if kind == "sqlite":
        yield f"sqlite:///{folder / 'd.sqlite3'}"
        return
    name = f"dashboard_commands_{os.getpid()}"
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name}")
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{POSTGRES.rpartition('/')[0]}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Outside]:
    """A dashboard that runs, for all tests of this module: starting one takes its time."""
    folder = tmp_path_factory.mktemp("served")
    with (
        empty(request.param, folder) as database,
        mirrored(database) as outside,
        running(folder, "serve", "--port", "0", **outside.given) as dashboard,
    ):
        yield replace(outside, dashboard=dashboard)


@pytest.fixture
def outside(served: Outside) -> Outside:
    """The same, behaving as it should, and aborting slowly."""
    served.sandbox.faults = []
    served.sandbox.choices["abort-seconds"] = "60"
    return served


def test_an_abort_is_sent_beside_a_dashboard_that_runs(outside: Outside) -> None:
    run = outside.run()
    outside.sandbox.choices["abort-seconds"] = "0.2"
    ended = outside.abort(run, "--reason=Runbook 7", "--wait=20")
    assert (ended.returncode, ended.stdout[:13]) == (0, "Aborted after"), ended
    assert "Another process" not in ended.stdout
    told = outside.acts(run, "username, reason, via, state, outcome")
    assert told == [("boss", "Runbook 7", "command", "concluded", "aborted")]
    again = outside.abort(run)
    assert (again.returncode, again.stdout[:28]) == (0, "The run had been aborted alr")
    assert outside.sandbox.abort_posts[run] == 1


def test_four_commands_at_once_send_one_request(outside: Outside) -> None:
    run = outside.run()
    commands = [start(["abort", run, "--as=boss", "--json"], **outside.given) for _ in range(4)]
    ends = [command.communicate(timeout=60) for command in commands]
    assert [command.returncode for command in commands] == [0] * 4, ends
    assert sorted(json.loads(out)["joined"] for out, _ in ends) == [False, True, True, True]
    assert outside.sandbox.abort_posts[run] == 1


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("forbidden:payments@/abort", "Northflank refused"),
        ("500@/abort", "No answer to the abort"),
    ],
)
def test_an_abort_that_failed_ends_with_1(outside: Outside, fault: str, why: str) -> None:
    run = outside.run()
    outside.sandbox.faults = [parse_fault(fault)]
    ended = outside.abort(run)
    assert ended.returncode == 1
    assert why in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_abort_that_takes_longer_than_one_waits_ends_with_1(outside: Outside) -> None:
    ended = outside.abort(outside.run(), "--wait=1.5")
    assert ended.returncode == 1
    assert "After 1.5 s the run has not ended." in ended.stderr


def test_a_command_that_is_interrupted_leaves_the_abort_to_the_dashboard(outside: Outside) -> None:
    run = outside.run()
    outside.sandbox.faults = [parse_fault("abort-timeout:60")]
    command = start(["abort", run, "--as=boss"], **outside.given)
    eventually(lambda: outside.sandbox.abort_posts[run], processes.PATIENCE)
    command.send_signal(signal.SIGINT)
    _, aside = command.communicate(timeout=30)
    assert command.returncode == 1
    assert "Interrupted. The abort is written down" in aside
    assert "Traceback" not in aside
    assert outside.acts(run, "via, answered_at") == [("command", None)]
    assert outside.sandbox.abort_posts[run] == 1


def test_without_a_dashboard_it_is_sent_and_followed_too(tmp_path: Path) -> None:
    with empty("sqlite", tmp_path) as database, mirrored(database) as outside:
        with running(tmp_path, "serve", "--port", "0", **outside.given) as dashboard:
            run = replace(outside, dashboard=dashboard).run()
            dashboard.end(signal.SIGTERM)
        outside.sandbox.choices["abort-seconds"] = "0.2"
        ended = outside.abort(run, "--wait=25", "--json")
        assert ended.returncode == 0, ended.stderr
        said = json.loads(ended.stdout)
        assert (said["abort"]["outcome"], said["run"]["concluded"]) == ("aborted", True)
        assert outside.sandbox.abort_posts == {run: 1}


def test_with_the_embedded_sandbox_the_worker_sends_it(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    # Everyday has minutes in which nothing is under way in most stages. This run is always there.
    scenario = ("--scenario", "stuck-production", "--choice", "abort-seconds=0.2")
    stuck = "SELECT run_id FROM dashboard_run WHERE in_flight AND name = 'Basket totals 4719'"
    with running(tmp_path, "serve", "--port", "0", *scenario, DATABASE_URL=database):
        run = eventually(lambda: rows(database, stuck), processes.PATIENCE)[0][0]
        asked = ("--as=manager", "--reason=Runbook 7", "--wait=20")
        ended = manage("abort", run, *asked, DATABASE_URL=database)
        assert ended.returncode == 0, ended.stderr
        shell = f"{getpass.getuser()}@{socket.gethostname()}"
        told = [line.partition("  ")[2].partition("  ")[2] for line in ended.stdout.splitlines()]
        assert told[1:4] == [
            f"Requested by manager ({shell}): “Runbook 7”.",
            "Another process went on with it.",
            "Sent to Northflank.",
        ]
    assert acts(database, "via, state, outcome", run) == [("command", "concluded", "aborted")]


def test_a_database_that_is_not_migrated_is_told(tmp_path: Path) -> None:
    ended = manage("runs", DATABASE_URL=f"sqlite:///{tmp_path / 'new.sqlite3'}")
    assert ended.returncode == 1
    assert "run `manage.py migrate` first" in ended.stderr


def test_a_database_that_is_away_is_told() -> None:
    ended = manage("runs", DATABASE_URL="postgres://nobody@127.0.0.1:9/none")
    assert ended.returncode == 1
    assert "The database has failed" in ended.stderr
    assert "Traceback" not in ended.stderr


def start(arguments: list[str], **given: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "manage.py", *arguments],
        cwd=django_settings.BASE_DIR,
        env=environment(**given),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # As at a prompt: whoever runs these tests in the background has children that ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
