"""Which runs need attention, and in what order."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from dashboard.models import Run, Stage
from dashboard.models.severity import Severity
from dashboard.runs import attention
from dashboard.runs.overdue import OverdueReason
from tests.support import factories

NOW = timezone.now()
MINUTE = timedelta(minutes=1)
QUEUED = {"status": "queued", "started_at": None, "overdue_reason": OverdueReason.QUEUE}


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage()


def in_order(now: Any = NOW) -> list[str]:
    """The ids of the runs that need attention, in their order."""
    ids = dict(Run.objects.values_list("pk", "run_id"))
    return [ids[run.pk] for run in attention.load(Run.objects.all(), now)]


def test_production_comes_first_then_severity_then_age(stage: Stage) -> None:
    staging, development = factories.stage("Staging"), factories.stage("Development")
    factories.run(development, "dev-far", overdue_severity=2, created_at=NOW - 90 * MINUTE)
    factories.run(staging, "staging-failed", status="failure", concluded_at=NOW - MINUTE)
    factories.run(staging, "staging-far", overdue_severity=2, created_at=NOW - 50 * MINUTE)
    factories.run(stage, "late-young", overdue_severity=1, created_at=NOW - 10 * MINUTE)
    factories.run(stage, "late-old", abort_severity=1, created_at=NOW - 20 * MINUTE)
    factories.run(stage, "failed", status="failure", concluded_at=NOW - 14 * MINUTE)
    factories.run(stage, "on-time")
    assert in_order() == [
        "failed", "late-old", "late-young", "staging-far", "staging-failed", "dev-far",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "needs_attention"),
    [
        ({}, False),
        ({"overdue_severity": 1}, True),
        ({"status": "aborting", "abort_severity": 1}, True),
        ({"status": "aborting"}, False),
        (QUEUED | {"overdue_severity": 2}, True),  # nothing is ahead of it
        ({"status": "approval_wait", "approval_since": NOW - 29 * MINUTE}, False),
        ({"status": "approval_wait", "approval_since": NOW - 30 * MINUTE}, True),
        ({"approval_since": NOW - 60 * MINUTE, "removed_at": NOW}, False),
        ({"status": "failure", "concluded_at": NOW - 14 * MINUTE}, True),
        ({"status": "failure", "concluded_at": NOW - 15 * MINUTE}, False),
        ({"status": "success", "overdue_severity": 2}, False),
    ],
)
def test_run_needs_attention_by_its_fields(
    fields: dict[str, Any], needs_attention: bool, stage: Stage
) -> None:
    run = factories.run(stage, "r-1", **fields)
    assert bool(in_order()) is needs_attention
    assert bool(attention.severities([run], NOW)) is needs_attention


def test_severities_are_those_of_the_runs(stage: Stage) -> None:
    runs = [
        factories.run(stage, overdue_severity=1),
        factories.run(stage, overdue_severity=1, abort_severity=2),
        factories.run(stage, status="failure"),
        factories.run(stage),
    ]
    assert attention.severities(runs, timezone.now()) == {
        runs[0].pk: Severity.WARNING,
        runs[1].pk: Severity.CRITICAL,
        runs[2].pk: Severity.CRITICAL,
    }
