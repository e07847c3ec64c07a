"""`manage.py check_upstream` with each fault: a report of what failed, and no change."""

import asyncio

import pytest

from dashboard.models import RateBudget
from dashboard.upstream.check import check
from tests.support.fault_kinds import FAULTS
from tests.support.fault_matrix import matrix
from tests.support.faulty_upstream import SHORT_TIMEOUT, FaultyUpstream
from tests.support.outage_invariants import recorded_errors, stored_rows

CALLS = (
    "the token's team", "projects", "pipelines", "a release flow", "runs", "a run", "every call",
)  # fmt: skip
LONG_TIMEOUT = 60.0
MAX_REQUESTS = 40  # where each is repeated
HARMLESS = {("the token's team", "answer to another request")}  # which is this one


@pytest.mark.parametrize(("call", "fault"), matrix(CALLS, FAULTS, step=6))
def test_check_with_fault_reports_it_and_changes_nothing(
    upstream: FaultyUpstream, call: str, fault: str
) -> None:
    kind = FAULTS[fault]
    upstream.start()
    before = stored_rows()
    RateBudget.objects.all().delete()
    upstream.proxy.requests.clear()
    timeout = SHORT_TIMEOUT if kind.hangs else LONG_TIMEOUT
    with upstream.failing(kind, call):
        report = asyncio.run(check("sandbox", upstream.url(kind), "", (), timeout_seconds=timeout))
    assert upstream.has_met_fault(kind)
    assert len(upstream.proxy.requests) <= MAX_REQUESTS
    assert (report.exit_status > 0) == ((call, fault) not in HARMLESS), report.lines
    assert stored_rows() == before
    assert recorded_errors() == []
