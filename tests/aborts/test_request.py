"""Abort requests: recorded completely, and once, before anything is sent."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection
from structlog.testing import capture_logs

from dashboard.aborts.request import (
    AbortRequest,
    AbortResult,
    NotAllowed,
    NotInFlight,
    ReasonMissing,
    request_abort,
)
from dashboard.accounts import permissions
from dashboard.models import Abort, BulkAbort, ChangeCounter, RequestCounter, Run
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.bulk_aborts import Via
from tests.support import factories
from tests.support.messages import raises
from tests.support.parallel import before_statement
from tests.support.world import T0, at

LEASE = timedelta(seconds=15)
CRITICAL_AFTER = timedelta(seconds=600)
ENDED = {"status": "success", "concluded": True, "in_flight": False, "concluded_at": T0}


@pytest.fixture
def run(db: None) -> Run:
    """A run in flight, in a stage where an abort requires a reason."""
    return factories.run(factories.stage(), "r1", abort_severity=2)


@pytest.fixture
def colleague(manager: User) -> User:
    user = User.objects.create_user("colleague")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return user


def abort_request(user: User, **fields: Any) -> AbortRequest:
    defaults: dict[str, Any] = {
        "reason": " Stuck\n again ",
        "client_address": "192.0.2.7",
        "via": Via.API,
        "token_name": "ci",
        "origin": "a shell on build-1",
    }
    return AbortRequest(user, **defaults | fields)


def timeline(abort: Abort) -> list[tuple[Any, ...]]:
    return list(abort.events.values_list("event_type", "occurred_at", "detail"))


@time_machine.travel(T0, tick=False)
def test_abort_request_stores_all_fields(run: Run, manager: User) -> None:
    batch = BulkAbort.objects.create(
        key=uuid4(), user=manager, username="manager", requested_at=T0, claimed_at=T0
    )
    result = request_abort(run, abort_request(manager), bulk_abort=batch)
    assert result == AbortResult(Abort.objects.get(), is_new=True)
    stored = Abort.objects.values(
        "run", "user", "username", "reason", "client_address", "via", "token_name", "bulk_abort",
        "requested_at", "claimed_at", "sent_at", "state", "again_of", "settled_at",
    ).get()  # fmt: skip
    assert stored == {
        "run": run.pk,
        "user": manager.pk,
        "username": "manager",
        "reason": "Stuck again",
        "client_address": "192.0.2.7",
        "via": "api",
        "token_name": "ci",
        "bulk_abort": batch.pk,
        "requested_at": T0,
        "claimed_at": T0,
        "sent_at": None,
        "state": "requested",
        "again_of": None,
        "settled_at": None,
    }
    assert timeline(result.abort) == [("requested", T0, "a shell on build-1")]


@time_machine.travel(T0, tick=False)
def test_abort_sent_at_once_is_recorded_as_sent(run: Run, manager: User) -> None:
    result = request_abort(run, abort_request(manager), mark_sent=True)
    assert result.request_seq == RequestCounter.latest() > 0
    stored = Abort.objects.values("state", "claimed_at", "sent_at", "send_count").get()
    assert stored == {"state": "requested", "claimed_at": T0, "sent_at": T0, "send_count": 1}
    assert timeline(result.abort) == [
        ("requested", T0, "a shell on build-1"),
        ("sent", T0, ""),
    ]


@time_machine.travel(T0, tick=False)
def test_abort_of_run_to_be_read_first_is_not_recorded_as_sent(run: Run, manager: User) -> None:
    first = overdue_abort(run, manager)
    again = request_abort(run, abort_request(manager), again_of_pk=first.pk, mark_sent=True)
    aborting_run = factories.run(run.stage, status="aborting")
    second = request_abort(aborting_run, abort_request(manager), mark_sent=True)
    for result in (again, second):
        assert (result.request_seq, result.abort.sent_at, result.abort.send_count) == (
            None,
            None,
            0,
        )


@time_machine.travel(T0, tick=False)
def test_abort_request_clears_severity_and_schedules_read_at_lease_end(
    run: Run, manager: User
) -> None:
    before = run.version
    request_abort(run, abort_request(manager))
    run.refresh_from_db()
    assert (run.abort_severity, run.next_detail_sync_at) == (0, T0 + LEASE)
    assert run.version > before


def test_abort_request_is_logged(run: Run, manager: User) -> None:
    with capture_logs() as logs:
        request_abort(run, abort_request(manager))
    assert logs == [
        {
            "event": "abort.requested", "log_level": "info",
            "run": "r1", "by": "manager", "reason": "Stuck again",
        }
    ]  # fmt: skip


def test_denied_abort_request_is_logged_with_origin(run: Run, viewer: User, manager: User) -> None:
    with (
        capture_logs() as logs,
        raises(NotAllowed, "group group_only", group="Release managers"),
    ):
        request_abort(run, abort_request(viewer))
    assert logs == [
        {
            "event": "abort.denied", "log_level": "warning", "run": "r1", "by": "viewer",
            "via": "api", "token": "ci", "address": "192.0.2.7",
        }
    ]  # fmt: skip
    assert [type(value) for value in logs[0].values()] == [str] * 7


def test_abort_request_with_read_only_token_is_denied(run: Run, manager: User) -> None:
    token_permissions = permissions.for_user(manager).view_only()
    with raises(NotAllowed, "token_read_only"):
        request_abort(run, abort_request(manager, permissions=token_permissions))


@pytest.mark.parametrize("reason", ["", " \n", "\u202e"])
def test_abort_request_without_required_reason_is_rejected(
    run: Run, manager: User, reason: str
) -> None:
    with pytest.raises(
        ReasonMissing, match=r"^A reason is required to abort runs in Production\.$"
    ):
        request_abort(run, abort_request(manager, reason=reason))
    assert not Abort.objects.exists()


def test_long_reason_is_truncated(run: Run, manager: User) -> None:
    result = request_abort(run, abort_request(manager, reason="x" * 501))
    assert result.abort.reason == "x" * 500


# --- Another request was first ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        (
            {"via": Via.PAGE, "client_address": None, "origin": ""},
            "colleague: “Stuck again”",
        ),
        (
            {"via": Via.PAGE, "origin": ""},
            "colleague (192.0.2.7): “Stuck again”",
        ),
        (
            {"via": Via.API, "origin": ""},
            "colleague (API token “ci”, 192.0.2.7): “Stuck again”",
        ),
        (
            {"via": Via.COMMAND, "client_address": None},
            "colleague (command line, a shell on build-1): “Stuck again”",
        ),
    ],
)
def test_joined_abort_request_is_in_timeline_with_all_details(
    run: Run, manager: User, colleague: User, fields: dict[str, Any], detail: str
) -> None:
    first = request_abort(run, abort_request(manager)).abort
    before = Run.objects.get().version
    with time_machine.travel(at(9), tick=False), capture_logs() as logs:
        result = request_abort(run, abort_request(colleague, **fields))
    assert result == AbortResult(first, is_new=False)
    assert timeline(first)[1:] == [("joined", at(9), detail)]
    assert Run.objects.get().version > before
    assert logs == [
        {
            "event": "abort.joined", "log_level": "info",
            "run": "r1", "by": "colleague", "reason": "Stuck again",
        }
    ]  # fmt: skip


def test_identical_joined_abort_requests_are_in_timeline_once(run: Run, manager: User) -> None:
    first = request_abort(run, abort_request(manager)).abort
    for reason in ("Why", "Why", "Because"):
        request_abort(run, abort_request(manager, reason=reason))
    assert first.events.filter(event_type=EventType.JOINED).count() == 2


def settle_after_conflict(abort: Abort, **run_fields: Any) -> Callable[..., Any]:
    """Settle an abort after a request conflicted with it, and before the request reads it.

    Its run gets the `run_fields` at the same time.
    """
    has_conflict = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_conflict
        if has_conflict and sql.startswith("SELECT"):
            has_conflict = False
            abort.apply(EventType.NOT_SENT, T0)
            factories.change(abort.run, **run_fields)
        try:
            return run(sql, *rest)
        except IntegrityError:
            has_conflict = True
            raise

    return execute


def test_abort_request_racing_with_settled_abort_creates_its_own(
    run: Run, manager: User, colleague: User
) -> None:
    first = request_abort(run, abort_request(manager)).abort
    batch = BulkAbort.objects.create(
        key=uuid4(), user=colleague, username="colleague", requested_at=T0, claimed_at=T0
    )
    with connection.execute_wrapper(settle_after_conflict(first)):
        result = request_abort(run, abort_request(colleague), bulk_abort=batch)
    assert result.is_new
    second = result.abort
    assert second != first
    assert (second.run, second.username, second.reason) == (run, "colleague", "Stuck again")
    assert (second.bulk_abort, second.again_of) == (batch, None)


def test_abort_request_for_run_that_ended_since_it_was_read_is_not_in_flight(
    run: Run, manager: User
) -> None:
    Run.objects.update(in_flight=False)
    with pytest.raises(NotInFlight):
        request_abort(run, abort_request(manager))
    assert not Abort.objects.exists()


def test_run_that_ended_since_it_was_read_is_read_again(run: Run, manager: User) -> None:
    stage = run.stage
    Run.objects.update(**ENDED)
    with pytest.raises(NotInFlight):
        request_abort(run, abort_request(manager))
    assert {name: getattr(run, name) for name in ENDED} == ENDED
    assert run.stage is stage  # with the pipeline and project that were read with it


def test_abort_request_for_run_aborting_since_it_was_read_is_not_recorded_as_sent(
    run: Run, manager: User
) -> None:
    Run.objects.update(status="aborting")
    result = request_abort(run, abort_request(manager), mark_sent=True)
    assert (result.abort.sent_at, result.request_seq) == (None, None)


def test_abort_request_racing_with_concluded_run_is_not_in_flight(run: Run, manager: User) -> None:
    first = request_abort(run, abort_request(manager)).abort
    wrapper = connection.execute_wrapper(settle_after_conflict(first, **ENDED))
    with wrapper, pytest.raises(NotInFlight):
        request_abort(run, abort_request(manager))
    assert {name: getattr(run, name) for name in ENDED} == ENDED


# --- Abort again --------------------------------------------------------------------------------


def overdue_abort(run: Run, user: User) -> Abort:
    """An abort that was accepted ten minutes before T0, and had no effect."""
    return factories.abort(
        run, user, requested_at=T0 - CRITICAL_AFTER, claimed_at=T0 - CRITICAL_AFTER
    )


@time_machine.travel(T0, tick=False)
def test_abort_again_settles_first_abort_and_links_to_it(
    run: Run, manager: User, colleague: User
) -> None:
    first = overdue_abort(run, manager)
    second = request_abort(run, abort_request(colleague), again_of_pk=first.pk).abort
    first.refresh_from_db()
    assert (first.state, first.settled_at) == ("aborted_again", T0)
    assert timeline(first) == [("aborted_again", T0, "colleague")]
    assert second.again_of == first


@time_machine.travel(T0, tick=False)
def test_abort_again_after_one_settled_meanwhile_is_a_new_abort(run: Run, manager: User) -> None:
    first = overdue_abort(run, manager)

    def settle() -> None:
        Abort.objects.filter(pk=first.pk).update(state="concluded", settled_at=T0)

    with before_statement('UPDATE "dashboard_abort"', settle):
        second = request_abort(run, abort_request(manager), again_of_pk=first.pk).abort
    assert second.again_of is None


@time_machine.travel(T0, tick=False)
def test_abort_again_keeps_the_start_of_a_run_that_was_aborting_before_its_abort(
    run: Run, manager: User
) -> None:
    first = overdue_abort(run, manager)
    since = first.requested_at - timedelta(minutes=1)
    factories.change(run, status="aborting", aborting_since=since, status_since=T0)
    run.refresh_from_db()
    second = request_abort(run, abort_request(manager), again_of_pk=first.pk).abort
    assert (second.again_of, second.already_aborting_since) == (first, since)


@time_machine.travel(T0, tick=False)
def test_abort_of_another_run_is_not_settled(run: Run, manager: User) -> None:
    other = overdue_abort(factories.run(run.stage, "other"), manager)
    abort = request_abort(run, abort_request(manager), again_of_pk=other.pk).abort
    assert abort.again_of is None
    assert Abort.objects.open().filter(pk=other.pk).exists()


@time_machine.travel(T0 - timedelta(seconds=1), tick=False)
def test_early_abort_again_joins_open_abort(run: Run, manager: User) -> None:
    first = overdue_abort(run, manager)
    Run.objects.update(abort_severity=1)
    result = request_abort(run, abort_request(manager), again_of_pk=first.pk)
    assert result == AbortResult(first, is_new=False)


@time_machine.travel(T0, tick=False)
def test_abort_again_after_another_runs_abort_joins_open_abort(run: Run, manager: User) -> None:
    other = overdue_abort(factories.run(run.stage), manager)
    first = overdue_abort(run, manager)
    result = request_abort(run, abort_request(manager), again_of_pk=other.pk)
    assert result == AbortResult(first, is_new=False)


@time_machine.travel(T0, tick=False)
def test_abort_again_after_settled_abort_is_a_new_abort(run: Run, manager: User) -> None:
    first = overdue_abort(run, manager)
    Abort.objects.update(state="refused", settled_at=T0)
    second = request_abort(run, abort_request(manager), again_of_pk=first.pk).abort
    assert second.again_of is None


@time_machine.travel(T0, tick=False)
@pytest.mark.parametrize(
    ("later_states", "is_inherited"),
    [
        (["not_sent"], True),
        (["not_sent", "refused"], True),
        (["concluded", "not_sent"], False),
        (["unknown"], False),
    ],
)
def test_abort_after_a_second_one_that_failed_keeps_the_start_of_the_first(
    run: Run, manager: User, later_states: list[str], is_inherited: bool
) -> None:
    since = T0 - CRITICAL_AFTER
    factories.change(run, abort_severity=2)
    run.refresh_from_db()
    times = {"requested_at": since, "settled_at": T0}
    factories.abort(factories.run(run.stage, "other"), manager, "aborted_again", **times)
    factories.abort(run, manager, "aborted_again", **times)
    for state in later_states:
        factories.abort(run, manager, state, **times)
    factories.abort(factories.run(run.stage, "another"), manager, "aborted_again", **times)
    abort = request_abort(run, abort_request(manager)).abort
    assert abort.already_aborting_since == (since if is_inherited else None)


# --- After a refused resend ---------------------------------------------------------------------


def abort_with_refused_resend(run: Run, user: User) -> Abort:
    """An open abort that is not resent any more, since Northflank refused that."""
    return factories.abort(
        run, user, "unknown", requested_at=T0, send_count=2, response="No.", response_status=409
    )


@time_machine.travel(T0, tick=False)
@pytest.mark.parametrize(
    ("severity", "state", "detail"), [(0, "refused", "No."), (2, "aborted_again", "colleague")]
)
def test_abort_request_after_a_refused_resend_is_a_new_abort(
    run: Run, manager: User, colleague: User, severity: int, state: str, detail: str
) -> None:
    factories.change(run, abort_severity=severity)
    first = abort_with_refused_resend(run, manager)
    before = ChangeCounter.latest()
    result = request_abort(run, abort_request(colleague), mark_sent=True)
    assert result.is_new
    first.refresh_from_db()
    assert (first.state, first.settled_at, first.response) == (state, T0, "No.")
    assert timeline(first) == [(state, T0, detail)]
    assert (result.abort.again_of == first) is (state == "aborted_again")
    assert Run.objects.get().version == ChangeCounter.latest() == before + 1


@time_machine.travel(T0, tick=False)
def test_abort_request_after_a_refused_resend_joins_the_new_abort_of_another(
    run: Run, manager: User, colleague: User
) -> None:
    factories.change(run, abort_severity=0)
    first = abort_with_refused_resend(run, manager)
    others: list[Abort] = []

    def request_before(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("SELECT") and 'FROM "dashboard_run"' in sql and not others:
            first.apply(EventType.REFUSED, T0)
            others.append(factories.abort(run, manager, "requested"))
        return execute(sql, *rest)

    request = abort_request(colleague, permissions=permissions.for_user(colleague))
    with connection.execute_wrapper(request_before):
        result = request_abort(run, request)
    assert others
    assert result == AbortResult(others[0], is_new=False)
    assert [kind for kind, *_ in timeline(others[0])] == ["joined"]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL waits for the disk anyway")
def test_abort_is_on_the_disk_before_it_is_sent(transactional_db: None, manager: User) -> None:
    run = factories.run(factories.stage(), "r1")
    statements: list[str] = []
    connection.ensure_connection()
    connection.connection.set_trace_callback(statements.append)
    try:
        request_abort(run, abort_request(manager), mark_sent=True)
    finally:
        connection.connection.set_trace_callback(None)
    recorded = next(n for n, text in enumerate(statements) if 'INTO "dashboard_abort"' in text)
    durable = statements.index("PRAGMA synchronous=FULL")
    assert durable < recorded < statements.index("COMMIT", durable)
    assert not any(
        text.startswith("PRAGMA synchronous=") for text in statements[durable + 1 : recorded]
    )
