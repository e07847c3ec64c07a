"""What Northflank says of a run after its abort has settled: it comes before what we had said."""

from dataclasses import replace

from django.contrib.auth.models import User

from dashboard import aborts
from dashboard.aborts import Press
from dashboard.db.threads import now
from dashboard.models import Abort, Run
from dashboard.models.aborts import What
from dashboard.sandbox import parse_fault
from dashboard.sync import mirror
from tests.support import abort_truth as truth
from tests.support.flights import (
    LEDGER,
    impatient,
    in_flight,
    long_ago,
    pass_time,
    read,
    story,
    vanish,
)
from tests.support.live import Live


def aborted(live: Live, user: User) -> tuple[Run, Abort]:
    """A run in flight, and the act that an abort of it has become."""
    run = in_flight(live)
    pressed = aborts.request(run, Press(user))
    live.run(lambda: aborts.answered(pressed))
    return run, Abort.objects.get()


def northflank_says(live: Live, run: Run, status: str, *, concluded: bool) -> None:
    """Mirror the run as if Northflank said so of it."""
    said = live.run(lambda: live.connection.client.run(*LEDGER, run.run_id))
    told = replace(said, run=replace(said.run, status=status, concluded=concluded))
    mirror.detail(run.stage_id, told, asked_at=now())


def turned(abort: Abort) -> list[str]:
    """What the trail says that the run became; and all of it has to be true."""
    act = Abort.objects.select_related("run").get(pk=abort.pk)
    gone = act.run.gone_at is not None
    events = list(act.events.all())
    truth.holds(act, events, status=act.run.status, posts=1, gone=gone)
    return [event.detail for event in events if event.what == What.TURNED]


def test_a_run_that_was_gone_and_is_back_is_not_said_to_be_gone(live: Live, manager: User) -> None:
    run, abort = aborted(live, manager)
    vanish(live, run.run_id)
    read(live, run)
    assert "knows the run no more" in story()
    live.sandbox.faults = []
    read(live, run)
    assert turned(abort) == ["aborting"]
    assert story() == (
        "Northflank did not know the run, and now says aborting: look at the run itself."
    )


def test_a_run_that_goes_on_after_its_end_can_be_aborted_again(live: Live, manager: User) -> None:
    run, abort = aborted(live, manager)
    northflank_says(live, run, "aborted", concluded=True)
    northflank_says(live, run, "running", concluded=False)
    assert turned(abort) == ["running"]
    assert aborts.request(Run.objects.with_place().get(), Press(manager)).made


def test_an_end_that_changes_and_changes_back_is_told_twice(live: Live, manager: User) -> None:
    run, abort = aborted(live, manager)
    for status in ("aborted", "success", "aborted"):
        northflank_says(live, run, status, concluded=True)
    assert turned(abort) == ["success", "aborted"]
    assert story().startswith("Aborted after")


def test_an_abort_that_was_too_late_for_a_run_that_goes_on_says_so(
    live: Live, manager: User
) -> None:
    run = in_flight(live)
    pass_time(live, 3600)
    pressed = aborts.request(run, Press(manager))
    live.run(lambda: aborts.answered(pressed))
    abort = Abort.objects.get()
    assert (abort.state, turned(abort)) == ("too_late", [])
    northflank_says(live, run, "running", concluded=False)
    assert turned(abort) == ["running"]
    assert "now says running" in story()


def test_an_abort_that_was_taken_for_lost_and_arrives_late_says_so(
    live: Live, manager: User
) -> None:
    impatient(live)
    live.sandbox.faults = [parse_fault("abort-lost:5")]
    run, abort = aborted(live, manager)
    Abort.objects.update(sendings=5)
    long_ago(abort, sent_at=70)
    read(live, run)
    assert "not to have arrived" in story()
    northflank_says(live, run, "aborting", concluded=False)
    assert turned(abort) == ["aborting"]
    assert story().endswith("It was taken for lost, and now Northflank says aborting.")
