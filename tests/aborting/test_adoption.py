"""Aborts whose process died: sent if they never were, and again only once the run was read."""

from datetime import datetime

import httpx
import pytest
from django.contrib.auth.models import Group, User
from pytest_django import Settings

from dashboard import aborts
from dashboard.accounts import permissions
from dashboard.models import Abort, Run
from dashboard.northflank import NorthflankClient, NorthflankError
from dashboard.sandbox import parse_fault
from dashboard.sync.stage_reader import read_run
from tests.support.flights import (
    LEDGER,
    ago,
    ask_with,
    flow,
    in_flight,
    long_ago,
    look_after,
    mirrored,
    pass_time,
    read,
    started,
    story,
    vanish,
)
from tests.support.live import Live


def stranded(run: Run, *, seconds: float = 50, sent: bool = False) -> Abort:
    """Write an abort as a process leaves it that dies before, or while, it sends."""
    then: datetime = ago(seconds)
    permissions.keep_group()
    user, _ = User.objects.get_or_create(username="manager")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return Abort.objects.create(
        run=run, user=user, username="manager", requested_at=then, claimed_at=then,
        sent_at=then if sent else None, sendings=1 if sent else 0,
    )  # fmt: skip


def test_an_abort_that_was_never_sent_is_sent_by_the_worker(live: Live) -> None:
    run = in_flight(live)
    stranded(run)
    look_after(live)
    abort = Abort.objects.get()
    assert abort.state == "accepted"
    assert abort.sent_at is not None
    look_after(live)
    assert live.sandbox.abort_posts[run.run_id] == 1
    methods = [method for method, path in live.sandbox.requests if run.run_id in path]
    assert methods == ["GET", "GET", "POST"]  # mirrored, read again, and only then sent


def test_the_workers_tick_adopts(live: Live) -> None:
    run = in_flight(live)
    stranded(run)
    live.run(live.worker.tick)
    live.run(live.worker.idle)
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_an_abort_that_is_being_sent_is_left_alone(live: Live) -> None:
    run = in_flight(live)
    stranded(run, seconds=10)
    look_after(live)
    assert Abort.objects.get().state == "requested"
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_an_abort_that_may_have_been_sent_is_sent_again_after_a_rest(live: Live) -> None:
    run = in_flight(live)
    stranded(run, sent=True)
    look_after(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.settled_at) == ("unknown", None)
    assert "ended before the answer" in story()
    assert live.sandbox.abort_posts[run.run_id] == 0
    long_ago(abort, claimed_at=1)
    live.sandbox.requests.clear()
    look_after(live)
    methods = [method for method, path in live.sandbox.requests if run.run_id in path]
    assert methods == ["GET", "POST"]
    abort.refresh_from_db()
    assert (abort.state, abort.sendings) == ("accepted", 2)


def test_an_abort_that_was_sent_and_took_effect_is_followed(live: Live) -> None:
    run = in_flight(live)
    stranded(run, sent=True)
    live.sandbox.world.abort(flow(live, LEDGER), run.run_id, live.sandbox.clock())
    look_after(live)
    assert Abort.objects.get().state == "accepted"
    pass_time(live, 10)
    read(live, run)
    assert Abort.objects.get().outcome == "aborted"
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_an_abort_that_was_sent_is_not_called_too_late_when_its_run_has_ended(live: Live) -> None:
    run = in_flight(live)
    stranded(run, sent=True)
    live.sandbox.world.abort(flow(live, LEDGER), run.run_id, live.sandbox.clock(), at_once=True)
    look_after(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.outcome) == ("concluded", "aborted")
    assert story().startswith("Aborted after ")


def test_an_abort_that_was_never_sent_for_a_run_that_has_ended_is_too_late(live: Live) -> None:
    run = in_flight(live)
    stranded(run)
    pass_time(live, 3600)
    look_after(live)
    abort = Abort.objects.get()
    assert abort.state == "too_late"
    assert abort.outcome == Run.objects.get().status
    assert story().startswith("Finished before the abort could be sent: ")
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_an_abort_that_was_never_sent_for_a_run_that_is_gone_is_too_late(live: Live) -> None:
    run = in_flight(live)
    stranded(run)
    vanish(live, run.run_id)
    look_after(live)
    assert Abort.objects.get().state == "too_late"
    assert story() == "Northflank knew the run no more when the abort could be sent."


