"""Runbook commands: errors in one sentence, and aborts beside a running dashboard."""

import io
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, AccessEvent, ApiToken, Lead, Run, Stage
from dashboard.models.accounts.access import AccessKind
from dashboard.runs import dismissals
from dashboard.runs.overdue import OverdueReason
from tests.support import factories


def output_of(*arguments: str) -> str:
    """Return what a command writes to standard output."""
    output = io.StringIO()
    call_command(*arguments, stdout=output, stderr=io.StringIO())
    return output.getvalue()


def error_of(*arguments: str) -> str:
    """Return a command's error; it must have written nothing."""
    before = (Abort.objects.count(), ApiToken.objects.count())
    with pytest.raises(CommandError) as error:
        call_command(*arguments, stdout=io.StringIO(), stderr=io.StringIO())
    assert (Abort.objects.count(), ApiToken.objects.count()) == before
    return str(error.value)


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage("Staging")


# --- tokens ------------------------------------------------------------------------------------


def create_token(user: User, *options: str) -> str:
    return output_of(
        "token", "create", "--user", user.username, "--name", "PagerDuty", *options
    ).strip()


def test_token_make_prints_only_secret(viewer: User) -> None:
    secret = create_token(viewer)
    assert ApiToken.objects.find_by_secret(secret) == ApiToken.objects.get()
    assert secret.startswith("rfd_")


@pytest.mark.parametrize(
    ("options", "text"), [((), "It never expires."), (("--expires", "90d"), "It expires ")]
)
def test_token_make_says_when_the_token_expires(
    viewer: User, options: tuple[str, ...], text: str
) -> None:
    messages = io.StringIO()
    name = ("--user", "viewer", "--name", "PagerDuty")
    call_command("token", "create", *name, *options, stdout=io.StringIO(), stderr=messages)
    assert text in messages.getvalue()


def test_token_commands_are_recorded_without_secret(viewer: User) -> None:
    secret = create_token(viewer)
    for _ in range(2):
        output_of("token", "revoke", secret)
    revoked, created = AccessEvent.objects.all()
    assert (created.kind, revoked.kind) == (AccessKind.TOKEN_CREATED, AccessKind.TOKEN_REVOKED)
    for event in (created, revoked):
        assert (event.username, event.token_name) == ("viewer", "PagerDuty")
    assert created.detail == "Scope read, expires: never. By manage.py token."
    assert secret not in str(list(AccessEvent.objects.values()))


def test_token_make_without_scope_creates_read_token(viewer: User) -> None:
    create_token(viewer)
    create_token(viewer, "--scope", "abort")
    assert list(ApiToken.objects.order_by("pk").values_list("scope", flat=True)) == [
        "read", "abort",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "lifetime"),
    [("12h", timedelta(hours=12)), ("90d", timedelta(days=90)), ("2w", timedelta(weeks=2))],
)
def test_token_make_with_expires_sets_expiry(viewer: User, text: str, lifetime: timedelta) -> None:
    create_token(viewer, "--expires", text)
    token = ApiToken.objects.get()
    assert token.expires_at == token.created_at + lifetime


@pytest.mark.parametrize("text", ["", "90", "0d", "-5d", "90 d", "1y", "99999w", "٣d"])
def test_token_make_with_invalid_expires_is_rejected(viewer: User, text: str) -> None:
    arguments = ["--user", "viewer", "--name", "x", f"--expires={text}"]
    assert "use a number with h, d or w" in error_of("token", "create", *arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--user", "nobody", "--name", "x"], "The account “nobody” does not exist."),
        (["--user", "viewer", "--name", " "], "--name must have 1 to 100 characters."),
        (["--user", "viewer", "--name", "x" * 101], "--name must have 1 to 100 characters."),
        (["--user", "viewer"], "--name"),
        (["--name", "x"], "--user"),
        (["--user", "viewer", "--name", "x", "--scope", "all"], "invalid choice: 'all'"),
    ],
)
def test_token_make_with_invalid_arguments_is_rejected(
    viewer: User, arguments: list[str], reason: str
) -> None:
    assert reason in error_of("token", "create", *arguments)


def test_token_make_for_inactive_account_is_rejected(viewer: User) -> None:
    User.objects.update(is_active=False)
    assert "is inactive" in error_of("token", "create", "--user", "viewer", "--name", "x")


def test_token_command_in_read_only_mode_can_only_revoke(viewer: User, settings: Settings) -> None:
    secret = create_token(viewer)
    settings.READ_ONLY = True
    assert "read-only" in error_of("token", "create", "--user", "viewer", "--name", "x")
    assert "), revoked at" in output_of("token", "revoke", secret)


