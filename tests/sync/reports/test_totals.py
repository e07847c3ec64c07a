"""The totals of reads, counted by the database, equal those counted one stage at a time."""

from datetime import timedelta
from itertools import product

import pytest
from django.utils import timezone

from dashboard.models import CatalogSync, Stage
from dashboard.models.catalog import StageName
from dashboard.sync import schedule
from dashboard.sync.reports import report as sync_report
from dashboard.sync.reports.report import Report
from dashboard.sync.reports.sync_state import SyncState
from dashboard.sync.schedule import MIN_GAP_AGE
from tests.support import factories
from tests.support.messages import keys

NOW = timezone.now().replace(microsecond=0)
SECOND, LONG = timedelta(seconds=1), timedelta(days=1)
READS = [  # (synced_at, fresh_until)
    (None, None),
    (NOW, None),
    (NOW - 10 * SECOND, NOW + SECOND),
    (NOW - 10 * SECOND, NOW),
    (NOW - 60 * SECOND, NOW - schedule.GRACE),
    (NOW - 60 * SECOND, NOW - schedule.GRACE - SECOND),
    (NOW - MIN_GAP_AGE - SECOND, NOW - LONG / 2),
    (NOW - LONG, NOW - LONG + SECOND),
    (NOW - LONG, NOW + LONG),
]


def load(stages: list[Stage]) -> Report:
    chosen = Stage.objects.filter(pk__in=[stage.pk for stage in stages])
    return sync_report.load(chosen, CatalogSync.objects.all(), NOW)


@pytest.fixture
def stages(db: None) -> list[Stage]:
    """One stage in each state of its last read, with and without a flow and an error."""
    states = product(READS, (True, False, None), (True, False), ("", "forbidden"))
    return [
        factories.stage(
            StageName.values[number % 3],
            factories.pipeline(f"p-{number}"),
            synced_at=synced_at,
            fresh_until=fresh_until,
            has_flow=has_flow,
            in_flight_incomplete=is_incomplete,
            error=error,
        )
        for number, ((synced_at, fresh_until), has_flow, is_incomplete, error) in enumerate(states)
    ]


@pytest.mark.slow
def test_totals_equal_those_of_each_stage_alone(stages: list[Stage]) -> None:
    with_flow = [stage for stage in stages if stage.has_flow is not False]
    gaps = [stage for stage in stages if schedule.has_gap(stage, NOW)]
    report = load(stages)
    total = report.total
    assert report.stages == len(stages)
    assert report.with_flow == len(with_flow)
    assert total("read") == sum(stage.synced_at is not None for stage in stages)
    assert total("with_flow_read") == sum(stage.synced_at is not None for stage in with_flow)
    assert total("failing") == sum(bool(stage.error) for stage in with_flow)
    assert report.oldest_sync_at == min(s.synced_at for s in with_flow if s.synced_at)
    assert total("stale") == sum(
        schedule.is_stale(stage.fresh_until, NOW) and stage not in gaps for stage in with_flow
    )
    assert report.unread == len(gaps)
    assert total("unread_failing") == sum(bool(stage.error) for stage in gaps)
    assert 0 < total("stale") < report.unread < report.stages


@pytest.mark.slow
def test_totals_of_loaded_stages_equal_those_of_the_database(stages: list[Stage]) -> None:
    loaded, counted = sync_report.of_stages(stages, SyncState(NOW)), load(stages)
    assert loaded.new_runs_within == counted.new_runs_within
    assert loaded.oldest_sync_at == counted.oldest_sync_at
    for field in ("stages", "with_flow", "stale", "old", "unread", "unread_failing"):
        assert loaded.total(field) == counted.total(field)


def test_interval_is_the_longest_of_the_production_stages_with_a_flow(db: None) -> None:
    for number, (seconds, has_flow) in enumerate([(240, True), (1_680, None), (21_600, False)]):
        read = {"synced_at": NOW, "fresh_until": NOW + seconds * SECOND, "has_flow": has_flow}
        factories.stage("Production", factories.pipeline(f"p{number}"), **read)
    factories.stage("Development", synced_at=NOW, fresh_until=NOW + 3_600 * SECOND)
    assert load(list(Stage.objects.all())).new_runs_within == 1_680


@pytest.mark.slow
def test_totals_of_one_stage_say_whether_it_is_old(stages: list[Stage]) -> None:
    for stage in stages:
        totals = load([stage])
        assert totals.has_old_reads == schedule.is_stale(stage.fresh_until, NOW)
        assert totals.oldest_sync_at == stage.synced_at


def test_stage_names_without_gap_are_complete(db: None) -> None:
    unread = {"synced_at": None, "fresh_until": None}
    stages = [
        factories.stage("Production"),
        factories.stage("Staging"),
        factories.stage("Staging", factories.pipeline("other"), **unread),
        factories.stage("Development", **unread),
    ]
    assert "complete_stages" in keys(load(stages).incomplete)
    assert load(stages).incomplete_text == (
        "Incomplete: 2 of 4 stages not read yet, Production complete."
    )


def test_totals_of_lists(db: None) -> None:
    factories.catalog_list()
    factories.failed_catalog_list(factories.project("a"))
    totals = load([])
    assert totals.failing_lists == 1
    assert totals.unlisted == 1
    assert totals.has_project_list
