"""A link to a run that was never read, with each fault: a page says so, and finds it later."""

from html import unescape

import pytest

from dashboard.models import Run, Stage
from tests.support.fault_kinds import FAULTS
from tests.support.fault_matrix import matrix
from tests.support.faulty_upstream import FaultyUpstream
from tests.support.outage_invariants import (
    assert_nothing_is_lost,
    recorded_errors,
    stored_rows,
)

# By the whole address of the run. A search reads lists, like all reads: see test_reads.
LINKS = ("in its stage",)
READABLE = {"wrong types where optional"}


@pytest.mark.parametrize(("how", "fault"), matrix(LINKS, FAULTS, step=6))
def test_link_to_unread_run_with_fault_is_reported_truly_and_found_later(
    upstream: FaultyUpstream, how: str, fault: str
) -> None:
    kind = FAULTS[fault]
    run = upstream.start()
    before = stored_rows()
    run_id = upstream.world.start()
    address = link(run, run_id)
    with upstream.failing(kind, "a run"), upstream.live.ticking():
        answer = upstream.browser.get(address)
        text = unescape(answer.text)
        assert answer.status_code in {200, 302, 404}, text
        is_found = Run.objects.filter(run_id=run_id).exists()
        assert is_found == (fault in READABLE)
        assert run_id in text or is_found
        is_denied = "Not found on Northflank either." in text
        assert is_denied == (fault == "404"), text
        assert_nothing_is_lost(before)
        assert upstream.has_met_fault(kind)
    for _ in range(16):
        upstream.jump(60)
        upstream.work()
        if not recorded_errors() and upstream.is_mirrored():
            break
    assert Stage.objects.exclude(error="").count() == 0
    with upstream.live.ticking():
        assert upstream.browser.get(address, follow_redirects=True).status_code == 200
    assert Run.objects.filter(run_id=run_id).exists()


def link(run: Run, run_id: str) -> str:
    stage = run.stage
    pipeline = f"/projects/{stage.pipeline.project.slug}/pipelines/{stage.pipeline.slug}"
    return f"{pipeline}/release-flows/production/runs/{run_id}/"
