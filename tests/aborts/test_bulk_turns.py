"""What a bulk abort stores, turn by turn, without requests to Northflank."""

from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
import time_machine
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from structlog.testing import capture_logs

from dashboard.aborts import bulk_send, settle
from dashboard.aborts.bulk_request import request_bulk_abort, visible_runs
from dashboard.aborts.bulk_send import pause_end
from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.accounts import permissions
from dashboard.models import Abort, BulkAbort, ChangeCounter, Grant, Run
from dashboard.models.bulk_aborts import Via
from dashboard.northflank import RateLimit
from dashboard.runs import dismissals
from dashboard.upstream import budget_store
from tests.support import factories
from tests.support.rate_budget import record_response
from tests.support.world import T0, at


@pytest.fixture
def two_runs(manager: User) -> list[Run]:
    """Two runs in flight in a stage where an abort takes a reason."""
    return [factories.run(factories.stage(), run_id) for run_id in ("r1", "r2")]


REQUEST_FIELDS = {"reason": " Bad\n release ", "client_address": "192.0.2.7", "token_name": "ci"}


def create_bulk_abort(runs: list[Run], user: User, key: UUID | None = None) -> BulkAbort:
    """Request a bulk abort at T0, by an API token."""
    request = AbortRequest(user, via=Via.API, **REQUEST_FIELDS)
    with time_machine.travel(T0, tick=False):
        return request_bulk_abort([run.pk for run in runs], request, key or uuid4())


def take_turn_at(
    batch: BulkAbort, *, after: float = 1, is_delayed: bool = False
) -> bulk_send.TurnResult:
    """Process one turn `after` seconds after T0."""
    with time_machine.travel(at(after), tick=False):
        return bulk_send.process_next(batch.pk, is_delayed=is_delayed)


def items(batch: BulkAbort) -> list[tuple[Any, ...]]:
    return list(batch.items.values_list("run__run_id", "result", "abort", "note"))


def test_bulk_abort_request_stores_all_fields(two_runs: list[Run], manager: User) -> None:
    key = uuid4()
    with capture_logs() as logs:
        batch = create_bulk_abort(two_runs, manager, key)
    stored = BulkAbort.objects.values(
        "key", "user", "username", "reason", "client_address", "via", "token_name",
        "requested_at", "claimed_at", "settled_at",
    ).get()  # fmt: skip
    assert stored == {
        "key": key, "user": manager.pk, "username": "manager", "reason": "Bad release",
        "client_address": "192.0.2.7", "via": "api", "token_name": "ci",
        "requested_at": T0, "claimed_at": T0, "settled_at": None,
    }  # fmt: skip
    assert list(batch.items.values_list("position", flat=True)) == [1, 2]
    assert items(batch) == [("r1", "waiting", None, ""), ("r2", "waiting", None, "")]
    assert logs == [
        {
            "event": "abort.bulk_requested", "log_level": "info",
            "runs": 2, "by": "manager", "reason": "Bad release",
        }
    ]  # fmt: skip


def test_concurrent_bulk_abort_requests_with_same_key_store_one(
    two_runs: list[Run], manager: User
) -> None:
    key, has_written = uuid4(), False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_written
        result = run(sql, *rest)
        if sql.startswith("SELECT") and not has_written:
            has_written = True
            create_bulk_abort(
                two_runs[:1], manager, key
            )  # after the other's check that none exists
        return result

    with connection.execute_wrapper(execute):
        batch = create_bulk_abort(two_runs, manager, key)
    assert batch == BulkAbort.objects.get()
    assert batch.items.count() == 1


def test_turn_creates_abort_and_renews_lease(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch) == bulk_send.TurnResult(abort_pk=Abort.objects.get().pk)
    batch.refresh_from_db()
    abort = Abort.objects.get()
    assert items(batch) == [("r1", "abort", abort.pk, ""), ("r2", "waiting", None, "")]
    assert (batch.claimed_at, abort.requested_at, abort.bulk_abort) == (at(1), at(1), batch)
    assert (abort.username, abort.reason, abort.client_address) == (
        "manager",
        "Bad release",
        "192.0.2.7",
    )
    assert (abort.via, abort.token_name, abort.state) == ("api", "ci", "requested")


@pytest.mark.parametrize(("after", "run_id"), [(20, "queued"), (21, "running")])
def test_turn_is_that_of_a_run_in_progress_once_the_queue_has_taken_too_long(
    after: float, run_id: str, manager: User
) -> None:
    runs = [
        factories.run(factories.stage(), "running"),
        factories.run(factories.stage(), "queued", status="queued"),
    ]
    batch = create_bulk_abort(runs, manager)
    take_turn_at(batch, after=after)
    assert Abort.objects.get().run.run_id == run_id


