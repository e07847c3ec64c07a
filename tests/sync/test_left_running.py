"""What aborts may have left running is read: few times, then while somebody waits for it."""

import contextlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.db import threads as db_threads
from dashboard.models import Run, Work
from dashboard.northflank import NorthflankError
from dashboard.sync import due, left_running, watchers
from dashboard.upstream.connection import Connection
from tests.support import factories
from tests.support.abort_answers import error_response, job_run_response, run_with_answers

pytestmark = pytest.mark.django_db


def aborting_run(*work_ids: str | None, status: str = "aborting") -> Run:
    steps = factories.steps_naming(*work_ids)
    return factories.run(factories.stage(), status=status, steps=steps)


def due_ids() -> list[str]:
    return [work.work_id for work in due.find_works(db_threads.now(), 99)]


def test_each_that_the_steps_of_an_aborted_run_name_is_read_once(manager: User) -> None:
    run = aborting_run("j1", None, "j2", "j2")
    left_running.schedule_named(run)
    assert sorted(due_ids()) == ["j1", "j2"]
    Work.objects.update(next_sync_at=None, synced_at=timezone.now())
    left_running.schedule_named(run)
    assert due_ids() == []


@pytest.mark.parametrize("status", ["running", "success", "failure"])
def test_nothing_is_read_for_a_run_that_was_not_aborted(status: str) -> None:
    left_running.schedule_named(aborting_run("j1", status=status))
    assert not Work.objects.exists()


def test_run_that_an_abort_did_not_stop_may_have_left_something_running(manager: User) -> None:
    run = aborting_run("j1", status="failure")
    factories.abort(run, manager, "concluded", response_status=200, outcome="failure")
    left_running.schedule_named(run)
    assert due_ids() == ["j1"]


def test_nothing_is_read_for_an_abort_of_long_ago() -> None:
    run = aborting_run("j1", status="aborted")
    factories.change(run, concluded_at=timezone.now() - timedelta(days=2))
    left_running.schedule_named(Run.objects.get())
    assert not Work.objects.exists()


def test_those_of_the_latest_steps_are_read_if_there_are_many() -> None:
    left_running.schedule_named(aborting_run(*(f"j{n}" for n in range(30))))
    assert sorted(due_ids()) == sorted(f"j{n}" for n in range(10, 30))


def test_what_was_found_by_its_time_is_read_once_its_step_names_it() -> None:
    run = aborting_run("j1")
    factories.work(run, is_probable=True)
    left_running.schedule_named(run)
    assert due_ids() == ["j1"]
    assert not Work.objects.get().is_probable


def test_what_still_runs_is_read_again_once_the_run_has_ended() -> None:
    run = aborting_run("j1", "j2")
    for work_id, concluded in (("j1", False), ("j2", True)):
        earlier = timezone.now() - timedelta(seconds=5)
        factories.work(run, work_id=work_id, concluded=concluded, synced_at=earlier)
    factories.change(run, status="aborted", status_since=timezone.now())
    run.refresh_from_db()
    left_running.schedule_named(run)
    assert due_ids() == ["j1"]


@pytest.mark.parametrize(("status", "ids"), [("aborted", ["j1"]), ("running", [])])
def test_what_still_runs_is_read_again_when_somebody_looks(status: str, ids: list[str]) -> None:
    run = aborting_run("j1", status=status)
    factories.work(run, synced_at=timezone.now() - timedelta(seconds=40))
    watchers.watch_run(run, timezone.now())
    assert due_ids() == ids


def seconds_until_next(work: Work) -> float | None:
    """How long after its read a job run is read again."""
    left_running.schedule_next(work, has_failed=False)
    next_at = Work.objects.get(pk=work.pk).next_sync_at
    return None if next_at is None else round((next_at - db_threads.now()).total_seconds())


def test_it_is_not_read_again_while_nobody_waits_for_it() -> None:
    work = factories.work(aborting_run("j1"), next_sync_at=timezone.now())
    assert seconds_until_next(work) is None


def test_all_that_somebody_looks_at_share_the_requests_of_one() -> None:
    run = aborting_run("j1")
    Run.objects.update(last_viewed_at=timezone.now())
    works = [factories.work(run, work_id=f"j{n}", next_sync_at=timezone.now()) for n in range(4)]
    assert seconds_until_next(works[0]) == 4 * 30


def test_it_is_read_often_while_its_abort_is_open(manager: User) -> None:
    run = aborting_run("j1")
    work = factories.work(run, next_sync_at=timezone.now())
    factories.abort(run, manager, work=work)
    assert seconds_until_next(work) == 2
    assert [found.pk for found in due.find_works(db_threads.now(), 9)] == []
    Work.objects.update(next_sync_at=timezone.now())
    other = factories.work(run, work_id="j2", next_sync_at=timezone.now())
    aborting = due.find_works(db_threads.now(), 9, aborting_only=True)
    assert [found.pk for found in aborting] == [work.pk] != [other.pk]


def test_what_has_ended_is_not_read_again() -> None:
    run = aborting_run("j1")
    Run.objects.update(last_viewed_at=timezone.now())
    work = factories.work(run, concluded=True, next_sync_at=timezone.now())
    assert seconds_until_next(work) is None


@pytest.mark.usefixtures("closing_connections")
@pytest.mark.parametrize(
    ("answer", "fields"),
    [
        (job_run_response("FAILED", concluded=True), {"concluded": True, "status": "FAILED"}),
        (error_response(404), {"is_removed": True}),
        (
            error_response(403),
            {"error": "The API token lacks the permission Jobs > General > Read."},
        ),
    ],
)
def test_read_stores_how_it_stands_or_why_that_is_unknown(
    answer: tuple[int, Any], fields: dict[str, Any]
) -> None:
    run = aborting_run("j1")
    work = factories.work(run)
    version = Run.objects.get().version
    read_again(run, work, lambda _request: httpx.Response(answer[0], json=answer[1]))
    row = Work.objects.get()
    found = {"concluded": row.concluded, "status": row.status, "error": row.error}
    found["is_removed"] = row.removed_at is not None
    expected = {"concluded": False, "status": "RUNNING", "error": "", "is_removed": False}
    assert found == expected | fields
    assert row.in_flight is not (row.concluded or found["is_removed"])
    assert Run.objects.get().version > version  # open pages show it


def read_again(run: Run, work: Work, answer: Callable[[httpx.Request], httpx.Response]) -> None:
    async def read(connection: Connection) -> None:
        with contextlib.suppress(NorthflankError):
            await left_running.read_again(connection, run, work)

    run_with_answers(answer, read)
