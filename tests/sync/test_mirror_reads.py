"""What one read of a run changes, and when the next one is due."""

from datetime import datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from dashboard.models import Abort, ChangeCounter, RequestCounter, Run, Stage
from dashboard.northflank import Run as ApiRun
from dashboard.northflank import Unreachable
from dashboard.runs import abort_clock, dismissals
from dashboard.sync import mirror, missing_runs, watchers
from dashboard.sync.missing_runs import MAX_FAILURES
from tests.support import factories
from tests.support.factories import node
from tests.support.world import (
    ENDED,
    FAILED,
    LONG_AGO,
    T0,
    LoggedEvents,
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
    stage: Stage, logged_events: LoggedEvents
) -> None:
    mirror_list(stage, api_run())
    for _ in range(2):
        missing_runs.back_off(get_run().pk, SLOW, at(1))
    for seconds in (2, 3):
        mirror.apply_detail(stage.pk, detail(), **request_fields(seconds))
    [failure] = logged_events("run.read_failed")
    expected = {"run": "r1", "cause": "timeout", "message": "It took too long."}
    assert failure.items() >= expected.items()
    assert [event["run"] for event in logged_events("run.recovered")] == ["r1"]


# --- details that cannot be read -----------------------------------------------------------------


def tries_in_a_row(*, last_viewed_at: datetime | None = None, times: int = 7) -> list[float]:
    """The seconds between failing reads of the run, each made when the one before said so."""
    moment, waits = at(10), []
    for _ in range(times):
        if last_viewed_at is not None:
            Run.objects.update(last_viewed_at=moment)
        missing_runs.back_off(get_run().pk, SLOW, moment)
        due_at = get_run().next_detail_sync_at
        if due_at is None:
            break
        waits.append((due_at - moment).total_seconds())
        moment = due_at
    return waits


def test_ended_run_that_cannot_be_read_is_given_up(stage: Stage) -> None:
    """It was tried every few minutes until it was pruned, and used up half of all reads."""
    mirror_list(stage, api_run(**FAILED))
    waits = tries_in_a_row(times=MAX_FAILURES + 1)
    assert waits == [10, 20, 40, *[60] * (MAX_FAILURES - 3)]
    assert get_run().next_detail_sync_at is None


def test_run_of_a_reappeared_project_is_tried_until_it_can_be_read(stage: Stage) -> None:
    """It may be in flight, and nothing else would have it read again."""
    mirror_list(stage, api_run())
    missing_runs.stop_tracking(Run.objects.all(), at(1))
    Run.objects.update(failures=9)
    missing_runs.schedule_reread(Stage.objects.all(), at(2))
    assert tries_in_a_row() == [20, 40, 60, 60, 60, 60, 60]


@pytest.mark.parametrize(
    ("due_after", "viewed_after", "expected"),
    [
        (2400, 20, 106),
        (2400, 95, 2400),  # in the backoff of somebody who views it
        (100, 20, 100),  # it is due, or being read
    ],
)
def test_ended_run_in_its_backoff_is_read_once_somebody_opens_it(
    stage: Stage, due_after: float, viewed_after: float, expected: float
) -> None:
    """Its page said for up to an hour that the steps could not be read."""
    mirror_list(stage, api_run(**FAILED))
    Run.objects.update(
        failures=4, next_detail_sync_at=at(due_after), last_viewed_at=at(viewed_after)
    )
    watchers.watch_run(get_run(), at(106))
    assert get_run().next_detail_sync_at == at(expected)


def test_run_in_flight_that_cannot_be_read_is_tried_again_and_again(stage: Stage) -> None:
    mirror_list(stage, api_run())
    assert tries_in_a_row() == [10, 20, 40, 60, 60, 60, 60]


def test_ended_run_that_somebody_views_is_tried_again_and_again(stage: Stage) -> None:
    mirror_list(stage, api_run(**FAILED))
    assert tries_in_a_row(last_viewed_at=at(10)) == [10, 20, 40, 60, 60, 60, 60]