def test_turn_waits_while_previous_abort_is_unanswered(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    take_turn_at(batch)
    change_number = ChangeCounter.objects.get().value
    assert take_turn_at(batch, after=2) == bulk_send.TurnResult(is_waiting=True)
    assert ChangeCounter.objects.get().value == change_number  # open pages have nothing to show
    batch.refresh_from_db()
    assert batch.claimed_at == at(2)
    Abort.objects.update(state="accepted")
    assert take_turn_at(batch, after=3).abort_pk == Abort.objects.latest("pk").pk


def test_bulk_abort_is_settled_after_last_turn(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs[:1], manager)
    take_turn_at(batch)
    assert take_turn_at(batch, after=2) == bulk_send.TurnResult(is_finished=True)
    batch.refresh_from_db()
    assert (batch.settled_at, batch.claimed_at) == (at(2), at(1))
    assert take_turn_at(batch, after=3) == bulk_send.TurnResult(is_finished=True)
    batch.refresh_from_db()
    assert batch.settled_at == at(2)


def not_sent_fields(after: float) -> tuple[Any, ...]:
    """Return what is stored of the latest abort; `after`: when it was not sent, from T0."""
    abort = Abort.objects.latest("pk")
    stored = abort.state, abort.response, abort.retry_at, abort.settled_at
    events = list(abort.events.values_list("event_type", "detail", "occurred_at"))[1:]
    assert events == [("not_sent", abort.response, at(after))]
    return stored


@pytest.mark.parametrize(("after", "is_delayed"), [(301, False), (300, True)])
def test_turn_without_pause_or_before_deadline_is_sent(
    two_runs: list[Run], manager: User, after: float, is_delayed: bool
) -> None:
    assert (
        take_turn_at(
            create_bulk_abort(two_runs, manager), after=after, is_delayed=is_delayed
        ).abort_pk
        is not None
    )


def test_turn_resumed_past_deadline_is_not_sent(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch, after=301, is_delayed=True) == bulk_send.TurnResult()
    expected = ("not_sent", "Sending timed out.", None, at(301))
    assert not_sent_fields(301) == expected
    batch.refresh_from_db()
    assert items(batch)[0] == ("r1", "abort", Abort.objects.get().pk, "")
    assert batch.claimed_at == T0  # the lease was not renewed


@pytest.mark.parametrize("reset_seconds", [1, 299])
def test_turn_waits_for_rate_limit_that_resets_before_deadline(
    two_runs: list[Run], manager: User, reset_seconds: float
) -> None:
    budget_store.record_rate_limited(reset_seconds, at(1))
    assert take_turn_at(create_bulk_abort(two_runs, manager)) == bulk_send.TurnResult(
        is_waiting=True
    )
    assert not Abort.objects.exists()


@pytest.mark.parametrize("is_refused", [True, False])
def test_turn_is_not_sent_when_rate_limit_pauses_it_past_deadline(
    two_runs: list[Run], manager: User, is_refused: bool
) -> None:
    if is_refused:
        budget_store.record_rate_limited(300, at(1))
    else:
        record_response(RateLimit(1000, 25, 300), at(1))  # the last quarter of the reserve
    assert take_turn_at(create_bulk_abort(two_runs, manager)) == bulk_send.TurnResult()
    message = (
        "Northflank’s rate limit is used up, or reserved for single aborts. "
        "Abort this run by itself."
    )
    assert not_sent_fields(1) == ("not_sent", message, None, at(1))


@pytest.mark.parametrize("next_read_after", [None, 600])
@pytest.mark.parametrize("stop", ["late", "rate_limited", "reserved"])
def test_run_whose_abort_is_not_sent_is_read_as_before(
    two_runs: list[Run], manager: User, stop: str, next_read_after: float | None
) -> None:
    next_read = None if next_read_after is None else at(next_read_after)
    Run.objects.update(next_detail_sync_at=next_read)
    batch = create_bulk_abort(two_runs, manager)
    if stop == "rate_limited":
        budget_store.record_rate_limited(300, at(1))
    elif stop == "reserved":
        record_response(RateLimit(1000, 25, 300), at(1))
    after = 301 if stop == "late" else 1
    assert take_turn_at(batch, after=after, is_delayed=True) == bulk_send.TurnResult()
    run = Run.objects.get(run_id="r1")
    assert run.next_detail_sync_at == next_read
    assert run.version == ChangeCounter.latest()


def test_run_whose_abort_is_sent_is_read_once_its_answer_is_overdue(
    two_runs: list[Run], manager: User
) -> None:
    take_turn_at(create_bulk_abort(two_runs, manager))
    assert Run.objects.get(run_id="r1").next_detail_sync_at == at(16)


def test_bulk_abort_is_paused_until_rate_limit_resets(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    assert pause_end(batch, at(1)) is None
    record_response(RateLimit(1000, 25, 90), at(1))  # the last quarter of the reserve
    assert pause_end(batch, at(11)) == at(91)
    budget_store.record_rate_limited(40, at(1))
    assert pause_end(batch, at(11)) == at(41)
    probe_end = at(42) + bulk_send.PROBE_TIMEOUT
    assert pause_end(batch, at(42)) == probe_end
    BulkAbort.objects.update(settled_at=T0)
    batch.refresh_from_db()
    assert pause_end(batch, at(11)) is None


def test_turn_for_externally_aborting_run_is_joined_with_note(
    two_runs: list[Run], manager: User
) -> None:
    Run.objects.filter(run_id="r1").update(status="aborting")
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch) == bulk_send.TurnResult()
    assert items(batch)[0] == ("r1", "joined", None, "The run was already being aborted.")
    assert not Abort.objects.exists()


def test_turn_for_run_with_open_abort_is_joined_to_it(two_runs: list[Run], manager: User) -> None:
    Run.objects.filter(run_id="r1").update(status="aborting")
    first = factories.abort(two_runs[0], manager)
    batch = create_bulk_abort(two_runs, manager)
    assert take_turn_at(batch) == bulk_send.TurnResult()
    assert items(batch)[0] == ("r1", "joined", first.pk, "")


def test_turn_for_concluded_run_records_ended(two_runs: list[Run], manager: User) -> None:
    batch = create_bulk_abort(two_runs, manager)
    Run.objects.filter(run_id="r1").update(status="aborting", in_flight=False)
    assert take_turn_at(batch) == bulk_send.TurnResult()
    assert items(batch)[0] == ("r1", "ended", None, "")


def test_turn_for_dismissed_run_records_that_its_end_is_unknown(
    two_runs: list[Run], manager: User
) -> None:
    batch = create_bulk_abort(two_runs, manager)
    Run.objects.filter(run_id="r1").update(removed_at=T0)
    dismissals.dismiss(two_runs[0], manager)
    assert take_turn_at(batch) == bulk_send.TurnResult()
    note = (
        "Nothing was sent. Removed from Northflank and from the list; its end is unknown. "
        "Restore the run to abort it."
    )
    assert items(batch)[0] == ("r1", "ended", None, note)
    assert not Abort.objects.exists()


def test_turn_after_permission_is_revoked_records_reason(
    two_runs: list[Run], manager: User
) -> None:
    batch = create_bulk_abort(two_runs, manager)
    manager.groups.clear()
    assert take_turn_at(batch) == bulk_send.TurnResult()
    reason = str(permissions.abort_permission(manager, two_runs[0].stage).denied_reason)
    assert items(batch)[0] == ("r1", "not_allowed", None, reason)


def deactivate(user: User) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (User.delete, "The requesting account was deleted."),
        (deactivate, "The requesting account is inactive."),
    ],
    ids=["deleted", "inactive"],
)
def test_turn_after_account_has_changed_records_the_reason_of_a_single_abort(
    two_runs: list[Run], manager: User, change: Callable[[User], object], reason: str
) -> None:
    single = request_abort(two_runs[1], AbortRequest(manager, "Stuck")).abort
    batch = create_bulk_abort(two_runs, manager)
    change(manager)
    with capture_logs() as logs:
        assert take_turn_at(batch) == bulk_send.TurnResult()
    assert {
        "event": "abort.denied", "log_level": "warning", "run": "r1", "by": "manager",
        "via": "api", "token": "ci", "address": "192.0.2.7",
    } in logs  # fmt: skip
    assert items(batch)[0] == ("r1", "not_allowed", None, reason)
    assert settle.cancel_if_unwanted(single)
    assert Abort.objects.get().response == reason


def test_visible_runs_are_permitted_ones_once_in_given_order(
    two_runs: list[Run], manager: User
) -> None:
    hidden = factories.run(factories.stage("Staging"))
    Grant.objects.all().delete()
    factories.grant("view", stage="Production")
    keys = [two_runs[1].pk, hidden.pk, 4711, two_runs[0].pk, two_runs[1].pk]
    user_permissions = permissions.for_user(manager)
    with CaptureQueriesContext(connection) as queries:
        visible = visible_runs(keys, user_permissions)
        assert [run.stage.pipeline.project.slug for run in visible] == ["shop", "shop"]
    assert visible == [two_runs[1], two_runs[0]]
    [query] = queries
    assert '"dashboard_run"."id" IN' in query["sql"]  # no other runs are read
