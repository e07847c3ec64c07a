"""What was promised, whether it was kept, and the one sentence on top of the status page."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dashboard.sync import freshness
from dashboard.sync.freshness import GRACE, HEARTBEAT_TIMEOUT, SyncState

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
HEALTHY = SyncState(stages=30, workers=1)


def test_never_read_data_is_not_stale() -> None:
    assert not freshness.is_stale(None, NOW)


def test_data_is_stale_only_after_grace_period() -> None:
    assert not freshness.is_stale(NOW - GRACE, NOW)
    assert freshness.is_stale(NOW - GRACE - timedelta(milliseconds=1), NOW)


def test_worker_without_recent_heartbeat_is_not_alive() -> None:
    assert freshness.is_alive(NOW - HEARTBEAT_TIMEOUT, NOW)
    assert not freshness.is_alive(NOW - HEARTBEAT_TIMEOUT - timedelta(milliseconds=1), NOW)


def test_worker_with_clock_ahead_is_alive() -> None:
    assert freshness.is_alive(NOW + timedelta(minutes=5), NOW)


@pytest.mark.parametrize(
    ("facts", "tone", "text"),
    [
        (HEALTHY, "good", "All 30 stages are as fresh as promised."),
        (replace(HEALTHY, stages=1), "good", "The one stage is as fresh as promised."),
        (replace(HEALTHY, stages=0), "info", "This token sees no pipeline."),
        (replace(HEALTHY, incomplete="Incomplete: so."), "warning", "Incomplete: so."),
        (
            replace(HEALTHY, incomplete="Incomplete: so.", failing=2),
            "warning",
            "Incomplete: so. 2 stages can’t be read.",
        ),
        (replace(HEALTHY, stale=1), "warning", "1 of 30 stages is older than promised."),
        (replace(HEALTHY, stale=3), "warning", "3 of 30 stages are older than promised."),
        (replace(HEALTHY, failing=2), "warning", "2 stages can’t be read."),
        (
            replace(HEALTHY, stale=2, failing=1, failing_lists=1),
            "warning",
            (
                "2 of 30 stages are older than promised. 1 stage can’t be read. "
                "1 list of the catalog can’t be read."
            ),
        ),
        (
            replace(HEALTHY, upstream_error="It fell over.", stale=3),
            "warning",
            "Northflank can’t be read",
        ),
        (replace(HEALTHY, workers=0), "bad", "Nobody reads Northflank: no worker is at work."),
        (
            replace(HEALTHY, workers=0, last_heartbeat_at=NOW, upstream_error="It fell over."),
            "bad",
            "Nobody reads Northflank: no worker was heard of",
        ),
    ],
)
def test_sync_health_text_starts_with_worst_problem(facts: SyncState, tone: str, text: str) -> None:
    status = freshness.assess(facts)
    assert (status.tone, status.text) == (tone, text)


def test_sync_health_when_rate_limited_has_end_time() -> None:
    until = NOW + timedelta(minutes=9)
    facts = replace(
        HEALTHY, upstream_error="Too many.", upstream_error_since=NOW, backoff_until=until
    )
    status = freshness.assess(facts)
    assert (status.tone, status.since, status.until) == ("warning", NOW, until)
    assert "refuses requests" in status.text


def test_sync_health_distinguishes_pause_from_spent_rate_limit() -> None:
    until = NOW + timedelta(seconds=5)
    status = freshness.assess(replace(HEALTHY, backoff_until=until, remaining=985, limit=1000))
    assert status.text == "Northflank asks for a pause (429), with 985 of 1,000 requests left,"
    exhausted = freshness.assess(replace(HEALTHY, backoff_until=until, remaining=0, limit=1000))
    assert exhausted.text == "Northflank refuses requests, since this hour’s are spent,"


def test_sync_health_after_pause_mentions_probe() -> None:
    status = freshness.assess(replace(HEALTHY, upstream_error="Too many.", is_probing=True))
    assert (status.tone, "one request tries" in status.text) == ("warning", True)


def test_sync_health_when_healthy_has_no_partial_text() -> None:
    assert freshness.problems_message(HEALTHY) == ""
