"""The start of an abort: the earliest known time, never reset."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import support_request
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.accounts import permissions
from dashboard.accounts.permissions import Permission
from dashboard.models import Run
from dashboard.northflank import decoding
from dashboard.runs import abort_clock
from dashboard.runs.abort_clock import AbortStart
from dashboard.sync import mirror
from dashboard.web.components.runs import abort_line, rendered_rows, run_row
from tests.support import factories, payloads
from tests.support.world import T0, at

BEFORE = T0 - timedelta(minutes=11)


@pytest.fixture
def stage(db: None) -> int:
    return factories.stage("Staging").pk


def mirror_run(
    stage: int,
    status: str,
    requested_at: datetime,
    updated_at: datetime | None = None,
    **fields: Any,
) -> Run:
    """Mirror a run of a list that was created an hour before T0."""
    payload = payloads.run(
        "r1", status=status, createdAt=(T0 - timedelta(hours=1)).isoformat(),
        updatedAt=updated_at.isoformat() if updated_at else ..., **fields,
    )  # fmt: skip
    run = decoding.parse_run(payload)
    assert run is not None
    mirror.apply_runs(stage, [run], requested_at=requested_at)
    return Run.objects.with_stage().get(run_id="r1")


def test_external_abort_starts_at_northflank_update_time(stage: int) -> None:
    run = mirror_run(stage, "aborting", T0, BEFORE)
    assert abort_clock.start(run, None) == AbortStart(BEFORE)
    text = abort_messages.describe_external(run).plain_text
    assert text.startswith("Aborting since ")
    assert "or earlier" not in text


IMPLAUSIBLE_UPDATE_TIMES: dict[str, datetime | None] = {
    "none": None,
    "as old as the run": T0 - timedelta(hours=1),
    "older than the run": T0 - timedelta(hours=2),
    "of the future": T0 + timedelta(seconds=1),
}


@pytest.mark.parametrize("updated", IMPLAUSIBLE_UPDATE_TIMES.values(), ids=IMPLAUSIBLE_UPDATE_TIMES)
def test_implausible_update_time_is_ignored_as_abort_start(
    stage: int, updated: datetime | None
) -> None:
    run = mirror_run(stage, "aborting", T0, updated)
    assert abort_clock.start(run, None) == AbortStart(T0, is_approximate=True)
    assert " or earlier; " in abort_messages.describe_external(run).plain_text


def test_update_time_before_last_running_read_is_ignored(stage: int) -> None:
    mirror_run(stage, "running", T0, BEFORE)
    run = mirror_run(stage, "aborting", at(30), BEFORE)
    assert abort_clock.start(run, None) == AbortStart(at(30), is_approximate=True)


def test_update_time_after_last_running_read_is_abort_start(stage: int) -> None:
    mirror_run(stage, "running", T0, BEFORE)
    run = mirror_run(stage, "aborting", at(30), at(10))
    assert abort_clock.start(run, None) == AbortStart(at(10))


def test_running_run_has_no_aborting_since(stage: int) -> None:
    run = mirror_run(stage, "running", T0, BEFORE)
    assert run.aborting_since is None


def test_later_update_time_does_not_restart_abort_clock(stage: int) -> None:
    mirror_run(stage, "aborting", T0, BEFORE)
    run = mirror_run(stage, "aborting", at(30), at(20))
    assert abort_clock.start(run, None) == AbortStart(BEFORE)


def test_run_that_resumes_after_aborting_has_no_abort_clock(stage: int) -> None:
    mirror_run(stage, "aborting", T0, BEFORE)
    run = mirror_run(stage, "running", at(30), at(20))
    assert abort_clock.start(run, None) is None
    run = mirror_run(stage, "aborting", at(60), at(50))
    assert abort_clock.start(run, None) == AbortStart(at(50))


def test_own_abort_starts_at_request_time(stage: int, manager: User) -> None:
    run = mirror_run(stage, "running", T0, BEFORE)
    with time_machine.travel(at(10), tick=False):
        abort = request_abort(run, AbortRequest(manager)).abort
    assert abort_clock.start(run, abort) == AbortStart(at(10))
    run = mirror_run(stage, "aborting", at(30), at(20))
    assert abort_clock.start(run, abort) == AbortStart(at(10))
    assert abort_clock.start(run, None) == AbortStart(at(10))  # also for texts without the abort


def test_abort_request_for_externally_aborting_run_keeps_abort_start(
    stage: int, manager: User
) -> None:
    run = mirror_run(stage, "aborting", T0, BEFORE)
    with time_machine.travel(at(10), tick=False):
        abort = request_abort(run, AbortRequest(manager)).abort
    assert (abort.already_aborting_since, abort.requested_at) == (BEFORE, at(10))
    run = Run.objects.with_stage().get()
    assert run.abort_severity == 2  # since its start
    assert abort_clock.start(run, abort) == AbortStart(BEFORE)
    row = run_row.build_row(run, Permission(True), abort)
    assert row.abort_line is not None
    assert row.abort_line.start == AbortStart(BEFORE)
    assert abort_line.of_abort(run, abort) == row.abort_line
    run = mirror_run(stage, "running", at(20))  # it was not aborted
    assert abort_clock.start(run, abort) == AbortStart(BEFORE)


def test_abort_first_read_while_aborting_shows_same_start_everywhere(
    stage: int, manager: User
) -> None:
    run = mirror_run(stage, "aborting", T0)
    row = run_row.build_row(run, Permission(True), None)
    assert row.abort_line is not None
    assert row.abort_line.start == AbortStart(T0, is_approximate=True)
    assert "at least" in rendered_rows.render_loaded([run], permissions.ALL)[run.pk]
    assert "First seen aborting: 2026-03-02" in support_request.build(run, None, team="", now=T0)
    with time_machine.travel(at(10), tick=False):
        abort = request_abort(run, AbortRequest(manager)).abort
    abort.state = "accepted"
    message = abort_messages.describe(abort, run)
    assert message.plain_text.endswith(" or earlier.")
    line = run_row.build_row(run, Permission(True), abort).abort_line
    assert line is not None
    assert line.start == AbortStart(T0, is_approximate=True)
