"""Runs that end in the mirror, with their acknowledgements and aborts."""

from datetime import datetime
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User

from dashboard.models import (
    Abort,
    Acknowledgement,
    Dismissal,
    Pipeline,
    Run,
    Stage,
)
from dashboard.runs import acknowledgements, attention, dismissals
from dashboard.sandbox import parse_fault
from dashboard.sync import missing_runs
from dashboard.web.api import serializers
from tests.support import factories
from tests.support.live import Live
from tests.support.live_runs import LEDGER, create_run_in_flight, read
from tests.support.world import ENDED, FAILED, T0, api_run, at, get_run, mirror_list, request_fields


def create_acknowledgement(user: User, run_id: str = "r1") -> Acknowledgement:
    return Acknowledgement.objects.create(
        run=get_run(run_id), user=user, username="manager", acknowledged_at=T0
    )


@pytest.mark.parametrize(("end_fields", "is_ended"), [(ENDED, True), (FAILED, False)])
def test_acknowledgement_ends_with_successful_run_only(
    stage: Stage, manager: User, end_fields: dict[str, Any], is_ended: bool
) -> None:
    mirror_list(stage, api_run())
    acknowledgement = create_acknowledgement(manager)
    with time_machine.travel(at(30), tick=False):
        mirror_list(stage, api_run(**end_fields), requested_at=10)
    acknowledgement.refresh_from_db()
    assert acknowledgement.ended_at == (at(30) if is_ended else None)