def test_token_list_shows_fields_without_secret(viewer: User) -> None:
    secret = create_token(viewer, "--expires", "90d")
    output = output_of("token", "list")
    token = ApiToken.objects.get()
    assert all(
        word in output for word in (f"{token.prefix}…", "PagerDuty", "viewer", "read", "valid")
    )
    assert secret not in output
    assert token.digest not in output


def test_token_list_without_tokens_shows_message(db: None) -> None:
    assert output_of("token", "list") == "No tokens.\n"


@pytest.mark.parametrize("form", ["id", "prefix", "prefix as shown", "secret"])
def test_token_revoke_accepts_id_hint_or_secret(viewer: User, form: str) -> None:
    secret = create_token(viewer)
    token = ApiToken.objects.get()
    names = {
        "id": str(token.pk), "prefix": token.prefix, "prefix as shown": f"{token.prefix}…",
        "secret": secret,
    }  # fmt: skip
    answer = output_of("token", "revoke", names[form])
    assert "), revoked at" in answer
    assert secret not in answer
    assert ApiToken.objects.get().revoked_at is not None


def test_token_revoke_of_revoked_token_keeps_time(viewer: User) -> None:
    create_token(viewer)
    ApiToken.objects.update(revoked_at=timezone.now() - timedelta(days=1))
    before = ApiToken.objects.get().revoked_at
    assert "already revoked at" in output_of("token", "revoke", str(ApiToken.objects.get().pk))
    assert ApiToken.objects.get().revoked_at == before


def test_token_revoke_with_ambiguous_hint_is_rejected(viewer: User) -> None:
    create_token(viewer)
    create_token(viewer)
    ApiToken.objects.update(prefix="rfd_same")
    first, second = ApiToken.objects.order_by("pk")
    assert f"{first.pk}, {second.pk}" in error_of("token", "revoke", "rfd_same")
    assert not ApiToken.objects.exclude(revoked_at=None).exists()


@pytest.mark.parametrize("token", ["999", "9" * 30, "rfd_none", "rfd_" + "s3cr3t" * 7, ""])
def test_token_revoke_of_unknown_token_does_not_echo_secret(viewer: User, token: str) -> None:
    reason = error_of("token", "revoke", token)
    assert "No token with that ID" in reason
    assert "s3cr3t" not in reason


# --- runs --------------------------------------------------------------------------------------


def test_runs_command_searches(stage: Stage) -> None:
    factories.run(stage, "r-1", name="Größe")
    factories.run(stage, "r-2")
    factories.search_texts()
    _, row = output_of("runs", "--search", "GROSSE checkout").splitlines()
    assert row.startswith("r-1 ")
    for text in ("nothing", " "):
        assert output_of("runs", "--search", text) == "No matching runs.\n"


def test_runs_command_shows_title_location_and_what_is_overdue(stage: Stage) -> None:
    late = {"overdue_severity": 2, "overdue_reason": OverdueReason.NO_PROGRESS}
    factories.run(stage, "r-1", name="Nightly", **late)
    factories.run(stage, "r-2", name="W" * 5000)
    lines = output_of("runs").splitlines()
    cells = {line.partition(" ")[0]: re.split("  +", line) for line in lines}
    assert cells["r-1"][1:6] == [
        "Nightly", "yes", "Running", "Overdue 3×: no progress", "shop / checkout / Staging",
    ]  # fmt: skip
    assert lines[1].startswith("r-1 ")  # before the newer one
    assert cells["r-2"][1:4] == ["W" * 59 + "…", "Running", "shop / checkout / Staging"]
    assert "Overdue 3×: no progress." in output_of("run", "r-1")
    assert "overdue" not in output_of("run", "r-2")


def test_runs_command_shows_no_duration_of_removed_run(stage: Stage) -> None:
    factories.run(stage, "r-1", removed_at=timezone.now())
    _, row = output_of("runs").splitlines()
    assert "Removed" in row
    assert "Running" not in row
    assert " 1 min" not in row


def test_runs_command_with_unread_stage_reports_incomplete(stage: Stage) -> None:
    factories.leader()
    factories.stage("Development", synced_at=None, fresh_until=None)
    output, errors = io.StringIO(), io.StringIO()
    call_command("runs", stdout=output, stderr=errors)
    assert output.getvalue() == "No runs in flight found so far.\n"
    assert errors.getvalue().startswith("Incomplete: 1 of 2 stages not read yet, ")
    assert json.loads(output_of("runs", "--json"))["complete"] is False
    assert json.loads(output_of("runs", "--json", "--stage", "staging"))["complete"] is True


