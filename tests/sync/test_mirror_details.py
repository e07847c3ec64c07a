"""The steps of a run in the mirror: what a detail stores, and when the next one is read."""

from dataclasses import replace
from typing import Any

import pytest
import time_machine

from dashboard.models import (
    Run,
    Stage,
    StageTiming,
)
from dashboard.northflank import Node, NotFound, RunDetail, ServerError, Unreachable
from dashboard.sync import mirror, missing_runs
from tests.support.factories import node
from tests.support.world import (
    ENDED,
    FAILED,
    T0,
    api_run,
    at,
    detail,
    get_run,
    mirror_list,
    request_fields,
)

DETAIL_FIELDS = (
    "step",
    "step_key",
    "step_started_at",
    "detail_synced_at",
    "synced_at",
    "failures",
    "steps",
)


def read(stage: Stage, requested_at: float, **fields: Any) -> dict[str, Any]:
    """Mirror a detail, and return the stored fields."""
    result = mirror.apply_detail(stage.pk, detail(**fields), **request_fields(requested_at))
    stored = Run.objects.values(*DETAIL_FIELDS, "version").get()
    assert {name: getattr(result, name) for name in stored} == stored  # the current state
    return stored


def test_detail_stores_all_fields(stage: Stage) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(failures=3)
    steps = node(label="migrate", ref="db", status="waiting", started_at=at(2))
    stored = read(stage, 4, steps=steps)
    assert stored.pop("steps")["started_at"] == "2026-03-02T08:00:02Z"
    assert stored.pop("version") == get_run().version
    assert stored == {
        "step": "migrate", "step_key": "db", "step_started_at": at(2), "detail_synced_at": at(4),
        "synced_at": at(4), "failures": 0,
    }  # fmt: skip


def test_unchanged_detail_updates_times_but_not_version(stage: Stage) -> None:
    before = read(stage, 4)
    after = read(stage, 9)
    assert after == before | {"detail_synced_at": at(9), "synced_at": at(9)}


def test_first_detail_after_the_status_has_changed_gives_a_new_version(stage: Stage) -> None:
    """Until then the row shows no step, which was read before the status."""
    read(stage, 4)
    mirror_list(stage, api_run(status="waiting"), requested_at=6)
    versions = [get_run().version]
    versions += [read(stage, second, status="waiting")["version"] for second in (9, 12)]
    assert versions[0] < versions[1] == versions[2]


def test_detail_requested_at_same_time_is_applied(stage: Stage) -> None:
    read(stage, 4, steps=node(ref="first"))
    assert read(stage, 4, steps=node(ref="second"))["steps"]["ref"] == "second"


def test_first_detail_older_than_list_stores_steps_but_not_status(stage: Stage) -> None:
    mirror_list(stage, api_run(status="waiting"), requested_at=9)
    stored = read(stage, 4)
    assert (stored["detail_synced_at"], stored["synced_at"]) == (at(4), at(9))
    assert get_run().status == "waiting"


def test_detail_without_steps_has_no_current_step(stage: Stage) -> None:
    detail_without_steps = RunDetail(api_run(), None)
    result = mirror.apply_detail(stage.pk, detail_without_steps, **request_fields(4))
    assert (result.steps, result.step, result.step_key, result.step_started_at) == (
        None,
        "",
        "",
        None,
    )
    assert result.detail_synced_at == at(4)


def test_detail_without_steps_keeps_those_known(stage: Stage) -> None:
    steps = node(label="migrate", status="waiting")
    before = mirror.apply_detail(stage.pk, detail(steps=steps), **request_fields(0))
    detail_without_steps = RunDetail(api_run(), None)
    after = mirror.apply_detail(stage.pk, detail_without_steps, **request_fields(1))
    assert (after.steps, after.step) == (before.steps, "migrate")
    ended_without_steps = RunDetail(api_run(**ENDED), None)
    ended = mirror.apply_detail(stage.pk, ended_without_steps, **request_fields(2))
    assert (ended.steps, ended.step) == (before.steps, "")


def test_detail_stores_what_was_released_as_a_change(stage: Stage) -> None:
    before = mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    released = replace(detail(), release_key="commit a")
    after = mirror.apply_detail(stage.pk, released, **request_fields(1))
    assert after.version > before.version
    mirror.apply_detail(stage.pk, detail(), **request_fields(2))  # which lacks it
    assert (get_run().release_key, get_run().version) == ("commit a", after.version)


