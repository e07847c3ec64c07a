"""What a press writes down before anything is sent: all of it, and once."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
import time_machine
from django.contrib.auth.models import Group, User
from django.db import IntegrityError, connection
from structlog.testing import capture_logs

from dashboard import aborts
from dashboard.aborts import Press
from dashboard.accounts import permissions
from dashboard.models import Abort, AbortBatch, Run
from dashboard.models.aborts import AbortState, What
from dashboard.models.bulk_aborts import Via
from tests.support import factories
from tests.support.world import T0, at

LEASE = timedelta(seconds=15)
RED = timedelta(seconds=600)


@pytest.fixture
def run(db: None) -> Run:
    """A run in flight, in a stage where an abort takes a reason."""
    return factories.run(factories.stage(), "r1", aborting_level=2)


@pytest.fixture
def colleague(manager: User) -> User:
    user = User.objects.create_user("colleague")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return user


def by(user: User, **more: Any) -> Press:
    usual: dict[str, Any] = {
        "reason": " Stuck\n again ",
        "client_address": "192.0.2.7",
        "via": Via.API,
        "token_name": "ci",
        "origin": "a shell on build-1",
    }
    return Press(user, **usual | more)


def trail(of: Abort) -> list[tuple[Any, ...]]:
    return list(of.events.values_list("what", "at", "detail"))


@time_machine.travel(T0, tick=False)
def test_all_of_a_press_is_written_down(run: Run, manager: User) -> None:
    batch = AbortBatch.objects.create(
        key=uuid4(), user=manager, username="manager", requested_at=T0, claimed_at=T0
    )
    pressed = aborts.request(run, by(manager), batch=batch)
    assert pressed == aborts.Pressed(Abort.objects.get(), made=True)
    kept = Abort.objects.values(
        "run", "user", "username", "reason", "client_address", "via", "token_name", "batch",
        "requested_at", "claimed_at", "sent_at", "state", "retry_of", "settled_at",
    ).get()  # fmt: skip
    assert kept == {
        "run": run.pk,
        "user": manager.pk,
        "username": "manager",
        "reason": "Stuck again",
        "client_address": "192.0.2.7",
        "via": "api",
        "token_name": "ci",
        "batch": batch.pk,
        "requested_at": T0,
        "claimed_at": T0,
        "sent_at": None,
        "state": "requested",
        "retry_of": None,
        "settled_at": None,
    }
    assert trail(pressed.abort) == [("requested", T0, "a shell on build-1")]


@time_machine.travel(T0, tick=False)
def test_a_run_that_is_to_be_aborted_is_calm_and_read_when_the_lease_is_over(
    run: Run, manager: User
) -> None:
    before = run.version
    aborts.request(run, by(manager))
    run.refresh_from_db()
    assert (run.aborting_level, run.next_read_at) == (0, T0 + LEASE)
    assert run.version > before


def test_a_press_is_logged(run: Run, manager: User) -> None:
    with capture_logs() as logs:
        aborts.request(run, by(manager))
    assert logs == [
        {
            "event": "abort.requested", "log_level": "info",
            "run": "r1", "by": "manager", "reason": "Stuck again",
        }
    ]  # fmt: skip


def test_a_press_that_is_not_allowed_is_logged_with_where_it_came_from(
    run: Run, viewer: User, manager: User
) -> None:
    why = "^Only members of the group “Release managers” may abort runs here.$"
    with capture_logs() as logs, pytest.raises(aborts.NotAllowed, match=why):
        aborts.request(run, by(viewer))
    assert logs == [
        {
            "event": "abort.not_allowed", "log_level": "warning", "run": "r1", "by": "viewer",
            "via": "api", "token": "ci", "address": "192.0.2.7",
        }
    ]  # fmt: skip
    assert [type(value) for value in logs[0].values()] == [str] * 7


def test_a_token_that_may_less_than_its_account_is_judged_by_itself(
    run: Run, manager: User
) -> None:
    rights = permissions.rights(manager).reading_only()
    with pytest.raises(aborts.NotAllowed, match=r"^This token is for reading only\.$"):
        aborts.request(run, by(manager, rights=rights))


@pytest.mark.parametrize("reason", ["", " \n", "\u202e"])
def test_a_reason_that_is_required_is_asked_for(run: Run, manager: User, reason: str) -> None:
    with pytest.raises(
        aborts.ReasonMissing, match=r"^Aborting a run in Production takes a reason\.$"
    ):
        aborts.request(run, by(manager, reason=reason))
    assert not Abort.objects.exists()


def test_a_reason_is_cut_to_its_length(run: Run, manager: User) -> None:
    pressed = aborts.request(run, by(manager, reason="x" * 501))
    assert pressed.abort.reason == "x" * 500


# --- Somebody was faster ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("press", "told"),
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
def test_a_press_that_joins_is_kept_with_all_that_is_known_of_it(
    run: Run, manager: User, colleague: User, press: dict[str, Any], told: str
) -> None:
    first = aborts.request(run, by(manager)).abort
    before = Run.objects.get().version
    with time_machine.travel(at(9), tick=False), capture_logs() as logs:
        pressed = aborts.request(run, by(colleague, **press))
    assert pressed == aborts.Pressed(first, made=False)
    assert trail(first)[1:] == [("joined", at(9), told)]
    assert Run.objects.get().version > before
    assert logs == [
        {
            "event": "abort.joined", "log_level": "info",
            "run": "r1", "by": "colleague", "reason": "Stuck again",
        }
    ]  # fmt: skip


def test_a_press_that_joins_without_a_reason_is_kept_without_one(manager: User) -> None:
    run = factories.run(factories.stage("Staging"))
    first = aborts.request(run, by(manager)).abort
    aborts.request(run, by(manager, reason="", via=Via.COMMAND, client_address=None, origin=""))
    assert trail(first)[1][2] == "manager (command line)"


def test_a_press_that_joins_is_kept_though_the_first_came_from_what_reads_alike(
    manager: User, colleague: User
) -> None:
    run = factories.run(factories.stage("Staging"))
    first = aborts.request(run, by(manager, origin="colleague")).abort
    aborts.request(run, Press(colleague))
    assert [(what, detail) for what, _, detail in trail(first)] == [
        ("requested", "colleague"),
        ("joined", "colleague"),
    ]


def test_two_who_join_alike_are_kept_once_and_two_who_do_not_twice(run: Run, manager: User) -> None:
    first = aborts.request(run, by(manager)).abort
    for reason in ("Why", "Why", "Because"):
        aborts.request(run, by(manager, reason=reason))
    assert first.events.filter(what=What.JOINED).count() == 2


def settled_behind_its_back(abort: Abort) -> Callable[..., Any]:
    """Settle an abort after a press has met it, and before the press has looked at it."""
    met = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal met
        if met and sql.startswith("SELECT"):
            met = False
            abort.move(AbortState.NOT_SENT, What.NOT_SENT, T0, settled_at=T0)
        try:
            return run(sql, *rest)
        except IntegrityError:
            met = True
            raise

    return execute


def test_a_press_that_met_what_settles_that_instant_is_a_press_of_its_own(
    run: Run, manager: User, colleague: User
) -> None:
    first = aborts.request(run, by(manager)).abort
    batch = AbortBatch.objects.create(
        key=uuid4(), user=colleague, username="colleague", requested_at=T0, claimed_at=T0
    )
    with connection.execute_wrapper(settled_behind_its_back(first)):
        pressed = aborts.request(run, by(colleague), batch=batch)
    assert pressed.made
    second = pressed.abort
    assert second != first
    assert (second.run, second.username, second.reason) == (run, "colleague", "Stuck again")
    assert (second.batch, second.retry_of) == (batch, None)


def test_a_press_that_met_what_ends_that_instant_finds_nothing_to_abort(
    run: Run, manager: User
) -> None:
    first = aborts.request(run, by(manager)).abort
    Run.objects.update(in_flight=False)
    assert run.in_flight  # as it was read
    wrapper = connection.execute_wrapper(settled_behind_its_back(first))
    with wrapper, pytest.raises(aborts.NotInFlight):
        aborts.request(run, by(manager))


# --- Trying again -------------------------------------------------------------------------------


def waiting(run: Run, user: User) -> Abort:
    """An abort that was accepted ten minutes before T0, and has come to nothing."""
    return factories.abort(run, user, requested_at=T0 - RED, claimed_at=T0 - RED)


@time_machine.travel(T0, tick=False)
def test_one_that_is_tried_again_is_settled_and_named(
    run: Run, manager: User, colleague: User
) -> None:
    first = waiting(run, manager)
    second = aborts.request(run, by(colleague), again=first.pk).abort
    first.refresh_from_db()
    assert (first.state, first.settled_at) == ("tried_again", T0)
    assert trail(first) == [("tried_again", T0, "colleague")]
    assert second.retry_of == first


@time_machine.travel(T0 - timedelta(seconds=1), tick=False)
def test_one_whose_time_has_not_come_is_joined(run: Run, manager: User) -> None:
    first = waiting(run, manager)
    Run.objects.update(aborting_level=1)
    pressed = aborts.request(run, by(manager), again=first.pk)
    assert pressed == aborts.Pressed(first, made=False)


@time_machine.travel(T0, tick=False)
def test_one_of_another_run_is_not_tried_again(run: Run, manager: User) -> None:
    other = waiting(factories.run(run.stage), manager)
    first = waiting(run, manager)
    pressed = aborts.request(run, by(manager), again=other.pk)
    assert pressed == aborts.Pressed(first, made=False)


@time_machine.travel(T0, tick=False)
def test_one_that_has_settled_is_not_tried_again(run: Run, manager: User) -> None:
    first = waiting(run, manager)
    Abort.objects.update(state="refused", settled_at=T0)
    second = aborts.request(run, by(manager), again=first.pk).abort
    assert second.retry_of is None
