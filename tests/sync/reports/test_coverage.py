"""Coverage in one sentence: what has not been read yet."""

from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import CatalogSync, Stage
from dashboard.sync.reports import report as sync_report
from dashboard.sync.reports.report import Report
from dashboard.sync.reports.sync_state import SyncState
from dashboard.sync.reports.totals import NameTotals
from tests.support import factories
from tests.support.messages import keys, keys_and_params
from tests.support.world import T0

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
        (report(9, 2, unread_failing=2), "unread unread_failing"),
        (report(9, 2, unlisted=3), "unread unlisted"),
    ],
)
def test_incomplete_coverage_has_details(subject: Report, details: str) -> None:
    assert keys(subject.incomplete) == f"{details} incomplete"
    assert not subject.is_complete


def test_coverage_has_numbers_and_complete_stages() -> None:
    subject = report(3000, 1900, "Production", "Staging")
    assert keys_and_params(subject.incomplete) == (
        "unread complete_stages incomplete",
        {
            "n": 3000,
            "unread": "1,900",
            "total": "3,000",
            "stages": "Production and Staging",
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
    assert (coverage.unread, coverage.total("unread_failing")) == (1, 1)
