"""The incident summary: text for the next on call."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from hypothesis import given
from pytest_django import Settings

from dashboard.aborts import messages as abort_messages
from dashboard.models import (
    Abort,
    Acknowledgement,
    Pipeline,
    Project,
    Run,
    Stage,
    StageTiming,
)
from dashboard.models.abort_lifecycle import AbortState
from dashboard.northflank import Node
from dashboard.runs import summary as run_summary
from dashboard.runs.concurrency import RelatedRuns
from dashboard.texts.rich_text import RichText, to_text
from dashboard.web.components.runs import incident_summary
from tests.support import factories
from tests.support.arbitrary import runs, trees
from tests.support.messages import messages, params

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


def build(
    subject: Run,
    root: Node | None = None,
    timing: StageTiming | None = None,
    related: RelatedRuns = RelatedRuns(""),  # noqa: B008 - it never changes
    aborts: Sequence[Abort] = (),
    acknowledgements: Sequence[Acknowledgement] = (),
) -> tuple[RichText, ...]:
    summary = run_summary.build(
        subject,
        root,
        timing,
        related,
    )
    return incident_summary.build(
        subject, root, summary, related, aborts, acknowledgements, url=URL
    )


def lines(*args: Any, **kwargs: Any) -> list[tuple[str, dict[str, Any]]]:
    """The key and the parameters of each line between the summary and the link."""
    _summary, _space, facts, *_link = build(*args, **kwargs)
    return [(message.key, params(message)) for message in messages(facts) if message.key != "more"]


def text(*args: Any, **kwargs: Any) -> str:
    return to_text(build(*args, **kwargs), NOW)


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
    related = RelatedRuns("", blocks=(waiting,), last_success=last_success)
    parts = run("retrying"), factories.node("Workflow", steps=(step,)), timing, related
    assert lines(*parts) == [
        ("run", {"run": "Nightly (r-1)"}),
        ("location", {"project": "payments", "pipeline": "checkout", "stage": "Production"}),
        ("not_concluded", {"status": "Retrying", "time": "2026-01-01 03:00:00 CET"}),
        ("created_at", {"time": "2026-01-01 02:39:00 CET"}),
        ("started_at", {"time": "2026-01-01 02:40:00 CET"}),
        (
            "step_started",
            {"step": "migrate, attempt 2 of 3", "time": "2026-01-01 02:42:00 CET"},
        ),
        ("error", {"error": "exit code 1 of psql"}),
        ("blocks", {"runs": "Hotfix (r-2)"}),
        ("last_success", {"run": "Nightly 41 (r-0)", "time": "2026-01-01 03:00:00 CET"}),
    ]
    summary, facts, link = text(*parts).split("\n\n")
    assert summary == to_text(build(*parts)[0], NOW)
    assert len(facts.splitlines()) == 9
    assert link == URL


def test_incident_summary_names_awaited_approval_beside_an_earlier_step() -> None:
    steps = (
        factories.node("JobRun", label="load test", status="waiting", started_at=NOW),
        factories.node("Approval", label="sign-off", status="approval_wait", started_at=NOW),
    )
    found = dict(lines(run("approval_wait"), factories.node("Workflow", steps=steps)))
    assert found["step_started"] == {"step": "sign-off", "time": "2026-01-01 03:00:00 CET"}


def test_incident_summary_of_failed_run_has_failed_step() -> None:
    step = factories.node("JobRun", label="migrate", status="failure", error_message="exit code 1")
    subject = run("failure", concluded=True, in_flight=False, concluded_at=NOW)
    found = dict(lines(subject, factories.node("Workflow", steps=(step,))))
    assert found["concluded"]["status"] == "Failed"
    assert found["concluded_at"] == {"time": "2026-01-01 03:00:00 CET"}
    assert found["step"] == {"step": "migrate"}
    assert found["error"] == {"error": "exit code 1"}


def test_incident_summary_of_aborted_run_has_aborted_step() -> None:
    aborted_step = factories.node("JobRun", label="migrate", status="aborted")
    subject = run("aborted", concluded=True, in_flight=False, concluded_at=NOW)
    found = dict(lines(subject, factories.node("Workflow", steps=(aborted_step,))))
    assert found["step"] == {"step": "migrate"}


FAILED = factories.node("JobRun", label="probe", status="failure", error_message="exit code 1")


def test_incident_summary_of_successful_run_leaves_out_failed_step() -> None:
    subject = run("success", concluded=True, in_flight=False, concluded_at=NOW)
    found = dict(lines(subject, factories.node("Workflow", steps=(FAILED,))))
    assert not found.keys() & {"step", "error"}


def test_incident_summary_of_failed_run_without_steps_has_what_was_stored() -> None:
    cause = {"failed_step": "migrate", "failed_step_error": "exit code 1"}
    ended = {"concluded": True, "in_flight": False, "concluded_at": NOW}
    found = dict(lines(run("failure", **ended, **cause), None))
    assert (found["step"], found["error"]) == ({"step": "migrate"}, {"error": "exit code 1"})


def test_incident_summary_leaves_out_unknown_fields() -> None:
    found = [key for key, _params in lines(run(name="", started_at=None))]
    assert found == ["run", "location", "not_concluded", "created_at"]


def test_incident_summary_shows_external_abort() -> None:
    subject = run("aborting", aborting_since=NOW)
    story = abort_messages.describe_external(subject).dated_text
    assert "2026-01-01 03:00:00 CET" in story
    assert story in text(subject).splitlines()


@pytest.mark.django_db
@pytest.mark.parametrize("status", ["running", "aborting", "success"])
@pytest.mark.parametrize("state", AbortState)
@pytest.mark.parametrize(("sent_at", "retry_at"), [(NOW, None), (None, NOW + timedelta(hours=1))])
def test_incident_summary_times_have_date_and_time_zone(
    manager: User, state: AbortState, status: str, sent_at: datetime | None, retry_at: datetime
) -> None:
    subject = factories.run(factories.stage(), status=status, status_since=NOW, concluded_at=NOW)
    abort = factories.abort(
        subject, manager, state, requested_at=NOW - timedelta(minutes=1), sent_at=sent_at,
        responded_at=sent_at, retry_at=retry_at, settled_at=NOW, response="It was busy.",
    )  # fmt: skip
    incident_text = to_text(build(subject, aborts=[abort])[2])
    full_time = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d CET")
    assert full_time.search(incident_text)
    assert re.search(r"\d:\d\d", full_time.sub("", incident_text)) is None, incident_text


@pytest.mark.django_db
def test_incident_summary_shows_abort_user_and_reason(manager: User) -> None:
    subject = factories.run(factories.stage(), status="aborting")
    abort = factories.abort(subject, manager, reason="Stuck\nfor ever", requested_at=NOW)
    story = abort_messages.describe(abort, subject).dated_text
    line = f"Abort requested by manager, 2026-01-01 03:00:00 CET: “Stuck for ever.” {story}"
    assert line in text(subject, aborts=[abort]).splitlines()


@pytest.mark.slow
@given(runs(), trees)
def test_incident_summary_of_any_run_ends_with_link(subject: Run, root: Node) -> None:
    subject.stage, subject.synced_at = STAGE, NOW
    incident_text = text(subject, root)
    assert incident_text.endswith(URL)
    assert "None" not in incident_text


def acknowledgement(name: str, **fields: Any) -> Acknowledgement:
    return Acknowledgement(username=name, acknowledged_at=NOW - timedelta(minutes=5), **fields)


def test_incident_summary_shows_current_acknowledgements() -> None:
    acknowledgements = [
        acknowledgement("ana", ended_at=NOW - timedelta(minutes=2), taken_over_by="cem"),
        acknowledgement("cem\nStatus: done"),
    ]
    found = lines(run(), acknowledgements=acknowledgements)
    assert [(key, who["who"]) for key, who in found if "who" in who] == [
        ("acknowledged", "cem Status: done")
    ]
