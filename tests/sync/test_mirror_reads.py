"""What one read of a run changes, and when the next one is due."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import ChangeCounter, Run, Stage
from dashboard.northflank import Run as ApiRun
from dashboard.northflank import Unreachable
from dashboard.sync import mirror
from tests.support import factories
from tests.support.factories import node
from tests.support.world import (
    ENDED,
    FAILED,
    LONG_AGO,
    T0,
    api_run,
    at,
    detail,
    get_run,
    mirror_list,
    request_fields,
)

SLOW = Unreachable("It took too long.", may_have_arrived=True, cause="timeout")


# --- what is logged ------------------------------------------------------------------------------


def test_first_failure_and_recovery_of_a_run_are_logged(
    stage: Stage, logged_events: Callable[[str], list[dict[str, Any]]]
) -> None:
    mirror_list(stage, api_run())
    for _ in range(2):
        mirror.back_off(get_run().pk, SLOW, at(1))
    for seconds in (2, 3):
        mirror.apply_detail(stage.pk, detail(), **request_fields(seconds))
    [failure] = logged_events("run.read_failed")
    expected = {"run": "r1", "cause": "timeout", "message": "It took too long."}
    assert failure.items() >= expected.items()
    assert [event["run"] for event in logged_events("run.recovered")] == ["r1"]


@pytest.mark.parametrize(
    ("end", "fields", "is_logged"),
    [
        (ENDED, {}, False),
        (ENDED, {"detail_synced_at": T0}, True),
        (ENDED, {"last_viewed_at": T0}, True),
        (FAILED, {}, True),
        ({"status": "success"}, {}, True),
    ],
)
def test_recovery_of_a_read_for_the_baseline_is_not_logged(
    stage: Stage,
    end: dict[str, Any],
    fields: dict[str, datetime],
    is_logged: bool,
    logged_events: Callable[[str], list[dict[str, Any]]],
) -> None:
    mirror_list(stage, api_run(**end))
    Run.objects.update(failures=1, **fields)
    mirror.apply_detail(stage.pk, detail(**end), **request_fields(5))
    assert bool(logged_events("run.recovered")) == is_logged


# --- lists and details that overtake each other --------------------------------------------------


def test_older_detail_does_not_give_an_ended_run_a_current_step(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED), requested_at=9)
    steps = node(label="migrate", status="waiting")
    run = mirror.apply_detail(stage.pk, detail(steps=steps), **request_fields(4))
    assert (run.status, run.step, get_run().step) == ("success", "", "")


def test_detail_requested_with_the_list_is_applied(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=4)
    mirror.apply_detail(stage.pk, detail(status="waiting"), **request_fields(4))
    assert get_run().status == "waiting"


def test_detail_of_ended_run_returns_its_end(stage: Stage) -> None:
    mirror_list(stage, api_run())
    run = mirror.apply_detail(stage.pk, detail(**ENDED), **request_fields(9))
    assert run.ended_at == get_run().ended_at == ENDED["concluded_at"]


def test_list_without_the_texts_of_a_run_changes_nothing(stage: Stage) -> None:
    times = {"created_at": at(-60), "started_at": at(-50), "updated_at": at(-50)}
    mirror_list(stage, api_run(name="Nightly", description="Why", **times))
    before = get_run().version
    without = dict.fromkeys(("name", "description", *times))
    mirror_list(stage, api_run(**without), requested_at=9)
    assert get_run().version == before


def test_new_run_without_update_time_has_none(stage: Stage) -> None:
    mirror_list(stage, api_run(updated_at=None))
    assert get_run().updated_at is None


@pytest.mark.parametrize(("status", "is_kept"), [("approval_wait", True), ("running", False)])
def test_wait_for_approval_begins_anew_with_another_status(
    stage: Stage, status: str, is_kept: bool
) -> None:
    mirror_list(stage, api_run(status="approval_wait"))
    Run.objects.update(approval_since=at(1))
    mirror_list(stage, api_run(status=status, name="Renamed"), requested_at=9)
    assert get_run().approval_since == (at(1) if is_kept else None)


def test_reads_that_change_nothing_reserve_no_version(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(1))
    mirror_list(stage, api_run("r2"))
    mirror.mark_removed(get_run("r2").pk, **request_fields(2))
    before = ChangeCounter.latest()
    mirror.apply_detail(stage.pk, detail(), **request_fields(3))
    mirror.mark_removed(get_run("r2").pk, **request_fields(4))
    mirror.mark_removed(get_run("r2").pk, requested_at=at(5))
    assert ChangeCounter.latest() == before
    mirror.apply_detail(stage.pk, detail(steps=node(label="new")), **request_fields(6))
    assert get_run().version == ChangeCounter.latest() == before + 1


# --- what is due ----------------------------------------------------------------------------------


def test_runs_missing_from_a_list_without_a_number_are_due(stage: Stage) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(request_seq=0)
    mirror.schedule_unlisted(stage.pk, [], requested_at=at(20))
    assert get_run().next_detail_sync_at == at(20)


def test_runs_of_reappeared_stages_are_read_again(stage: Stage) -> None:
    mirror_list(stage, *(api_run(f"in flight {number}") for number in range(2)))
    mirror_list(stage, api_run("ended", **ENDED), api_run("no longer tracked"), api_run("other"))
    mirror_list(factories.stage("Staging", parent=stage.pipeline), api_run("elsewhere"))
    runs = Run.objects.all()
    runs.filter(run_id="in flight 1").update(next_detail_sync_at=LONG_AGO)
    runs.filter(run_id="no longer tracked").update(in_flight=False, removed_at=at(1))
    runs.filter(run_id="other").update(in_flight=False)
    mirror.schedule_reread(Stage.objects.filter(pk=stage.pk), at(20))
    assert dict(runs.values_list("run_id", "next_detail_sync_at")) == {
        "in flight 0": at(20), "in flight 1": LONG_AGO, "ended": None,
        "no longer tracked": at(20), "other": None, "elsewhere": None,
    }  # fmt: skip


# --- runs that pruning has deleted ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "is_before"),
    [
        (api_run(concluded=True, concluded_at=at(5)), True),
        (api_run(concluded=True, concluded_at=at(10)), False),
        (api_run(concluded=True, concluded_at=at(15), updated_at=at(5)), False),
        (api_run(concluded=True, updated_at=at(5), created_at=at(15)), True),
        (api_run(concluded=True, updated_at=None, created_at=at(5)), True),
        (api_run(concluded=True, updated_at=None, created_at=None), False),
        (api_run(concluded_at=at(5)), False),
    ],
)
def test_run_ended_before_a_limit_by_the_first_time_known(run: ApiRun, is_before: bool) -> None:
    assert mirror.ended_before(run, at(10)) == is_before
    assert not mirror.ended_before(run, None)


def test_only_unknown_runs_that_ended_before_pruning_are_left_out(stage: Stage) -> None:
    mirror_list(stage, api_run("known", **ENDED))
    Stage.objects.update(pruned_until=timezone.now())
    mirror_list(stage, api_run("known", **FAILED), api_run("pruned", **ENDED), requested_at=9)
    assert dict(Run.objects.values_list("run_id", "status")) == {"known": "failure"}


# --- overdue runs --------------------------------------------------------------------------------


def test_new_steps_of_overdue_run_decide_whether_it_stays_overdue(stage: Stage) -> None:
    last_attempt = {"status": "retrying", "attempts": 3, "max_attempts": 3}
    mirror_list(stage, api_run(created_at=at(0), started_at=at(0)))
    Run.objects.update(overdue_severity=2, overdue_reason="run")
    found = []
    for seconds, fields in ((1, last_attempt), (2, {"status": "waiting"})):
        steps = node(label="migrate", started_at=at(seconds), **fields)
        reread = detail(steps=steps, created_at=at(0), started_at=at(0))
        run = mirror.apply_detail(stage.pk, reread, **request_fields(seconds))
        found.append((run.overdue_severity, run.overdue_reason))
    assert found == [(1, "attempts"), (0, "")]