@pytest.mark.parametrize("fields", [{}, {"detail_synced_at": at(4)}, {"detail_synced_at": at(6)}])
def test_ended_run_that_was_given_up_is_read_again_once_somebody_opens_it(
    stage: Stage, fields: dict[str, Any]
) -> None:
    mirror_list(stage, api_run(**FAILED))
    given_up = {"failures": MAX_FAILURES, "next_detail_sync_at": None}
    Run.objects.update(**given_up, last_viewed_at=at(20), **fields)
    watchers.watch_run(get_run(), at(100))
    assert get_run().next_detail_sync_at == at(100)
    missing_runs.back_off(get_run().pk, SLOW, at(101))
    assert get_run().next_detail_sync_at == at(161)  # while it is viewed
    missing_runs.back_off(get_run().pk, SLOW, at(170))
    assert get_run().next_detail_sync_at is None


def test_failures_of_a_run_in_flight_do_not_count_once_it_has_ended(
    stage: Stage, logged_events: LoggedEvents
) -> None:
    mirror_list(stage, api_run(), api_run("other"))
    Run.objects.update(failures=2)
    Run.objects.filter(run_id="r1").update(last_viewed_at=LONG_AGO)
    mirror_list(stage, api_run(**FAILED), requested_at=9)
    assert (get_run().failures, get_run("other").failures) == (1, 2)
    assert logged_events("run.recovered") == []
    assert tries_in_a_row(times=MAX_FAILURES) == [20, 40, *[60] * (MAX_FAILURES - 3)]


@pytest.mark.parametrize(
    ("fields", "status", "due_at"),
    [
        ({"detail_synced_at": T0}, "approval_wait", at(9)),
        ({"detail_synced_at": T0}, "retrying", at(60)),  # at most once a minute
        ({"detail_synced_at": at(-60)}, "retrying", at(9)),
        ({"detail_synced_at": T0}, "running", None),  # as before
        ({"detail_synced_at": None}, "approval_wait", None),  # nobody has looked at it
        ({"detail_synced_at": T0, "next_detail_sync_at": at(5)}, "approval_wait", at(5)),
        ({"detail_synced_at": T0, "next_detail_sync_at": at(60)}, "approval_wait", at(9)),
        (
            {"detail_synced_at": T0, "next_detail_sync_at": at(60), "failures": 1},
            "approval_wait",
            at(60),  # backed off
        ),
    ],
)
def test_known_steps_are_read_again_once_the_status_has_changed(
    stage: Stage, fields: dict[str, Any], status: str, due_at: datetime | None
) -> None:
    mirror_list(stage, api_run(status="running"))
    Run.objects.update(**fields)
    mirror_list(stage, api_run(status=status, name="Release 2"), requested_at=9)
    assert get_run().next_detail_sync_at == due_at


# --- lists and details that overtake each other --------------------------------------------------


def test_detail_of_ended_run_returns_its_end(stage: Stage) -> None:
    mirror_list(stage, api_run())
    run = mirror.apply_detail(stage.pk, detail(**ENDED), **request_fields(9))
    assert run.ended_at == get_run().ended_at == ENDED["concluded_at"]


@pytest.mark.parametrize(("status", "is_kept"), [("approval_wait", True), ("running", False)])
def test_wait_for_approval_begins_anew_with_another_status(
    stage: Stage, status: str, is_kept: bool
) -> None:
    mirror_list(stage, api_run(status="approval_wait"))
    Run.objects.update(approval_since=at(1))
    mirror_list(stage, api_run(status=status, name="Renamed"), requested_at=9)
    assert get_run().approval_since == (at(1) if is_kept else None)


def test_reads_that_change_nothing_take_no_version(stage: Stage) -> None:
    mirror.apply_detail(stage.pk, detail(), **request_fields(1))
    mirror_list(stage, api_run("r2"))
    missing_runs.mark_removed(get_run("r2").pk, **request_fields(2))
    before = ChangeCounter.latest()
    mirror.apply_detail(stage.pk, detail(), **request_fields(3))
    missing_runs.mark_removed(get_run("r2").pk, **request_fields(4))
    missing_runs.mark_removed(get_run("r2").pk, requested_at=at(5))
    assert ChangeCounter.latest() == before
    mirror.apply_detail(stage.pk, detail(steps=node(label="new")), **request_fields(6))
    assert get_run().version == ChangeCounter.latest() == before + 1


