"""Coverage in one sentence: what has not been read yet, and about how long that takes."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import CatalogSync, RateBudget, Stage
from dashboard.sync.reports import report as sync_report
from dashboard.sync.reports.report import Report
from dashboard.sync.reports.sync_state import SyncState
from dashboard.sync.reports.totals import NameTotals
from dashboard.sync.schedule import estimate_seconds
from dashboard.upstream import rate_budget as rules
from dashboard.upstream.rate_budget import RateLimitWindow, ReadBudget
from tests.support import factories
from tests.support.messages import keys, keys_and_params
from tests.support.world import T0, at

UNREAD = {"synced_at": None, "fresh_until": None}


def report(stages: int, unread: int = 0, *complete: str, **fields: Any) -> Report:
    """The report on stages of which some are unread, and on one of each complete name."""
    own = {name: fields.pop(name) for name in list(fields) if name in Report.__slots__}
    names = [NameTotals(name, 1) for name in complete]
    totals = NameTotals("Development", stages - len(complete), unread=unread, **fields)
    return Report(SyncState(T0), [*names, totals], **own)


def load_coverage() -> Report:
    lists = CatalogSync.objects.all()
    return sync_report.load(Stage.objects.listed(), lists, timezone.now())


@pytest.mark.parametrize(
    ("subject", "details"),
    [
        (report(255, 208), "unread"),
        (report(255, 208, seconds_left=125.0), "unread time_left"),
        (report(255, 208, seconds_left=3.0), "unread last_minute"),
        (report(9, 2, unread_failing=2), "unread unread_failing"),
        (report(9, 2, unlisted=3), "unread unlisted"),
    ],
)
def test_incomplete_coverage_has_details(subject: Report, details: str) -> None:
    assert keys(subject.incomplete) == f"{details} incomplete"
    assert not subject.is_complete


def test_coverage_has_numbers_stages_and_time_left() -> None:
    subject = report(3000, 1900, "Production", "Staging", seconds_left=7300.0)
    assert keys_and_params(subject.incomplete) == (
        "unread complete_stages time_left incomplete",
        {
            "n": 3000,
            "unread": "1,900",
            "total": "3,000",
            "stages": "Production and Staging",
            "time": "2 h 02 min",
        },
    )


def test_coverage_of_empty_database_is_incomplete(db: None) -> None:
    assert not load_coverage().is_complete


def test_coverage_of_read_stages_is_complete(read_stage: Stage) -> None:
    factories.stage("Staging", has_flow=False)
    assert (load_coverage().stages, load_coverage().is_complete) == (2, True)


def test_coverage_counts_unread_stages(read_stage: Stage) -> None:
    factories.stage("Staging", **UNREAD)
    assert (load_coverage().stages, load_coverage().unread) == (2, 1)
    assert load_coverage().incomplete_text.endswith("Production complete.")


def test_coverage_counts_stage_with_unread_older_runs(read_stage: Stage) -> None:
    Stage.objects.update(in_flight_incomplete=True)
    assert load_coverage().unread == 1


def test_coverage_counts_failing_stage_separately(read_stage: Stage) -> None:
    factories.stage("Staging", **UNREAD, error="forbidden", error_message="No.", failures=1)
    coverage = load_coverage()
    assert (coverage.unread, coverage.total("unread_failing"), coverage.seconds_left) == (
        1,
        1,
        None,
    )


def test_coverage_has_seconds_left_only_with_live_worker(read_stage: Stage) -> None:
    factories.stage("Staging", **UNREAD)
    assert load_coverage().seconds_left is None
    factories.leader()
    assert load_coverage().seconds_left is not None
    factories.upstream_error("It fell over.")
    assert load_coverage().seconds_left is None


def test_coverage_has_no_seconds_left_while_rate_limited(read_stage: Stage) -> None:
    factories.leader()
    factories.stage("Staging", **UNREAD)
    now = timezone.now()
    RateBudget.objects.create(
        limit=1000, remaining=985, resets_at=now + timedelta(minutes=50), synced_at=now,
        backoff_until=now + timedelta(seconds=50), refusals=1,
    )  # fmt: skip
    assert load_coverage().seconds_left is None


def full_window(other_usage: float = 0.0) -> RateLimitWindow:
    return RateLimitWindow(1000, 1000, at(3600), T0, 0, other_usage / 3600)


@pytest.mark.parametrize(
    ("reads", "other_usage", "minimum", "maximum"),
    [
        (180, 0, 10, 20),
        (300, 0, 20, 30),
        (300, 300, 20, 30),
        (675, 0, 50, 60),
        (680, 0, 100, 200),  # half of the rate is left
    ],
)
def test_seconds_to_read_follows_budget(
    reads: int, other_usage: int, minimum: float, maximum: float
) -> None:
    spend = rules.compute(full_window(other_usage), 100, T0)
    seconds = estimate_seconds(reads, spend)
    assert seconds is not None
    assert minimum <= seconds <= maximum


# Of a hundred requests sixty are for first reads at once (twelve a second), and twenty more follow
# at the even rate in the rest of the hour.
HOUR = ReadBudget(100, 3600, in_flight_requests=40)


@pytest.mark.parametrize(
    ("reads", "read_budget", "seconds"),
    [
        (0, HOUR, 0),
        (12, HOUR, 1),
        (60, HOUR, 5),
        (61, HOUR, 180),  # the last one waits for its turn
        (65, HOUR, 900),
        (65, replace(HOUR, burst=9), 900),
        (65, replace(HOUR, margin=10, burst=4), 900),  # what is left of the margin may be used
        (100, ReadBudget(100, 3600), 100 / 12),  # nothing is left for later
        (8, ReadBudget(10, 1, in_flight_requests=4), 1),  # the last second of a window
        (12, ReadBudget(0, 600, margin=10), None),
    ],
)
def test_seconds_to_read_are_those_at_once_and_at_even_rate(
    reads: int, read_budget: ReadBudget, seconds: float | None
) -> None:
    assert estimate_seconds(reads, read_budget) == pytest.approx(seconds)


def test_seconds_to_read_never_falls_with_more_stages() -> None:
    spend = rules.compute(full_window(300), 100, T0)
    times = [estimate_seconds(reads, spend) or 0.0 for reads in range(1, 900, 37)]
    assert times == sorted(times)
