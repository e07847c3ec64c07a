"""What a run has left running is aborted like a run: recorded, sent, resent, adopted, followed."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction

from dashboard.aborts import messages
from dashboard.aborts.left_running import LeftWork, aborts_by_work
from dashboard.aborts.request import (
    AbortRequest,
    NotAllowed,
    NotInFlight,
    ReasonMissing,
    request_abort,
)
from dashboard.aborts.settle import settle_resolved_aborts
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run, Work
from dashboard.models.severity import Severity
from tests.support import factories
from tests.support.abort_answers import (
    REFUSED_TEXT,
    SERVER_ERROR_TEXT,
    FakeNorthflank,
    error_response,
    job_run_response,
    log_line,
    stored_fields,
    timeline,
)
from tests.support.live_runs import backdate_abort

ACCEPTED = 200, {"data": {}}  # the answer to the abort of a job run
NO_DEPLOY_RIGHT = (
    "The API token lacks the permission Jobs > Deployment > Deploy Build"
    " (or Jobs > General > Update)."
)


@dataclass(frozen=True)
class Target:
    """What is aborted, as Northflank answers about it."""

    run: Run
    work: Work | None

    @property
    def abort_method(self) -> str:
        return "POST" if self.work is None else "DELETE"

    def northflank(self, **answers: Any) -> FakeNorthflank:
        """Accepts the abort of it, and reports it as running."""
        if self.work is None:
            return FakeNorthflank(**answers)
        return FakeNorthflank(**{"abort": ACCEPTED, "reading": job_run_response()} | answers)

    def request(self, user: User, **fields: Any) -> Abort:
        return request_abort(self.run, AbortRequest(user, "Stuck"), work=self.work, **fields).abort

    def log_line(self, event: str, level: str, **fields: Any) -> dict[str, Any]:
        names = {"work": "j1"} if self.work is not None else {}
        return log_line(event, level, **names, by="manager", **fields)


@pytest.fixture(params=["run", "job run"])
def target(request: pytest.FixtureRequest, run: Run) -> Target:
    return Target(run, None if request.param == "run" else factories.work(run))


@pytest.fixture
def left(run: Run) -> Target:
    """A job run that an ended run has left running."""
    Run.objects.update(status="aborted", concluded=True, in_flight=False)
    return Target(Run.objects.with_stage().get(pk=run.pk), factories.work(run))


def expire_lease(abort: Abort) -> None:
    Abort.every.update(claimed_at=abort.claimed_at - timedelta(seconds=16))


def reread() -> Abort:
    return Abort.every.with_target().get()


# --- As of a run ---------------------------------------------------------------------------------


def test_abort_is_recorded_before_it_is_sent(target: Target, manager: User) -> None:
    abort = target.request(manager)
    assert (abort.username, abort.reason, abort.work) == ("manager", "Stuck", target.work)
    assert list(abort.events.values_list("event_type", flat=True)) == ["requested"]
    assert reread().sent_at is None


def test_abort_is_sent_once_and_accepted(target: Target, manager: User) -> None:
    abort = target.request(manager)
    northflank = target.northflank()
    status = "aborting" if target.work is None else ""
    assert northflank.send(abort) == [target.log_line("accepted", "info", status=status)]
    assert northflank.methods == [target.abort_method]
    assert timeline(abort) == [("sent", ""), ("accepted", status)]
    assert northflank.send(abort) == []


def test_second_request_joins_the_open_abort(target: Target, manager: User) -> None:
    first = target.request(manager)
    assert target.request(manager) == first
    assert Abort.every.count() == 1


def test_database_keeps_a_second_open_abort_out(target: Target, manager: User) -> None:
    target.request(manager)
    with pytest.raises(IntegrityError), transaction.atomic():
        factories.abort(target.run, manager, work=target.work)


def test_abort_without_the_right_is_refused(target: Target, viewer: User) -> None:
    with pytest.raises(NotAllowed):
        target.request(viewer)
    assert not Abort.every.exists()


def test_abort_without_a_required_reason_is_refused(
    target: Target, manager: User, settings: Any
) -> None:
    settings.ABORT_REASON_REQUIRED = {"Staging"}
    with pytest.raises(ReasonMissing):
        request_abort(target.run, AbortRequest(manager), work=target.work)


@pytest.mark.parametrize("setting", [{"READ_ONLY": True}, {"ABORTS_ENABLED": False}])
def test_no_abort_is_recorded_where_the_settings_forbid_it(
    setting: dict[str, bool], target: Target, manager: User, settings: Any
) -> None:
    for name, value in setting.items():
        setattr(settings, name, value)
    with pytest.raises(NotAllowed):
        target.request(manager)


def test_unsent_abort_of_a_dead_process_is_adopted_and_sent(target: Target, manager: User) -> None:
    abort = target.request(manager)
    expire_lease(abort)
    northflank = target.northflank()
    logs = northflank.reconcile()
    assert northflank.methods == ["GET", target.abort_method]
    assert [kind for kind, _ in timeline(abort)] == ["adopted", "sent", "accepted"]
    assert logs[0] == target.log_line("adopted", "warning")


def test_sent_abort_of_a_dead_process_is_read_then_resent(target: Target, manager: User) -> None:
    abort = target.request(manager, mark_sent=True)
    expire_lease(abort)
    target.northflank().reconcile()
    assert [kind for kind, _ in timeline(abort)] == ["sent", "adopted", "unknown"]
    Abort.every.update(claimed_at=db_threads.now() - timedelta(seconds=2))
    northflank = target.northflank()
    northflank.reconcile()
    assert northflank.methods == ["GET", target.abort_method]
    assert reread().state == "accepted"


def test_unsent_abort_is_not_adopted_after_its_right_is_revoked(
    target: Target, manager: User
) -> None:
    abort = target.request(manager)
    expire_lease(abort)
    manager.groups.clear()
    northflank = target.northflank()
    northflank.reconcile()
    assert northflank.methods == []
    assert [kind for kind, _ in timeline(abort)] == ["not_sent"]


def test_abort_without_an_answer_is_resent_while_it_goes_on(target: Target, manager: User) -> None:
    abort = target.request(manager)
    target.northflank(abort=error_response(500)).send(abort)
    assert timeline(abort) == [("sent", ""), ("unknown", SERVER_ERROR_TEXT)]
    Abort.every.update(claimed_at=db_threads.now() - timedelta(seconds=2))
    northflank = target.northflank()
    northflank.reconcile()
    assert northflank.methods == ["GET", target.abort_method]
    assert (reread().state, reread().send_count) == ("accepted", 2)


def test_abort_that_never_arrives_is_settled_as_such(target: Target, manager: User) -> None:
    abort = target.request(manager)
    target.northflank(abort=error_response(500)).send(abort)
    Abort.every.update(send_count=5, sent_at=db_threads.now() - timedelta(seconds=30))
    settle_resolved_aborts(db_threads.now())
    assert timeline(abort)[-1] == ("not_arrived", "Already sent 5 times.")
    assert reread().settled_at is not None


def test_refused_abort_is_settled_if_it_goes_on(target: Target, manager: User) -> None:
    abort = target.request(manager)
    northflank = target.northflank(abort=error_response(409))
    northflank.send(abort)
    assert northflank.methods == [target.abort_method, "GET"]
    assert timeline(abort) == [("sent", ""), ("refused", REFUSED_TEXT)]


def test_abort_can_be_requested_again_after_ten_minutes(target: Target, manager: User) -> None:
    first = target.request(manager)
    target.northflank().send(first)
    assert target.request(manager, again_of_pk=first.pk) == first  # too early
    backdate_abort(first, requested_at=660)
    second = target.request(manager, again_of_pk=first.pk)
    assert second.again_of == first
    northflank = target.northflank()
    northflank.send(second)
    assert northflank.methods == ["GET", target.abort_method]
    assert timeline(first)[-1] == ("aborted_again", "manager")


# --- Of what a run has left running alone --------------------------------------------------------


def test_abort_of_an_ended_runs_job_run_is_accepted_and_followed_until_it_ends(
    left: Target, manager: User
) -> None:
    abort = left.request(manager)
    left.northflank().send(abort)
    assert messages.describe(reread(), left.run).plain_text.endswith("status is still RUNNING.")
    next_read = Work.objects.get().next_sync_at
    assert next_read is not None
    assert next_read <= db_threads.now()
    Work.objects.update(status="FAILED", concluded=True)
    settle_resolved_aborts(db_threads.now())
    assert timeline(abort)[-1] == ("concluded", "FAILED")
    message = messages.describe(reread(), left.run)
    assert message.plain_text == "Ended (FAILED) 0 s after the request."
    assert message.tone == "neutral"


@pytest.mark.parametrize("status", [401, 403])
def test_missing_right_of_the_token_is_named_in_both_spellings(
    status: int, left: Target, manager: User
) -> None:
    abort = left.request(manager)
    northflank = left.northflank(abort=error_response(status))
    northflank.send(abort)
    assert timeline(abort) == [("sent", ""), ("refused", NO_DEPLOY_RIGHT)]
    assert stored_fields(abort)["response_status"] == status


@pytest.mark.parametrize("status", [404, 409])
def test_refused_abort_is_too_late_if_it_has_ended(
    status: int, left: Target, manager: User
) -> None:
    abort = left.request(manager)
    ended = job_run_response("SUCCESS", concluded=True)
    left.northflank(abort=error_response(status), reading=ended).send(abort)
    assert timeline(abort)[-1] == ("too_late", "SUCCESS")


def test_not_found_abort_is_refused_if_it_goes_on(left: Target, manager: User) -> None:
    abort = left.request(manager)
    left.northflank(abort=error_response(404)).send(abort)
    assert timeline(abort)[-1][0] == "refused"


def test_abort_of_what_is_gone_is_too_late(left: Target, manager: User) -> None:
    abort = left.request(manager)
    left.northflank(abort=error_response(404), reading=error_response(404)).send(abort)
    assert timeline(abort)[-1] == ("too_late", "")
    assert not Work.objects.get().in_flight
    text = messages.describe(reread(), left.run).plain_text
    assert text == "Not found on Northflank (404)."


def test_what_is_gone_while_it_is_aborted_ends_its_abort(left: Target, manager: User) -> None:
    abort = left.request(manager)
    left.northflank().send(abort)
    Work.objects.update(removed_at=db_threads.now())
    settle_resolved_aborts(db_threads.now())
    assert timeline(abort)[-1] == ("concluded", "")
    assert "removed from Northflank" in messages.describe(reread(), left.run).plain_text


def test_what_has_ended_cannot_be_aborted(left: Target, manager: User) -> None:
    Work.objects.update(concluded=True)
    with pytest.raises(NotInFlight):  # although the page still showed it as running
        left.request(manager)
    assert not Abort.every.exists()


def test_aborts_of_a_run_and_of_what_it_left_are_told_apart(left: Target, manager: User) -> None:
    of_run = factories.abort(left.run, manager, settled_at=db_threads.now())
    of_work = left.request(manager)
    assert [*left.run.aborts.all()] == [*Abort.objects.all()] == [of_run]
    assert {*Abort.every.all()} == {of_run, of_work}


def test_open_abort_of_a_job_run_does_not_keep_the_run_from_being_aborted(
    run: Run, manager: User
) -> None:
    target = Target(run, factories.work(run))
    of_work, of_run = target.request(manager), Target(run, None).request(manager)
    assert of_work != of_run
    assert Target(run, None).request(manager, again_of_pk=of_work.pk) == of_run
    assert Abort.every.open().count() == 2


def test_abort_of_a_job_run_that_takes_long_is_overdue_and_can_be_repeated(
    left: Target, manager: User
) -> None:
    abort = left.request(manager)
    left.northflank().send(abort)
    backdate_abort(abort, requested_at=660)
    version = Run.objects.get().version
    [overdue] = left.northflank().reconcile()
    assert (overdue["event"], overdue["work"], overdue["severity"]) == (
        "abort.overdue", "j1", "critical",
    )  # fmt: skip
    assert left.northflank().reconcile() == []  # it is told once
    assert Run.objects.get().version > version
    assert "Not ended 10 min after the abort." in messages.describe(reread(), left.run).plain_text
    [found] = aborts_by_work([Work.objects.get()]).values()
    assert LeftWork(Work.objects.get(), found).is_abort_again_offered
    left.request(manager, again_of_pk=abort.pk)
    assert Work.objects.get().abort_severity == Severity.CRITICAL  # its clock goes on