# --- answers to aborts ---------------------------------------------------------------------------

ABORTED = {"status": "aborted", "concluded": True, "concluded_at": at(6)}


def answer(abort: Abort, request_seq: int, *, is_latest: bool = True, **fields: Any) -> Run:
    """Mirror the run in an answer to an abort that was sent with a request's number."""
    with transaction.atomic():
        return mirror.apply_abort_response(
            abort,
            detail(**fields),
            responded_at=at(9),
            request_seq=request_seq,
            version=ChangeCounter.take(1),
            is_latest=is_latest,
        )


def mirror_next(stage: Stage, run: ApiRun) -> None:
    """Mirror a list that is requested after all requests that have a number by now."""
    mirror.apply_runs(stage.pk, [run], requested_at=at(8))


def test_answer_gives_its_run_the_version_of_its_abort(stage: Stage, manager: User) -> None:
    mirror_next(stage, api_run())
    abort, sent = factories.abort(get_run(), manager), RequestCounter.take_next()
    before = ChangeCounter.latest()
    run = answer(abort, sent, status="aborting")
    assert run.version == get_run().version == ChangeCounter.latest() == before + 1


def test_abort_answer_counts_as_newer_than_a_read_of_the_run_in_flight(
    stage: Stage, manager: User
) -> None:
    mirror_next(stage, api_run())
    abort, sent = factories.abort(get_run(), manager), RequestCounter.take_next()
    mirror_next(stage, api_run(status="waiting"))
    read_before_answer = RequestCounter.take_next()
    assert answer(abort, sent, status="aborting").status == "aborting"
    mirror.apply_runs(
        stage.pk, [api_run(status="waiting")], requested_at=at(8), request_seq=read_before_answer
    )
    assert get_run().status == "aborting"


def test_abort_answer_counts_as_newer_than_an_earlier_read_of_the_ended_run(
    stage: Stage, manager: User
) -> None:
    mirror_next(stage, api_run(**ENDED))
    abort, sent = factories.abort(get_run(), manager), RequestCounter.take_next()
    read_before_answer = RequestCounter.take_next()
    answer(abort, sent, **ABORTED)
    mirror.apply_runs(
        stage.pk, [api_run(**ENDED)], requested_at=at(8), request_seq=read_before_answer
    )
    assert get_run().status == "aborted"


def test_abort_answer_does_not_undo_an_end_that_was_read_later(stage: Stage, manager: User) -> None:
    mirror_next(stage, api_run())
    abort, sent = factories.abort(get_run(), manager), RequestCounter.take_next()
    mirror_next(stage, api_run(**ABORTED))
    run = answer(abort, sent, status="aborting", steps=node(label="migrate"))
    assert (run.status, run.concluded) == ("aborted", True)
    assert (get_run().status, get_run().concluded) == ("aborted", True)
    assert get_run().steps["label"] == "migrate"


def test_abort_answer_older_than_the_final_read_still_marks_the_run_as_changed_and_due(
    stage: Stage, manager: User
) -> None:
    mirror_next(stage, api_run("other"))
    mirror_next(stage, api_run())
    abort, sent = factories.abort(get_run(), manager), RequestCounter.take_next()
    mirror.apply_detail(stage.pk, detail(steps=node(label="last"), **ABORTED), requested_at=at(8))
    answer(abort, sent, status="aborting", steps=node(label="migrate"))
    run = get_run()
    assert (run.status, run.steps["label"]) == ("aborted", "last")
    assert (run.version, run.next_detail_sync_at) == (ChangeCounter.latest(), at(9))
    assert get_run("other").next_detail_sync_at is None


def test_abort_answer_with_the_end_of_the_run_settles_the_abort_given(
    stage: Stage, manager: User
) -> None:
    mirror_next(stage, api_run())
    abort = factories.abort(get_run(), manager)
    answer(abort, RequestCounter.take_next(), **ABORTED)
    assert (abort.state, abort.outcome) == ("concluded", "aborted")  # as stored
    assert Abort.objects.get().state == "concluded"


