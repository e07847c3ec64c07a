"""What is usual is learned from successes as they conclude."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from dashboard.db.threads import now
from dashboard.models import Budget, Pipeline, Run, Stage, StageTiming
from dashboard.models.typical_duration import LEAST
from dashboard.northflank import Node, RunDetail, UnexpectedAnswer
from dashboard.northflank import Run as ApiRun
from dashboard.sync import baselines, mirror, overdue_checker, watchers
from dashboard.sync.worker import SyncWorker
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
from tests.support.world import LONG_AGO, World, api_run, at


def test_five_successes_say_what_is_usual(place: Stage) -> None:
    for minutes in (2, 3, 4, 5, 6):
        success(place, minutes)
    known = learned(place)
    assert (known.run_median, known.run_p95, known.queue_median) == (240, 360, 60)


def test_four_do_not(place: Stage) -> None:
    for _ in range(4):
        success(place, 2)
    assert learned(place).usual_run is None


@pytest.mark.parametrize("status", ["failure", "aborted", "skipped"])
def test_other_ends_say_nothing(place: Stage, status: str) -> None:
    for _ in range(4):
        success(place, 2)
    factories.run(place, status=status)
    assert learned(place).usual_run is None


def test_a_success_that_somebody_tried_to_abort_says_nothing(place: Stage, manager: User) -> None:
    for _ in range(5):
        last = success(place, 2)
    factories.abort(last, manager, "too_late", settled_at=NOW)
    assert learned(place).successes == 4


def test_another_stages_runs_say_nothing(place: Stage) -> None:
    for _ in range(5):
        success(factories.stage("Staging"), 2)
    assert learned(place).successes == 0


def test_steps_are_known_where_their_runs_details_are(place: Stage) -> None:
    for minutes in (1, 2, 3, 4, 5):
        success(place, minutes, root=migrated(minutes))
    known = learned(place)
    assert known.steps == {"migrate": [180, 300]}
    assert known.details == 5


def test_the_time_that_people_take_is_not_the_works(place: Stage) -> None:
    for _ in range(5):
        success(place, 62, root=migrated(2, approval=60))
    known = learned(place)
    assert known.run_median == 120
    assert known.steps["Approval sign-off"] == [3600, 3600]
    assert known.approvals == ["Approval sign-off"]


def test_learning_leaves_what_people_say_meanwhile_as_it_is(place: Stage) -> None:
    read_before = learned(place)
    StageTiming.objects.update(said_median=900)
    read_before.learn(run=None, queue=None, steps={}, approvals=(), at=NOW)
    assert StageTiming.objects.get().said_median == 900


def test_the_last_good_release_is_the_latest_success(place: Stage) -> None:
    success(place, 2)
    last = success(place, 3)
    factories.run(place, status="failure")
    assert learned(place).last_good == last


def test_a_success_in_spite_of_an_abort_is_a_good_release_too(place: Stage, manager: User) -> None:
    success(place, 2)
    last = success(place, 3)
    factories.abort(last, manager, "concluded", outcome="success", settled_at=NOW)
    assert learned(place).last_good == last


def test_a_list_in_which_a_run_succeeds_teaches(stage: Stage) -> None:
    ended = {"status": "success", "concluded": True, "started_at": at(0), "concluded_at": at(60)}
    mirror.runs(stage.pk, [api_run(f"r{n}", **ended) for n in range(5)], asked_at=at(100))
    assert StageTiming.objects.get().run_median == 60


def test_the_steps_of_a_success_that_were_read_before_its_end_are_learned_anew(
    stage: Stage,
) -> None:
    def read(seconds: float, status: str, people: Node) -> None:
        over = status == "success"
        ended = {"started_at": at(0), "concluded_at": at(3720)} if over else {"started_at": at(0)}
        run = api_run("watched", status=status, concluded=over, **ended)
        steps = factories.node("Workflow", steps=(people,))
        mirror.detail(stage.pk, RunDetail(run=run, steps=steps, raw={}), asked_at=at(seconds))

    for _ in range(4):
        success(stage, 2, root=migrated(2))
    waits = {"label": "sign-off", "started_at": at(60)}
    read(70, "approval_wait", factories.node("Approval", status="approval_wait", **waits))
    ended = {"status": "success", "concluded": True, "started_at": at(0), "concluded_at": at(3720)}
    mirror.runs(stage.pk, [api_run("watched", **ended)], asked_at=at(3721))
    approved = factories.node("Approval", status="success", ended_at=at(3660), **waits)
    read(3722, "success", approved)
    assert StageTiming.objects.get().run_p95 == 120


def test_a_list_that_says_nothing_new_teaches_nothing(stage: Stage) -> None:
    ended = {"status": "success", "concluded": True, "started_at": at(0), "concluded_at": at(60)}
    said = [api_run(f"r{n}", **ended) for n in range(5)]
    mirror.runs(stage.pk, said, asked_at=at(100))
    StageTiming.objects.all().delete()
    mirror.runs(stage.pk, said, asked_at=at(200))
    assert not StageTiming.objects.exists()


def test_learning_looks_at_twenty_runs_whatever_the_history(place: Stage) -> None:
    for _ in range(25):
        success(place, 2, root=migrated(2))
    with CaptureQueriesContext(connection) as queries:
        learned(place)
    assert StageTiming.objects.get().successes == 20
    assert len(queries) <= 9


# --- which successes are read, and when ---------------------------------------------------------

EVERY = timedelta(minutes=7)


def booked() -> Run:
    return Run.objects.filter(baselines.BOOKED).get()


def test_a_success_is_not_read_at_its_end_for_what_is_usual(stage: Stage) -> None:
    for n in range(7):
        run_id = f"r{n}"
        mirror.runs(stage.pk, [api_run(run_id)], asked_at=at(n * 100))
        ended = api_run(run_id, status="success", concluded=True, concluded_at=at(n * 100 + 5))
        mirror.runs(stage.pk, [ended], asked_at=at(n * 100 + 10))
    assert not Run.objects.exclude(next_read_at=None).exists()


def test_one_success_at_a_time_is_booked_however_many_are_wanted(place: Stage) -> None:
    for stage in (place, factories.stage("Staging")):
        succeeded(stage)
    assert baselines.book(NOW, EVERY)
    assert baselines.book(NOW + EVERY, EVERY)
    assert booked().next_read_at == NOW + EVERY


def test_the_next_is_booked_once_that_was_read(place: Stage) -> None:
    succeeded(place)
    baselines.book(NOW, EVERY)
    first = booked()
    Run.objects.filter(pk=first.pk).update(detail_seen_at=after(7), next_read_at=None)
    baselines.book(after(7), EVERY)
    assert booked() != first
    assert booked().next_read_at == after(14)


def test_workers_that_book_side_by_side_book_one(transactional_db: None) -> None:
    succeeded(factories.stage())
    succeeded(factories.stage("Staging"))
    together = Barrier(4)

    def book(_: int) -> bool:
        together.wait(60)
        try:
            return baselines.book(NOW, EVERY)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(book, range(4)))
    assert booked()


@pytest.mark.parametrize("read", [0, LEAST])
def test_nothing_is_booked_where_steps_are_known_or_too_few_have_succeeded(
    place: Stage, read: int
) -> None:
    succeeded(place, read=read, times=6 if read else LEAST - 1)
    assert not baselines.book(NOW, EVERY)
    assert asked_for() == 0


@pytest.mark.parametrize("what", ["failed before", "gone", "no longer listed", "aborted in vain"])
def test_what_can_not_be_read_or_says_nothing_is_not_booked(
    place: Stage, manager: User, what: str
) -> None:
    succeeded(place)
    match what:
        case "failed before":
            Run.objects.update(failures=1)
        case "gone":
            Run.objects.update(gone_at=NOW)
        case "no longer listed":
            Pipeline.objects.update(gone_at=NOW)
        case _:
            for run in Run.objects.all():
                factories.abort(run, manager, "too_late", settled_at=NOW)
    assert not baselines.book(NOW, EVERY)


def test_successes_that_nobody_counts_any_more_are_not_read(place: Stage) -> None:
    old = success(place, 10, concluded_at=NOW - timedelta(days=2))
    for _ in range(20):
        success(place, 10, detail_seen_at=NOW)  # read, and Northflank showed no steps
    learned(place)
    assert StageTiming.objects.get().details == 0
    assert not baselines.book(NOW, EVERY)
    assert Run.objects.get(pk=old.pk).next_read_at is None


def test_where_a_run_is_overdue_comes_first_then_what_is_begun_then_what_waits_longest(
    place: Stage,
) -> None:
    of = place.pipeline
    kinds = ["known", "late", "earlier", "begun", "overdue"]
    stages = {kind: factories.stage(kind, of=of) for kind in kinds}
    for kind, stage in stages.items():
        succeeded(stage, read=LEAST if kind == "known" else int(kind == "begun"))
    known = StageTiming.objects.filter(stage=stages["known"])
    known.update(details=LEAST - 1)  # one has slid by
    StageTiming.objects.filter(stage=stages["earlier"]).update(learned_at=LONG_AGO)
    flying(stages["overdue"], 60)
    Run.objects.in_flight().update(overdue=1, overdue_why="run")
    order = []
    while baselines.book(NOW, EVERY):
        order.append(booked().stage.name)
        Run.objects.filter(stage=booked().stage).update(failures=1)
    assert order == ["overdue", "begun", "earlier", "late", "known"]


def test_a_booked_run_that_somebody_opens_is_read_now(place: Stage) -> None:
    succeeded(place)
    baselines.book(NOW, EVERY)
    run = booked()
    watchers.in_run(run, after(1))
    run.refresh_from_db()
    assert run.next_read_at == after(1)


def test_what_is_booked_is_read_now_where_somebody_looks_at_a_run_in_flight(place: Stage) -> None:
    succeeded(place)
    baselines.book(NOW, EVERY)
    run = flying(place, 5)
    Run.objects.filter(pk=run.pk).update(watched_at=NOW)
    overdue_checker.mark(NOW)
    times = Run.objects.filter(status="success").exclude(next_read_at=None)
    assert list(times.values_list("next_read_at", flat=True)) == [NOW] * LEAST


def test_a_run_that_is_read_only_for_what_is_usual_is_not_tried_again(place: Stage) -> None:
    succeeded(place)
    baselines.book(NOW, EVERY)
    first = booked()
    mirror.rest(first.pk, UnexpectedAnswer("No.", http_status=200), NOW)
    first.refresh_from_db()
    assert first.next_read_at is None
    baselines.book(NOW, EVERY)
    assert booked() != first


def test_choosing_what_to_read_asks_no_more_for_many_stages(place: Stage) -> None:
    for n in range(20):
        succeeded(factories.stage(f"Stage {n}", of=place.pipeline))
    with CaptureQueriesContext(connection) as queries:
        baselines.book(NOW, EVERY)
    assert len(queries) == 3


# --- the worker ---------------------------------------------------------------------------------


def another_worker(world: World) -> None:
    """Have the next plan made by a worker that has just been started."""
    world.live.worker = SyncWorker(world.live.connection)


def details(world: World) -> list[str]:
    runs = set(Run.objects.filter(status="success").values_list("run_id", flat=True))
    return [run for asked in world.asked("/runs/") if (run := asked.rpartition("/")[2]) in runs]


def test_a_worker_reads_one_success_at_a_time_until_steps_are_known(world: World) -> None:
    world.sync()
    world.sandbox.requests.clear()
    taught_ = StageTiming.objects.filter(successes__gte=LEAST).order_by("stage").first()
    assert taught_ is not None
    Run.objects.exclude(stage=taught_.stage_id).update(detail_seen_at=now())  # one will do
    rounds = 0
    while True:
        another_worker(world)
        world.sync()
        assert len(details(world)) == rounds  # however often it looks, none before its time
        if not Run.objects.filter(baselines.BOOKED).exists():
            break
        due = booked()
        assert due.next_read_at is not None
        assert due.next_read_at > now()
        Run.objects.filter(pk=due.pk).update(next_read_at=LONG_AGO)
        rounds += 1
        world.sync()
        assert details(world)[-1] == due.run_id
    taught_.refresh_from_db()
    assert (rounds, taught_.details) == (LEAST, LEAST)
    assert taught_.steps


def test_with_little_left_the_next_detail_is_far_away(world: World) -> None:
    world.sandbox.window.limit = 400
    world.sync()
    another_worker(world)
    began = now()
    world.sync()
    spent = Budget.objects.get()
    # One in a hundred of what is left to us: not before the time of a hundred requests.
    hundred = 100 * (spent.resets_at - began) / spent.limit
    at_ = booked().next_read_at
    assert at_ is not None
    assert at_ - began >= min(hundred, timedelta(minutes=59))


# --- while successes and their details slide by -------------------------------------------------


class Slide:
    """A stage whose runs succeed one by one, and are read where the sync asks for it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.ended = 0
        self.read = 0
        self.said: dict[str, ApiRun] = {}

    def succeed(self, root: Node, *, readable: bool = True) -> StageTiming:
        """Let one more run succeed, and return what is usual before its detail can be read."""
        self.ended += 1
        began = self.ended * 1000
        run = {"created_at": at(began), "started_at": at(began)}
        ended = {"status": "success", "concluded": True, "concluded_at": at(began + 600)}
        mirror.runs(self.stage.pk, [api_run(f"r{self.ended}", **run)], asked_at=at(began))
        api = api_run(f"r{self.ended}", **run | ended)
        mirror.runs(self.stage.pk, [api], asked_at=at(began + 601))
        self.said[api.id] = api
        before = StageTiming.objects.get()
        if baselines.book(at(began + 601), timedelta()) and readable:
            self.read += 1
            detail = RunDetail(run=self.said[booked().run_id], steps=root, raw={})
            row = mirror.detail(self.stage.pk, detail, asked_at=at(began + 602))
            Run.objects.filter(pk=row.pk).update(next_read_at=None)
        return before