def test_removed_run_settles_abort_and_keeps_acknowledgement(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(next_detail_sync_at=at(5))
    acknowledgement, abort = create_acknowledgement(manager), factories.abort(get_run(), manager)
    with time_machine.travel(at(30), tick=False):
        missing_runs.mark_removed(get_run().pk, **request_fields(20))
    acknowledgement.refresh_from_db()
    abort.refresh_from_db()
    assert (acknowledgement.ended_at, abort.settled_at) == (None, at(30))
    assert (get_run().removed_at, get_run().in_flight) == (at(20), True)


def test_runs_in_flight_of_removed_pipeline_are_removed(stage: Stage) -> None:
    other_stage = factories.stage("Staging", parent=factories.pipeline("other"))
    mirror_list(stage, api_run("r1"), api_run("r2", **ENDED))
    mirror_list(other_stage, api_run("r3"))
    Pipeline.objects.filter(pk=stage.pipeline.pk).update(removed_at=at(15))
    missing_runs.mark_orphaned(**request_fields(20))
    removed_at_by_run = dict(Run.objects.values_list("run_id", "removed_at"))
    assert removed_at_by_run == {"r1": at(20), "r2": None, "r3": None}


def test_restored_run_adds_event_to_its_abort(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run())
    factories.abort(get_run(), manager)
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    with time_machine.travel(at(40), tick=False):
        mirror_list(stage, api_run(), requested_at=30)
    later_events = Abort.objects.get().events.filter(event_type="status_changed")
    assert list(later_events.values_list("detail", "occurred_at")) == [("running", at(40))]


def test_dismissal_ends_when_its_run_is_listed_again(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    for run_id in ("r1", "r2"):
        missing_runs.mark_removed(get_run(run_id).pk, **request_fields(20))
        dismissals.dismiss(get_run(run_id), manager)
    with time_machine.travel(at(40), tick=False):
        mirror_list(stage, api_run("r1"), requested_at=30)
    fields = "run__run_id", "restored_at", "restored_by"
    assert list(Dismissal.objects.values_list(*fields)) == [("r1", at(40), ""), ("r2", None, "")]
    assert (get_run("r1").in_flight, get_run("r2").in_flight) == (True, False)


@pytest.mark.parametrize("end", [{}, FAILED])
def test_removed_run_has_no_failed_reads(stage: Stage, end: dict[str, Any]) -> None:
    mirror_list(stage, api_run(**end))
    Run.objects.update(failures=3)
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    assert get_run().failures == 0


def test_run_of_removed_pipeline_is_not_due(stage: Stage) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(next_detail_sync_at=at(5))
    Pipeline.objects.update(removed_at=at(15))
    missing_runs.mark_orphaned(**request_fields(20))
    assert (get_run().removed_at, get_run().next_detail_sync_at) == (at(20), None)


def test_acknowledgement_of_removed_ended_run_ends(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run("r1", **FAILED), api_run("r2", **FAILED))
    removed, other = (create_acknowledgement(manager, run_id) for run_id in ("r1", "r2"))
    with time_machine.travel(at(30), tick=False):
        missing_runs.mark_removed(get_run("r1").pk, **request_fields(20))
    for row in (removed, other):
        row.refresh_from_db()
    assert (removed.ended_at, other.ended_at) == (at(30), None)


def test_runs_that_are_no_longer_tracked_are_closed(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2", **ENDED))
    mirror_list(factories.stage("Staging", parent=stage.pipeline), api_run("r3"))
    Run.objects.update(next_detail_sync_at=at(5))
    version = get_run("r1").version
    acknowledgement = create_acknowledgement(manager)
    abort = factories.abort(get_run("r1"), manager)
    with time_machine.travel(at(30), tick=False):
        missing_runs.stop_tracking(stage.runs.all(), at(20))
    fields = "run_id", "removed_at", "in_flight", "next_detail_sync_at"
    assert set(Run.objects.values_list(*fields)) == {
        ("r1", at(20), False, None),
        ("r2", None, False, at(5)),
        ("r3", None, True, at(5)),
    }
    assert get_run("r1").version > version
    acknowledgement.refresh_from_db()
    abort.refresh_from_db()
    assert (acknowledgement.ended_at, abort.settled_at) == (at(30), at(30))


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "not tracked"])
def test_run_that_is_no_longer_read_is_not_overdue(stage: Stage, is_removed: bool) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(
        overdue_severity=2, overdue_reason="run", abort_severity=2, approval_since=at(0)
    )
    if is_removed:
        missing_runs.mark_removed(get_run().pk, **request_fields(20))
    else:
        missing_runs.stop_tracking(stage.runs.all(), at(20))
    run = get_run()
    assert (run.overdue_severity, run.overdue_reason, run.abort_severity) == (0, "", 0)
    assert serializers.overdue(run) is None
    assert not acknowledgements.can_be_acknowledged(run, at(30))


# --- runs that end without `concludedAt` ---------------------------------------------------------

# Northflank's examples show `updatedAt` as old as the run.
DAY_LONG = dict.fromkeys(("created_at", "started_at", "updated_at"), at(-90_000))
FAILED_UNDATED = DAY_LONG | {"status": "failure", "concluded": True}


def test_failure_without_end_needs_attention_from_when_it_was_noticed(stage: Stage) -> None:
    mirror_list(stage, api_run(**DAY_LONG))
    mirror_list(stage, api_run(**FAILED_UNDATED), requested_at=10)
    run = get_run()
    assert run.ended_at == at(10)
    assert [entry.pk for entry in attention.load(Run.objects.all(), at(20))] == [run.pk]
    assert acknowledgements.can_be_acknowledged(run, at(20))


def test_end_that_was_noticed_stays_at_later_reads(stage: Stage) -> None:
    mirror_list(stage, api_run(**DAY_LONG))
    mirror_list(stage, api_run(**FAILED_UNDATED), requested_at=10)
    version = get_run().version
    mirror_list(stage, api_run(**FAILED_UNDATED), requested_at=20)
    assert (get_run().ended_at, get_run().version) == (at(10), version)


@pytest.mark.parametrize(
    ("fields", "ended_at"),
    [
        ({"updated_at": at(7)}, at(7)),  # since the last read in flight
        ({"updated_at": at(5)}, at(10)),  # as of that read
        ({"updated_at": None}, at(10)),
        ({"concluded_at": at(6)}, at(6)),
    ],
)
def test_run_ends_at_latest_time_that_may_be_its_end(
    stage: Stage, fields: dict[str, Any], ended_at: datetime
) -> None:
    mirror_list(stage, api_run(**DAY_LONG), requested_at=5)
    mirror_list(stage, api_run(**FAILED_UNDATED | fields), requested_at=10)
    assert get_run().ended_at == ended_at


def test_end_reported_late_replaces_the_one_that_was_noticed(stage: Stage) -> None:
    mirror_list(stage, api_run(**DAY_LONG))
    mirror_list(stage, api_run(**FAILED_UNDATED), requested_at=10)
    mirror_list(stage, api_run(**FAILED_UNDATED, concluded_at=at(6)), requested_at=20)
    assert get_run().ended_at == at(6)


def test_run_of_upstream_without_end_and_updates_ends_after_last_read_in_flight(live: Live) -> None:
    live.sandbox.faults = [parse_fault("missing-fields:concludedAt,updatedAt")]
    run = create_run_in_flight(live)
    upstream_flow = live.sandbox.world.find_flow(*LEDGER)
    assert upstream_flow is not None
    live.sandbox.world.abort_run(upstream_flow, run.run_id, live.sandbox.clock(), seconds=0)
    ended = read(live, run)
    assert (ended.concluded, ended.concluded_at) == (True, None)
    assert ended.ended_at > run.synced_at