def test_late_answer_to_an_earlier_abort_settles_the_latest_abort(
    stage: Stage, manager: User
) -> None:
    mirror_next(stage, api_run())
    earlier = factories.abort(get_run(), manager, "unknown", settled_at=at(1))
    factories.abort(get_run(), manager)
    answer(earlier, RequestCounter.take_next(), is_latest=False, **ABORTED)
    states = Abort.objects.order_by("pk").values_list("state", "outcome")
    assert list(states) == [("unknown", ""), ("concluded", "aborted")]


def test_run_that_an_abort_answer_has_ended_comes_with_its_stage(
    stage: Stage, manager: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    mirror_next(stage, api_run())
    factories.abort(get_run(), manager)
    abort = Abort.objects.select_related("run__stage__pipeline__project").get()
    run = answer(abort, RequestCounter.take_next(), **ABORTED)
    with django_assert_num_queries(0):  # as whoever awaits the answer may not query
        assert (run.stage.pipeline.project.slug, run.ended_at) == ("shop", at(6))


# --- when an abort began -------------------------------------------------------------------------


def test_abort_of_a_run_first_read_aborting_leaves_its_start_approximate(
    stage: Stage, manager: User
) -> None:
    mirror_next(stage, api_run(status="aborting", updated_at=None))
    abort = factories.abort(get_run(), manager, requested_at=at(9), already_aborting_since=at(8))
    answer(abort, RequestCounter.take_next(), status="aborting", name="Renamed", updated_at=None)
    assert get_run().name == "Renamed"
    assert abort_clock.northflank_start(get_run()).is_approximate


# --- what is due ----------------------------------------------------------------------------------


def test_runs_missing_from_a_list_without_a_number_are_due(stage: Stage) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(request_seq=0)
    missing_runs.schedule_unlisted(stage.pk, [], requested_at=at(20))
    assert get_run().next_detail_sync_at == at(20)


def test_runs_of_reappeared_stages_are_read_again(stage: Stage) -> None:
    mirror_list(stage, *(api_run(f"in flight {number}") for number in range(2)))
    mirror_list(stage, api_run("ended", **ENDED), api_run("no longer tracked"), api_run("other"))
    mirror_list(stage, api_run("ended and removed", **ENDED))
    mirror_list(factories.stage("Staging", parent=stage.pipeline), api_run("elsewhere"))
    runs = Run.objects.all()
    runs.filter(run_id="in flight 1").update(next_detail_sync_at=LONG_AGO)
    runs.filter(run_id="no longer tracked").update(in_flight=False, removed_at=at(1))
    runs.filter(run_id="ended and removed").update(removed_at=at(1))
    runs.filter(run_id="other").update(in_flight=False)
    missing_runs.schedule_reread(Stage.objects.filter(pk=stage.pk), at(20))
    assert dict(runs.values_list("run_id", "next_detail_sync_at")) == {
        "in flight 0": at(20), "in flight 1": LONG_AGO, "ended": None, "ended and removed": None,
        "no longer tracked": at(20), "other": None, "elsewhere": None,
    }  # fmt: skip


@pytest.mark.parametrize(("options", "due"), [({}, at(20)), ({"with_dismissed": False}, None)])
def test_dismissed_run_of_a_reappeared_stage_is_read_again_unless_left_out(
    stage: Stage, manager: User, options: dict[str, bool], due: datetime | None
) -> None:
    mirror_list(stage, api_run())
    Run.objects.update(removed_at=at(1))
    dismissals.dismiss(get_run(), manager)
    missing_runs.schedule_reread(Stage.objects.all(), at(20), **options)
    assert get_run().next_detail_sync_at == due


# --- runs that pruning has deleted ---------------------------------------------------------------


def test_only_unknown_runs_that_ended_before_pruning_are_left_out(stage: Stage) -> None:
    mirror_list(stage, api_run("known", **ENDED))
    Stage.objects.update(pruned_until=timezone.now())
    mirror_list(stage, api_run("known", **FAILED), api_run("pruned", **ENDED), requested_at=9)
    assert dict(Run.objects.values_list("run_id", "status")) == {"known": "failure"}


# --- overdue runs --------------------------------------------------------------------------------
