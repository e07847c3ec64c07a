"""Requests for bulk aborts: what they check."""

from datetime import timedelta
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, User
from django.utils import timezone
from pytest_django import Settings

from dashboard.aborts.bulk_request import MAX_RUNS, TooManyRuns, WrongCount
from dashboard.aborts.request import NotAllowed, NotInFlight, ReasonMissing
from dashboard.models import Abort, BulkAbort, BulkAbortItem, Grant, Run
from dashboard.models.accounts.grants import Action
from tests.support import factories
from tests.support.bulk_aborts import request_bulk, sent_run_ids
from tests.support.live import Live
from tests.support.live_runs import (
    LEDGER,
    SEARCH,
    create_run_in_flight,
    stage,
)

SECOND = timedelta(seconds=1)


def test_bulk_abort_of_runs_in_progress_keeps_given_order_without_duplicates(
    manager: User,
) -> None:
    runs = [factories.run(factories.stage()) for _ in range(3)]
    batch = request_bulk([runs[2], runs[0], runs[1], runs[2]], manager)
    assert list(batch.items.values_list("run", flat=True)) == [runs[2].pk, runs[0].pk, runs[1].pk]


def test_bulk_abort_clears_each_queue_from_its_end(manager: User) -> None:
    production, staging = factories.stage(), factories.stage("Staging")
    now = timezone.now()
    runs = [
        factories.run(production, "running", created_at=now),
        factories.run(production, "queued-1", status="queued", created_at=now + SECOND),
        factories.run(staging, "other"),
        factories.run(production, "queued-2", status="queued", created_at=now + 2 * SECOND),
    ]
    batch = request_bulk(runs, manager)
    assert list(batch.items.values_list("run__run_id", flat=True)) == [
        *("queued-2", "queued-1", "running"),
        "other",
    ]


def test_bulk_abort_request_sends_nothing(live: Live, runs: list[Run], manager: User) -> None:
    request_bulk(runs, manager)
    assert sent_run_ids(live) == []
    assert not Abort.objects.exists()


def test_bulk_abort_request_repeated_with_same_key_is_stored_once(
    live: Live, runs: list[Run], manager: User
) -> None:
    key = uuid4()
    assert request_bulk(runs, manager, key=key) == request_bulk(runs[:2], manager, key=key)
    assert BulkAbortItem.objects.count() == 5


def test_bulk_abort_without_reason_is_rejected_when_a_stage_requires_one(
    live: Live, manager: User, settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = ["Production"]
    runs = [create_run_in_flight(live), create_run_in_flight(live, SEARCH)]
    with pytest.raises(ReasonMissing, match="Production"):
        request_bulk(runs, manager, reason=" ")
    assert not BulkAbort.objects.exists()


def test_bulk_abort_without_permission_is_rejected_naming_allowed_groups(
    live: Live, runs: list[Run], manager: User, viewer: User
) -> None:
    with pytest.raises(NotAllowed, match="Release managers"):
        request_bulk(runs, viewer)
    assert not BulkAbort.objects.exists()


def test_bulk_abort_above_maximum_is_rejected(manager: User) -> None:
    production = factories.stage()
    runs = [factories.run(production) for _ in range(MAX_RUNS + 1)]
    with pytest.raises(TooManyRuns, match="there are 201"):
        request_bulk(runs, manager)
    assert not BulkAbort.objects.exists()


def runs_of(*projects: int) -> list[Run]:
    """Runs in flight: so many in each of several projects."""
    made = []
    for number, count in enumerate(projects):
        pipeline = factories.pipeline(parent=factories.project(f"project-{number}"))
        stages = [factories.stage(name, parent=pipeline) for name in ("Staging", "Production")]
        made += [factories.run(stages[index % 2]) for index in range(count)]
    return made


@pytest.mark.parametrize("projects", [(1,), (5,)])
def test_bulk_abort_of_few_runs_of_one_project_needs_no_count(
    projects: tuple[int, ...], manager: User
) -> None:
    assert request_bulk(runs_of(*projects), manager, typed_count="").items.count() == sum(projects)


@pytest.mark.parametrize("projects", [(6,), (1, 1)])
@pytest.mark.parametrize("typed", ["", "0", "-1", "5", "06", "six", "²"])
def test_bulk_abort_of_many_runs_or_projects_without_their_count_is_rejected(
    typed: str, projects: tuple[int, ...], manager: User
) -> None:
    runs = runs_of(*projects)
    message = r"^Type the number of runs to confirm\. Nothing was aborted\.$"
    with pytest.raises(WrongCount, match=message):
        request_bulk(runs, manager, typed_count=typed)
    assert not BulkAbort.objects.exists()
    assert request_bulk(runs, manager, typed_count=str(len(runs))).items.count() == len(runs)


def test_bulk_abort_counts_runs_that_ended_after_confirmation(manager: User) -> None:
    runs = runs_of(7)
    Run.objects.filter(pk=runs[0].pk).update(in_flight=False, concluded=True)
    with pytest.raises(WrongCount):
        request_bulk(runs, manager, typed_count="6")
    assert request_bulk(runs, manager, typed_count="7").items.count() == 7


def test_bulk_abort_counts_hidden_runs_and_no_duplicates(manager: User) -> None:
    runs = runs_of(6, 1)
    Grant.objects.all().delete()
    project = runs[0].stage.pipeline.project
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, project=project)
    with pytest.raises(WrongCount):
        request_bulk([*runs, *runs], manager, typed_count="6")
    assert request_bulk([*runs, *runs], manager, typed_count="7").items.count() == 6


def test_bulk_abort_leaves_out_runs_the_user_may_not_see(live: Live, manager: User) -> None:
    visible, hidden = create_run_in_flight(live), create_run_in_flight(live, SEARCH)
    project = stage(LEDGER).pipeline.project
    Grant.objects.all().delete()
    Grant.objects.create(group=Group.objects.get(), action=Action.ABORT, project=project)
    batch = request_bulk([hidden, visible], manager)
    assert [item.run_id for item in batch.items.all()] == [visible.pk]
    with pytest.raises(NotInFlight):
        request_bulk([hidden], manager)


@pytest.mark.parametrize(
    ("required", "named_stages"),
    [
        (["Staging"], "Staging"),
        (["Production", "Staging"], "Production, Staging"),
        (["Staging", "Production", "Development"], "Development, Production, Staging"),
    ],
)
def test_missing_reason_error_names_all_stages_requiring_one(
    manager: User, settings: Settings, required: list[str], named_stages: str
) -> None:
    settings.ABORT_REASON_REQUIRED = required
    stages = ("Production", "Staging", "Development")
    runs = [factories.run(factories.stage(name)) for name in stages]
    with pytest.raises(
        ReasonMissing, match=rf"^A reason is required to abort runs in {named_stages}\.$"
    ):
        request_bulk(runs, manager, reason="")