def test_runs_command_filters_by_stage_and_project(stage: Stage) -> None:
    factories.run(stage, "r-1")
    factories.run(factories.stage("Production"), "r-2")
    assert "r-1" not in output_of("runs", "--stage", "production")
    assert "r-2" in output_of("runs", "--stage", "production", "--project", "shop")


@pytest.mark.parametrize(
    "place",
    [
        ["--project", "shpo"], ["--pipeline", "chekout"], ["--project", "shop", "--pipeline", "x"],
        ["--project", "shpo", "--stage", "production"],
        ["--project", "shop", "--stage", "production"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_runs_command_of_unknown_place_is_an_error(
    stage: Stage, place: list[str], options: list[str]
) -> None:
    assert "No such project, pipeline or stage" in error_of("runs", *place, *options)


def test_runs_command_of_place_without_runs_shows_message(stage: Stage) -> None:
    factories.project("new")
    for place in (["--project", "shop"], ["--project", "new"], ["--stage", "production"]):
        assert output_of("runs", *place) == "No runs in flight.\n"


def test_runs_command_of_place_that_may_not_be_listed_yet_reports_incomplete(db: None) -> None:
    assert output_of("runs", "--project", "shop") == "No runs in flight found so far.\n"


@pytest.mark.parametrize("command", [["runs"], ["run", "r-1"], ["abort", "r-1", "--as", "manager"]])
@pytest.mark.parametrize("option", ["--project", "--pipeline", "--stage"])
def test_commands_with_empty_place_are_refused(
    stage: Stage, manager: User, command: list[str], option: str
) -> None:
    factories.run(stage, "r-1")
    assert error_of(*command, option, "").startswith(f"Error: argument {option}: ")


@pytest.mark.parametrize("command", [["runs"], ["run", "r-1"]])
def test_commands_strip_control_characters(stage: Stage, command: list[str]) -> None:
    factories.run(stage, "r-1", name="\x1b[2J\r\nx\u202e", step="\x1b]0;x\x07")
    output = output_of(*command)
    assert not {c for c in output if not c.isprintable()} - {"\n"}


def test_commands_json_equals_api_json(stage: Stage, manager: User) -> None:
    run = factories.run(stage, "r-1")
    factories.abort(run, manager).add_event("requested", timezone.now())
    [listed_run] = json.loads(output_of("runs", "--json"))["runs"]
    single_run = json.loads(output_of("run", "r-1", "--json"))
    extra_fields = {
        "aborts",
        "behind",
        "left_running",
        "acknowledgements",
        "dismissals",
        "waiting_for",
        "log",
    }
    assert listed_run == {
        name: value for name, value in single_run.items() if name not in extra_fields
    }
    assert single_run["aborts"][0]["timeline"][0]["text"] == "Requested by manager."


def test_run_command_shows_run_and_aborts(stage: Stage, manager: User) -> None:
    run = factories.run(stage, "r-1", name="Nightly", step="migrate")
    factories.abort(run, manager, reason="Stuck").add_event("requested", timezone.now())
    output = output_of("run", "r-1")
    for text in ("Nightly (r-1)", "shop / checkout / Staging", "Step: migrate", "“Stuck”"):
        assert text in output


def test_run_command_shows_why_a_run_failed(stage: Stage) -> None:
    cause = {"failed_step": "migrate", "failed_step_error": "relation exists"}
    factories.run(stage, "r-1", status="failure", **cause)
    assert "\nmigrate: relation exists\n" in output_of("run", "r-1")


def test_run_command_timeline_shows_dates(stage: Stage, manager: User) -> None:
    run = factories.run(stage, "r-1")
    factories.abort(run, manager).add_event("sent", datetime(2026, 3, 31, 12, 0, tzinfo=UTC))
    assert "2026-03-31 12:00:00 UTC  Sent to Northflank." in output_of("run", "r-1")


@pytest.mark.parametrize("command", [["runs"], ["run", "r-1"]])
def test_commands_without_worker_warn_on_stderr(stage: Stage, command: list[str]) -> None:
    factories.run(stage, "r-1")
    errors = io.StringIO()
    call_command(*command, stdout=io.StringIO(), stderr=errors)
    assert "No sync worker is running. " in errors.getvalue()
    factories.leader()
    errors = io.StringIO()
    call_command(*command, stdout=io.StringIO(), stderr=errors)
    assert errors.getvalue() == ""


# --- aborts that are refused -------------------------------------------------------------------


@pytest.fixture
def run(stage: Stage) -> Run:
    factories.leader()
    return factories.run(stage, "r-1")


def test_abort_command_requires_account(run: Run) -> None:
    assert "--as" in error_of("abort", "r-1")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["r-1", "--as", "nobody"], "There is no active account “nobody”."),
        (["r-1", "--as", "viewer"], "Ask someone in “Release managers”"),
        (["r-9", "--as", "manager"], "Run “r-9” not found."),
        (["r-1", "--as", "manager", "--stage", "production"], "Run “r-1” not found."),
        (["r-1", "--as", "manager", "--stage", "moon"], "invalid choice"),
        (["r-1", "--as", "manager", "--wait", "-1"], "'-1' is not a positive number of seconds."),
        (["r-1", "--as", "manager", "--wait", "nan"], "'nan' is not a positive number of seconds."),
        (["r-1", "--as", "manager", "--wait", "inf"], "'inf' is not a positive number of seconds."),
        (["r-\udcff", "--as", "manager"], "Run “r-?” not found."),
        (
            ["r-2", "--as", "manager"],
            "A reason is required to abort runs in Production. Give --reason.",
        ),
        (["r-3", "--as", "manager"], "Nothing was sent. The run has already ended."),
    ],
)
def test_abort_command_with_invalid_arguments_is_rejected(
    run: Run, manager: User, viewer: User, arguments: list[str], reason: str
) -> None:
    factories.run(factories.stage("Production"), "r-2")
    factories.run(run.stage, "r-3", status="success")
    assert reason in error_of("abort", *arguments)