def test_text_and_times_that_an_answer_lacks_stay_as_known(stage: Stage) -> None:
    mirror_list(stage, api_run(description="Why", **ENDED))
    lacking = ("name", "description", "created_at", "started_at", "concluded_at", "updated_at")
    before = Run.objects.values(*lacking).get()
    mirror_list(stage, api_run(**ENDED | dict.fromkeys(lacking)), requested_at=1)
    assert Run.objects.values(*lacking).get() == before
    assert None not in before.values()


def test_run_in_flight_again_has_no_end(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED))
    mirror_list(stage, api_run(), requested_at=1)
    assert get_run().concluded_at is None


def approval_beside_a_step() -> Node:
    """A load test that takes longer, and an approval that waits."""
    load_test = node("JobRun", label="load test", status="waiting", started_at=at(-45))
    approval = node(
        "Approval", label="sign-off", ref="approve", status="approval_wait", started_at=at(2)
    )
    return node("Workflow", steps=(node("Workflow", parallel=True, steps=(load_test, approval)),))


def test_current_step_of_run_that_waits_for_approval_is_the_approval(stage: Stage) -> None:
    mirror_list(stage, api_run(status="approval_wait"), requested_at=3)
    stored = read(stage, 4, status="approval_wait", steps=approval_beside_a_step())
    assert stored.items() >= {
        "step": "sign-off", "step_key": "approve", "step_started_at": at(2),
    }.items()  # fmt: skip


def test_current_step_of_run_that_waits_for_an_unknown_approval_is_unknown(stage: Stage) -> None:
    steps = node(label="load test", status="waiting", started_at=at(-45))
    stored = read(stage, 4, status="approval_wait", steps=steps)
    assert stored.items() >= {"step": "", "step_key": "", "step_started_at": None}.items()


def test_current_step_of_run_that_goes_on_beside_an_approval_is_the_first(stage: Stage) -> None:
    read(stage, 4, status="approval_wait", steps=approval_beside_a_step())
    assert read(stage, 9, status="waiting", steps=approval_beside_a_step())["step"] == "load test"


def test_detail_with_the_same_steps_corrects_the_stored_step(stage: Stage) -> None:
    before = read(stage, 4, status="approval_wait", steps=approval_beside_a_step())
    Run.objects.update(step="load test", step_key="JobRun load test", step_started_at=at(-45))
    after = read(stage, 9, status="approval_wait", steps=approval_beside_a_step())
    assert {name: after[name] for name in ("step", "step_key", "step_started_at", "steps")} == {
        name: before[name] for name in ("step", "step_key", "step_started_at", "steps")
    }
    assert after["version"] > before["version"]


def test_detail_of_success_updates_baseline(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED))
    assert StageTiming.objects.get().detail_count == 0
    with time_machine.travel(at(30), tick=False):
        read(stage, 9, **ENDED)
    baseline = StageTiming.objects.get()
    assert (baseline.detail_count, baseline.observed_at) == (1, at(30))


def test_list_with_success_updates_baseline(stage: Stage) -> None:
    with time_machine.travel(at(30), tick=False):
        mirror_list(stage, api_run("r0"), api_run("r1", **ENDED), requested_at=9)
    assert StageTiming.objects.get().observed_at == at(30)


def test_unchanged_detail_does_not_update_baseline(stage: Stage) -> None:
    read(stage, 4, **ENDED)
    StageTiming.objects.update(detail_count=77)
    read(stage, 9, **ENDED)
    assert StageTiming.objects.get().detail_count == 77


# --- Next reads ---------------------------------------------------------------------------------


def test_viewed_run_has_a_final_read(stage: Stage) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    StageTiming.objects.create(stage=stage, detail_count=5)
    Run.objects.update(detail_synced_at=at(1))
    Run.objects.filter(run_id="r1").update(last_viewed_at=at(1))
    mirror_list(stage, api_run("r1", **ENDED), api_run("r2", **ENDED), requested_at=10)
    next_reads = dict(Run.objects.values_list("run_id", "next_detail_sync_at"))
    assert next_reads == {"r1": at(10), "r2": None}


