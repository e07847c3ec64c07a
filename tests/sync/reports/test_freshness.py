"""Freshness: the planned interval, whether it was met, and the status page's headline."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dashboard.sync.reports import freshness
from dashboard.sync.reports.freshness import GRACE, HEARTBEAT_TIMEOUT, SyncState

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
        (HEALTHY, "good", "All 30 stages are up to date."),
        (replace(HEALTHY, stages=1), "good", "1 stage is up to date."),
        (replace(HEALTHY, stages=0), "info", "The API token has access to no pipelines."),
        (replace(HEALTHY, incomplete="Incomplete: so."), "warning", "Incomplete: so."),
        (
            replace(HEALTHY, incomplete="Incomplete: so.", failing=2),
            "warning",
            "Incomplete: so. 2 stages cannot be read.",
        ),
        (replace(HEALTHY, stale=1), "warning", "1 of 30 stages is out of date."),
        (replace(HEALTHY, stale=3), "warning", "3 of 30 stages are out of date."),
        (replace(HEALTHY, failing=2), "warning", "2 stages cannot be read."),
        (
            replace(HEALTHY, stale=2, failing=1, failing_lists=1),
            "warning",
            (
                "2 of 30 stages are out of date. 1 stage cannot be read. 1 list of projects or "
                "pipelines could not be loaded."
            ),
        ),
        (
            replace(HEALTHY, upstream_error="It fell over.", stale=3),
            "warning",
            "No updates from Northflank",
        ),
        (replace(HEALTHY, workers=0), "bad", "Sync is not running; data is not being updated."),
        (
            replace(HEALTHY, workers=0, last_heartbeat_at=NOW, upstream_error="It fell over."),
            "bad",
            "Sync stopped: no worker heartbeat",
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
    assert "Rate limit reached" in status.text


def test_sync_health_distinguishes_pause_from_spent_rate_limit() -> None:
    until = NOW + timedelta(seconds=5)
    status = freshness.assess(replace(HEALTHY, backoff_until=until, remaining=985, limit=1000))
    assert (
        status.text == "Rate limited by Northflank (429) with 985 of 1,000 requests left: updates "
        "paused"
    )
    exhausted = freshness.assess(replace(HEALTHY, backoff_until=until, remaining=0, limit=1000))
    assert exhausted.text == "Rate limit reached: updates paused"


def test_sync_health_after_pause_mentions_probe() -> None:
    status = freshness.assess(replace(HEALTHY, upstream_error="Too many.", is_probing=True))
    assert (status.tone, "test request" in status.text) == ("warning", True)


def test_sync_health_when_healthy_has_no_partial_text() -> None:
    assert freshness.problems_message(HEALTHY) == ""
