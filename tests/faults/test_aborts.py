"""An abort with each fault, before and after Northflank has acted: sent once, and told truly."""

import pytest

from dashboard.models import Abort, AbortEvent, Run
from dashboard.models.abort_lifecycle import AbortState, EventType
from tests.support.abort_invariants import assert_abort_is_consistent
from tests.support.fault_kinds import FAULTS, FaultKind, after_acting
from tests.support.fault_matrix import matrix
from tests.support.faulty_upstream import FaultyUpstream
from tests.support.live_runs import (
    abort_message,
    create_run_in_flight,
    notice_text,
    read,
    reconcile,
    submit_abort,
    wait_until,
)
from tests.support.outage_invariants import assert_log_has_abort

# By these answers Northflank says that it has not acted, and is believed.
BELIEVED = {
    "429 without headers", "429 with Retry-After", "429 with a spent window", "401", "403",
}  # fmt: skip
NEVER_ARRIVED = {name for name, kind in FAULTS.items() if kind.connection}
LONG_PAUSE = {"429 with a spent window"}  # longer than an abort is resent
UNREADABLE = [name for name in FAULTS if name != "wrong types where optional"]
# Each fault before and after Northflank has acted, where that makes a difference.
TIMINGS = [
    *((name, "before") for name, kind in FAULTS.items() if not kind.acts),
    *((name, "after") for name in FAULTS if name not in NEVER_ARRIVED),
]


@pytest.mark.parametrize(("fault", "timing"), TIMINGS)
def test_abort_with_fault_is_reported_truly_and_takes_effect_once(
    upstream: FaultyUpstream, fault: str, timing: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = create_run_in_flight(upstream.live)
    with upstream.failing(find_kind(fault, timing), "an abort"):
        answer = notice_text(submit_abort(upstream.browser, run))
        assert answer == abort_message()
        if timing == "after":  # the dashboard may have given up before
            wait_until(lambda: count_received(upstream, run))
        assert_abort_is_true(upstream, run, fault)
        upstream.jump(3)
        reconcile(upstream.live)
        assert_abort_is_true(upstream, run, fault)
        assert count_received(upstream, run) == (timing == "after")
    recover(upstream, run, fault)
    abort = Abort.objects.get()
    is_aborted = timing == "after" or abort.state == AbortState.CONCLUDED
    assert (Run.objects.get().status == "aborted") == is_aborted
    if fault not in BELIEVED | NEVER_ARRIVED | {"404"}:
        assert (abort.state, abort.outcome) == (AbortState.CONCLUDED, "aborted")
    assert_log_has_abort(caplog.records, happened())


@pytest.mark.slow
@pytest.mark.parametrize(("call", "fault"), matrix(("a run", "every call"), UNREADABLE, step=6))
def test_abort_without_answer_is_not_resent_while_its_run_cannot_be_read(
    upstream: FaultyUpstream, call: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = create_run_in_flight(upstream.live)
    lost = FAULTS["reset before acting"]
    with upstream.failing(lost, "an abort"), upstream.failing(FAULTS[fault], call):
        notice_text(submit_abort(upstream.browser, run))
        for seconds in (3, 5, 10):
            upstream.jump(seconds)
            reconcile(upstream.live)
            assert requests_about(upstream, run).count("POST") <= 1
            assert_abort_is_true(upstream, run, fault)
    recover(upstream, run, fault)
    is_aborted = Abort.objects.get().state == AbortState.CONCLUDED
    assert is_aborted == (fault not in NEVER_ARRIVED | LONG_PAUSE)
    assert (Run.objects.get().status == "aborted") == is_aborted
    assert_log_has_abort(caplog.records, happened())


def happened() -> set[EventType]:
    """Return the types of the abort's events."""
    return {EventType(value) for value in AbortEvent.objects.values_list("event_type", flat=True)}


def find_kind(fault: str, timing: str) -> FaultKind:
    kind = FAULTS[fault]
    return after_acting(kind) if timing == "after" and not kind.acts else kind


def count_received(upstream: FaultyUpstream, run: Run) -> int:
    """Return how many aborts of a run Northflank has acted on."""
    return upstream.live.sandbox.abort_request_counts[run.run_id]


def requests_about(upstream: FaultyUpstream, run: Run) -> list[str]:
    """Return the methods of the requests about a run, in their order: POST is an abort."""
    return [request.method for request in upstream.proxy.requests if run.run_id in request.path]


def recover(upstream: FaultyUpstream, run: Run, fault: str) -> None:
    """Let two minutes pass, in which an abort is resent, and its run ends if it has arrived."""
    for seconds in (3, 5, 60, 30, 30):
        upstream.jump(seconds)
        upstream.world.now += 3
        read(upstream.live, run)
        assert_abort_is_true(upstream, run, fault)


def assert_abort_is_true(upstream: FaultyUpstream, run: Run, fault: str) -> None:
    """Fail unless the abort's record and message agree with what Northflank did."""
    abort = Abort.objects.select_related("run__stage__pipeline__project").get()
    received = count_received(upstream, run)
    assert received <= 1, "sent again, after Northflank had received it"
    if abort.state in {AbortState.ACCEPTED, AbortState.CONCLUDED}:
        assert received, abort_message(abort)
    if abort.state in {AbortState.NOT_SENT, AbortState.REFUSED}:
        assert not received or fault in BELIEVED, abort_message(abort)
    methods = requests_about(upstream, run)
    assert "POST POST" not in " ".join(methods), "resent without a read"
    assert_abort_is_consistent(
        abort,
        list(AbortEvent.objects.order_by("pk")),
        status=upstream.statuses()[run.run_id],
        request_count=methods.count("POST"),
    )