def test_changed_concluded_run_is_not_read_again(stage: Stage) -> None:
    mirror_list(stage, api_run(**FAILED))
    Run.objects.update(last_viewed_at=at(1))
    mirror_list(stage, api_run(name="Renamed", **FAILED), requested_at=10)
    assert get_run().next_detail_sync_at is None


def test_time_until_a_failing_run_is_read_again_grows(stage: Stage) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    error = Unreachable("slow", may_have_arrived=True, cause="timeout")
    delays = []
    for _ in range(3):
        missing_runs.back_off(get_run("r1").pk, error, at(100))
        delays.append((get_run("r1").failures, get_run("r1").next_detail_sync_at))
    assert delays == [(1, at(110)), (2, at(120)), (3, at(140))]
    missing_runs.back_off(
        get_run("r1").pk, NotFound("unknown"), at(100)
    )  # the delay depends on the cause
    assert get_run("r1").next_detail_sync_at == at(580)
    assert (get_run("r2").failures, get_run("r2").next_detail_sync_at) == (0, None)


def test_first_failure_and_recovery_of_a_run_give_new_versions(stage: Stage) -> None:
    before = mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    versions = [before.version]
    for _ in range(2):
        missing_runs.back_off(before.pk, ServerError("broken"), at(1))
        versions.append(get_run().version)
    for seconds in (2, 3):
        mirror.apply_detail(stage.pk, detail(), **request_fields(seconds))
        versions.append(get_run().version)
    assert versions[0] < versions[1] == versions[2] < versions[3] == versions[4]


def test_failed_read_of_concluded_run_is_repeated_like_others(stage: Stage) -> None:
    mirror_list(stage, api_run("r1", **ENDED), api_run("r2", **ENDED))
    Run.objects.update(next_detail_sync_at=at(5))
    missing_runs.back_off(get_run("r1").pk, ServerError("broken"), at(100))
    assert (get_run("r1").failures, get_run("r1").next_detail_sync_at) == (1, at(110))
    assert (get_run("r2").failures, get_run("r2").next_detail_sync_at) == (0, at(5))


def test_missing_runs_are_due_only_in_their_own_stage(stage: Stage) -> None:
    other = Stage.objects.create(pipeline=stage.pipeline, name="Staging", next_sync_at=T0)
    mirror_list(stage, api_run("r1"), api_run("r2", **ENDED))
    mirror_list(other, api_run("r3"))
    missing_runs.schedule_unlisted(stage.pk, [], **request_fields(20))
    next_reads = dict(Run.objects.values_list("run_id", "next_detail_sync_at"))
    assert next_reads == {"r1": at(20), "r2": None, "r3": None}


# --- why it failed -------------------------------------------------------------------------------

BROKEN = node(label="migrate", status="failure", error_message="relation exists\nat line 3")


def cause() -> tuple[str | None, str | None]:
    return Run.objects.values_list("failed_step", "failed_step_error").get()


def test_detail_of_a_failed_run_stores_the_step_and_the_first_line_of_its_error(
    stage: Stage,
) -> None:
    mirror_list(stage, api_run(**FAILED))
    assert cause() == (None, None)
    version = get_run().version
    read(stage, 4, steps=BROKEN, **FAILED)
    assert cause() == ("migrate", "relation exists")
    assert get_run().version > version


def test_detail_that_names_no_failed_step_leaves_none_to_be_read(stage: Stage) -> None:
    mirror_list(stage, api_run(**FAILED))
    read(stage, 4, steps=node(status="success"), **FAILED)
    assert cause() == ("", "")


def test_detail_from_before_the_failure_does_not_say_why(stage: Stage) -> None:
    mirror_list(stage, api_run())
    mirror_list(stage, api_run(**FAILED), requested_at=10)
    read(stage, 4, steps=node(status="waiting"))
    assert cause() == (None, None)


@pytest.mark.parametrize("fields", [ENDED, {}])
def test_failed_step_of_another_run_is_not_stored(stage: Stage, fields: dict[str, Any]) -> None:
    mirror_list(stage, api_run())
    read(stage, 4, steps=BROKEN, **fields)
    assert cause() == (None, None)
