"""What Northflank says becomes rows: only changes are written, and nothing is undone."""

import json
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.models import Abort, ChangeCounter, Run, Stage, StageTiming
from dashboard.northflank import decoding
from dashboard.sync import claims, mirror
from tests.support import payloads
from tests.support.factories import node
from tests.support.world import T0, World, api_run, at, detail, the_run

ENDED = {"status": "success", "concluded": True, "concluded_at": at(5)}
FAILED = {"status": "failure", "concluded": True, "concluded_at": at(5)}


def list_said(stage: Stage, *runs: object, asked: float = 0) -> mirror.Mirrored:
    return mirror.runs(stage.pk, runs, asked_at=at(asked))  # type: ignore[arg-type]


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
    mirror.detail(stage.pk, detail(status="aborting"), asked_at=at(10))
    list_said(stage, api_run(status="running"), asked=9)
    assert the_run().status == "aborting"


def test_a_list_asked_earlier_takes_no_version(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(status="aborting"), asked_at=at(10))
    before = the_run().version
    list_said(stage, api_run(status="running"), asked=9)
    assert the_run().version == before


def test_a_detail_asked_earlier_does_not_bring_old_steps_back(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(steps=node(ref="second")), asked_at=at(10))
    mirror.detail(stage.pk, detail(steps=node(ref="first")), asked_at=at(9))
    assert the_run().steps["ref"] == "second"


def test_a_detail_asked_earlier_does_not_undo_the_end(stage: Stage) -> None:
    list_said(stage, api_run())
    list_said(stage, api_run(**ENDED), asked=10)
    mirror.detail(stage.pk, detail(), asked_at=at(9))
    assert the_run().concluded


def test_a_detail_overtaken_by_the_end_leaves_the_last_reading_due(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(), asked_at=at(0))
    Run.objects.update(next_read_at=at(5))
    [run] = claims.runs(at(8), 1)
    list_said(stage, api_run(**ENDED), asked=10)
    mirror.detail(stage.pk, detail(steps=node(ref="late")), asked_at=at(9))
    claims.release_run(run, at(11), None)
    assert the_run().next_read_at == at(10)


def test_steps_that_changed_give_a_new_version(stage: Stage) -> None:
    before = mirror.detail(stage.pk, detail(steps=node(ref="a")), asked_at=at(0)).version
    assert mirror.detail(stage.pk, detail(steps=node(ref="b")), asked_at=at(1)).version > before


def test_the_same_steps_keep_the_version(stage: Stage) -> None:
    before = mirror.detail(stage.pk, detail(), asked_at=at(0)).version
    assert mirror.detail(stage.pk, detail(), asked_at=at(1)).version == before


def test_the_step_a_run_is_at_is_kept_in_words(stage: Stage) -> None:
    steps = node(label="migrate", status="retrying", attempts=2, max_attempts=3)
    row = mirror.detail(stage.pk, detail(steps=steps), asked_at=at(0))
    assert row.step == "migrate, attempt 2 of 3"


def test_a_run_that_is_over_is_at_no_step(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(), asked_at=at(0))
    assert mirror.detail(stage.pk, detail(**ENDED), asked_at=at(1)).step == ""


def test_a_list_keeps_the_steps_that_a_detail_brought(stage: Stage) -> None:
    mirror.detail(stage.pk, detail(), asked_at=at(0))
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
    mirror.detail(stage.pk, detail(), asked_at=at(0))
    list_said(stage, api_run(**ENDED), asked=10)
    [run] = claims.runs(at(11), 1)
    mirror.detail(stage.pk, detail(**ENDED), asked_at=at(11))
    claims.release_run(run, at(12), None)
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
    mirror.missing_from(stage.pk, [api_run("r2")], asked_at=at(20))
    assert the_run("r1").next_read_at == at(20)


def test_a_run_the_list_shows_is_not_asked_for_by_itself(stage: Stage) -> None:
    list_said(stage, api_run("r1"), api_run("r2"))
    mirror.missing_from(stage.pk, [api_run("r2")], asked_at=at(20))
    assert the_run("r2").next_read_at is None


def test_a_run_seen_after_the_list_was_asked_for_is_not_missing(stage: Stage) -> None:
    list_said(stage, api_run(), asked=30)
    mirror.missing_from(stage.pk, [], asked_at=at(20))
    assert the_run().next_read_at is None


def test_a_gone_run_is_in_flight_no_more(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, asked_at=at(20))
    assert not the_run().in_flight


def test_a_gone_run_gets_a_new_version(stage: Stage) -> None:
    list_said(stage, api_run())
    before = the_run().version
    mirror.gone(the_run().pk, asked_at=at(20))
    assert the_run().version > before


def test_a_gone_run_keeps_what_was_said_of_it(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, asked_at=at(20))
    assert (the_run().status, the_run().concluded) == ("running", False)


def test_a_404_asked_earlier_makes_nothing_gone(stage: Stage) -> None:
    list_said(stage, api_run(), asked=30)
    mirror.gone(the_run().pk, asked_at=at(20))
    assert the_run().gone_at is None


def test_a_gone_run_that_is_listed_again_is_back(stage: Stage) -> None:
    list_said(stage, api_run())
    mirror.gone(the_run().pk, asked_at=at(20))
    list_said(stage, api_run(), asked=30)
    assert the_run().in_flight


def test_an_accepted_abort_of_a_gone_run_is_settled(stage: Stage, manager: User) -> None:
    list_said(stage, api_run())
    abort = Abort.objects.create(
        run=the_run(), user=manager, username="manager", state="accepted",
        requested_at=at(1), claimed_at=at(1),
    )  # fmt: skip
    mirror.gone(the_run().pk, asked_at=at(20))
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
    row = mirror.detail(stage.pk, said, asked_at=at(0))
    row.refresh_from_db()
    assert row.name == said.run.name


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_any_text_in_a_step_can_be_stored(stage: Stage, text: str) -> None:
    step = payloads.job_run(ref=text, response={"error": {"message": text}, "status": text})
    said = decoding.run_detail(json.loads(json.dumps(payloads.detail(steps=[step]))))
    assert said is not None
    row = mirror.detail(stage.pk, said, asked_at=at(0))
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
