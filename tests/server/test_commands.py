"""The commands of runbooks: errors in a sentence, and aborts beside a dashboard that runs."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, ApiToken, Run, Stage
from tests.support import factories


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


def test_what_was_not_looked_at_is_told_beside_the_list(stage: Stage) -> None:
    factories.worker()
    factories.stage("Development", synced_at=None, promised_at=None)
    out, aside = io.StringIO(), io.StringIO()
    call_command("runs", stdout=out, stderr=aside)
    assert out.getvalue() == "Nothing in flight was found so far.\n"
    assert aside.getvalue().startswith("Incomplete: 1 of 2 stages not read yet, ")
    assert json.loads(said("runs", "--json"))["complete"] is False
    assert json.loads(said("runs", "--json", "--stage", "staging"))["complete"] is True


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
