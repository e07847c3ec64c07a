"""The incident summary: text for the next on call."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import given
from pytest_django import Settings

from dashboard.models import AbortEvent, Acknowledgement, Pipeline, Project, Run, Stage, StageTiming
from dashboard.models.aborts import AbortState, EventType
from dashboard.northflank import Node
from dashboard.runs import summary as run_summary
from dashboard.runs.concurrency import RelatedRuns
from dashboard.texts.rich_text import Link, to_text
from dashboard.web.components.runs import incident_summary
from tests.support import factories
from tests.support.arbitrary import runs, trees

NOW = datetime(2026, 1, 1, 2, 0, tzinfo=UTC)
STAGE = Stage(
    name="Production", pipeline=Pipeline(name="checkout", project=Project(name="payments"))
)
URL = "https://flows.example/runs/r-1/"


@pytest.fixture(autouse=True)
def in_berlin(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    timezone.deactivate()


def run(status: str = "running", **fields: Any) -> Run:
    defaults = {
        "name": "Nightly",
        "run_id": "r-1",
        "concluded": False,
        "in_flight": True,
        "created_at": NOW - timedelta(minutes=21),
        "started_at": NOW - timedelta(minutes=20),
        "first_synced_at": NOW,
        "synced_at": NOW,
        "status_since": NOW,
    }
    return Run(stage=STAGE, status=status, **defaults | fields)


def text(
    subject: Run,
    root: Node | None = None,
    timing: StageTiming | None = None,
    related: RelatedRuns = RelatedRuns(""),  # noqa: B008 - it never changes
) -> str:
    summary = run_summary.build(
        subject,
        root,
        timing,
        queued_behind=len(related.queued_behind),
        skip_summary=related.skip_summary,
    )
    parts = incident_summary.build(subject, root, timing, summary, related, [], url=URL)
    return to_text(parts, NOW)


def test_incident_summary_has_step_place_times_and_link() -> None:
    started_at = NOW - timedelta(minutes=18)
    step = factories.node(
        "JobRun", label="migrate", ref="migrate", status="retrying", started_at=started_at,
        attempts=2, max_attempts=3, error_message="exit code 1\nof psql",
    )  # fmt: skip
    timing = StageTiming(
        observed_run_median=480, observed_run_p95=600, observed_steps={"migrate": [120, 240]}
    )
    last_success = run("success", name="Nightly 41", run_id="r-0", pk=1, concluded_at=NOW)
    waiting = run("queued", name="Hotfix", run_id="r-2", pk=2)
    related = RelatedRuns("", queued_behind=(waiting,), last_success=last_success)
    assert text(run("retrying"), factories.node("Workflow", steps=(step,)), timing, related) == (
        "checkout / Production: step “migrate” for 18 min (usually 2 to 4 min). Attempt 2 of 3. "
        "Last error: “exit code 1 of psql”. 1 run is queued behind it.\n"
        "\n"
        "Run: Nightly (r-1)\n"
        "Location: payments / checkout / Production\n"
        "Status: Retrying, not concluded, as of 2026-01-01 03:00:00 CET\n"
        "Created: 2026-01-01 02:39:00 CET\n"
        "Started: 2026-01-01 02:40:00 CET\n"
        "Typical duration: 8 to 10 min\n"
        "Step: migrate, attempt 2 of 3, started 2026-01-01 02:42:00 CET\n"
        "Error: exit code 1 of psql\n"
        "Queued behind: Hotfix (r-2)\n"
        "Latest success in this stage: Nightly 41 (r-0), concluded 2026-01-01 03:00:00 CET\n"
        "\n"
        f"{URL}"
    )


def test_incident_summary_of_failed_run_has_failed_step() -> None:
    step = factories.node("JobRun", label="migrate", status="failure", error_message="exit code 1")
    subject = run("failure", concluded=True, in_flight=False, concluded_at=NOW)
    incident_text = text(subject, factories.node("Workflow", steps=(step,))).splitlines()
    assert "Status: Failed, concluded, as of 2026-01-01 03:00:00 CET" in incident_text
    assert "Concluded: 2026-01-01 03:00:00 CET" in incident_text
    assert "Step: migrate" in incident_text
    assert "Error: exit code 1" in incident_text


def test_incident_summary_of_aborted_run_has_aborted_step() -> None:
    aborted_step = factories.node("JobRun", label="migrate", status="aborted")
    subject = run("aborted", concluded=True, in_flight=False, concluded_at=NOW)
    incident_text = text(subject, factories.node("Workflow", steps=(aborted_step,))).splitlines()
    assert "Step: migrate" in incident_text


def test_incident_summary_of_stage_with_approvals_shows_duration_of_work() -> None:
    defaults = {"observed_run_median": 480, "observed_run_p95": 600}
    assert "Typical duration: 8 to 10 min\n" in text(run(), None, StageTiming(**defaults))
    approval_timing = StageTiming(**defaults, approval_keys=["sign-off"])
    assert "Typical duration: 8 to 10 min excl. approvals\n" in text(run(), None, approval_timing)


FAILED = factories.node("JobRun", label="probe", status="failure", error_message="exit code 1")


def test_incident_summary_of_aborted_run_leaves_out_earlier_failed_step() -> None:
    aborted_step = factories.node("JobRun", label="migrate", status="aborted")
    subject = run("aborted", concluded=True, in_flight=False, concluded_at=NOW)
    incident_text = text(subject, factories.node("Workflow", steps=(FAILED, aborted_step)))
    assert "at step “migrate”" in incident_text
    assert "Step: migrate" in incident_text.splitlines()
    assert "exit code 1" not in incident_text


def test_incident_summary_of_successful_run_leaves_out_failed_step() -> None:
    subject = run("success", concluded=True, in_flight=False, concluded_at=NOW)
    incident_text = text(subject, factories.node("Workflow", steps=(FAILED,)))
    assert "Step:" not in incident_text
    assert "Error:" not in incident_text


def test_incident_summary_of_removed_run_has_last_step() -> None:
    step = factories.node("JobRun", label="migrate", status="waiting")
    incident_text = text(
        run(in_flight=False, removed_at=NOW), factories.node("Workflow", steps=(FAILED, step))
    )
    assert "at step “migrate”" in incident_text
    assert "Step: migrate" in incident_text.splitlines()


def test_incident_summary_leaves_out_unknown_fields() -> None:
    incident_text = text(run(name="", started_at=None))
    assert [line.partition(":")[0] for line in incident_text.splitlines()[2:]] == [
        "Run", "Location", "Status", "Created", "", "https",
    ]  # fmt: skip


def test_incident_summary_names_first_five_queued_runs() -> None:
    waiting = tuple(run("queued", name=f"R{number}", run_id=f"{number}") for number in range(8))
    incident_text = text(run(), related=RelatedRuns("", queued_behind=waiting))
    assert "Queued behind: R0 (0), R1 (1), R2 (2), R3 (3), R4 (4) and 3 more" in incident_text


def test_incident_summary_names_skipped_runs() -> None:
    skipped = tuple(run("skipped", name=f"R{number}", run_id=f"{number}") for number in range(7))
    sentence = "7 runs skipped since this run was created."
    incident_text = text(
        run(), related=RelatedRuns("", skipped_meanwhile=skipped, skipped_text=sentence)
    ).splitlines()
    assert incident_text[0].endswith(sentence)
    assert (
        "7 runs skipped since this run was created: R0 (0), R1 (1), R2 (2), R3 (3), R4 "
        "(4) and 2 more"
    ) in incident_text


def test_incident_summary_of_skipped_run_names_superseding_run() -> None:
    superseding = run(name="Hotfix", run_id="r-2", pk=2)
    related = RelatedRuns(
        "",
        superseded_by=superseding,
        superseded_text="Another run was in flight when it was created.",
    )
    subject = run("skipped", concluded=True, in_flight=False)
    incident_text = text(subject, related=related).splitlines()
    assert incident_text[0].endswith(" Another run was in flight when it was created.")
    assert "Another run was in flight when it was created: Hotfix (r-2)" in incident_text


def test_incident_summary_of_last_success_leaves_out_last_success() -> None:
    subject = run("success", pk=7, concluded=True, in_flight=False)
    assert "Last good" not in text(subject, related=RelatedRuns("", last_success=subject))


def test_incident_summary_link_is_a_separate_part() -> None:
    parts = incident_summary.build(run(), None, None, ("It runs.",), RelatedRuns(""), [], url=URL)
    assert parts[-1] == Link(URL)
    assert isinstance(parts[-1], Link)


def test_incident_summary_shows_external_abort() -> None:
    incident_text = text(run("aborting", aborting_since=NOW))
    assert (
        "Abort: Aborting since 2026-01-01 03:00:00 CET; requested outside this "
        "dashboard." in incident_text
    )


def test_incident_summary_of_abort_with_unknown_start_says_at_least() -> None:
    aborting = run("aborting", status_since=NOW, first_synced_at=NOW)
    sentence = (
        "Aborting since 2026-01-01 03:00:00 CET or earlier; requested outside this dashboard."
    )
    assert sentence in text(aborting)


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["running", "aborting", "success"])
@pytest.mark.parametrize("state", AbortState)
@pytest.mark.parametrize(
    ("sent_at", "retry_at"), [(NOW, None), (None, None), (None, NOW + timedelta(hours=1))]
)
def test_incident_summary_times_have_date_and_time_zone(
    manager: User, state: AbortState, status: str, sent_at: datetime | None, retry_at: datetime
) -> None:
    subject = factories.run(factories.stage(), status=status, status_since=NOW, concluded_at=NOW)
    abort = factories.abort(
        subject, manager, state, requested_at=NOW - timedelta(minutes=1), sent_at=sent_at,
        answered_at=sent_at, retry_at=retry_at, settled_at=NOW, answer="It was busy.",
    )  # fmt: skip
    for event_type in EventType:
        AbortEvent.objects.create(abort=abort, event_type=event_type, occurred_at=NOW, detail="")
    parts = incident_summary.build(
        subject, None, None, ("It runs.",), RelatedRuns(""), [abort], url=URL
    )
    incident_text = to_text(parts, NOW)
    full_time = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d CET")
    assert full_time.search(incident_text)
    assert re.search(r"\d:\d\d", full_time.sub("", incident_text)) is None, incident_text


@pytest.mark.django_db
def test_incident_summary_shows_abort_user_reason_and_timeline(manager: User) -> None:
    subject = factories.run(factories.stage(), status="aborting")
    abort = factories.abort(subject, manager, reason="Stuck\nfor ever", requested_at=NOW)
    AbortEvent.objects.create(abort=abort, event_type=EventType.SENT, occurred_at=NOW)
    parts = incident_summary.build(
        subject, None, None, ("It is aborting.",), RelatedRuns(""), [abort], url=URL
    )
    incident_text = to_text(parts, NOW).splitlines()
    assert any(line.startswith("Abort: Abort accepted; aborting since") for line in incident_text)
    assert "  Requested by manager, 2026-01-01 03:00:00 CET: “Stuck for ever”" in incident_text
    assert "  2026-01-01 03:00:00 CET Sent to Northflank." in incident_text


@given(runs(), trees)
def test_incident_summary_of_any_run_ends_with_link(subject: Run, root: Node) -> None:
    subject.stage, subject.synced_at = STAGE, NOW
    incident_text = text(subject, root)
    assert incident_text.endswith(URL)
    assert "None" not in incident_text


def acknowledgement(name: str, **fields: Any) -> Acknowledgement:
    return Acknowledgement(username=name, acknowledged_at=NOW - timedelta(minutes=5), **fields)


def test_incident_summary_shows_current_and_past_acknowledgements() -> None:
    acknowledgements = [
        acknowledgement("ana", ended_at=NOW - timedelta(minutes=2), reassigned_to="cem"),
        acknowledgement("bea", ended_at=NOW - timedelta(minutes=1)),
        acknowledgement("cem\nStatus: done"),
    ]
    parts = incident_summary.build(
        run(), None, None, ("It runs.",), RelatedRuns(""), [], acknowledgements, url=URL
    )
    lines = to_text(parts, NOW).splitlines()
    assert [line for line in lines if "cknowledge" in line] == [
        (
            "Acknowledged by ana from 2026-01-01 02:55:00 CET to 2026-01-01 02:58:00 CET; "
            "reassigned to cem"
        ),
        "Acknowledged by bea from 2026-01-01 02:55:00 CET to 2026-01-01 02:59:00 CET",
        "Acknowledged by cem Status: done since 2026-01-01 02:55:00 CET",
    ]


def test_incident_summary_limits_acknowledgements_to_latest() -> None:
    acknowledgements = [acknowledgement(f"a{number}", ended_at=NOW) for number in range(9)]
    parts = incident_summary.build(
        run(), None, None, ("It runs.",), RelatedRuns(""), [], acknowledgements, url=URL
    )
    text = to_text(parts, NOW)
    assert "9 acknowledgements; the latest:" in text
    assert text.count("Acknowledged by") == incident_summary.MAX_LISTED
    assert "Acknowledged by a8" in text
