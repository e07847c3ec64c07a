"""What the rows promise: versions in the order of commits, one open abort a run, kept history."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import IntegrityError, connections, transaction
from django.db.models import ProtectedError
from django.db.transaction import TransactionManagementError

from dashboard.models import Abort, ChangeCounter, Pipeline, Project, Run, Stage
from dashboard.models.aborts import LEADS_TO, AbortState, What
from dashboard.models.runs import touch

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def stage(db: None) -> Stage:
    project = Project.objects.create(slug="shop", name="Shop", seen_at=T0)
    pipeline = Pipeline.objects.create(project=project, slug="checkout", seen_at=T0)
    return Stage.objects.create(pipeline=pipeline, name="Production", next_sync_at=T0)


def a_run(stage: Stage, run_id: str = "r1", **fields: Any) -> Run:
    said: dict[str, Any] = {
        "status": "running", "concluded": False, "in_flight": True, "created_at": T0,
        "first_seen_at": T0, "seen_at": T0, "status_since": T0, "version": ChangeCounter.reserve(1),
    }  # fmt: skip
    return Run.objects.create(stage=stage, run_id=run_id, **said | fields)


def an_abort(run: Run, **fields: Any) -> Abort:
    said = {"username": "m", "requested_at": T0, "claimed_at": T0}
    return Abort.objects.create(run=run, **said | fields)


def take(count: int) -> int:
    with transaction.atomic():
        return ChangeCounter.reserve(count)


def test_the_first_number_is_one(db: None) -> None:
    assert take(1) == 1


def test_numbers_are_not_given_twice(db: None) -> None:
    assert take(3) + 3 == take(1)


def test_before_the_first_change_the_latest_is_zero(db: None) -> None:
    assert ChangeCounter.latest() == 0


def test_the_latest_is_the_last_given(db: None) -> None:
    take(5)
    assert ChangeCounter.latest() == 5


def test_taking_no_number_changes_nothing(db: None) -> None:
    take(5)
    take(0)
    assert ChangeCounter.latest() == 5


def test_a_number_of_a_failed_transaction_is_given_again(transactional_db: None) -> None:
    take(1)

    def fail() -> None:
        with transaction.atomic():
            ChangeCounter.reserve(1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert take(1) == 2


def test_a_number_is_taken_where_it_is_written(transactional_db: None) -> None:
    # Outside a transaction the number would be there to read before the row that it is given to.
    with pytest.raises(TransactionManagementError):
        ChangeCounter.reserve(1)


def test_versions_become_visible_in_their_order(transactional_db: None) -> None:
    # A reader that has seen a number must never find a smaller one later.
    take(1)
    visible: list[int] = []
    holds, waits = threading.Event(), threading.Event()

    def first(_: object) -> None:
        try:
            with transaction.atomic():
                number = ChangeCounter.reserve(1)
                holds.set()
                waits.wait(0.2)  # the second one is at the lock by then
                visible.append(number)
        finally:
            connections.close_all()

    def second(_: object) -> None:
        try:
            holds.wait(5)
            with transaction.atomic():
                visible.append(ChangeCounter.reserve(1))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda work: work(None), [first, second]))
    assert visible == [2, 3]


def test_many_writers_get_numbers_of_their_own(transactional_db: None) -> None:
    def take_one() -> int:
        with transaction.atomic():
            return ChangeCounter.reserve(1)

    def take(_: int) -> list[int]:
        try:
            return [take_one() for _ in range(10)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for taken in pool.map(take, range(4)) for number in taken]
    assert sorted(numbers) == list(range(1, 41))


def test_touching_gives_each_run_a_new_version(stage: Stage) -> None:
    one, two = a_run(stage, "r1"), a_run(stage, "r2")
    touch([one.pk, two.pk])
    assert set(Run.objects.values_list("version", flat=True)) == {3, 4}


def test_touching_writes_what_it_is_given(stage: Stage) -> None:
    run = a_run(stage)
    touch([run.pk], next_read_at=at(5))
    assert Run.objects.get().next_read_at == at(5)


def test_touching_nothing_takes_no_number(stage: Stage) -> None:
    touch([])
    assert ChangeCounter.latest() == 0


def test_touching_a_run_twice_gives_it_one_version(stage: Stage) -> None:
    run = a_run(stage)
    touch([run.pk, run.pk])
    assert ChangeCounter.latest() == 2


def test_a_stage_holds_a_run_once(stage: Stage) -> None:
    a_run(stage)
    with pytest.raises(IntegrityError), transaction.atomic():
        a_run(stage)


def test_a_run_has_one_open_abort(stage: Stage) -> None:
    run = a_run(stage)
    an_abort(run)
    with pytest.raises(IntegrityError), transaction.atomic():
        an_abort(run)


def test_a_run_may_have_many_settled_aborts(stage: Stage) -> None:
    run = a_run(stage)
    for _ in range(3):
        an_abort(run, settled_at=at(1))
    assert run.aborts.count() == 3


def test_a_run_with_an_abort_is_not_deleted(stage: Stage) -> None:
    run = a_run(stage)
    an_abort(run)
    with pytest.raises(ProtectedError):
        run.delete()


def test_a_project_with_an_abort_is_not_deleted(stage: Stage) -> None:
    an_abort(a_run(stage))
    with pytest.raises(ProtectedError):
        Project.objects.get().delete()


def test_an_abort_outlives_its_author(stage: Stage) -> None:
    user = User.objects.create_user("manager")
    an_abort(a_run(stage), user=user, username="manager")
    user.delete()
    assert Abort.objects.get().username == "manager"


def hear(run: Run, status: str, *, concluded: bool) -> Abort:
    Abort.objects.all().hear(run.pk, status, concluded=concluded, at=at(9))
    return Abort.objects.get()


def trail(abort: Abort) -> list[tuple[str, str]]:
    return list(abort.events.values_list("what", "detail"))


def test_an_accepted_abort_is_concluded_with_its_run(stage: Stage) -> None:
    run = a_run(stage)
    an_abort(run, state="accepted")
    abort = hear(run, "aborted", concluded=True)
    assert (abort.state, abort.outcome, abort.settled_at) == ("concluded", "aborted", at(9))
    assert trail(abort) == [("concluded", "aborted")]


def test_an_abort_that_is_being_sent_is_not_concluded_by_others(stage: Stage) -> None:
    run = a_run(stage)
    an_abort(run)
    abort = hear(run, "aborted", concluded=True)
    assert (abort.state, abort.settled_at) == ("requested", None)


def test_a_settled_abort_is_not_concluded_again(stage: Stage) -> None:
    run = a_run(stage)
    an_abort(run, state="refused", settled_at=at(1))
    abort = hear(run, "aborted", concluded=True)
    assert (abort.state, abort.settled_at) == ("refused", at(1))
    assert trail(abort) == []


def test_a_run_that_becomes_something_else_after_its_abort_is_on_its_trail(stage: Stage) -> None:
    run = a_run(stage)
    an_abort(run, state="concluded", outcome="aborted", settled_at=at(1))
    abort = hear(run, "success", concluded=True)
    assert (abort.state, abort.outcome) == ("concluded", "aborted")
    assert trail(abort) == [("turned", "success")]


def test_an_abort_in_doubt_is_accepted_once_its_run_aborts(stage: Stage) -> None:
    run = a_run(stage)
    an_abort(run, state="unknown")
    abort = hear(run, "aborting", concluded=False)
    assert abort.state == "accepted"
    assert trail(abort) == [("aborting", "")]


def test_of_two_moves_the_first_wins(stage: Stage) -> None:
    an_abort(a_run(stage))
    one, other = Abort.objects.get(), Abort.objects.get()
    assert one.move(AbortState.REFUSED, What.REFUSED, at(1), settled_at=at(1))
    assert not other.move(AbortState.ACCEPTED, What.ACCEPTED, at(2))
    assert trail(one) == [("refused", "")]


@pytest.mark.parametrize("state", AbortState)
def test_an_act_goes_where_its_state_leads_and_nowhere_else(
    stage: Stage, state: AbortState
) -> None:
    for number, to in enumerate(AbortState):
        abort = an_abort(a_run(stage, f"{state}-{number}"), state=state)
        assert abort.move(to, What.SENT, at(1)) == (to in LEADS_TO.get(state, ()))


@pytest.mark.parametrize("claimed", [-11, 11])  # set back, a clock leaves claims in the future
def test_an_abort_whose_process_died_is_stranded(stage: Stage, claimed: float) -> None:
    an_abort(a_run(stage), claimed_at=at(claimed))
    assert Abort.objects.all().stranded(T0, timedelta(seconds=10)).count() == 1


@pytest.mark.parametrize("claimed", [-10, 10])
def test_an_abort_that_is_being_sent_is_not_stranded(stage: Stage, claimed: float) -> None:
    an_abort(a_run(stage), claimed_at=at(claimed))
    assert Abort.objects.all().stranded(T0, timedelta(seconds=10)).count() == 0


def test_runs_in_flight_come_first(stage: Stage) -> None:
    a_run(stage, "old", created_at=at(-100))
    a_run(stage, "ended", in_flight=False, concluded=True)
    a_run(stage, "new", created_at=at(-50))
    order = [run.run_id for run in Run.objects.all().newest_first()]
    assert order == ["new", "old", "ended"]


def test_runs_of_one_moment_have_an_order(stage: Stage) -> None:
    for number in range(5):
        a_run(stage, f"r{number}")
    assert [run.run_id for run in Run.objects.all().newest_first()] == [
        "r4",
        "r3",
        "r2",
        "r1",
        "r0",
    ]


def test_the_most_overdue_stage_is_first(stage: Stage) -> None:
    later = Stage.objects.create(pipeline=stage.pipeline, name="Staging", next_sync_at=at(-9))
    assert list(Stage.objects.due(T0)) == [later, stage]


def test_a_stage_somebody_reads_is_not_due(stage: Stage) -> None:
    Stage.objects.update(claimed_until=at(9))
    assert not Stage.objects.due(T0).exists()


def test_a_stage_of_a_gone_project_is_not_present(stage: Stage) -> None:
    Project.objects.update(gone_at=T0)
    assert not Stage.objects.present().exists()


def test_a_run_is_called_by_its_name(stage: Stage) -> None:
    assert a_run(stage, name="Nightly").title == "Nightly"


def test_a_run_without_name_is_called_by_its_id(stage: Stage) -> None:
    assert a_run(stage).title == "r1"


def test_a_run_and_its_place_are_one_query(stage: Stage, django_assert_num_queries: Any) -> None:
    a_run(stage)
    with django_assert_num_queries(1):
        assert Run.objects.with_place().get().stage.pipeline.project.slug == "shop"


def test_no_migration_is_missing(db: None) -> None:
    said = StringIO()
    call_command("makemigrations", dry_run=True, stdout=said)
    assert said.getvalue() == "No changes detected\n"


def test_the_longest_id_fits(stage: Stage) -> None:
    assert a_run(stage, "x" * 255).run_id == "x" * 255
