"""The totals of reads, counted by the database, equal those counted one stage at a time."""

from datetime import timedelta
from itertools import product

import pytest
from django.utils import timezone

from dashboard.models import CatalogSync, Stage
from dashboard.models.catalog import StageName
from dashboard.sync import schedule
from dashboard.sync.reports import freshness, read_totals
from dashboard.sync.schedule import MIN_GAP_AGE
from tests.support import factories

NOW = timezone.now().replace(microsecond=0)
SECOND, LONG = timedelta(seconds=1), timedelta(days=1)
READS = [  # (synced_at, fresh_until)
    (None, None),
    (NOW, None),
    (NOW - 10 * SECOND, NOW + SECOND),
    (NOW - 10 * SECOND, NOW),
    (NOW - 60 * SECOND, NOW - freshness.GRACE),
    (NOW - 60 * SECOND, NOW - freshness.GRACE - SECOND),
    (NOW - MIN_GAP_AGE - SECOND, NOW - LONG / 2),
    (NOW - LONG, NOW - LONG + SECOND),
    (NOW - LONG, NOW + LONG),
]


def load(stages: list[Stage]) -> read_totals.ReadTotals:
    chosen = Stage.objects.filter(pk__in=[stage.pk for stage in stages])
    return read_totals.load(chosen, CatalogSync.objects.all(), NOW)


@pytest.fixture
def stages(db: None) -> list[Stage]:
    """One stage in each state of its last read, with and without a flow and an error."""
    states = product(READS, (True, False, None), (True, False), ("", "forbidden"), ({}, {"1": 1}))
    return [
        factories.stage(
            StageName.values[number % 3],
            factories.pipeline(f"p-{number}"),
            synced_at=synced_at,
            fresh_until=fresh_until,
            has_flow=has_flow,
            in_flight_incomplete=is_incomplete,
            error=error,
            omitted_by_page=omitted,
        )
        for number, ((synced_at, fresh_until), has_flow, is_incomplete, error, omitted) in (
            enumerate(states)
        )
    ]


@pytest.mark.slow
def test_totals_equal_those_of_each_stage_alone(stages: list[Stage]) -> None:
    with_flow = [stage for stage in stages if stage.has_flow is not False]
    gaps = [stage for stage in stages if schedule.find_gap(stage, NOW) is not None]
    totals = load(stages)
    assert totals.stages == totals.coverage.total == len(stages)
    assert totals.with_flow == len(with_flow)
    assert totals.without_flow == len(stages) - len(with_flow)
    assert totals.read == sum(stage.synced_at is not None for stage in stages)
    assert totals.with_flow_read == sum(stage.synced_at is not None for stage in with_flow)
    assert totals.failing == sum(bool(stage.error) for stage in with_flow)
    assert totals.partial == sum(stage.is_partial for stage in with_flow)
    assert totals.oldest_sync_at == min(s.synced_at for s in with_flow if s.synced_at)
    assert totals.stale == sum(
        freshness.is_stale(stage.fresh_until, NOW) and stage not in gaps for stage in with_flow
    )
    assert totals.coverage.unread == len(gaps)
    assert totals.coverage.failing == sum(bool(stage.error) for stage in gaps)
    assert 0 < totals.stale < totals.coverage.unread < totals.stages


@pytest.mark.slow
def test_totals_of_one_stage_say_whether_it_is_old(stages: list[Stage]) -> None:
    for stage in stages:
        totals = load([stage])
        assert totals.has_old_reads == freshness.is_stale(stage.fresh_until, NOW)
        assert totals.oldest_sync_at == stage.synced_at


def test_stage_names_without_gap_are_complete(db: None) -> None:
    unread = {"synced_at": None, "fresh_until": None}
    stages = [
        factories.stage("Production"),
        factories.stage("Staging"),
        factories.stage("Staging", factories.pipeline("other"), **unread),
        factories.stage("Development", **unread),
    ]
    assert load(stages).coverage.complete_stages == ("Production",)


def test_totals_of_lists(db: None) -> None:
    factories.catalog_list()
    factories.failed_catalog_list(factories.project("a"))
    partial = {"synced_at": NOW, "next_sync_at": NOW, "omitted_by_page": {"1": {"no_id": 1}}}
    CatalogSync.objects.create(project=factories.project("b"), **partial)
    totals = load([])
    assert (totals.failing_lists, totals.partial_lists) == (1, 1)
    assert totals.coverage.unlisted == 1
    assert totals.coverage.has_project_list
