"""Old rows are deleted; what pages and the audit need is kept, and does not come back."""

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts import access_log
from dashboard.models import (
    Abort,
    AccessEvent,
    Acknowledgement,
    BulkAbort,
    BulkAbortItem,
    Dismissal,
    EndRequest,
    Notice,
    NoticeMessage,
    Pruning,
    Run,
    Stage,
)
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.accounts.access import AccessKind
from dashboard.sync import mirror, pruning
from tests.support import factories
from tests.support.live import Live
from tests.support.world import LoggedEvents, World, api_run, detail


def days_ago(days: float) -> datetime:
    return timezone.now() - timedelta(days=days)


def ended_run(stage: Stage, days: float, status: str = "failure", **fields: Any) -> Run:
    """Create a run that ended this many days ago, with steps."""
    times = dict.fromkeys(("created_at", "started_at", "concluded_at"), days_ago(days))
    steps = msgspec.to_builtins(factories.node(status="success"))
    times |= {"steps": steps, "detail_synced_at": days_ago(days)}
    return factories.run(stage, status=status, **times | fields)


def prune() -> tuple[int, int, int]:
    """Prune at once; return what was deleted."""
    for _ in pruning.prune(timezone.now()):
        pass
    last = Pruning.objects.get()
    return last.deleted_runs, last.deleted_steps, last.deleted_access_events


def output_of(*arguments: str) -> str:
    output = io.StringIO()
    call_command(*arguments, stdout=output)
    return output.getvalue()


@pytest.fixture
def busy_stage(read_stage: Stage) -> Stage:
    """A stage with as many recent runs as are kept whatever their age."""
    for _ in range(pruning.LATEST_RUNS):
        ended_run(read_stage, 1)
    return read_stage


def kept(*runs: Run) -> list[bool]:
    return [Run.objects.filter(pk=run.pk).exists() for run in runs]


# --- runs ---------------------------------------------------------------------------------------


def test_run_is_deleted_after_retention_days(busy_stage: Stage, settings: Settings) -> None:
    settings.RETENTION_DAYS = 200
    old, younger = ended_run(busy_stage, 201), ended_run(busy_stage, 199)
    assert prune()[0] == 1
    assert kept(old, younger) == [False, True]


def test_run_is_deleted_with_what_people_and_channels_had_of_it(
    busy_stage: Stage, viewer: User
) -> None:
    old = ended_run(busy_stage, 400)
    who = {"run": old, "user": viewer, "username": "viewer"}
    Acknowledgement.objects.create(**who, acknowledged_at=days_ago(400), ended_at=days_ago(399))
    Dismissal.objects.create(**who, dismissed_at=days_ago(400))
    channel = {"run": old, "channel": "oncall"}
    EndRequest.objects.create(**channel, user=viewer, requested_at=days_ago(400))
    Notice.objects.create(**channel, cause="run", told={}, told_at=days_ago(400))
    NoticeMessage.objects.create(**channel, payload={}, created_at=days_ago(0))
    prune()
    assert kept(old) == [False]


def test_run_with_abort_is_kept_with_its_trail_and_steps(busy_stage: Stage, manager: User) -> None:
    old = ended_run(busy_stage, 4000, "aborted")
    abort = factories.abort(old, manager, "concluded", settled_at=days_ago(4000), outcome="aborted")
    abort.add_event(EventType.REQUESTED, days_ago(4000))
    Acknowledgement.objects.create(
        run=old, user=manager, username="manager", acknowledged_at=days_ago(4000)
    )
    assert prune() == (0, 0, 0)
    abort.refresh_from_db()
    assert abort.run.steps is not None
    assert (abort.events.count(), old.acknowledgements.count()) == (1, 1)


def test_run_of_bulk_abort_is_kept(busy_stage: Stage, manager: User) -> None:
    old = ended_run(busy_stage, 400)
    bulk_abort = BulkAbort.objects.create(
        key=uuid4(), username="manager", requested_at=days_ago(400), claimed_at=days_ago(400)
    )
    BulkAbortItem.objects.create(bulk_abort=bulk_abort, position=1, run=old, result="ended")
    prune()
    assert kept(old) == [True]


def test_run_in_flight_is_kept_whatever_its_age(busy_stage: Stage) -> None:
    stuck = ended_run(busy_stage, 4000, "running", concluded_at=None)
    removed = ended_run(busy_stage, 4000, "running", concluded_at=None, removed_at=days_ago(3000))
    prune()
    assert kept(stuck, removed) == [True, True]


def test_dismissed_run_is_deleted_after_its_removal(busy_stage: Stage) -> None:
    fields = {"concluded_at": None, "in_flight": False}
    old = ended_run(busy_stage, 900, "running", removed_at=days_ago(400), **fields)
    younger = ended_run(busy_stage, 900, "running", removed_at=days_ago(300), **fields)
    prune()
    assert kept(old, younger) == [False, True]


