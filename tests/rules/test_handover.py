"""The text for those who take over a run."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import given
from pytest_django import Settings

from dashboard.models import AbortEvent, Looking, Pipeline, Project, Run, Stage, StageTiming
from dashboard.models.aborts import AbortState, What
from dashboard.northflank import Node
from dashboard.runs import summary as run_summary
from dashboard.runs.concurrency import Around
from dashboard.web.components import incident_summary
from dashboard.web.components.incident_summary import Link
from tests.support import factories
from tests.support.arbitrary import runs, trees

NOW = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
PLACE = Stage(
    name="Production", pipeline=Pipeline(name="checkout", project=Project(name="payments"))
)
URL = "https://flows.example/runs/r-1/"


@pytest.fixture(autouse=True)
def in_berlin(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    timezone.deactivate()


def run(status: str = "running", **more: Any) -> Run:
    usual = {
        "name": "Nightly",
        "run_id": "r-1",
        "concluded": False,
        "in_flight": True,
        "created_at": NOW - timedelta(minutes=21),
        "started_at": NOW - timedelta(minutes=20),
        "first_seen_at": NOW,
        "seen_at": NOW,
        "status_since": NOW,
    }
    return Run(stage=PLACE, status=status, **usual | more)


def text(
    of: Run,
    root: Node | None = None,
    timing: StageTiming | None = None,
    around: Around = Around(""),  # noqa: B008 - it never changes
) -> str:
    said = run_summary.of(
        of, root, timing, behind=len(around.behind), dropped=around.dropped_in_words
    )
    parts = incident_summary.of(of, root, timing, said, around, [], url=URL)
    return run_summary.text(parts, NOW)


def test_it_tells_what_where_since_when_and_leads_there() -> None:
    began = NOW - timedelta(minutes=18)
    step = factories.node(
        "JobRun", label="migrate", ref="migrate", status="retrying", started_at=began,
        attempts=2, max_attempts=3, error_message="exit code 1\nof psql",
    )  # fmt: skip
    timing = StageTiming(run_median=480, run_p95=600, steps={"migrate": [120, 240]})
    good = run("success", name="Nightly 41", run_id="r-0", pk=1, concluded_at=NOW)
    waiting = run("queued", name="Hotfix", run_id="r-2", pk=2)
    around = Around("", behind=(waiting,), last_good=good)
    assert text(run("retrying"), factories.node("Workflow", steps=(step,)), timing, around) == (
        "checkout / Production: step “migrate” for 18 min (usually 2 to 4 min). Attempt 2 of 3. "
        "The last error: “exit code 1 of psql”. 1 run waits behind it.\n"
        "\n"
        "Run: Nightly (r-1)\n"
        "Where: payments / checkout / Production\n"
        "Status: Retrying, not concluded, as of 2026-01-01 03:00:00 CET\n"
        "Created: 2026-01-01 02:39:00 CET\n"
        "Started: 2026-01-01 02:40:00 CET\n"
        "A run here usually takes 8 to 10 min\n"
        "Step: migrate, attempt 2 of 3, started 2026-01-01 02:42:00 CET\n"
        "Error: exit code 1 of psql\n"
        "Waiting behind it: Hotfix (r-2)\n"
        "Last good in this stage: Nightly 41 (r-0), concluded 2026-01-01 03:00:00 CET\n"
        "\n"
        f"{URL}"
    )


def test_of_a_run_that_failed_it_tells_the_step_that_failed() -> None:
    step = factories.node("JobRun", label="migrate", status="failure", error_message="exit code 1")
    of = run("failure", concluded=True, in_flight=False, concluded_at=NOW)
    told = text(of, factories.node("Workflow", steps=(step,))).splitlines()
    assert "Status: Failed, concluded, as of 2026-01-01 03:00:00 CET" in told
    assert "Concluded: 2026-01-01 03:00:00 CET" in told
    assert "Step: migrate" in told
    assert "Error: exit code 1" in told


def test_of_a_run_that_was_aborted_it_tells_at_which_step() -> None:
    stopped = factories.node("JobRun", label="migrate", status="aborted")
    of = run("aborted", concluded=True, in_flight=False, concluded_at=NOW)
    told = text(of, factories.node("Workflow", steps=(stopped,))).splitlines()
    assert "Step: migrate" in told


def test_where_people_approve_what_is_usual_is_of_the_work() -> None:
    usual = {"run_median": 480, "run_p95": 600}
    assert "A run here usually takes 8 to 10 min\n" in text(run(), None, StageTiming(**usual))
    with_people = StageTiming(**usual, approvals=["sign-off"])
    assert "A run here usually takes 8 to 10 min of work\n" in text(run(), None, with_people)


FAILED = factories.node("JobRun", label="probe", status="failure", error_message="exit code 1")


def test_of_a_run_that_was_aborted_it_tells_no_step_that_had_failed_before() -> None:
    stopped = factories.node("JobRun", label="migrate", status="aborted")
    of = run("aborted", concluded=True, in_flight=False, concluded_at=NOW)
    told = text(of, factories.node("Workflow", steps=(FAILED, stopped)))
    assert "at step “migrate”" in told
    assert "Step: migrate" in told.splitlines()
    assert "exit code 1" not in told


def test_of_a_success_it_tells_no_step_that_had_failed_on_the_way() -> None:
    of = run("success", concluded=True, in_flight=False, concluded_at=NOW)
    told = text(of, factories.node("Workflow", steps=(FAILED,)))
    assert "Step:" not in told
    assert "Error:" not in told


def test_of_a_run_that_is_gone_it_tells_the_step_that_it_was_last_at() -> None:
    at = factories.node("JobRun", label="migrate", status="waiting")
    told = text(run(in_flight=False, gone_at=NOW), factories.node("Workflow", steps=(FAILED, at)))
    assert "at step “migrate”" in told
    assert "Step: migrate" in told.splitlines()


def test_what_is_not_known_is_left_out() -> None:
    told = text(run(name="", started_at=None))
    assert [line.partition(":")[0] for line in told.splitlines()[2:]] == [
        "Run", "Where", "Status", "Created", "", "https",
    ]  # fmt: skip


def test_of_many_that_wait_some_are_named() -> None:
    waiting = tuple(run("queued", name=f"R{number}", run_id=f"{number}") for number in range(8))
    told = text(run(), around=Around("", behind=waiting))
    assert "Waiting behind it: R0 (0), R1 (1), R2 (2), R3 (3), R4 (4) and 3 more" in told


def test_what_was_dropped_is_named_under_the_words_of_the_verdict() -> None:
    dropped = tuple(run("skipped", name=f"R{number}", run_id=f"{number}") for number in range(7))
    words = "7 runs have been skipped since it was created."
    told = text(run(), around=Around("", swallowed=dropped, swallowed_in_words=words)).splitlines()
    assert told[0].endswith(words)
    assert (
        "7 runs have been skipped since it was created: "
        "R0 (0), R1 (1), R2 (2), R3 (3), R4 (4) and 2 more"
    ) in told


def test_of_a_run_that_was_dropped_it_tells_for_which() -> None:
    there = run(name="Hotfix", run_id="r-2", pk=2)
    around = Around(
        "",
        dropped_for=there,
        dropped_for_in_words="Another was in flight when it came.",
    )
    of = run("skipped", concluded=True, in_flight=False)
    told = text(of, around=around).splitlines()
    assert told[0].endswith(" Another was in flight when it came.")
    assert "Another was in flight when it came: Hotfix (r-2)" in told


def test_the_last_good_run_is_not_told_of_itself() -> None:
    of = run("success", pk=7, concluded=True, in_flight=False)
    assert "Last good" not in text(of, around=Around("", last_good=of))


def test_the_address_is_a_part_of_its_own() -> None:
    parts = incident_summary.of(run(), None, None, ("It runs.",), Around(""), [], url=URL)
    assert parts[-1] == Link(URL)
    assert isinstance(parts[-1], Link)


def test_an_abort_from_elsewhere_is_told() -> None:
    told = text(run("aborting", aborting_since=NOW))
    assert "Abort: Aborting since 2026-01-01 03:00:00 CET, not asked for here." in told


def test_of_an_abort_that_is_older_than_what_is_known_it_does_not_tell_when_it_began() -> None:
    aborting = run("aborting", status_since=NOW, first_seen_at=NOW)
    said = "Aborting since at least 2026-01-01 03:00:00 CET, not asked for here."
    assert said in text(aborting)


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["running", "aborting", "success"])
@pytest.mark.parametrize("state", AbortState)
@pytest.mark.parametrize(
    ("sent_at", "retry_at"), [(NOW, None), (None, None), (None, NOW + timedelta(hours=1))]
)
def test_each_time_has_its_date_and_its_zone(
    manager: User, state: AbortState, status: str, sent_at: datetime | None, retry_at: datetime
) -> None:
    of = factories.run(factories.stage(), status=status, status_since=NOW, concluded_at=NOW)
    abort = factories.abort(
        of, manager, state, requested_at=NOW - timedelta(minutes=1), sent_at=sent_at,
        answered_at=sent_at, retry_at=retry_at, settled_at=NOW, answer="It was busy.",
    )  # fmt: skip
    for what in What:
        AbortEvent.objects.create(abort=abort, what=what, at=NOW, detail="")
    parts = incident_summary.of(of, None, None, ("It runs.",), Around(""), [abort], url=URL)
    told = run_summary.text(parts, NOW)
    in_full = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d CET")
    assert in_full.search(told)
    assert re.search(r"\d:\d\d", in_full.sub("", told)) is None, told


@pytest.mark.django_db
def test_it_tells_who_aborted_it_why_and_what_came_of_it(manager: User) -> None:
    of = factories.run(factories.stage(), status="aborting")
    abort = factories.abort(of, manager, reason="Stuck\nfor ever", requested_at=NOW)
    AbortEvent.objects.create(abort=abort, what=What.SENT, at=NOW)
    parts = incident_summary.of(of, None, None, ("It is aborting.",), Around(""), [abort], url=URL)
    told = run_summary.text(parts, NOW).splitlines()
    assert any(line.startswith("Abort: Abort accepted; aborting since") for line in told)
    assert "  Asked by manager, 2026-01-01 03:00:00 CET: “Stuck for ever”" in told
    assert "  2026-01-01 03:00:00 CET Sent to Northflank." in told


@given(runs(), trees)
def test_any_run_can_be_handed_over(of: Run, root: Node) -> None:
    of.stage, of.seen_at = PLACE, NOW
    told = text(of, root)
    assert told.endswith(URL)
    assert "None" not in told


def looking(name: str, **more: Any) -> Looking:
    return Looking(username=name, since=NOW - timedelta(minutes=5), **more)


def test_who_looks_and_who_has_looked_is_told() -> None:
    lookings = [
        looking("ana", until=NOW - timedelta(minutes=2), taken_over_by="cem"),
        looking("bea", until=NOW - timedelta(minutes=1)),
        looking("cem\nStatus: done"),
    ]
    parts = incident_summary.of(run(), None, None, ("It runs.",), Around(""), [], lookings, url=URL)
    lines = run_summary.text(parts, NOW).splitlines()
    assert [line for line in lines if "look" in line] == [
        "ana looked from 2026-01-01 02:55:00 CET to 2026-01-01 02:58:00 CET; cem took over",
        "bea looked from 2026-01-01 02:55:00 CET to 2026-01-01 02:59:00 CET",
        "cem Status: done is looking, since 2026-01-01 02:55:00 CET",
    ]


def test_of_many_who_have_looked_the_latest_are_told() -> None:
    lookings = [looking(f"a{number}", until=NOW) for number in range(9)]
    parts = incident_summary.of(run(), None, None, ("It runs.",), Around(""), [], lookings, url=URL)
    text = run_summary.text(parts, NOW)
    assert "Looked at by 9; the latest:" in text
    assert text.count("looked from") == incident_summary.MOST
    assert "a8 looked" in text
