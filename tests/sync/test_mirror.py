"""What Northflank says becomes rows: only changes are written, and nothing is undone."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.aborts import messages as abort_messages
from dashboard.models import Abort, ChangeCounter, Looking, Pipeline, Run, Stage, StageTiming
from dashboard.northflank import NotFound, RunDetail, ServerError, Unreachable, decoding
from dashboard.runs import overdue, statuses
from dashboard.sync import leases, mirror
from tests.support import factories, payloads
from tests.support.factories import node
from tests.support.world import T0, World, api_run, at, detail, put, the_run

ENDED = {"status": "success", "concluded": True, "concluded_at": at(5)}
FAILED = {"status": "failure", "concluded": True, "concluded_at": at(5)}


def list_said(stage: Stage, *runs: object, asked: float = 0) -> mirror.Mirrored:
    return mirror.runs(stage.pk, runs, **put(asked))  # type: ignore[arg-type]


def test_a_new_run_is_counted_as_new(stage: Stage) -> None:
    assert list_said(stage, api_run()) == mirror.Mirrored(new=1, changed=0)


def test_a_changed_run_is_counted_as_changed(stage: Stage) -> None:
    list_said(stage, api_run())
    assert list_said(stage, api_run(status="waiting"), asked=1).changed == 1


def test_an_unchanged_run_keeps_its_version(stage: Stage) -> None:
    list_said(stage, api_run())
    before = the_run().version
    list_said(stage, api_run(), asked=1)
    assert the_run().version == before


def test_an_unchanged_run_in_flight_is_seen_again(stage: Stage) -> None:
    list_said(stage, api_run())
    list_said(stage, api_run(), asked=7)
    assert the_run().seen_at == at(7)


def test_an_unchanged_list_takes_no_number(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2", **ENDED))
    before = ChangeCounter.latest()
    list_said(stage, api_run("r1"), api_run("r2", **ENDED), asked=1)
    assert ChangeCounter.latest() == before


def test_only_the_changed_run_gets_a_new_version(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    before = the_run("r2").version
    list_said(stage, api_run("r1", status="waiting"), api_run("r2"), asked=1)
    assert the_run("r1").version > before == the_run("r2").version


def test_the_oldest_change_of_a_list_gets_the_smallest_version(stage: Stage) -> None:
    list_said(stage, api_run("newest"), api_run("oldest"))
    assert the_run("oldest").version < the_run("newest").version


def test_each_change_gets_a_version_of_its_own(stage: Stage) -> None:
    list_said(stage, *(api_run(f"r{number}") for number in range(30)))
    assert len(set(Run.objects.values_list("version", flat=True))) == 30


def test_a_run_told_twice_in_one_list_is_one_row(stage: Stage) -> None:
    list_said(stage, api_run(), api_run())
    assert Run.objects.count() == 1


def test_one_id_in_two_stages_is_two_rows(stage: Stage) -> None:
    other = Stage.objects.create(pipeline=stage.pipeline, name="Staging", next_sync_at=T0)
    list_said(stage, api_run())
    list_said(other, api_run())
    assert Run.objects.filter(run_id="r1").count() == 2


def test_a_change_makes_its_stage_active(stage: Stage) -> None:
    list_said(stage, api_run(), asked=3)
    assert Stage.objects.get().active_at == at(3)


def test_no_change_leaves_its_stage_as_it_was(stage: Stage) -> None:
    list_said(stage, api_run(), asked=3)
    list_said(stage, api_run(), asked=60)
    assert Stage.objects.get().active_at == at(3)


def test_a_list_asked_earlier_changes_nothing(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(status="aborting"), **put(10))
    list_said(stage, api_run(status="running"), asked=9)
    assert the_run().status == "aborting"


def test_a_list_asked_earlier_takes_no_version(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(status="aborting"), **put(10))
    before = the_run().version
    list_said(stage, api_run(status="running"), asked=9)
    assert the_run().version == before


def test_a_detail_asked_earlier_does_not_bring_old_steps_back(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(steps=node(ref="second")), **put(10))
    mirror.detail(stage.pk, detail(steps=node(ref="first")), **put(9))
    assert the_run().steps["ref"] == "second"


def test_a_detail_asked_earlier_does_not_undo_the_end(stage: Stage) -> None:
    list_said(stage, api_run())
    list_said(stage, api_run(**ENDED), asked=10)
    mirror.detail(stage.pk, detail(), **put(9))
    assert the_run().concluded


def test_a_detail_overtaken_by_the_end_leaves_the_last_reading_due(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(), **put(0))
    Run.objects.update(next_read_at=at(5))
    [run] = leases.runs(at(8), 1)
    list_said(stage, api_run(**ENDED), asked=10)
    mirror.detail(stage.pk, detail(steps=node(ref="late")), **put(9))
    leases.release_run(run, at(11), None)
    assert the_run().next_read_at == at(10)


def test_steps_that_changed_give_a_new_version(stage: Stage) -> None:
    before = mirror.detail(stage.pk, detail(steps=node(ref="a")), **put(0)).version
    assert mirror.detail(stage.pk, detail(steps=node(ref="b")), **put(1)).version > before


def test_the_same_steps_keep_the_version(stage: Stage) -> None:
    before = mirror.detail(stage.pk, detail(), **put(0)).version
    assert mirror.detail(stage.pk, detail(), **put(1)).version == before


def test_the_step_a_run_is_at_is_kept_in_words(stage: Stage) -> None:
    steps = node(label="migrate", status="retrying", attempts=2, max_attempts=3)
    row = mirror.detail(stage.pk, detail(steps=steps), **put(0))
    assert row.step == "migrate, attempt 2 of 3"


def test_a_run_that_is_over_is_at_no_step(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(), **put(0))
    assert mirror.detail(stage.pk, detail(**ENDED), **put(1)).step == ""


def test_a_list_keeps_the_steps_that_a_detail_brought(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(), **put(0))
    list_said(stage, api_run(status="waiting"), asked=1)
    assert the_run().steps is not None


def test_a_run_nobody_looked_at_gets_no_last_reading(stage: Stage) -> None:
    StageTiming.objects.create(stage=stage, details=5)  # what is usual of its steps is known
    list_said(stage, api_run())
    list_said(stage, api_run(**ENDED), asked=10)
    assert the_run().next_read_at is None


def test_a_run_that_failed_gets_a_last_reading(stage: Stage) -> None:
    list_said(stage, api_run())
    list_said(stage, api_run(**FAILED), asked=10)
    assert the_run().next_read_at == at(10)


def test_a_run_somebody_watched_gets_a_last_reading(stage: Stage) -> None:
    list_said(stage, api_run())
    Run.objects.update(watched_at=at(1))
    list_said(stage, api_run(**ENDED), asked=10)
    assert the_run().next_read_at == at(10)


def test_a_run_somebody_aborted_gets_a_last_reading(stage: Stage, manager: User) -> None:
    list_said(stage, api_run())
    Abort.objects.create(
        run=the_run(), user=manager, username="manager", requested_at=at(1), claimed_at=at(1)
    )
    list_said(stage, api_run(**ENDED), asked=10)
    assert the_run().next_read_at == at(10)


def test_the_last_reading_is_the_last(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(), **put(0))
    list_said(stage, api_run(**ENDED), asked=10)
    [run] = leases.runs(at(11), 1)
    mirror.detail(stage.pk, detail(**ENDED), **put(11))
    leases.release_run(run, at(12), None)
    assert the_run().next_read_at is None


def test_a_run_first_seen_when_it_was_over_is_not_read_again(stage: Stage) -> None:
    list_said(stage, api_run(**FAILED))
    assert the_run().next_read_at is None


def test_a_run_that_somebody_else_aborts_is_followed_by_its_stage_only(stage: Stage) -> None:
    list_said(stage, api_run())
    list_said(stage, api_run(status="aborting"), asked=10)
    assert the_run().next_read_at is None


def test_an_accepted_abort_concludes_with_its_run(stage: Stage, manager: User) -> None:
    list_said(stage, api_run())
    abort = Abort.objects.create(
        run=the_run(), user=manager, username="manager", state="accepted",
        requested_at=at(1), claimed_at=at(1),
    )  # fmt: skip
    list_said(stage, api_run(**ENDED), asked=10)
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("concluded", "success")


def test_a_run_the_list_lost_is_asked_for_by_itself(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    mirror.missing_from(stage.pk, [api_run("r2")], **put(20))
    assert the_run("r1").next_read_at == at(20)


def test_a_run_the_list_shows_is_not_asked_for_by_itself(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    mirror.missing_from(stage.pk, [api_run("r2")], **put(20))
    assert the_run("r2").next_read_at is None


def test_a_run_seen_after_the_list_was_asked_for_is_not_missing(stage: Stage) -> None:
    list_said(stage, api_run(), asked=30)
    mirror.missing_from(stage.pk, [], **put(20))
    assert the_run().next_read_at is None


def test_a_gone_run_that_had_not_concluded_stays_in_flight(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    assert the_run().in_flight
    assert not Run.objects.followed().exists()


def test_a_gone_run_is_asked_for_again_ever_more_rarely(stage: Stage) -> None:
    list_said(stage, api_run())
    waits, asked = [], 20.0
    for _ in range(8):
        mirror.gone(the_run().pk, **put(asked))
        booked = the_run().next_read_at
        assert booked is not None
        wait = (booked - at(asked)).total_seconds()
        waits.append(round(wait / 60))
        asked += wait
    assert waits == [10, 10, 20, 40, 80, 160, 320, 360]


def test_a_gone_run_that_had_concluded_is_not_asked_for_again(stage: Stage) -> None:
    list_said(stage, api_run(**ENDED))
    mirror.gone(the_run().pk, **put(20))
    assert (the_run().gone_at, the_run().next_read_at) == (at(20), None)


def test_a_gone_run_that_was_dismissed_is_not_asked_for_again(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    Run.objects.update(in_flight=False, next_read_at=at(25))  # claimed
    mirror.gone(the_run().pk, **put(30))
    assert the_run().next_read_at is None


def test_a_list_that_was_asked_before_a_404_does_not_bring_the_run_back(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    list_said(stage, api_run(), asked=19)
    assert the_run().gone_at == at(20)


def test_nothing_is_overdue_of_a_gone_run(stage: Stage) -> None:
    list_said(stage, api_run(status="aborting"))
    Run.objects.update(overdue=2, overdue_why="run", aborting_level=2)
    mirror.gone(the_run().pk, **put(20))
    run = the_run()
    assert (run.overdue, run.overdue_why, run.aborting_level) == (0, "", 0)
    assert overdue.clocks(run, None, None) == []
    assert not abort_messages.is_elsewhere(None, run)


def test_a_list_does_not_have_a_gone_run_asked_for(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    Run.objects.update(next_read_at=None)
    mirror.missing_from(stage.pk, [], **put(30))
    assert the_run().next_read_at is None


def test_a_gone_run_gets_a_new_version(stage: Stage) -> None:
    list_said(stage, api_run())
    before = the_run().version
    mirror.gone(the_run().pk, **put(20))
    assert the_run().version > before


def test_a_gone_run_keeps_what_was_said_of_it(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    assert (the_run().status, the_run().concluded) == ("running", False)


def test_a_404_asked_earlier_makes_nothing_gone(stage: Stage) -> None:
    list_said(stage, api_run(), asked=30)
    mirror.gone(the_run().pk, **put(20))
    assert the_run().gone_at is None


def test_a_gone_run_that_is_listed_again_is_back(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    list_said(stage, api_run(), asked=30)
    assert the_run().in_flight


def test_an_accepted_abort_of_a_gone_run_is_settled(stage: Stage, manager: User) -> None:
    list_said(stage, api_run())
    abort = Abort.objects.create(
        run=the_run(), user=manager, username="manager", state="accepted",
        requested_at=at(1), claimed_at=at(1),
    )  # fmt: skip
    mirror.gone(the_run().pk, **put(20))
    abort.refresh_from_db()
    assert (abort.state, abort.outcome) == ("concluded", "")


def test_an_unknown_status_is_kept_as_sent(stage: Stage) -> None:
    list_said(stage, api_run(status="hibernating"))
    assert the_run().status == "hibernating"


def test_a_run_of_unknown_status_is_in_flight(stage: Stage) -> None:
    list_said(stage, api_run(status="hibernating"))
    assert the_run().in_flight


def test_an_unknown_status_is_logged_once(
    stage: Stage, said: Callable[[str], list[object]]
) -> None:
    for asked in range(3):
        list_said(stage, api_run(status="test-of-once"), api_run("r2", status="test-of-once"),
                  asked=asked)  # fmt: skip
    assert len(said("run.status_unknown")) == 1


def test_a_run_without_creation_time_has_the_one_when_we_saw_it(stage: Stage) -> None:
    list_said(stage, api_run(created_at=None), asked=4)
    assert the_run().created_at == at(4)


def test_a_run_without_creation_time_keeps_its_first_one(stage: Stage) -> None:
    list_said(stage, api_run(created_at=None), asked=4)
    list_said(stage, api_run(created_at=None, status="waiting"), asked=90)
    assert the_run().created_at == at(4)


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
def test_any_text_can_be_stored(stage: Stage, text: str) -> None:
    # As it comes over the wire: JSON's escapes can hold what UTF-8 can't.
    body = json.loads(json.dumps(payloads.detail(payloads.RUN_ID, name=text, description=text)))
    said = decoding.run_detail(body)
    assert said is not None
    row = mirror.detail(stage.pk, said, **put(0))
    row.refresh_from_db()
    assert row.name == said.run.name


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_text_in_a_step_can_be_stored(stage: Stage, text: str) -> None:
    step = payloads.job_run(ref=text, response={"error": {"message": text}, "status": text})
    said = decoding.run_detail(json.loads(json.dumps(payloads.detail(steps=[step]))))
    assert said is not None
    row = mirror.detail(stage.pk, said, **put(0))
    row.refresh_from_db()
    assert said.steps is not None
    assert row.steps["steps"][0]["label"] == said.steps.steps[0].label


def test_no_secret_of_a_run_is_kept_anywhere(world: World) -> None:
    world.sync()
    Run.objects.update(next_read_at=timezone.now() - timedelta(days=1))
    keep = Run.objects.order_by("-created_at").values_list("pk", flat=True)[:25]
    Run.objects.exclude(pk__in=list(keep)).update(next_read_at=None)
    world.sync()
    rows = Run.objects.filter(raw__isnull=False)
    assert rows.count() >= 10
    assert "s3cr3t-" not in json.dumps(list(rows.values()), default=str)


def test_names_as_the_sandbox_makes_them_are_mirrored(world: World) -> None:
    name = "\u202eنص 🚀 <b>&amp;</b> \\ ' \" " + "n" * 10_000
    run_id = world.start(name=name)
    world.sync()
    assert the_run(run_id).name == name


# --- All of a row -------------------------------------------------------------------------------

AS_SAID = {
    "name": "Nightly", "description": "", "status": "running", "concluded": False,
    "created_at": at(-60), "started_at": at(-50), "concluded_at": None, "updated_at": at(-50),
    "in_flight": True, "gone_at": None, "first_seen_at": at(4), "seen_at": at(4),
    "next_read_at": None, "status_since": at(4), "aborting_level": 0, "overdue": 0,
    "overdue_why": "",
}  # fmt: skip


def row(run_id: str = "r1") -> dict[str, Any]:
    return Run.objects.values(*AS_SAID).get(run_id=run_id)


def test_all_that_a_list_says_of_a_new_run_is_kept(stage: Stage) -> None:
    list_said(stage, api_run(), asked=4)
    assert row() == AS_SAID


def test_all_that_a_list_says_of_a_run_that_is_over_is_kept(stage: Stage) -> None:
    list_said(stage, api_run(name=None, description="Why", updated_at=at(6), **ENDED), asked=4)
    over = {"name": "", "description": "Why", "in_flight": False, "updated_at": at(6)}
    assert row() == AS_SAID | ENDED | over


def test_a_change_keeps_what_a_list_does_not_tell(stage: Stage) -> None:
    list_said(stage, api_run(), asked=4)
    ours = {"next_read_at": at(5), "aborting_level": 2, "overdue": 1, "overdue_why": "run"}
    Run.objects.update(**ours)
    list_said(stage, api_run(description="New"), asked=9)
    assert row() == AS_SAID | ours | {"description": "New", "seen_at": at(9)}


def test_another_status_begins_its_time_anew(stage: Stage) -> None:
    list_said(stage, api_run(), asked=4)
    list_said(stage, api_run(status="waiting"), asked=9)
    assert row() == AS_SAID | {"status": "waiting", "status_since": at(9), "seen_at": at(9)}


def test_a_run_that_has_ended_is_calm_and_not_overdue(stage: Stage) -> None:
    list_said(stage, api_run(), asked=4)
    Run.objects.update(aborting_level=2, overdue=1, overdue_why="run", next_read_at=at(5))
    list_said(stage, api_run("r0", status="success", concluded=True), asked=5)  # is learned from
    StageTiming.objects.update(details=5)
    list_said(stage, api_run(**ENDED), asked=9)
    over = {"in_flight": False, "status_since": at(9), "seen_at": at(9)}
    assert row() == AS_SAID | ENDED | over


def test_what_was_overtaken_leaves_what_else_the_list_says(stage: Stage) -> None:
    list_said(stage, api_run("r1"), asked=9)
    said = list_said(stage, api_run("r1", status="waiting"), api_run("r2"), api_run("r3"), asked=4)
    assert said == mirror.Mirrored(new=2, changed=0)
    assert (row("r1")["status"], row("r2")) == ("running", AS_SAID)


def test_a_list_asked_at_the_same_moment_is_believed(stage: Stage) -> None:
    list_said(stage, api_run(), asked=4)
    list_said(stage, api_run(status="waiting"), asked=4)
    assert row()["status"] == "waiting"


def test_an_unchanged_run_leaves_what_else_the_list_says(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2", **ENDED), asked=4)
    said = list_said(
        stage,
        api_run("r1"), api_run("r2", **ENDED), api_run("r3"),
        asked=9,
    )  # fmt: skip
    assert said == mirror.Mirrored(new=1, changed=0)
    seen = {run_id: row(run_id)["seen_at"] for run_id in ("r1", "r2", "r3")}
    assert seen == {"r1": at(9), "r2": at(4), "r3": at(9)}


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "Other"}, {"description": "New"}, {"status": "waiting"},
        {"concluded": True, "status": "failure"}, {"created_at": at(-61)},
        {"started_at": at(-51)}, {"concluded_at": at(1)}, {"updated_at": at(1)},
    ],
)  # fmt: skip
def test_whatever_changes_of_a_run_is_a_change(stage: Stage, changed: dict[str, Any]) -> None:
    list_said(stage, api_run(), asked=4)
    before = the_run().version
    assert list_said(stage, api_run(**changed), asked=9) == mirror.Mirrored(new=0, changed=1)
    assert the_run().version > before


def test_a_list_reads_its_own_runs_only_and_none_of_their_trees(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    with CaptureQueriesContext(connection) as asked_for:
        list_said(stage, api_run("r1", status="waiting"), asked=1)
    [known] = [
        query["sql"]
        for query in asked_for
        if query["sql"].startswith("SELECT") and "'r1'" in query["sql"]
    ]
    assert '"steps"' not in known
    assert '"raw"' not in known


def test_an_unknown_status_is_logged_as_far_as_it_is_readable(
    stage: Stage, said: Callable[[str], list[dict[str, Any]]]
) -> None:
    list_said(stage, api_run(status="y" * 101))
    [line] = said("run.status_unknown")
    assert (line["level"], line["status"]) == ("warning", "y" * 100)


def test_a_known_status_is_not_logged(
    stage: Stage, said: Callable[[str], list[dict[str, Any]]]
) -> None:
    list_said(stage, *(api_run(status, status=status) for status in statuses.RUN))
    assert said("run.status_unknown") == []


# --- All of a detail ----------------------------------------------------------------------------

READ = ("step", "step_key", "step_since", "detail_seen_at", "seen_at", "failures", "raw", "steps")


def read(stage: Stage, asked: float, **more: Any) -> dict[str, Any]:
    """Mirror a detail, and return what is kept of it."""
    returned = mirror.detail(stage.pk, detail(**more), **put(asked))
    kept = Run.objects.values(*READ, "version").get()
    assert {name: getattr(returned, name) for name in kept} == kept  # as it stands now
    return kept


def test_all_of_a_detail_is_kept(stage: Stage) -> None:
    list_said(stage, api_run())
    Run.objects.update(failures=3)
    steps = node(label="migrate", ref="db", status="waiting", started_at=at(2))
    kept = read(stage, 4, steps=steps)
    assert kept.pop("steps")["started_at"] == "2026-03-02T08:00:02Z"
    assert kept.pop("version") == the_run().version
    assert kept == {
        "step": "migrate", "step_key": "db", "step_since": at(2), "detail_seen_at": at(4),
        "seen_at": at(4), "failures": 0, "raw": {"id": "r1"},
    }  # fmt: skip


def test_a_detail_that_says_the_same_is_seen_and_is_no_news(stage: Stage) -> None:
    before = read(stage, 4)
    Run.objects.update(failures=3, raw=None)
    after = read(stage, 9)
    assert after == before | {"detail_seen_at": at(9), "seen_at": at(9)}


def test_a_detail_asked_at_the_same_moment_is_believed(stage: Stage) -> None:
    read(stage, 4, steps=node(ref="first"))
    assert read(stage, 4, steps=node(ref="second"))["steps"]["ref"] == "second"


def test_a_first_detail_that_was_overtaken_by_a_list_brings_its_steps(stage: Stage) -> None:
    list_said(stage, api_run(status="waiting"), asked=9)
    kept = read(stage, 4)
    assert (kept["detail_seen_at"], kept["seen_at"]) == (at(4), at(9))
    assert the_run().status == "waiting"


def test_a_detail_without_steps_is_at_no_step(stage: Stage) -> None:
    said_ = RunDetail(api_run(), None, {"id": "r1"})
    kept = mirror.detail(stage.pk, said_, **put(4))
    assert (kept.steps, kept.step, kept.step_key, kept.step_since) == (None, "", "", None)
    assert kept.detail_seen_at == at(4)


def test_a_detail_of_one_stage_leaves_another_stages_run(stage: Stage) -> None:
    other = Stage.objects.create(pipeline=stage.pipeline, name="Staging", next_sync_at=T0)
    list_said(other, api_run())
    mirror.detail(stage.pk, detail(), **put(4))
    assert Run.objects.get(stage=other).detail_seen_at is None


def test_steps_that_move_on_within_a_tree_are_a_change(stage: Stage) -> None:
    before = read(stage, 4)
    after = read(stage, 9, steps=node(status="waiting", started_at=at(8)))
    assert after["version"] > before["version"]
    assert after["step_since"] == at(8)


def test_the_steps_of_a_success_are_learned_from(stage: Stage) -> None:
    list_said(stage, api_run(**ENDED))
    assert StageTiming.objects.get().details == 0
    with time_machine.travel(at(30), tick=False):
        read(stage, 9, **ENDED)
    learned = StageTiming.objects.get()
    assert (learned.details, learned.learned_at) == (1, at(30))


def test_a_success_is_learned_from_when_it_is_heard_of(stage: Stage) -> None:
    with time_machine.travel(at(30), tick=False):
        list_said(stage, api_run("r0"), api_run("r1", **ENDED), asked=9)
    assert StageTiming.objects.get().learned_at == at(30)


def test_steps_that_are_no_news_are_not_learned_from_again(stage: Stage) -> None:
    read(stage, 4, **ENDED)
    StageTiming.objects.update(details=77)
    read(stage, 9, **ENDED)
    assert StageTiming.objects.get().details == 77


@pytest.mark.parametrize("ended", [{}, FAILED])
def test_steps_of_what_is_no_success_are_not_learned_from(
    stage: Stage, ended: dict[str, Any]
) -> None:
    read(stage, 4, **ended)
    assert not StageTiming.objects.exists()


# --- What ends with a run -----------------------------------------------------------------------


def looked_at(by: User) -> Looking:
    return Looking.objects.create(run=the_run(), user=by, username="manager", since=T0)


@pytest.mark.parametrize(("ended", "over"), [(ENDED, True), (FAILED, False)])
def test_looking_ends_with_a_run_that_leaves_nothing_to_look_at(
    stage: Stage, manager: User, ended: dict[str, Any], over: bool
) -> None:
    list_said(stage, api_run())
    looking = looked_at(manager)
    with time_machine.travel(at(30), tick=False):
        list_said(stage, api_run(**ended), asked=10)
    looking.refresh_from_db()
    assert looking.until == (at(30) if over else None)


def test_an_abort_of_a_run_that_is_gone_ends_and_looking_goes_on(
    stage: Stage, manager: User
) -> None:
    list_said(stage, api_run())
    Run.objects.update(next_read_at=at(5))
    looking, abort = looked_at(manager), factories.abort(the_run(), manager)
    with time_machine.travel(at(30), tick=False):
        mirror.gone(the_run().pk, **put(20))
    looking.refresh_from_db()
    abort.refresh_from_db()
    assert (looking.until, abort.settled_at) == (None, at(30))
    assert (the_run().gone_at, the_run().in_flight) == (at(20), True)


def test_a_later_abort_of_a_run_that_is_gone_ends_when_it_is_asked_for_in_vain(
    stage: Stage, manager: User
) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    abort = factories.abort(the_run(), manager)
    with time_machine.travel(at(60), tick=False):
        mirror.gone(the_run().pk, **put(50))
    abort.refresh_from_db()
    assert abort.settled_at == at(60)


def test_a_404_asked_at_the_same_moment_is_believed(stage: Stage) -> None:
    list_said(stage, api_run(), asked=20)
    mirror.gone(the_run().pk, **put(20))
    assert the_run().gone_at == at(20)


def test_a_run_that_is_gone_already_is_not_gone_again(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, **put(20))
    before = the_run().version
    mirror.gone(the_run().pk, **put(30))
    assert (the_run().gone_at, the_run().version) == (at(20), before)


def test_one_run_that_is_gone_leaves_the_others(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    mirror.gone(the_run("r1").pk, **put(20))
    assert the_run("r2").in_flight


def test_runs_in_flight_are_gone_with_their_pipeline_and_no_others(stage: Stage) -> None:
    there = factories.stage("Staging", of=factories.pipeline("other"))
    list_said(stage, api_run("r1"), api_run("r2", **ENDED))
    list_said(there, api_run("r3"))
    Pipeline.objects.filter(pk=stage.pipeline.pk).update(gone_at=at(15))
    mirror.gone_with_its_place(**put(20))
    gone = dict(Run.objects.values_list("run_id", "gone_at"))
    assert gone == {"r1": at(20), "r2": None, "r3": None}


def test_a_run_that_is_back_is_heard_of_by_its_abort(stage: Stage, manager: User) -> None:
    list_said(stage, api_run())
    factories.abort(the_run(), manager)
    mirror.gone(the_run().pk, **put(20))
    with time_machine.travel(at(40), tick=False):
        list_said(stage, api_run(), asked=30)
    turned = Abort.objects.get().events.filter(what="turned")
    assert list(turned.values_list("detail", "at")) == [("running", at(40))]


def test_a_run_that_says_the_same_in_other_words_is_no_news_to_its_abort(
    stage: Stage, manager: User
) -> None:
    list_said(stage, api_run(status="aborting"))
    factories.abort(the_run(), manager)
    list_said(stage, api_run(status="aborting", name="Renamed"), asked=10)
    assert not Abort.objects.get().events.exists()


def test_each_abort_hears_of_its_own_run(stage: Stage, manager: User) -> None:
    list_said(stage, api_run("r1"), api_run("r2"), api_run("r3"))
    for run_id in ("r1", "r2"):
        factories.abort(the_run(run_id), manager)
    aborted = {"status": "aborted", "concluded": True}
    with time_machine.travel(at(40), tick=False):
        list_said(
            stage, api_run("r1", **aborted), api_run("r2", status="aborting"),
            api_run("r3", **ENDED), api_run("r4", **ENDED), asked=10,
        )  # fmt: skip
    heard = Abort.objects.order_by("pk").values_list("state", "outcome", "settled_at")
    assert list(heard) == [("concluded", "aborted", at(40)), ("accepted", "", None)]
    [line] = Abort.objects.order_by("pk")[1].events.values_list("what", "at")
    assert line == ("aborting", at(40))


# --- When it is read again ----------------------------------------------------------------------


def test_a_run_whose_steps_are_shown_gets_a_last_reading(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    StageTiming.objects.create(stage=stage, details=5)
    Run.objects.filter(run_id="r1").update(detail_seen_at=at(1))
    list_said(stage, api_run("r1", **ENDED), api_run("r2", **ENDED), asked=10)
    booked = dict(Run.objects.values_list("run_id", "next_read_at"))
    assert booked == {"r1": at(10), "r2": None}


def test_a_run_that_had_ended_before_is_not_read_again_for_a_change(stage: Stage) -> None:
    list_said(stage, api_run(**FAILED))
    Run.objects.update(watched_at=at(1))
    list_said(stage, api_run(name="Renamed", **FAILED), asked=10)
    assert the_run().next_read_at is None


def test_what_could_not_be_read_is_tried_again_after_a_longer_rest_each_time(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    error = Unreachable("slow", sent=True, cause="timeout")
    rested = []
    for _ in range(3):
        mirror.rest(the_run("r1").pk, error, at(100))
        rested.append((the_run("r1").failures, the_run("r1").next_read_at))
    assert rested == [(1, at(110)), (2, at(120)), (3, at(140))]
    mirror.rest(the_run("r1").pk, NotFound("unknown"), at(100))  # another cause rests longer
    assert the_run("r1").next_read_at == at(580)
    assert (the_run("r2").failures, the_run("r2").next_read_at) == (0, None)


def test_what_was_read_only_for_what_is_usual_is_not_tried_again(stage: Stage) -> None:
    list_said(stage, api_run("r1", **ENDED), api_run("r2", **ENDED))
    Run.objects.update(next_read_at=at(5))
    mirror.rest(the_run("r1").pk, ServerError("broken"), at(100))
    assert (the_run("r1").failures, the_run("r1").next_read_at) == (1, None)
    assert (the_run("r2").failures, the_run("r2").next_read_at) == (0, at(5))


def test_a_run_that_waits_for_northflank_is_due_then(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    mirror.wait(the_run("r1").pk, at(9))
    assert (the_run("r1").next_read_at, the_run("r2").next_read_at) == (at(9), None)


def test_only_this_stages_runs_are_missing_from_its_list(stage: Stage) -> None:
    other = Stage.objects.create(pipeline=stage.pipeline, name="Staging", next_sync_at=T0)
    list_said(stage, api_run("r1"), api_run("r2", **ENDED))
    list_said(other, api_run("r3"))
    mirror.missing_from(stage.pk, [], **put(20))
    booked = dict(Run.objects.values_list("run_id", "next_read_at"))
    assert booked == {"r1": at(20), "r2": None, "r3": None}


def test_a_missing_run_that_is_booked_already_keeps_its_time(stage: Stage) -> None:
    list_said(stage, api_run())
    Run.objects.update(next_read_at=at(5))
    mirror.missing_from(stage.pk, [], **put(20))
    assert the_run().next_read_at == at(5)


def test_a_run_seen_as_the_list_was_asked_for_is_not_missing(stage: Stage) -> None:
    list_said(stage, api_run(), asked=20)
    mirror.missing_from(stage.pk, [], **put(20))
    assert the_run().next_read_at is None