@pytest.mark.slow
def test_latest_runs_of_stage_are_kept_whatever_their_age(read_stage: Stage) -> None:
    oldest = ended_run(read_stage, 2000)
    latest = [ended_run(read_stage, 1000 - n) for n in range(pruning.LATEST_RUNS)]
    assert prune()[0] == 1
    assert kept(oldest, *latest) == [False] + [True] * len(latest)


def test_runs_are_deleted_in_batches(busy_stage: Stage) -> None:
    factories.create_copies(ended_run(busy_stage, 400), 2 * pruning.BATCH_SIZE)
    batches = pruning.prune(timezone.now())
    next(batches)
    left = Run.objects.filter(ended_at__lt=days_ago(365)).count()
    assert left == pruning.BATCH_SIZE + 1
    for pause in batches:
        assert pause > 0
    assert Pruning.objects.get().deleted_runs == 2 * pruning.BATCH_SIZE + 1


def test_interrupted_pass_is_completed_by_next(busy_stage: Stage) -> None:
    factories.create_copies(ended_run(busy_stage, 400), 2 * pruning.BATCH_SIZE)
    next(pruning.prune(timezone.now()))
    assert prune()[0] == pruning.BATCH_SIZE + 1


# --- the mirror ---------------------------------------------------------------------------------


def test_deleted_run_that_northflank_still_lists_does_not_come_back(busy_stage: Stage) -> None:
    old = ended_run(busy_stage, 400)
    prune()
    listed = [
        api_run(old.run_id, status="failure", concluded=True, concluded_at=days_ago(400)),
        api_run("young", status="failure", concluded=True, concluded_at=days_ago(300)),
        api_run("stuck", created_at=days_ago(900), updated_at=days_ago(900)),
    ]
    mirror.apply_runs(busy_stage.pk, listed, requested_at=timezone.now())
    assert set(Run.objects.filter(run_id__in=[old.run_id, "young", "stuck"]).values_list(
        "run_id", flat=True
    )) == {"young", "stuck"}  # fmt: skip


def test_kept_old_run_is_still_mirrored(busy_stage: Stage, manager: User) -> None:
    ended_run(busy_stage, 400)
    aborted = ended_run(busy_stage, 401, "aborted")
    factories.abort(aborted, manager, "concluded", settled_at=days_ago(401), outcome="aborted")
    prune()
    listed = [api_run(aborted.run_id, status="success", concluded=True, updated_at=days_ago(401))]
    mirror.apply_runs(busy_stage.pk, listed, requested_at=timezone.now())
    aborted.refresh_from_db()
    assert aborted.status == "success"


def test_run_of_a_link_is_shown_until_next_pass(busy_stage: Stage) -> None:
    old = ended_run(busy_stage, 400)
    prune()
    fields = {"status": "failure", "concluded": True, "concluded_at": days_ago(400)}
    mirror.apply_detail(busy_stage.pk, detail(old.run_id, **fields), requested_at=timezone.now())
    assert Run.objects.filter(run_id=old.run_id).exists()
    assert prune()[0] == 1


@pytest.mark.slow
def test_history_is_read_up_to_retention_only(world: World, settings: Settings) -> None:
    world.restart(history_hours=24 * 10)
    oldest_wanted = datetime.fromtimestamp(world.now, UTC) - timedelta(days=3)
    # Whole days, rounded up: whatever the time of day, all that is wanted is kept.
    settings.RETENTION_DAYS = (timezone.now() - oldest_wanted).days + 1
    unfinished = Stage.objects.filter(has_flow=True).exclude(next_history_page=None)
    for _ in range(12):
        world.sync(2)
        if not unfinished.exists():
            break
    assert not unfinished.exists()
    upstream = {
        run.id: datetime.fromtimestamp(run.concluded_at, UTC)
        for flow in world.sandbox.world.list_flows()
        if flow.project == "payments"
        for run in world.sandbox.world.list_runs(flow, world.now)
    }
    mirrored = set(Run.objects.values_list("run_id", flat=True))
    assert {run_id for run_id, ended_at in upstream.items() if ended_at > oldest_wanted} <= mirrored
    assert len(mirrored) < len(upstream)


# --- steps --------------------------------------------------------------------------------------


def test_steps_are_deleted_after_their_days_and_the_page_says_so(
    busy_stage: Stage, manager: User, client: Client
) -> None:
    old, younger = ended_run(busy_stage, 91), ended_run(busy_stage, 89)
    assert prune() == (0, 1, 0)
    old.refresh_from_db()
    younger.refresh_from_db()
    assert old.steps is None
    assert younger.steps is not None
    client.force_login(manager)
    assert "Steps were removed after 91 days." in client.get(factories.address(old)).text


