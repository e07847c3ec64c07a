"""From Northflank's responses to rows: only changes are written; older responses undo nothing."""

import json
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.aborts import messages as abort_messages
from dashboard.models import (
    Abort,
    Run,
    Stage,
    StageTiming,
)
from dashboard.northflank import RunDetail, ServerError, decoding
from dashboard.runs import overdue
from dashboard.sync import due, mirror, missing_runs
from dashboard.sync.read_plan import NO_PLAN
from tests.support import payloads
from tests.support.factories import node
from tests.support.world import (
    ENDED,
    FAILED,
    T0,
    LoggedEvents,
    World,
    api_run,
    at,
    detail,
    get_run,
    mirror_list,
    request_fields,
)


def test_unchanged_run_keeps_its_version(stage: Stage) -> None:
    mirror_list(stage, api_run())
    before = get_run().version
    mirror_list(stage, api_run(), requested_at=1)
    assert get_run().version == before


def test_only_changed_run_gets_a_new_version(stage: Stage) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    before = get_run("r2").version
    mirror_list(stage, api_run("r1", status="waiting"), api_run("r2"), requested_at=1)
    assert get_run("r1").version > before == get_run("r2").version


def test_changed_runs_get_distinct_versions(stage: Stage) -> None:
    mirror_list(stage, *(api_run(f"r{number}") for number in range(30)))
    assert len(set(Run.objects.values_list("version", flat=True))) == 30


def test_run_listed_twice_is_one_row(stage: Stage) -> None:
    mirror_list(stage, api_run(), api_run())
    assert Run.objects.count() == 1


def test_same_run_id_in_two_stages_is_two_rows(stage: Stage) -> None:
    other = Stage.objects.create(pipeline=stage.pipeline, name="Staging", next_sync_at=T0)
    mirror_list(stage, api_run())
    mirror_list(other, api_run())
    assert Run.objects.filter(run_id="r1").count() == 2


def test_changed_run_updates_stage_active_at(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=3)
    assert Stage.objects.get().last_run_change_at == at(3)


def test_unchanged_run_keeps_stage_active_at(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=3)
    mirror_list(stage, api_run(), requested_at=60)
    assert Stage.objects.get().last_run_change_at == at(3)


def test_earlier_list_request_changes_nothing(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(status="aborting"), **request_fields(10))
    mirror_list(stage, api_run(status="running"), requested_at=9)
    assert get_run().status == "aborting"


def test_earlier_detail_request_does_not_restore_old_steps(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(steps=node(ref="second")), **request_fields(10))
    mirror.apply_detail(stage.pk, detail(steps=node(ref="first")), **request_fields(9))
    assert get_run().steps["ref"] == "second"


def test_earlier_detail_request_does_not_undo_conclusion(stage: Stage) -> None:
    mirror_list(stage, api_run())
    mirror_list(stage, api_run(**ENDED), requested_at=10)
    mirror.apply_detail(stage.pk, detail(), **request_fields(9))
    assert get_run().concluded


def test_changed_steps_give_a_new_version(stage: Stage) -> None:
    before = mirror.apply_detail(stage.pk, detail(steps=node(ref="a")), **request_fields(0)).version
    assert (
        mirror.apply_detail(stage.pk, detail(steps=node(ref="b")), **request_fields(1)).version
        > before
    )


def test_unchanged_steps_keep_the_version(stage: Stage) -> None:
    before = mirror.apply_detail(stage.pk, detail(), **request_fields(0)).version
    assert mirror.apply_detail(stage.pk, detail(), **request_fields(1)).version == before


def test_current_step_is_stored_as_text(stage: Stage) -> None:
    steps = node(label="migrate", status="retrying", attempts=2, max_attempts=3)
    row = mirror.apply_detail(stage.pk, detail(steps=steps), **request_fields(0))
    assert row.step == "migrate, attempt 2 of 3"


