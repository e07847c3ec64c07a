"""Freshness: the planned interval, whether it was met, and the status page's headline."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dashboard.sync.reports import freshness
from dashboard.sync.reports.freshness import GRACE, SyncState
from dashboard.texts.rich_text import to_text
from tests.support.messages import keys, keys_and_params

NOW = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
HEALTHY = SyncState(stages=30, workers=1)


def test_never_read_data_is_not_stale() -> None:
    assert not freshness.is_stale(None, NOW)


def test_data_is_stale_only_after_grace_period() -> None:
    assert not freshness.is_stale(NOW - GRACE, NOW)
    assert freshness.is_stale(NOW - GRACE - timedelta(milliseconds=1), NOW)


@pytest.mark.parametrize(
    ("facts", "tone", "text"),
    [
        (HEALTHY, "good", "up_to_date"),
        (replace(HEALTHY, stages=0), "info", "no_pipelines"),
        (replace(HEALTHY, stages=0, is_restricted=True), "info", "no_access"),
        (replace(HEALTHY, incomplete="Incomplete: so."), "warning", ""),
        (replace(HEALTHY, incomplete="Incomplete: so.", failing=2), "warning", "stages failing"),
        (replace(HEALTHY, stale=1), "warning", "stages stale"),
        (replace(HEALTHY, failing=2), "warning", "stages failing"),
        (
            replace(HEALTHY, stale=2, failing=1, failing_lists=1, partial_lists=1),
            "warning",
            "stages stale stages failing stages failing_lists stages partial_lists",
        ),
        (replace(HEALTHY, upstream_error="It fell over.", stale=3), "warning", "upstream_down"),
        (replace(HEALTHY, workers=0), "bad", "not_running"),
        (
            replace(HEALTHY, workers=0, last_heartbeat_at=NOW, upstream_error="It fell over."),
            "bad",
            "stopped",
        ),
    ],
)
def test_sync_health_starts_with_worst_problem(facts: SyncState, tone: str, text: str) -> None:
    status = freshness.assess(facts)
    assert (status.tone, keys(status.text)) == (tone, text)


def test_sync_health_while_incomplete_starts_with_what_is_missing() -> None:
    status = freshness.assess(replace(HEALTHY, incomplete="Incomplete: so.", failing=2))
    assert to_text(status.text) == "Incomplete: so. 2 stages cannot be read."


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (replace(HEALTHY, stale=1), "1 of 30 stages is out of date."),
        (replace(HEALTHY, stale=3), "3 of 30 stages are out of date."),
    ],
)
def test_stale_stages_are_singular_or_plural(facts: SyncState, text: str) -> None:
    assert to_text(freshness.problems_message(facts)) == text


def test_sync_health_when_rate_limited_has_end_time() -> None:
    until = NOW + timedelta(minutes=9)
    facts = replace(
        HEALTHY, upstream_error="Too many.", upstream_error_since=NOW, backoff_until=until
    )
    status = freshness.assess(facts)
    assert (status.tone, status.since, status.until) == ("warning", NOW, until)
    assert keys(status.sentence("a", "b")) == "rate_limit_reached since_until"


def test_sync_health_distinguishes_pause_from_spent_rate_limit() -> None:
    until = NOW + timedelta(seconds=5)
    status = freshness.assess(replace(HEALTHY, backoff_until=until, remaining=985, limit=1000))
    assert keys_and_params(status.text) == ("rate_limited", {"left": "985", "limit": "1,000"})
    exhausted = freshness.assess(replace(HEALTHY, backoff_until=until, remaining=0, limit=1000))
    assert keys(exhausted.sentence("", "b")) == "rate_limit_reached until"


def test_sync_health_with_used_up_requests_has_end_time() -> None:
    until = NOW + timedelta(minutes=45)
    for facts in (HEALTHY, replace(HEALTHY, incomplete="Incomplete: so.", stale=3)):
        status = freshness.assess(replace(facts, used_up_until=until))
        assert (status.tone, keys(status.text), status.until) == ("warning", "used_up", until)


def test_sync_health_with_few_requests_left_mentions_them_after_other_problems() -> None:
    until = NOW + timedelta(minutes=45)
    slowed = replace(HEALTHY, slowed_until=until)
    status = freshness.assess(slowed)
    assert (status.tone, keys(status.text), status.until) == ("warning", "slowed", until)
    assert freshness.assess(replace(slowed, used_up_until=until)).text != status.text
    assert freshness.assess(replace(slowed, failing=1)).text != status.text


def test_sync_health_during_outage_does_not_mention_used_up_requests() -> None:
    facts = replace(HEALTHY, upstream_error="It fell over.", used_up_until=NOW)
    assert keys(freshness.assess(facts).text) == "upstream_down"


def test_sync_health_after_pause_mentions_probe() -> None:
    status = freshness.assess(replace(HEALTHY, upstream_error="Too many.", is_probing=True))
    assert (status.tone, keys(status.text)) == ("warning", "probing")


def test_sync_health_when_healthy_has_no_partial_text() -> None:
    assert freshness.problems_message(HEALTHY) == ()