@pytest.fixture
def slide(stage: Stage) -> Slide:
    return Slide(stage)


# Of which successes the details can be read: all, not for a while, every other, some at random.
READABLE = {
    "all": lambda n: True,
    "an outage": lambda n: n < 10 or n > 40,
    "every other": lambda n: n % 2 == 0,
    "some": lambda n: n * 2654435761 % 7 < 4,
}


@pytest.mark.parametrize("readable", READABLE.values(), ids=READABLE)
def test_a_step_once_known_stays_known_as_successes_slide_by(
    slide: Slide, readable: Callable[[int], bool]
) -> None:
    known = False
    for n in range(70):
        usual = slide.succeed(migrated(3, approval=4), readable=readable(n))
        assert usual.usual_step("migrate") is not None or not known
        assert usual.usual_approval("Approval sign-off") is not None or not known
        assert usual.usual_run is not None or not known
        known = known or usual.usual_step("migrate") is not None
    assert known


def test_one_success_in_four_is_read(slide: Slide) -> None:
    for _ in range(60):
        slide.succeed(migrated(3))
    assert slide.read <= 60 / 4 + 1


def test_a_step_that_is_no_more_goes_once_enough_details_tell(slide: Slide) -> None:
    for _ in range(20):
        slide.succeed(migrated(3))
    renamed = factories.node(
        "JobRun", label="convert", ref="convert", status="success",
        started_at=NOW, ended_at=NOW + timedelta(minutes=4),
    )  # fmt: skip
    for _ in range(30):
        slide.succeed(renamed)
    known = StageTiming.objects.get()
    assert list(known.steps) == ["convert"]


