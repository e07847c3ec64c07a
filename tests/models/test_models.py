"""Guarantees of the models: versions in commit order, one open abort per run, kept history."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext

from dashboard.models import (
    Abort,
    ChangeCounter,
    DefaultView,
    Dismissal,
    Grant,
    Pipeline,
    Project,
    ReadRequest,
    Run,
    SavedView,
    SearchText,
    Stage,
    Star,
)
from dashboard.models.abort_lifecycle import EFFECTS, TRANSITIONS, AbortState, EventType
from dashboard.models.runs import mark_changed
from tests.support.live_runs import wait_until
from tests.support.parallel import is_anybody_waiting

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@pytest.fixture
def stage(db: None) -> Stage:
    project = Project.objects.create(slug="shop", name="Shop", synced_at=T0)
    pipeline = Pipeline.objects.create(project=project, slug="checkout", synced_at=T0)
    return Stage.objects.create(pipeline=pipeline, name="Production", next_sync_at=T0)


def create_run(stage: Stage, run_id: str = "r1", **fields: Any) -> Run:
    defaults: dict[str, Any] = {
        "status": "running",
        "concluded": False,
        "in_flight": True,
        "created_at": T0,
        "first_synced_at": T0,
        "synced_at": T0,
        "status_since": T0,
        "version": ChangeCounter.take(1),
    }
    return Run.objects.create(stage=stage, run_id=run_id, **defaults | fields)


def create_abort(run: Run, **fields: Any) -> Abort:
    defaults = {"username": "m", "requested_at": T0, "claimed_at": T0}
    return Abort.objects.create(run=run, **defaults | fields)


def take_versions(count: int) -> int:
    with transaction.atomic():
        return ChangeCounter.take(count)


def test_change_counter_gives_distinct_ranges(db: None) -> None:
    assert take_versions(3) + 3 == take_versions(1)


def lock_counter() -> None:
    with transaction.atomic():
        ChangeCounter.lock()


def test_locked_change_counter_gives_no_number(db: None) -> None:
    lock_counter()  # before the first change of all
    assert ChangeCounter.latest() == 0
    take_versions(5)
    lock_counter()
    assert ChangeCounter.latest() == 5


def count_notifications(write: Callable[[], object]) -> int:
    """Return how many notifications a transaction sends: PostgreSQL by a query, SQLite after it."""
    with CaptureQueriesContext(connection) as context, transaction.atomic():
        write()
        after = len(connection.run_on_commit)
    return after + sum("pg_notify" in query["sql"] for query in context)


def test_change_counter_notifies_of_changes_but_not_of_a_lock(transactional_db: None) -> None:
    counts = [count_notifications(lambda: take_versions(1)), count_notifications(lock_counter)]
    assert counts == [1, 0]


def test_change_counter_reuses_number_after_rollback(transactional_db: None) -> None:
    take_versions(1)

    def fail() -> None:
        with transaction.atomic():
            ChangeCounter.take(1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert take_versions(1) == 2


@pytest.mark.parametrize("use", [ChangeCounter.lock, lambda: ChangeCounter.take(1)])
def test_change_counter_outside_transaction_raises_error(
    transactional_db: None, use: Callable[[], object]
) -> None:
    # Outside a transaction the number would be visible before its row, and the lock hold nobody.
    with pytest.raises(TransactionManagementError):
        use()


def run_in_turn(first: Callable[[], object], second: Callable[[], object]) -> list[object]:
    """Run `first` in a transaction, and `second` in one of another thread while that is open.

    Return their results in the order of their writes.
    """
    results: list[object] = []

    def write_second() -> None:
        try:
            with transaction.atomic():
                results.append(second())
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            result = first()
            writing = pool.submit(write_second)
            if connection.vendor == "postgresql":
                wait_until(lambda: writing.done() or is_anybody_waiting())
            else:  # SQLite does not say who waits; if this is too short, it hides a defect
                wait([writing], timeout=0.2)
            results.append(result)
        writing.result()
    return results


def test_versions_become_visible_in_order_of_commits(transactional_db: None) -> None:
    # A reader that has seen a number must never find a smaller one later.
    take_versions(1)
    assert run_in_turn(lambda: ChangeCounter.take(1), lambda: ChangeCounter.take(1)) == [2, 3]


def test_locked_change_counter_makes_other_writers_wait(transactional_db: None) -> None:
    take_versions(1)

    def lock() -> str:
        ChangeCounter.lock()
        return "locked"

    assert run_in_turn(lock, lambda: ChangeCounter.take(1)) == ["locked", 2]
    assert run_in_turn(lambda: ChangeCounter.take(1), lock) == [3, "locked"]


def test_change_counter_with_concurrent_writers_gives_distinct_numbers(
    transactional_db: None,
) -> None:
    def take_one() -> int:
        with transaction.atomic():
            return ChangeCounter.take(1)

    def take_ten(_: int) -> list[int]:
        try:
            return [take_one() for _ in range(10)]
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        numbers = [number for taken in pool.map(take_ten, range(4)) for number in taken]
    assert sorted(numbers) == list(range(1, 41))


def test_mark_changed_gives_each_run_a_new_version(stage: Stage) -> None:
    first, second = create_run(stage, "r1"), create_run(stage, "r2")
    mark_changed([first.pk, second.pk])
    assert set(Run.objects.values_list("version", flat=True)) == {3, 4}


def test_mark_changed_writes_given_fields(stage: Stage) -> None:
    run = create_run(stage)
    mark_changed([run.pk], next_detail_sync_at=at(5))
    assert Run.objects.get().next_detail_sync_at == at(5)


def test_mark_changed_without_runs_takes_no_version(stage: Stage) -> None:
    mark_changed([])
    assert ChangeCounter.latest() == 0


def test_run_id_is_unique_in_stage(stage: Stage) -> None:
    create_run(stage)
    with pytest.raises(IntegrityError), transaction.atomic():
        create_run(stage)


def test_run_has_at_most_one_open_abort(stage: Stage) -> None:
    run = create_run(stage)
    create_abort(run)
    with pytest.raises(IntegrityError), transaction.atomic():
        create_abort(run)


def test_run_may_have_many_settled_aborts(stage: Stage) -> None:
    run = create_run(stage)
    for _ in range(3):
        create_abort(run, settled_at=at(1))
    assert run.aborts.count() == 3


def apply_status(run: Run, status: str, *, concluded: bool) -> Abort:
    Abort.objects.latest("pk").apply_run_status(status, concluded=concluded, at=at(9))
    return Abort.objects.get()


def timeline(abort: Abort) -> list[tuple[str, str]]:
    return list(abort.events.values_list("event_type", "detail"))


def test_requested_abort_of_concluded_run_stays_open(stage: Stage) -> None:
    run = create_run(stage)
    create_abort(run)
    abort = apply_status(run, "aborted", concluded=True)
    assert (abort.state, abort.settled_at) == ("requested", None)


def test_concurrent_state_changes_apply_only_the_first(stage: Stage) -> None:
    create_abort(create_run(stage))
    first, second = Abort.objects.get(), Abort.objects.get()
    assert first.apply(EventType.REFUSED, at(1))
    assert not second.apply(EventType.ACCEPTED, at(2))
    assert timeline(first) == [("refused", "")]


@pytest.mark.parametrize("state", AbortState)
def test_abort_allows_only_defined_state_changes(stage: Stage, state: AbortState) -> None:
    for number, (event_type, effect) in enumerate(EFFECTS.items()):
        abort = create_abort(create_run(stage, f"{state}-{number}"), state=state)
        is_allowed = effect.to_state in TRANSITIONS.get(state, ())
        assert abort.apply(event_type, at(1)) == is_allowed
        abort.refresh_from_db()
        assert abort.state == (effect.to_state if is_allowed else state)
        assert abort.settled_at == (at(1) if is_allowed and effect.settles else None)


@pytest.mark.parametrize("claimed", [-11, 11])  # set back, a clock leaves claims in the future
def test_unsent_abort_with_expired_lease_is_found(stage: Stage, claimed: float) -> None:
    create_abort(create_run(stage), claimed_at=at(claimed))
    assert Abort.objects.all().unanswered_expired(T0, timedelta(seconds=10)).count() == 1


@pytest.mark.parametrize("claimed", [-10, 10])
def test_unsent_abort_with_valid_lease_is_not_found(stage: Stage, claimed: float) -> None:
    create_abort(create_run(stage), claimed_at=at(claimed))
    assert Abort.objects.all().unanswered_expired(T0, timedelta(seconds=10)).count() == 0


def test_runs_are_ordered_with_in_flight_first(stage: Stage) -> None:
    create_run(stage, "old", created_at=at(-100))
    create_run(stage, "ended", in_flight=False, concluded=True)
    create_run(stage, "new", created_at=at(-50))
    order = [run.run_id for run in Run.objects.all().newest_first()]
    assert order == ["new", "old", "ended"]


def test_due_stages_are_ordered_by_due_time(stage: Stage) -> None:
    later = Stage.objects.create(pipeline=stage.pipeline, name="Staging", next_sync_at=at(-9))
    assert list(Stage.objects.due(T0)) == [later, stage]


def test_stage_of_removed_project_is_not_present(stage: Stage) -> None:
    Project.objects.update(removed_at=T0)
    assert not Stage.objects.listed().exists()


CONCLUDED = {"status": "failure", "concluded": True, "in_flight": False}
DISMISSED = {"status": "running", "concluded": False, "in_flight": False}


@pytest.mark.parametrize(
    ("fields", "ended_at"),
    [
        ({}, None),
        ({"updated_at": at(9), "removed_at": at(9)}, None),
        (CONCLUDED | {"concluded_at": at(5), "updated_at": at(9), "removed_at": at(20)}, at(5)),
        (CONCLUDED | {"updated_at": at(9), "removed_at": at(20)}, at(9)),
        (CONCLUDED | {"removed_at": at(20)}, T0),
        (DISMISSED | {"updated_at": at(9), "removed_at": at(20)}, at(20)),
        (DISMISSED | {"updated_at": at(9)}, T0),
    ],
)
def test_run_end_is_its_earliest_known_time_after_it_concluded(
    stage: Stage, fields: dict[str, Any], ended_at: datetime | None
) -> None:
    run = create_run(stage, **fields)
    assert run.ended_at == ended_at
    Run.objects.filter(pk=run.pk).update(concluded_at=at(30))
    run.refresh_from_db()
    assert run.ended_at == (at(30) if run.concluded else ended_at)


def test_run_id_of_255_characters_is_stored(stage: Stage) -> None:
    assert create_run(stage, "x" * 255).run_id == "x" * 255


def test_runs_without_steps_are_found(stage: Stage) -> None:
    create_run(stage, "r1", steps={"kind": "Workflow"})
    create_run(stage, "r2")
    assert Run.objects.get(steps=None).run_id == "r2"
    assert Run.objects.get(steps__isnull=False).run_id == "r1"


def test_records_have_a_text_for_logs_and_the_shell(stage: Stage) -> None:
    view = SavedView(name="Nightly")
    records = [
        (Grant(action="abort"), "all signed-in users: abort all projects / all stages"),
        (
            Dismissal(username="ada", run_id=1, dismissed_at=T0),
            "ada dismissed 1 at 2026-03-02 08:00:00",
        ),
        (ReadRequest(kind="search", run_id="r-1"), "search r-1"),
        (SearchText(text="nightly"), "nightly"),
        (Star(pipeline=stage.pipeline), "checkout"),
        (view, "Nightly"),
        (DefaultView(view=view), "Nightly"),
    ]
    assert [str(record) for record, _ in records] == [text for _, text in records]