@pytest.mark.parametrize("status", ["running", "aborted"])
def test_abort_command_for_dismissed_run_does_not_say_that_it_has_ended(
    run: Run, manager: User, status: str
) -> None:
    Run.objects.update(removed_at=timezone.now(), status=status)
    dismissals.dismiss(run, manager)
    error = error_of("abort", "r-1", "--as", "manager")
    assert error.startswith("Nothing was sent. Removed from Northflank and from the list;")


@pytest.mark.parametrize("error", [OSError, KeyError])  # KeyError until Python 3.12
def test_abort_command_works_where_the_system_account_has_no_name(
    run: Run, manager: User, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    def fail() -> str:
        raise error("No username set in the environment")

    monkeypatch.setattr("getpass.getuser", fail)
    factories.run(run.stage, "r-3", status="success")
    reason = "Nothing was sent. The run has already ended."
    assert reason in error_of("abort", "r-3", "--as", "manager")


def test_abort_command_of_hidden_run_reports_unknown_run(run: Run, manager: User) -> None:
    from dashboard.models import Grant

    Grant.objects.all().delete()
    assert error_of("abort", "r-1", "--as", "manager") == "Run “r-1” not found."


def test_abort_command_for_inactive_account_is_rejected(run: Run, manager: User) -> None:
    User.objects.update(is_active=False)
    assert error_of("abort", "r-1", "--as", "manager") == "There is no active account “manager”."


@pytest.mark.parametrize(
    ("switch", "value", "reason"),
    [("READ_ONLY", True, "read-only"), ("ABORTS_ENABLED", False, "disabled")],
)
def test_abort_command_in_read_only_or_aborts_disabled_mode_is_rejected(
    run: Run, manager: User, settings: Any, switch: str, value: bool, reason: str
) -> None:
    setattr(settings, switch, value)
    assert reason in error_of("abort", "r-1", "--as", "manager")


def test_abort_command_with_ambiguous_run_id_lists_stages(run: Run, manager: User) -> None:
    factories.run(factories.stage("Production"), "r-1")
    reason = error_of("abort", "r-1", "--as", "manager")
    assert "shop / checkout / Production" in reason
    assert "shop / checkout / Staging" in reason


def test_abort_command_with_sandbox_requires_worker(run: Run, manager: User) -> None:
    Lead.objects.update(renewed_at=timezone.now() - timedelta(seconds=31))
    reason = error_of("abort", "r-1", "--as", "manager")
    assert "No sync worker is running (last heartbeat " in reason


def test_abort_command_of_aborted_run_succeeds(run: Run, manager: User) -> None:
    factories.run(run.stage, "r-4", status="aborted")
    assert "already ended" in output_of("abort", "r-4", "--as", "manager")
    assert json.loads(output_of("abort", "r-4", "--as", "manager", "--json"))["abort"] is None
