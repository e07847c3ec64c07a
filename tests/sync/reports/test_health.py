"""The health of the sync in one sentence: the worst problem, else how old the data may be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dashboard.sync.reports.report import Report
from dashboard.sync.reports.sync_state import RateLimitUsage, SyncState
from dashboard.sync.reports.totals import NameTotals
from dashboard.texts.rich_text import to_text
from tests.support.messages import keys

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
RUNNING = SyncState(NOW, holder="a", last_heartbeat_at=NOW)
USAGE = RateLimitUsage(
    limit=1000, remaining=500, resets_at=NOW + timedelta(minutes=45), synced_at=NOW
)  # fmt: skip
HEALTHY = Report(RUNNING, [NameTotals("Production", 30, 30, 30, 30, oldest_with_flow=NOW)])
INCOMPLETE = {"has_project_list": False}


def report(sync: SyncState = RUNNING, stages: int = 30, **fields: Any) -> Report:
    """The report on stages that have just been read, with these fields of it or of its totals."""
    own = {name: fields.pop(name) for name in list(fields) if name in Report.__slots__}
    totals = NameTotals("Production", stages, with_flow=stages, oldest_with_flow=NOW)
    return Report(sync, [replace(totals, **fields)], **own)


def with_usage(**fields: Any) -> SyncState:
    return replace(RUNNING, rate_limit=replace(USAGE, **fields))


DOWN = replace(RUNNING, upstream_error="unreachable")
STOPPED = replace(DOWN, last_heartbeat_at=NOW - timedelta(minutes=1))


@pytest.mark.parametrize(
    ("subject", "tone", "text"),
    [
        (report(), "good", "as_planned"),
        (report(stages=0), "info", "no_pipelines"),
        (report(stages=0, is_restricted=True), "info", "no_access"),
        (report(**INCOMPLETE), "warning", "no_project_list"),
        (report(failing=2, **INCOMPLETE), "warning", "no_project_list stages failing"),
        (report(stale=1), "warning", "stages stale"),
        (report(failing=2), "warning", "stages failing"),
        (
            report(stale=2, failing=1, failing_lists=1),
            "warning",
            "stages stale stages failing stages failing_lists",
        ),
        (report(DOWN, stale=3), "warning", "upstream_down"),
        (report(SyncState(NOW)), "bad", "not_running"),
        (report(STOPPED), "bad", "stopped"),
        (report(replace(DOWN, round_ended_at=NOW - timedelta(seconds=61))), "bad", "stalled"),
    ],
)
def test_health_is_the_worst_problem(subject: Report, tone: str, text: str) -> None:
    assert (subject.health.tone, keys(subject.health.text)) == (tone, text)


def test_health_while_incomplete_starts_with_what_is_missing() -> None:
    text = to_text(report(failing=2, **INCOMPLETE).health.text)
    assert text == "Incomplete: projects not read yet. 2 stages cannot be read."


def test_health_when_rate_limited_has_end_time() -> None:
    until = NOW + timedelta(minutes=9)
    paused = with_usage(backoff_until=until, remaining=0)
    status = report(replace(paused, upstream_error="x", upstream_error_since=NOW)).health
    assert (status.tone, status.since, status.until) == ("warning", NOW, until)
    assert keys(status.sentence("a", "b")) == "rate_limited since_until"


def test_health_when_rate_limited_with_requests_left_has_end_time() -> None:
    until = NOW + timedelta(seconds=5)
    status = report(with_usage(backoff_until=until, remaining=985)).health
    assert keys(status.sentence("", "b")) == "rate_limited until"


@pytest.mark.parametrize("fields", [{}, INCOMPLETE | {"stale": 3}])
def test_health_with_used_up_requests_has_end_time(fields: dict[str, Any]) -> None:
    status = report(with_usage(remaining=100), **fields).health
    assert (status.tone, keys(status.text)) == ("warning", "used_up")
    assert status.until == USAGE.resets_at


def test_health_after_pause_mentions_probe() -> None:
    probing = replace(with_usage(refusals=1), upstream_error="x")
    assert (report(probing).health.tone, keys(report(probing).health.text)) == (
        "warning",
        "probing",
    )


def test_healthy_report_has_no_problems() -> None:
    assert HEALTHY.problems == ()