def test_what_people_take_does_not_turn_into_work_when_details_slide_by(slide: Slide) -> None:
    for _ in range(10):
        slide.succeed(migrated(3, approval=4))
    before = StageTiming.objects.get().usual_run
    for _ in range(25):
        usual = slide.succeed(migrated(3, approval=4), readable=False)
        assert usual.usual_run == before


# --- what is learned anew shows at once ---------------------------------------------------------


def versions(stage: Stage) -> dict[str, int]:
    return dict(stage.runs.in_flight().values_list("run_id", "version"))


def took(stage: Stage, minutes: float, *, first: int = 0) -> None:
    """Five more runs of the stage have succeeded, in so many minutes each."""
    for n in range(first, first + 5):
        began = at(n * 100)
        times = {"created_at": began, "started_at": began}
        times |= {"concluded_at": began + timedelta(minutes=minutes)}
        said = api_run(f"r{n}", status="success", concluded=True, **times)
        mirror.runs(stage.pk, [said], asked_at=at(9000 + n))


def test_runs_in_flight_are_told_where_something_else_is_usual_now(stage: Stage) -> None:
    elsewhere = factories.run(factories.stage("Staging", of=stage.pipeline), "elsewhere")
    mirror.runs(stage.pk, [api_run("flying")], asked_at=at(0))
    before = versions(stage)
    took(stage, 5)
    assert versions(stage)["flying"] > before["flying"]
    assert versions(elsewhere.stage) == {"elsewhere": elsewhere.version}


def test_what_comes_to_the_same_words_is_no_news(stage: Stage) -> None:
    took(stage, 5)
    mirror.runs(stage.pk, [api_run("flying")], asked_at=at(9100))
    before = versions(stage)
    took(stage, 5.1, first=5)
    assert StageTiming.objects.get().run_p95 == pytest.approx(306)
    assert versions(stage) == before


def test_only_what_a_row_says_is_news_to_it(stage: Stage) -> None:
    took(stage, 5)
    queued = api_run("queued", status="queued", started_at=None)
    mirror.runs(stage.pk, [api_run("flying"), queued], asked_at=at(9100))
    before = versions(stage)
    took(stage, 50, first=5)
    after = versions(stage)
    assert after["flying"] > before["flying"]
    assert after["queued"] == before["queued"]


def test_what_people_say_is_no_news_when_something_else_is_learned(stage: Stage) -> None:
    took(stage, 5)
    StageTiming.objects.update(said_median=900)
    mirror.runs(stage.pk, [api_run("flying")], asked_at=at(9100))
    before = versions(stage)
    took(stage, 50, first=5)
    assert versions(stage) == before