def test_concluded_run_has_no_current_step(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    assert mirror.apply_detail(stage.pk, detail(**ENDED), **request_fields(1)).step == ""


def test_list_read_keeps_steps_of_detail(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    mirror_list(stage, api_run(status="waiting"), requested_at=1)
    assert get_run().steps is not None


def test_unwatched_successful_run_has_no_final_read(stage: Stage) -> None:
    StageTiming.objects.create(stage=stage, detail_count=5)  # its steps have a baseline
    mirror_list(stage, api_run())
    mirror_list(stage, api_run(**ENDED), requested_at=10)
    assert get_run().next_detail_sync_at is None


def test_failed_run_that_nobody_has_opened_waits_for_the_plan(stage: Stage) -> None:
    """See `causes.py`: a hundred may fail at a time."""
    mirror_list(stage, api_run())
    mirror_list(stage, api_run(**FAILED), requested_at=10)
    assert get_run().next_detail_sync_at is None


def test_watched_run_has_a_final_read(stage: Stage) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(last_viewed_at=at(1))
    mirror_list(stage, api_run(**ENDED), requested_at=10)
    assert get_run().next_detail_sync_at == at(10)


def test_run_with_abort_has_a_final_read(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run())
    Abort.objects.create(
        run=get_run(), user=manager, username="manager", requested_at=at(1), claimed_at=at(1)
    )
    mirror_list(stage, api_run(**ENDED), requested_at=10)
    assert get_run().next_detail_sync_at == at(10)


def test_final_read_is_done_once(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    Run.objects.update(last_viewed_at=at(1))
    mirror_list(stage, api_run(**ENDED), requested_at=10)
    [run] = due.find_runs(at(11), 1)
    mirror.apply_detail(stage.pk, detail(**ENDED), **request_fields(11))
    due.record_run(run, at(12), NO_PLAN)
    assert get_run().next_detail_sync_at is None


def test_detail_that_shows_the_end_is_the_final_read(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    Run.objects.update(last_viewed_at=at(1), next_detail_sync_at=at(5))
    [run] = due.find_runs(at(8), 1)
    mirror.apply_detail(stage.pk, detail(**FAILED), **request_fields(9))
    due.record_run(run, at(10), NO_PLAN)
    assert get_run().next_detail_sync_at is None


def test_detail_without_steps_that_shows_the_end_has_a_final_read(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(0))
    Run.objects.update(last_viewed_at=at(1))
    without_steps = RunDetail(api_run(**ENDED), None)
    mirror.apply_detail(stage.pk, without_steps, **request_fields(9))
    assert get_run().next_detail_sync_at == at(9)


def test_failing_run_whose_list_shows_the_end_has_recovered(
    stage: Stage, logged_events: LoggedEvents
) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    StageTiming.objects.create(stage=stage, detail_count=5)  # its steps have a baseline
    missing_runs.back_off(get_run("r1").pk, ServerError("broken"), at(1))
    mirror_list(stage, api_run("r1", **ENDED), api_run("r2", **ENDED), requested_at=10)
    assert (get_run("r1").failures, get_run("r1").next_detail_sync_at) == (0, None)
    assert [line["run"] for line in logged_events("run.recovered")] == ["r1"]


def test_run_first_read_concluded_has_no_final_read(stage: Stage) -> None:
    mirror_list(stage, api_run(**FAILED))
    assert get_run().next_detail_sync_at is None


def test_externally_aborting_run_is_not_read_individually(stage: Stage) -> None:
    mirror_list(stage, api_run())
    mirror_list(stage, api_run(status="aborting"), requested_at=10)
    assert get_run().next_detail_sync_at is None


def test_accepted_abort_is_concluded_with_its_run(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run())
    abort = Abort.objects.create(
        run=get_run(), user=manager, username="manager", state="accepted",
        requested_at=at(1), claimed_at=at(1),
    )  # fmt: skip
    mirror_list(stage, api_run(**ENDED), requested_at=10)
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("concluded", "success")


def test_run_missing_from_list_is_due_for_read(stage: Stage) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    missing_runs.schedule_unlisted(stage.pk, [api_run("r2")], **request_fields(20))
    assert get_run("r1").next_detail_sync_at == at(20)


def test_run_in_list_is_not_due_for_read(stage: Stage) -> None:
    mirror_list(stage, api_run("r1"), api_run("r2"))
    missing_runs.schedule_unlisted(stage.pk, [api_run("r2")], **request_fields(20))
    assert get_run("r2").next_detail_sync_at is None


def test_number_of_missing_runs_is_that_of_the_runs_made_due(stage: Stage) -> None:
    mirror_list(stage, *(api_run(f"r{number}") for number in range(3)))
    listed, fields = [api_run("r1")], request_fields(20)
    assert missing_runs.count_unlisted(stage.pk, listed, fields["request_seq"]) == 2
    missing_runs.schedule_unlisted(stage.pk, listed, **fields)
    assert Run.objects.filter(next_detail_sync_at=at(20)).count() == 2


def test_run_read_after_list_request_is_not_missing(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=30)
    missing_runs.schedule_unlisted(stage.pk, [], **request_fields(20))
    assert get_run().next_detail_sync_at is None


def test_removed_run_not_concluded_stays_in_flight(stage: Stage) -> None:
    mirror_list(stage, api_run())
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    assert get_run().in_flight
    assert not Run.objects.tracked().exists()


def test_removed_run_is_not_read_until_a_list_has_it_again(stage: Stage) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(failures=3)
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    assert (get_run().next_detail_sync_at, get_run().failures) == (None, 0)
    mirror_list(stage, api_run(), requested_at=30)
    assert get_run().removed_at is None


def test_removed_concluded_run_is_not_read_again(stage: Stage) -> None:
    mirror_list(stage, api_run(**ENDED))
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    assert (get_run().removed_at, get_run().next_detail_sync_at) == (at(20), None)


def test_dismissed_removed_run_is_not_read_again(stage: Stage) -> None:
    mirror_list(stage, api_run())
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    Run.objects.update(in_flight=False, next_detail_sync_at=at(25))  # claimed
    missing_runs.mark_removed(get_run().pk, **request_fields(30))
    assert get_run().next_detail_sync_at is None


def test_earlier_list_request_does_not_restore_removed_run(stage: Stage) -> None:
    mirror_list(stage, api_run())
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    mirror_list(stage, api_run(), requested_at=19)
    assert get_run().removed_at == at(20)


def test_removed_run_is_not_overdue(stage: Stage) -> None:
    mirror_list(stage, api_run(status="aborting"))
    Run.objects.update(overdue_severity=2, overdue_reason="run", abort_severity=2)
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    run = get_run()
    assert (run.overdue_severity, run.overdue_reason, run.abort_severity) == (0, "", 0)
    assert overdue.timers(run, None, None) == []
    assert not abort_messages.is_external(None, run)


def test_removed_run_gets_a_new_version(stage: Stage) -> None:
    mirror_list(stage, api_run())
    before = get_run().version
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    assert get_run().version > before


def test_removed_run_keeps_its_status(stage: Stage) -> None:
    mirror_list(stage, api_run())
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    assert (get_run().status, get_run().concluded) == ("running", False)


def test_earlier_404_does_not_remove_run(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=30)
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    assert get_run().removed_at is None


def test_removed_run_listed_again_is_restored(stage: Stage) -> None:
    mirror_list(stage, api_run())
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    mirror_list(stage, api_run(), requested_at=30)
    assert get_run().in_flight


def test_accepted_abort_of_removed_run_is_concluded(stage: Stage, manager: User) -> None:
    mirror_list(stage, api_run())
    abort = Abort.objects.create(
        run=get_run(), user=manager, username="manager", state="accepted",
        requested_at=at(1), claimed_at=at(1),
    )  # fmt: skip
    missing_runs.mark_removed(get_run().pk, **request_fields(20))
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("concluded", "")


def test_unknown_status_is_stored_as_received(stage: Stage) -> None:
    mirror_list(stage, api_run(status="hibernating"))
    assert get_run().status == "hibernating"


def test_run_of_unknown_status_is_in_flight(stage: Stage) -> None:
    mirror_list(stage, api_run(status="hibernating"))
    assert get_run().in_flight


def test_unknown_status_is_logged_once(stage: Stage, logged_events: LoggedEvents) -> None:
    for requested_at in range(3):
        mirror_list(stage, api_run(status="test-of-once"), api_run("r2", status="test-of-once"),
                  requested_at=requested_at)  # fmt: skip
    assert len(logged_events("run.unknown_status")) == 1


def test_run_without_creation_time_gets_first_read_time(stage: Stage) -> None:
    mirror_list(stage, api_run(created_at=None), requested_at=4)
    assert get_run().created_at == at(4)


def test_run_without_creation_time_keeps_first_read_time(stage: Stage) -> None:
    mirror_list(stage, api_run(created_at=None), requested_at=4)
    mirror_list(stage, api_run(created_at=None, status="waiting"), requested_at=90)
    assert get_run().created_at == at(4)


HOSTILE = {
    "NUL": "before\x00after",
    "10 kB": "x" * 10_000,
    "right to left": "\u202eeman desrever\u202c فرق",
    "emoji": "🚀👩‍👩‍👧‍👦",
    "lone surrogate": "half \ud83d of it",
    "markup": "<script>alert(1)</script>{{ x }}{% y %}",
    "quotes": "O'Brien\"; DROP TABLE runs; --",
    "backslashes": "\\x00 \\ud83d %s %(x)s",
    "line ends": "one\r\ntwo\u2028three",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_run_name_is_stored(stage: Stage, text: str) -> None:
    # As received: JSON's escapes can contain what UTF-8 can't.
    body = json.loads(json.dumps(payloads.detail(payloads.RUN_ID, name=text, description=text)))
    decoded = decoding.parse_run_detail(body)
    assert decoded is not None
    row = mirror.apply_detail(stage.pk, decoded, **request_fields(0))
    row.refresh_from_db()
    assert row.name == decoded.run.name


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_step_label_is_stored(stage: Stage, text: str) -> None:
    step = payloads.job_run(ref=text, response={"error": {"message": text}, "status": text})
    decoded = decoding.parse_run_detail(json.loads(json.dumps(payloads.detail(steps=[step]))))
    assert decoded is not None
    row = mirror.apply_detail(stage.pk, decoded, **request_fields(0))
    row.refresh_from_db()
    assert decoded.root is not None
    assert row.steps["steps"][0]["label"] == decoded.root.steps[0].label


@pytest.mark.slow
def test_run_secrets_are_not_stored(world: World) -> None:
    world.sync()
    Run.objects.update(next_detail_sync_at=timezone.now() - timedelta(days=1))
    kept_keys = Run.objects.order_by("-created_at").values_list("pk", flat=True)[:25]
    Run.objects.exclude(pk__in=list(kept_keys)).update(next_detail_sync_at=None)
    world.sync()
    rows = Run.objects.filter(steps__isnull=False)
    assert rows.count() >= 10
    assert "s3cr3t-" not in json.dumps(list(rows.values()), default=str)


def test_long_hostile_run_name_is_mirrored(world: World) -> None:
    name = "\u202eنص 🚀 <b>&amp;</b> \\ ' \" " + "n" * 10_000
    run_id = world.start(name=name)
    world.sync()
    assert get_run(run_id).name == name


# --- Rows ---------------------------------------------------------------------------------------

EXPECTED_ROW = {
    "name": "Nightly", "description": "", "status": "running", "concluded": False,
    "created_at": at(-60), "started_at": at(-50), "concluded_at": None, "updated_at": at(-50),
    "in_flight": True, "removed_at": None, "first_synced_at": at(4), "synced_at": at(4),
    "next_detail_sync_at": None, "status_since": at(4), "abort_severity": 0, "overdue_severity": 0,
    "overdue_reason": "",
}  # fmt: skip


def row(run_id: str = "r1") -> dict[str, Any]:
    return Run.objects.values(*EXPECTED_ROW).get(run_id=run_id)


def test_new_run_of_list_stores_all_fields(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=4)
    assert row() == EXPECTED_ROW


def test_concluded_run_of_list_stores_all_fields(stage: Stage) -> None:
    mirror_list(
        stage, api_run(name=None, description="Why", updated_at=at(6), **ENDED), requested_at=4
    )
    end_fields = {"name": "", "description": "Why", "in_flight": False, "updated_at": at(6)}
    assert row() == EXPECTED_ROW | ENDED | end_fields


def test_changed_run_keeps_fields_not_in_list(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=4)
    own_fields = {
        "next_detail_sync_at": at(5),
        "abort_severity": 2,
        "overdue_severity": 1,
        "overdue_reason": "run",
    }
    Run.objects.update(**own_fields)
    mirror_list(stage, api_run(description="New"), requested_at=9)
    assert row() == EXPECTED_ROW | own_fields | {"description": "New", "synced_at": at(9)}


def test_changed_status_resets_status_since(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=4)
    mirror_list(stage, api_run(status="waiting"), requested_at=9)
    assert row() == EXPECTED_ROW | {"status": "waiting", "status_since": at(9), "synced_at": at(9)}


def test_concluded_run_has_no_severity_and_is_not_overdue(stage: Stage) -> None:
    mirror_list(stage, api_run(), requested_at=4)
    Run.objects.update(
        abort_severity=2, overdue_severity=1, overdue_reason="run", next_detail_sync_at=at(5)
    )
    mirror_list(
        stage, api_run("r0", status="success", concluded=True), requested_at=5
    )  # for the baseline
    StageTiming.objects.update(detail_count=5)
    mirror_list(stage, api_run(**ENDED), requested_at=9)
    end_fields = {"in_flight": False, "status_since": at(9), "synced_at": at(9)}
    assert row() == EXPECTED_ROW | ENDED | end_fields


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "Other"}, {"description": "New"}, {"status": "waiting"},
        {"concluded": True, "status": "failure"}, {"created_at": at(-61)},
        {"started_at": at(-51)}, {"concluded_at": at(1)}, {"updated_at": at(1)},
    ],
)  # fmt: skip
def test_changed_field_counts_as_change(stage: Stage, changed: dict[str, Any]) -> None:
    mirror_list(stage, api_run(), requested_at=4)
    before = get_run().version
    mirror_list(stage, api_run(**changed), requested_at=9)
    assert get_run().version > before