def test_steps_that_are_read_again_are_shown(busy_stage: Stage) -> None:
    old = ended_run(busy_stage, 91)
    prune()
    fields = {"status": "failure", "concluded": True, "concluded_at": old.concluded_at}
    mirror.apply_detail(busy_stage.pk, detail(old.run_id, **fields), requested_at=timezone.now())
    old.refresh_from_db()
    assert old.steps is not None
    assert old.steps_removed_at is None


def test_answer_without_steps_keeps_that_they_were_removed(busy_stage: Stage) -> None:
    old = ended_run(busy_stage, 91)
    prune()
    removed_at = Run.objects.get(pk=old.pk).steps_removed_at
    fields = {"status": "failure", "concluded": True, "concluded_at": old.concluded_at}
    answer = replace(detail(old.run_id, **fields), root=None)
    mirror.apply_detail(busy_stage.pk, answer, requested_at=timezone.now())
    assert Run.objects.get(pk=old.pk).steps_removed_at == removed_at is not None


def test_view_of_run_without_steps_does_not_read_it_again(
    busy_stage: Stage, manager: User, client: Client
) -> None:
    old = ended_run(busy_stage, 91)
    prune()
    client.force_login(manager)
    client.get(factories.address(old))
    old.refresh_from_db()
    assert old.next_detail_sync_at is None


# --- the access log -----------------------------------------------------------------------------


def record_event(days: float, user: User) -> AccessEvent:
    return access_log.record(AccessKind.SIGNED_IN, days_ago(days), user=user)


def test_access_events_are_deleted_after_their_days(viewer: User, settings: Settings) -> None:
    settings.ACCESS_LOG_DAYS = 50
    record_event(51, viewer)
    younger = record_event(49, viewer)
    assert prune()[2] == 1
    assert AccessEvent.objects.get() == younger


# --- when, and by whom --------------------------------------------------------------------------


def test_notices_are_deleted_after_their_days(db: None) -> None:
    for days in (6, 8):
        for cause in ("over", "open"):
            over_at = days_ago(days) if cause == "over" else None
            fields = {"told": {}, "told_at": days_ago(90), "over_at": over_at}
            Notice.objects.create(channel="oncall", cause=f"{cause}-{days}", **fields)
    for days in (29, 31):
        for title in ("sent", "unsent"):
            next_try_at = None if title == "sent" else days_ago(days)
            fields = {"payload": {}, "created_at": days_ago(days), "next_try_at": next_try_at}
            NoticeMessage.objects.create(channel="oncall", title=f"{title}-{days}", **fields)
    prune()
    assert sorted(Notice.objects.values_list("cause", flat=True)) == ["open-6", "open-8", "over-6"]
    kept = NoticeMessage.objects.values_list("title", flat=True)
    assert sorted(kept) == ["sent-29", "unsent-29", "unsent-31"]


def test_pass_is_due_a_day_after_the_last(db: None) -> None:
    prune()
    assert not pruning.is_due(timezone.now())
    assert not pruning.is_due(timezone.now() + timedelta(hours=23))
    assert pruning.is_due(timezone.now() + timedelta(hours=25))


def test_chore_prunes_when_first_checked(
    live: Live, busy_stage: Stage, logged_events: LoggedEvents
) -> None:
    old = ended_run(busy_stage, 400)
    live.run(lambda: pruning.Pruner(first_check=0)(None))
    assert kept(old) == [False]
    [line] = logged_events("pruning.finished")
    assert (line["runs"], line["steps"], line["access_events"]) == (1, 0, 0)


# --- the command --------------------------------------------------------------------------------


@pytest.mark.slow
def test_dry_run_prints_what_a_pass_deletes_at_most_and_deletes_nothing(
    busy_stage: Stage, viewer: User
) -> None:
    ended_run(busy_stage, 400)
    ended_run(busy_stage, 100)
    record_event(500, viewer)
    dry = output_of("prune", "--dry-run")
    assert Run.objects.count() == pruning.LATEST_RUNS + 2
    assert AccessEvent.objects.count() == 1
    assert [line.split(" before")[0] for line in dry.splitlines()] == [
        "Would delete at most 1 runs that ended",
        "Would delete at most the steps of 2 runs that ended",
        "Would delete at most 1 access events",
    ]
    assert output_of("prune").startswith("Deleted 1 runs that ended before ")
    assert Run.objects.count() == pruning.LATEST_RUNS + 1


def test_pass_records_figures_of_the_database(busy_stage: Stage, manager: User) -> None:
    ended_run(busy_stage, 400)
    young = ended_run(busy_stage, 300)
    prune()
    last = Pruning.objects.get()
    assert (last.run_count, last.oldest_run_at) == (pruning.LATEST_RUNS + 1, young.concluded_at)
    assert last.database_bytes > 100_000
    assert not Abort.objects.exists()
