"""What takes longer than is usual is marked, and what it takes to judge it is asked for."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from structlog.testing import capture_logs

from dashboard.models import Run, Stage, StageTiming
from dashboard.northflank import Node, RunDetail
from dashboard.sync import mirror, overdue_checker
from tests.support import factories
from tests.support.successes import (
    NOW,
    after,
    asked_for,
    flying,
    learned,
    migrated,
    succeeded,
    success,
)
from tests.support.world import api_run, at


def taught(stage: Stage) -> None:
    for _ in range(5):
        success(stage, 10, root=migrated(3))
    learned(stage)


def test_a_run_is_marked_once_for_each_level(place: Stage) -> None:
    taught(place)
    run = flying(place, 10)
    seen = []
    for minutes in (0, 4, 6, 7, 21, 22):
        overdue_checker.mark(after(minutes))
        run.refresh_from_db()
        seen.append((run.overdue, run.overdue_why, run.version))
    levels = [(level, why) for level, why, _ in seen]
    assert levels == [(0, ""), (0, ""), (1, "run"), (1, "run"), (2, "run"), (2, "run")]
    assert len({version for *_, version in seen}) == 3


def test_a_mark_goes_when_the_run_has_ended(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run("r1")], asked_at=at(0))
    Run.objects.update(overdue=2, overdue_why="run")
    ended = {"status": "success", "concluded": True, "concluded_at": at(5)}
    mirror.runs(stage.pk, [api_run("r1", **ended)], asked_at=at(10))
    assert Run.objects.values_list("overdue", "overdue_why").get() == (0, "")


def test_a_mark_goes_with_the_status_it_was_about(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run("r1", status="queued")], asked_at=at(0))
    Run.objects.update(overdue=1, overdue_why="queue")
    mirror.runs(stage.pk, [api_run("r1", status="running")], asked_at=at(10))
    assert Run.objects.values_list("overdue", "overdue_why").get() == (0, "")


LATE = 4 * 3600  # seconds after which a run is far overdue, where nobody knows what is usual


@pytest.fixture
def far_overdue(stage: Stage) -> Run:
    """A run that has gone on for four hours, at a step it has been at for a minute."""
    run = api_run("r1", started_at=at(0))
    detail = RunDetail(run=run, steps=at_step("migrate", LATE - 60), raw={})
    mirror.detail(stage.pk, detail, asked_at=at(LATE))
    Run.objects.update(overdue=2, overdue_why="run")
    return Run.objects.get()


def at_step(label: str, since: float, **more: Any) -> Node:
    usual = {"label": label, "ref": label, "status": "waiting", "started_at": at(since)}
    return factories.node("Workflow", steps=(factories.node("JobRun", **usual | more),))


def test_a_mark_stays_with_another_status_where_it_is_true_still(
    stage: Stage, far_overdue: Run
) -> None:
    retrying = api_run("r1", status="retrying", started_at=at(0))
    mirror.runs(stage.pk, [retrying], asked_at=at(LATE + 5))
    now = Run.objects.get()
    assert (now.overdue, now.overdue_why) == (2, "run")
    assert now.version > far_overdue.version


def test_a_mark_stays_at_another_step_where_it_is_true_still(
    stage: Stage, far_overdue: Run
) -> None:
    run = api_run("r1", started_at=at(0))
    detail = RunDetail(run=run, steps=at_step("deploy", LATE + 1), raw={})
    mirror.detail(stage.pk, detail, asked_at=at(LATE + 5))
    now = Run.objects.get()
    assert (now.step, now.overdue, now.overdue_why) == ("deploy", 2, "run")
    assert now.version > far_overdue.version


def test_a_mark_about_a_step_turns_into_what_is_true_of_the_next(
    stage: Stage, far_overdue: Run
) -> None:
    Run.objects.update(overdue_why="step")
    run = api_run("r1", started_at=at(0))
    detail = RunDetail(run=run, steps=at_step("deploy", LATE + 1), raw={})
    mirror.detail(stage.pk, detail, asked_at=at(LATE + 5))
    assert Run.objects.get().overdue_why == "run"


def marked_at_a_step(stage: Stage) -> None:
    """A run with a mark, at a step that usually takes three minutes."""
    usual = {"run_median": 600, "run_p95": 720, "steps": {"migrate": [180, 240]}}
    StageTiming.objects.create(stage=stage, **usual)
    run = api_run("r1", started_at=at(0))
    mirror.detail(stage.pk, RunDetail(run, at_step("migrate", 0), {}), asked_at=at(60))
    Run.objects.update(overdue=2, overdue_why="run")


def test_a_mark_is_judged_anew_by_what_is_usual_of_the_step_that_is_known(stage: Stage) -> None:
    marked_at_a_step(stage)
    run = api_run("r1", status="waiting", started_at=at(0))
    mirror.runs(stage.pk, [run], asked_at=at(360))
    assert Run.objects.values_list("overdue", "overdue_why").get() == (1, "step")


def test_a_mark_is_judged_anew_by_what_is_usual_of_the_step_that_is_told(stage: Stage) -> None:
    marked_at_a_step(stage)
    run = api_run("r1", started_at=at(0))
    retrying = at_step("migrate", 1, status="retrying")
    mirror.detail(stage.pk, RunDetail(run, retrying, {}), asked_at=at(360))
    assert Run.objects.values_list("overdue", "overdue_why").get() == (1, "step")


def test_a_run_without_a_mark_gets_none_by_being_read(stage: Stage) -> None:
    marked_at_a_step(stage)
    Run.objects.update(overdue=0, overdue_why="")
    run = api_run("r1", started_at=at(0))
    mirror.detail(stage.pk, RunDetail(run, at_step("migrate", 1), {}), asked_at=at(360))
    assert Run.objects.values_list("overdue", "overdue_why").get() == (0, "")


def test_a_mark_about_a_step_goes_with_it(stage: Stage) -> None:
    run = api_run("r1", started_at=at(0))
    first = RunDetail(run=run, steps=at_step("migrate", 0), raw={})
    mirror.detail(stage.pk, first, asked_at=at(60))
    Run.objects.update(overdue=1, overdue_why="step")
    then = RunDetail(run=run, steps=at_step("deploy", 61), raw={})
    mirror.detail(stage.pk, then, asked_at=at(65))
    assert Run.objects.values_list("overdue", "overdue_why").get() == (0, "")


def test_a_mark_about_the_last_attempt_goes_when_that_is_no_more(stage: Stage) -> None:
    run = api_run("r1", status="retrying", started_at=at(0))
    last = at_step("migrate", 0, status="retrying", attempts=3, max_attempts=3)
    mirror.detail(stage.pk, RunDetail(run=run, steps=last, raw={}), asked_at=at(60))
    Run.objects.update(overdue=1, overdue_why="attempts")
    works = RunDetail(run=run, steps=at_step("migrate", 0), raw={})
    mirror.detail(stage.pk, works, asked_at=at(65))
    assert Run.objects.values_list("overdue", "overdue_why").get() == (0, "")


def test_a_mark_stays_when_a_list_says_something_else_of_it(stage: Stage) -> None:
    mirror.runs(stage.pk, [api_run("r1")], asked_at=at(0))
    Run.objects.update(overdue=1, overdue_why="run")
    mirror.runs(stage.pk, [api_run("r1", name="Renamed")], asked_at=at(10))
    assert Run.objects.get().overdue == 1


def test_a_run_that_becomes_overdue_is_read_for_its_step(place: Stage) -> None:
    taught(place)
    run = flying(place, 10)
    overdue_checker.mark(NOW)
    run.refresh_from_db()
    assert run.next_read_at is None
    overdue_checker.mark(after(6))
    run.refresh_from_db()
    assert run.next_read_at == after(6)


def waiting(stage: Stage, **more: Any) -> Run:
    """A run that people have to approve."""
    usual = {"first_seen_at": NOW, "status_since": NOW, "detail_seen_at": None}
    return factories.run(stage, status="approval_wait", **usual | more)


def test_a_wait_for_people_that_is_older_than_what_is_known_is_read_for_its_start(
    place: Stage,
) -> None:
    run = waiting(place)
    overdue_checker.mark(NOW)
    run.refresh_from_db()
    assert run.next_read_at == NOW


@pytest.mark.parametrize(
    "known", [{"first_seen_at": NOW - timedelta(minutes=1)}, {"detail_seen_at": NOW}]
)
def test_a_wait_for_people_whose_start_is_known_is_not_read_for_it(
    place: Stage, known: dict[str, datetime]
) -> None:
    run = waiting(place, **known)
    overdue_checker.mark(NOW)
    run.refresh_from_db()
    assert run.next_read_at is None


def test_marking_asks_no_more_for_many_runs(place: Stage) -> None:
    taught(place)
    flying(place, 1)
    with CaptureQueriesContext(connection) as few:
        overdue_checker.mark(NOW)
    for _ in range(20):
        flying(place, 1)
    with CaptureQueriesContext(connection) as many:
        overdue_checker.mark(NOW)
    assert len(many) == len(few) <= 2


# --- what is asked for, so that steps can be judged ---------------------------------------------


def test_the_latest_successes_are_read_at_once_where_a_run_is_watched(place: Stage) -> None:
    for _ in range(7):
        success(place, 10)
    learned(place)
    run = flying(place, 5)
    Run.objects.filter(pk=run.pk).update(watched_at=NOW)
    overdue_checker.mark(NOW)
    assert asked_for() == 5


def test_however_many_runs_are_overdue_no_successes_are_read_at_once(place: Stage) -> None:
    for n in range(5):
        stage = factories.stage(f"Stage {n}", of=place.pipeline)
        succeeded(stage)
        late = flying(stage, 60)
    overdue_checker.mark(NOW)
    late.refresh_from_db()
    assert (late.overdue, late.next_read_at) == (2, NOW)  # its own step is asked for
    assert asked_for() == 0


def test_where_nobody_will_ask_nothing_is_read(place: Stage) -> None:
    for _ in range(7):
        success(place, 10)
    learned(place)
    flying(place, 5)
    overdue_checker.mark(NOW)
    assert asked_for() == 0


def test_where_the_steps_are_known_nothing_is_read(place: Stage) -> None:
    taught(place)
    Run.objects.update(detail_seen_at=NOW)
    flying(place, 60)
    overdue_checker.mark(NOW)
    overdue_checker.mark(NOW)
    assert asked_for() == 0


def test_successes_that_cannot_be_read_are_not_asked_for_again_and_again(place: Stage) -> None:
    for _ in range(7):
        success(place, 10, failures=1)
    learned(place)
    flying(place, 60)
    overdue_checker.mark(NOW)
    overdue_checker.mark(NOW)
    assert asked_for() == 0


def test_a_run_that_cannot_be_judged_does_not_stop_the_others(place: Stage) -> None:
    taught(place)
    broken, late = flying(place, 60), flying(place, 60)
    Run.objects.filter(pk=broken.pk).update(steps={"no": "tree"})
    with capture_logs() as logs:
        overdue_checker.mark(NOW)
    late.refresh_from_db()
    assert late.overdue == 2
    assert "overdue.defect" in {line["event"] for line in logs}
