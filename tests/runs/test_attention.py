"""Which runs need attention, in what order, and which wait behind one of them."""

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


def waiting_ids() -> list[str]:
    return [run.run_id for run in attention.waiting_runs(Run.objects.all(), NOW)]


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


# --- Runs that wait behind another --------------------------------------------------------------


def create_queue(stage: Stage, policy: str = "queue", **ahead: Any) -> None:
    """A run and two that are overdue in the queue behind it."""
    Stage.objects.filter(pk=stage.pk).update(concurrency_policy=policy)
    stage.refresh_from_db()
    factories.run(stage, "ahead", created_at=NOW - 60 * MINUTE, **ahead)
    for name, minutes in (("first", 40), ("second", 30)):
        created_at = NOW - minutes * MINUTE
        factories.run(stage, name, overdue_severity=2, created_at=created_at, **QUEUED)


@pytest.mark.parametrize(
    "ahead",
    [
        {"overdue_severity": 1, "overdue_reason": OverdueReason.STEP},
        {"status": "aborting", "abort_severity": 2},
        {"status": "approval_wait", "approval_since": NOW - 31 * MINUTE},
    ],
)
def test_run_overdue_in_queue_behind_one_that_needs_attention_waits(
    ahead: dict[str, Any], stage: Stage
) -> None:
    create_queue(stage, **ahead)
    assert in_order() == ["ahead"]
    assert waiting_ids() == ["first", "second"]


@pytest.mark.parametrize(
    "ahead",
    [{}, {"status": "approval_wait", "approval_since": NOW - MINUTE}],
    ids=["on time", "approval not due"],
)
def test_run_overdue_in_queue_behind_one_on_time_needs_attention(
    ahead: dict[str, Any], stage: Stage
) -> None:
    create_queue(stage, **ahead)
    assert in_order() == ["first", "second"]
    assert waiting_ids() == []


def test_removed_run_holds_up_no_other(stage: Stage) -> None:
    create_queue(stage, overdue_severity=2, overdue_reason=OverdueReason.RUN, removed_at=NOW)
    assert in_order() == ["ahead", "first", "second"]


def test_run_in_queue_with_overdue_abort_needs_attention(stage: Stage) -> None:
    create_queue(stage, overdue_severity=2, overdue_reason=OverdueReason.RUN)
    Run.objects.filter(run_id="first").update(abort_severity=1)
    assert in_order() == ["ahead", "first"]
    assert waiting_ids() == ["second"]


def test_run_waits_for_no_younger_run_and_no_other_stage(stage: Stage) -> None:
    late = {"overdue_severity": 1, "overdue_reason": OverdueReason.RUN}
    factories.run(stage, "queued", overdue_severity=1, created_at=NOW - 20 * MINUTE, **QUEUED)
    factories.run(stage, "younger", created_at=NOW - 10 * MINUTE, **late)
    factories.run(factories.stage("Staging"), "elsewhere", created_at=NOW - 60 * MINUTE, **late)
    assert in_order() == ["queued", "younger", "elsewhere"]


@pytest.mark.parametrize(
    ("policy", "status", "waits"),
    [
        ("queue", "pending", True),
        ("", "pending", True),
        ("allow", "queued", False),
        ("forbid", "pending", False),
        ("forbid", "queued", True),
        ("replace", "pending", False),
        ("latest", "pending", True),
    ],
)
def test_run_waits_only_where_policy_queues_runs(
    policy: str, status: str, waits: bool, stage: Stage
) -> None:
    create_queue(stage, policy, overdue_severity=2, overdue_reason=OverdueReason.RUN)
    Run.objects.filter(run_id__in=["first", "second"]).update(status=status)
    assert waiting_ids() == (["first", "second"] if waits else [])
