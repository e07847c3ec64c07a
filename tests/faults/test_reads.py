"""Each call that reads Northflank, with each fault: pages stay up and true, nothing is lost."""

from contextlib import nullcontext

import pytest

from dashboard.models import Run
from dashboard.sandbox import parse_fault
from tests.support.fault_kinds import FAULTS, FaultKind
from tests.support.fault_matrix import matrix
from tests.support.faulty_upstream import FaultyUpstream
from tests.support.outage_invariants import (
    assert_log_has_each_change_once,
    assert_nothing_is_lost,
    assert_pages_are_true,
    bounded_memory,
    logged_warnings,
    recorded_errors,
    stored_rows,
)

CALLS = (
    "the token's team", "projects", "pipelines", "a pipeline", "a release flow", "runs", "a run",
    "every call",
)  # fmt: skip
# Seconds until each round: the first reads what is in flight, the second all, as after a gap, and
# the third release flows, too.
ROUNDS = (30, 6 * 3600, 60)
RECOVERY_MINUTES = 16  # the longest backoff, and a minute
# Links to Northflank lack the team, which is logged once.
TEAM_UNKNOWN = {("the token's team", fault) for fault in ("403", "404")}
# Answers that say less than they should, and nothing wrong.
HARMLESS = {
    *TEAM_UNKNOWN,
    *(
        ("the token's team", fault)
        for fault in (
            *("data of nothing", "answer to another request", "JSON that takes most memory"),
            *("wrong types", "wrong types where optional"),
        )
    ),
    ("projects", "wrong types where optional"),
    ("pipelines", "wrong types where optional"),
    ("runs", "wrong types where optional"),
    ("runs", "data of nothing"),  # as documented for a stage without runs
    ("a run", "wrong types where optional"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("call", "fault"), matrix(CALLS, FAULTS))
def test_read_with_fault_keeps_what_is_known_and_recovers(
    upstream: FaultyUpstream, call: str, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    kind = FAULTS[fault]
    run = upstream.start()
    upstream.page("run", run)  # from now on it is watched
    if call == "a pipeline":  # it is read where the release flow is not found
        flow = "@/release-flows/production$", "@/release-flows/Production$"
        upstream.live.sandbox.faults = [parse_fault(f"404{target}") for target in flow]
    failed = fail(upstream, kind, call, run)
    if call not in {"a pipeline", "a release flow"}:  # which is logged, and read again as planned
        assert bool(failed) == ((call, fault) not in HARMLESS)

    upstream.live.sandbox.faults = []
    upstream.world.now += 600
    new_run_id = upstream.world.start()
    for _ in range(RECOVERY_MINUTES):
        pass_time(upstream, call, 60)
        if not recorded_errors() and upstream.is_mirrored():
            break
    assert recorded_errors() == []
    assert upstream.is_mirrored()
    new_run = Run.objects.with_stage().get(run_id=new_run_id)
    assert_pages_are_true(upstream.pages(new_run), new_run)
    assert_log_has_each_change_once(caplog.records, failed)
    if (call, fault) in TEAM_UNKNOWN:
        assert "northflank.team_unknown" in logged_warnings(caplog.records)


def fail(upstream: FaultyUpstream, kind: FaultKind, call: str, run: Run) -> set[str]:
    """Work with a fault; return of what an error was recorded."""
    before = stored_rows()
    errors: set[tuple[str, str]] = set()
    with upstream.failing(kind, call):
        for seconds in ROUNDS:
            with bounded_memory() if kind.is_heavy and seconds == max(ROUNDS) else nullcontext():
                pass_time(upstream, call, seconds)
            assert_nothing_is_lost(before)
            errors |= set(recorded_errors())
        assert_pages_are_true(upstream.pages(run), run)
    assert upstream.has_met_fault(kind)
    assert {cause for _, cause in errors} <= kind.causes | {"of a run"}
    return {what for what, _ in errors}


def pass_time(upstream: FaultyUpstream, call: str, seconds: float) -> None:
    upstream.jump(seconds)
    if call in {"a pipeline", "a release flow"}:
        upstream.make_flows_due()
    upstream.work()
    if call == "the token's team":  # a process asks at its start, and until it knows
        upstream.fetch_team()