def test_one_that_was_sent_waits_for_no_answer_though_northflank_is_away(live: Live) -> None:
    run = in_flight(live)
    stranded(run, sent=True)
    live.sandbox.faults = [parse_fault("503")]
    look_after(live)
    assert Abort.objects.get().state == "unknown"
    assert story().startswith("The abort may not have arrived. The process that sent it ended ")


def test_one_that_could_not_be_sent_in_time_ends_though_northflank_is_away(live: Live) -> None:
    run = in_flight(live)
    stranded(run, seconds=301)
    live.sandbox.faults = [parse_fault("503")]
    look_after(live)
    assert Abort.objects.get().state == "not_sent"
    assert "could not be sent in time" in story()


def test_an_adoption_waits_while_northflank_does_not_answer(live: Live) -> None:
    run = in_flight(live)
    stranded(run)
    live.sandbox.faults = [parse_fault("503*2")]
    look_after(live)
    abort = Abort.objects.get()
    assert (abort.state, abort.sent_at) == ("requested", None)
    Abort.objects.update(claimed_at=ago(50))
    look_after(live)
    assert Abort.objects.get().state == "accepted"
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_an_adoption_that_waits_holds_up_no_other(live: Live) -> None:
    slow, quick = in_flight(live), in_flight(live)
    for run in (slow, quick):  # the older one waits
        stranded(run)
    live.sandbox.faults = [parse_fault(f"latency:1@{slow.run_id}")]

    look_after(live)
    sent = dict(Abort.objects.values_list("run__run_id", "sent_at"))
    assert sent[quick.run_id] < sent[slow.run_id]
    assert live.sandbox.abort_posts == {slow.run_id: 1, quick.run_id: 1}


def test_of_two_workers_one_adopts(live: Live) -> None:
    run = in_flight(live)
    stranded(run)

    async def both() -> None:
        import asyncio

        await asyncio.gather(*(aborts.look_after_open_aborts(live.connection) for _ in range(3)))

    live.run(both)
    assert live.sandbox.abort_posts[run.run_id] == 1


def test_a_run_that_vanished_before_an_answer_came_is_not_said_to_have_ended(live: Live) -> None:
    run = in_flight(live)
    stranded(run, sent=True)
    vanish(live, run.run_id)
    look_after(live)
    assert Abort.objects.get().outcome == ""
    assert "how it ended is unknown" in story()


def answering(live: Live, other: str) -> None:
    """Have the upstream tell of the run `other`, whichever was asked for."""

    def answer(request: httpx.Request) -> httpx.Response:
        told = {"id": other, "status": "success", "concluded": True}
        return httpx.Response(200, json={"data": told})

    ask_with(live, NorthflankClient("sandbox", transport=httpx.MockTransport(answer)))


def test_an_answer_that_tells_of_another_run_changes_neither(live: Live, manager: User) -> None:
    run = in_flight(live)
    other = mirrored(live, LEDGER, started(live, LEDGER))
    answering(live, other.run_id)
    pressed = aborts.request(run, aborts.Press(manager))
    live.run(lambda: aborts.send(live.connection, pressed.abort.pk))
    assert Abort.objects.get().state == "unknown"
    assert Run.objects.get(pk=run.pk).in_flight
    assert Run.objects.get(pk=other.pk).in_flight


def test_a_reading_that_tells_of_another_run_changes_neither(live: Live) -> None:
    run = in_flight(live)
    other = mirrored(live, LEDGER, started(live, LEDGER))
    answering(live, other.run_id)
    with pytest.raises(NorthflankError, match="another run"):
        live.run(lambda: read_run(live.connection, run))
    row = Run.objects.get(pk=run.pk)
    assert row.in_flight
    assert row.next_read_at is not None  # tried again after a rest
    assert Run.objects.get(pk=other.pk).in_flight


@pytest.mark.parametrize("switch", [{"READ_ONLY": True}, {"ABORTS_ENABLED": False}])
def test_an_abort_that_was_never_sent_is_not_sent_once_aborting_is_switched_off(
    live: Live, settings: Settings, switch: dict[str, bool]
) -> None:
    run = in_flight(live)
    stranded(run)
    for name, value in switch.items():
        setattr(settings, name, value)
    look_after(live)
    assert Abort.objects.get().state == "not_sent"
    assert live.sandbox.abort_posts[run.run_id] == 0


def test_an_abort_that_was_never_sent_is_not_sent_much_later(live: Live) -> None:
    run = in_flight(live)
    stranded(run, seconds=3600)
    look_after(live)
    assert "could not be sent in time" in story()
    assert live.sandbox.abort_posts[run.run_id] == 0
