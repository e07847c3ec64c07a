"""The overdue checker: marks overdue runs, and requests the data needed to judge them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from dashboard.models import Run, Stage, StageTiming
from dashboard.models.severity import Severity
from dashboard.northflank import Node, RunDetail
from dashboard.runs import overdue, steps
from dashboard.runs.overdue import OverdueReason
from dashboard.sync import mirror, overdue_checker
from tests.support import factories
from tests.support.abort_answers import place_fields
from tests.support.successes import (
    NOW,
    create_successes,
    migration_steps,
    minutes_later,
    run_in_flight,
    scheduled_detail_count,
    success,
    update_baseline,
)
from tests.support.world import api_run, at

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


def set_baseline(stage: Stage) -> None:
    for _ in range(5):
        success(stage, 10, root=migration_steps(3))
    update_baseline(stage)


def test_overdue_run_is_updated_once_per_severity(read_stage: Stage) -> None:
    set_baseline(read_stage)
    run = run_in_flight(read_stage, 10)
    states = []
    for minutes in (0, 4, 6, 7, 21, 22):
        overdue_checker.check_runs(minutes_later(minutes))
        run.refresh_from_db()
        states.append((run.overdue_severity, run.overdue_reason, run.version))
    levels = [(level, reason) for level, reason, _ in states]
    assert levels == [(0, ""), (0, ""), (1, "run"), (1, "run"), (2, "run"), (2, "run")]
    assert len({version for *_, version in states}) == 3


def test_time_at_which_run_became_overdue_is_kept(read_stage: Stage) -> None:
    set_baseline(read_stage)
    run = run_in_flight(read_stage, 10)
    times = []
    for minutes in (4, 6, 21):
        overdue_checker.check_runs(minutes_later(minutes))
        run.refresh_from_db()
        times.append(run.overdue_since)
    assert times == [None, minutes_later(6), minutes_later(6)]
    ended = api_run(run.run_id, status="success", concluded=True, concluded_at=minutes_later(22))
    mirror.apply_runs(read_stage.pk, [ended], requested_at=minutes_later(22))
    run.refresh_from_db()
    assert (run.overdue_severity, run.overdue_since) == (0, minutes_later(6))


def at_step(label: str, since: float, **fields: Any) -> Node:
    defaults = {"label": label, "ref": label, "status": "waiting", "started_at": at(since)}
    return factories.node("Workflow", steps=(factories.node("JobRun", **defaults | fields),))


def create_marked_run(stage: Stage) -> None:
    """An overdue run, at a step that usually takes three minutes."""
    defaults = {
        "observed_run_median": 600,
        "observed_run_p95": 720,
        "observed_steps": {"migrate": [180, 240]},
    }
    StageTiming.objects.create(stage=stage, **defaults)
    run = api_run("r1", started_at=at(0))
    mirror.apply_detail(stage.pk, RunDetail(run, at_step("migrate", 0)), requested_at=at(60))
    Run.objects.update(overdue_severity=2, overdue_reason="run")


def test_overdue_is_recomputed_on_list_read_from_stored_steps(stage: Stage) -> None:
    create_marked_run(stage)
    run = api_run("r1", status="waiting", started_at=at(0))
    mirror.apply_runs(stage.pk, [run], requested_at=at(360))
    assert Run.objects.values_list("overdue_severity", "overdue_reason").get() == (1, "step")


def test_overdue_is_recomputed_on_detail_read_from_new_steps(stage: Stage) -> None:
    create_marked_run(stage)
    run = api_run("r1", started_at=at(0))
    retrying = at_step("migrate", 1, status="retrying")
    mirror.apply_detail(stage.pk, RunDetail(run, retrying), requested_at=at(360))
    assert Run.objects.values_list("overdue_severity", "overdue_reason").get() == (1, "step")


def test_overdue_is_not_set_by_reading_a_run(stage: Stage) -> None:
    create_marked_run(stage)
    Run.objects.update(overdue_severity=0, overdue_reason="")
    run = api_run("r1", started_at=at(0))
    mirror.apply_detail(stage.pk, RunDetail(run, at_step("migrate", 1)), requested_at=at(360))
    assert Run.objects.values_list("overdue_severity", "overdue_reason").get() == (0, "")


def run_waiting_for_approval(stage: Stage, **fields: Any) -> Run:
    """A run that waits for an approval."""
    defaults = {"first_synced_at": NOW, "status_since": NOW, "detail_synced_at": None}
    return factories.run(stage, status="approval_wait", **defaults | fields)


def test_approval_wait_with_unknown_start_is_due_for_read(
    read_stage: Stage,
) -> None:
    run = run_waiting_for_approval(read_stage)
    overdue_checker.check_runs(NOW)
    run.refresh_from_db()
    assert run.next_detail_sync_at == NOW


@pytest.mark.parametrize(
    "fields", [{"first_synced_at": NOW - timedelta(minutes=1)}, {"detail_synced_at": NOW}]
)
def test_approval_wait_with_known_start_is_not_read(
    read_stage: Stage, fields: dict[str, datetime]
) -> None:
    run = run_waiting_for_approval(read_stage, **fields)
    overdue_checker.check_runs(NOW)
    run.refresh_from_db()
    assert run.next_detail_sync_at is None


def approval_since(run: Run) -> datetime | None:
    run.refresh_from_db()
    return run.approval_since


def test_check_stores_start_of_approval_until_run_goes_on(read_stage: Stage) -> None:
    run = run_waiting_for_approval(read_stage)
    overdue_checker.check_runs(minutes_later(1))
    assert approval_since(run) == NOW
    version = run.version
    factories.change(run, status="running")
    overdue_checker.check_runs(minutes_later(2))
    assert approval_since(run) is None
    assert run.version == version + 1  # of the change of status alone


def test_start_of_approval_gives_run_a_new_version_once(read_stage: Stage) -> None:
    run = run_waiting_for_approval(read_stage, detail_synced_at=NOW)
    version = run.version
    overdue_checker.check_runs(minutes_later(1))
    run.refresh_from_db()
    assert run.version == version + 1
    step = factories.node("Approval", status="approval_wait", started_at=minutes_later(-5))
    Run.objects.update(steps=msgspec.to_builtins(factories.node("Workflow", steps=(step,))))
    overdue_checker.check_runs(minutes_later(2))
    assert approval_since(run) == minutes_later(-5)
    assert run.version == version + 1


def test_approval_that_has_waited_too_long_is_marked_by_the_check_that_stores_its_start(
    read_stage: Stage,
) -> None:
    run = run_waiting_for_approval(read_stage)
    overdue_checker.check_runs(NOW + timedelta(days=2))
    run.refresh_from_db()
    assert (run.approval_since, run.overdue_severity) == (NOW, 2)


def test_start_of_approval_is_not_stored_if_the_run_has_changed_meanwhile(
    read_stage: Stage,
) -> None:
    run = run_waiting_for_approval(read_stage)
    has_changed = False

    def execute(execute_sql: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_changed
        result = execute_sql(sql, *rest)
        if sql.startswith("SELECT") and not has_changed:
            has_changed = True
            factories.change(run, status="running")  # after the check has read it
        return result

    with connection.execute_wrapper(execute):
        overdue_checker.check_runs(minutes_later(1))
    assert approval_since(run) is None


def check_while(change: Callable[[], object]) -> list[Any]:
    """Check all runs at `NOW`, and change them once they are read; return the log's marks."""
    has_changed = False

    def execute(execute_sql: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_changed
        if "dashboard_stagetiming" in sql and not has_changed:  # read after the runs
            has_changed = True
            change()
        return execute_sql(sql, *rest)

    with connection.execute_wrapper(execute), capture_logs() as logs:
        overdue_checker.check_runs(NOW)
    assert has_changed
    return [line for line in logs if line["event"] == "run.overdue"]


@pytest.mark.parametrize(
    "changes",
    [
        {"started_at": NOW, "status": "running"},
        {"removed_at": NOW},
        {"in_flight": False, "concluded": True, "status": "success"},
    ],
    ids=["started", "removed", "concluded"],
)
def test_run_that_has_changed_since_the_check_has_read_it_is_not_marked(
    read_stage: Stage, changes: dict[str, Any]
) -> None:
    long_ago = minutes_later(-30)
    run = factories.run(read_stage, status="queued", created_at=long_ago, started_at=None)
    assert not check_while(lambda: factories.change(run, **changes))
    run.refresh_from_db()
    assert (run.overdue_severity, run.overdue_reason) == (0, "")


def test_run_that_two_workers_find_overdue_is_marked_and_logged_once(read_stage: Stage) -> None:
    set_baseline(read_stage)
    run = run_in_flight(read_stage, 60)
    assert len(check_while(lambda: overdue_checker.check_runs(NOW))) == 1
    run.refresh_from_db()
    assert run.overdue_severity == 2


def test_start_of_approval_ends_with_status_in_list(stage: Stage) -> None:
    mirror.apply_runs(stage.pk, [api_run("r1", status="approval_wait")], requested_at=at(0))
    Run.objects.update(approval_since=at(0))
    mirror.apply_runs(stage.pk, [api_run("r1", status="approval_wait")], requested_at=at(5))
    assert Run.objects.get().approval_since == at(0)
    mirror.apply_runs(stage.pk, [api_run("r1", status="running")], requested_at=at(10))
    assert Run.objects.get().approval_since is None


def test_overdue_check_of_many_runs_takes_as_many_queries_as_of_few(read_stage: Stage) -> None:
    set_baseline(read_stage)
    run_in_flight(read_stage, 1)
    with CaptureQueriesContext(connection) as few_queries:
        overdue_checker.check_runs(NOW)
    for _ in range(20):
        run_in_flight(read_stage, 1)
    with CaptureQueriesContext(connection) as many_queries:
        overdue_checker.check_runs(NOW)
    assert len(many_queries) == len(few_queries) <= 2


# --- reads for typical step durations -----------------------------------------------------------


def test_overdue_runs_make_no_successes_due_for_read(read_stage: Stage) -> None:
    for n in range(5):
        stage = factories.stage(f"Stage {n}", parent=read_stage.pipeline)
        create_successes(stage)
        overdue_run = run_in_flight(stage, 60)
    overdue_checker.check_runs(NOW)
    overdue_run.refresh_from_db()
    assert (overdue_run.overdue_severity, overdue_run.next_detail_sync_at) == (
        2,
        NOW,
    )  # its own detail is due
    assert scheduled_detail_count() == 0


def test_overdue_run_is_logged_with_the_reason_that_the_api_has(stage: Stage) -> None:
    run = api_run("r1", status="retrying", started_at=at(0))
    last = at_step("migrate", 0, status="retrying", attempts=3, max_attempts=3)
    mirror.apply_detail(stage.pk, RunDetail(run=run, root=last), requested_at=at(60))
    with capture_logs() as logs:
        overdue_checker.check_runs(at(61))
    assert [line["reason"] for line in logs if line["event"] == "run.overdue"] == ["last_attempt"]


def test_overdue_run_is_logged_with_its_place_and_address(read_stage: Stage) -> None:
    set_baseline(read_stage)
    run = run_in_flight(read_stage, 60)
    with capture_logs() as logs:
        overdue_checker.check_runs(NOW)
    reason = {"reason": "run", "critical": True}
    event = {"event": "run.overdue", "log_level": "warning", "run": run.run_id}
    assert logs == [event | reason | place_fields(run)]


def test_overdue_check_continues_after_invalid_run(read_stage: Stage) -> None:
    set_baseline(read_stage)
    broken, overdue_run = run_in_flight(read_stage, 60), run_in_flight(read_stage, 60)
    Run.objects.filter(pk=broken.pk).update(steps={"no": "tree"})
    with capture_logs() as logs:
        overdue_checker.check_runs(NOW)
    overdue_run.refresh_from_db()
    assert overdue_run.overdue_severity == 2
    assert "overdue_check.crashed" in {line["event"] for line in logs}


# --- steps that are no longer read ---------------------------------------------------------------


def set_step_baseline(stage: Stage) -> None:
    """Make the typical duration of “migrate” three minutes."""
    create_successes(stage, read_count=6)


def run_at_step(stage: Stage, label: str = "migrate", **fields: Any) -> Run:
    """A run whose steps were read as its current step began, a moment after the run's start."""
    step = factories.node("JobRun", label=label, ref=label, status="running", started_at=NOW)
    defaults = {
        "created_at": NOW,
        "started_at": NOW,
        "steps": msgspec.to_builtins(factories.node("Workflow", steps=(step,))),
        "step_started_at": NOW,
        "detail_synced_at": NOW,
    }
    return factories.run(stage, **defaults | fields)


def checked(run: Run, at_time: datetime) -> tuple[int, datetime | None]:
    """Return the severity of a run after a check, and when its detail is due."""
    overdue_checker.check_runs(at_time)
    run.refresh_from_db()
    return run.overdue_severity, run.next_detail_sync_at


def overdue_at(run: Run) -> datetime:
    """Return when the current step of a run becomes overdue."""
    root = steps.decode(run.steps)
    timers = overdue.timers(run, root, StageTiming.objects.get(stage=run.stage_id))
    [timer] = [timer for timer in timers if timer.reason is OverdueReason.STEP]
    return timer.warning_at


SECOND = timedelta(seconds=1)


def test_outdated_steps_are_read_again_before_a_run_is_marked_for_them(read_stage: Stage) -> None:
    set_step_baseline(read_stage)
    run = run_at_step(read_stage)
    first_check = overdue_at(run) + SECOND
    with capture_logs() as logs:
        assert checked(run, first_check) == (0, first_check)
        assert checked(run, first_check + 5 * SECOND) == (0, first_check)
    assert "run.overdue" not in {line["event"] for line in logs}
    Run.objects.update(detail_synced_at=first_check + 6 * SECOND, next_detail_sync_at=None)
    assert checked(run, first_check + 10 * SECOND)[0] == 1


def test_run_at_another_step_is_not_marked_for_the_former(read_stage: Stage) -> None:
    set_step_baseline(read_stage)
    run = run_at_step(read_stage)
    first_check = overdue_at(run) + SECOND
    checked(run, first_check)
    step = factories.node("JobRun", label="deploy", status="running", started_at=first_check)
    root = msgspec.to_builtins(factories.node("Workflow", steps=(step,)))
    Run.objects.update(steps=root, detail_synced_at=first_check, next_detail_sync_at=None)
    assert checked(run, first_check + 5 * SECOND) == (0, None)


@pytest.mark.parametrize("late", [timedelta(), timedelta(minutes=2)])  # after a pause of the worker
def test_run_is_marked_by_outdated_steps_if_no_read_comes(
    read_stage: Stage, late: timedelta
) -> None:
    set_step_baseline(read_stage)
    run = run_at_step(read_stage)
    first_check = overdue_at(run) + SECOND + late
    assert checked(run, first_check) == (0, first_check)
    deadline = first_check + overdue_checker.MAX_WAIT_FOR_STEPS
    assert checked(run, deadline - SECOND)[0] == 0
    assert checked(run, deadline)[0] == 1


def test_mark_does_not_wait_for_a_read_that_is_scheduled_for_later(read_stage: Stage) -> None:
    set_step_baseline(read_stage)
    run = run_at_step(read_stage)
    first_check = overdue_at(run) + SECOND
    factories.change(run, next_detail_sync_at=first_check + timedelta(minutes=15))
    assert checked(run, first_check) == (0, first_check)
    assert checked(run, first_check + overdue_checker.MAX_WAIT_FOR_STEPS)[0] == 1


@pytest.mark.parametrize("wait", [timedelta(seconds=-5), timedelta()])
def test_read_that_is_due_or_under_way_is_not_requested_again(
    read_stage: Stage, wait: timedelta
) -> None:
    set_step_baseline(read_stage)
    run = run_at_step(read_stage)
    first_check = overdue_at(run) + SECOND
    factories.change(run, next_detail_sync_at=first_check + wait)
    assert checked(run, first_check) == (0, first_check + wait)


def test_reason_of_a_mark_does_not_change_to_an_outdated_step(read_stage: Stage) -> None:
    set_step_baseline(read_stage)
    run = run_at_step(read_stage, overdue_severity=1, overdue_reason="run")
    first_check = overdue_at(run) + SECOND
    assert checked(run, first_check) == (1, first_check)
    assert run.overdue_reason == "run"


@pytest.mark.parametrize(
    "fields", [{"detail_synced_at": NOW + timedelta(minutes=4)}, {"failures": 1}]
)
def test_run_is_marked_at_once_if_its_steps_are_fresh_or_cannot_be_read(
    read_stage: Stage, fields: dict[str, Any]
) -> None:
    set_step_baseline(read_stage)
    run = run_at_step(read_stage)
    Run.objects.filter(pk=run.pk).update(**fields)
    first_check = overdue_at(run) + SECOND
    assert first_check - NOW < timedelta(minutes=4) + overdue_checker.FRESH_STEPS_AGE
    assert checked(run, first_check)[0] == 1


# --- Runs that wait in the queue behind one that is stuck ----------------------------------------


def check_queue(stage: Stage, policy: str = "queue", **ahead: Any) -> dict[str, str]:
    """The marks of a run that has begun two hours ago, and of two queued behind it for long."""
    Stage.objects.filter(pk=stage.pk).update(concurrency_policy=policy)
    fields = {"status": "running", "started_at": NOW - 2 * HOUR, **ahead}
    factories.run(stage, "ahead", created_at=NOW - 2 * HOUR, **fields)
    for name in ("first", "second"):
        if not Run.objects.filter(run_id=name).exists():
            factories.run(stage, name, status="queued", started_at=None, created_at=NOW - HOUR)
    overdue_checker.check_runs(NOW)
    return dict(Run.objects.values_list("run_id", "overdue_reason"))


@pytest.mark.parametrize(
    "ahead",
    [
        {},
        {"status": "aborting", "abort_severity": 2},
        {"status": "approval_wait", "status_since": NOW - 31 * MINUTE},
    ],
    ids=["overdue", "abort overdue", "approval due"],
)
def test_run_queued_behind_a_stuck_one_is_blocked_and_not_overdue(
    ahead: dict[str, Any], stage: Stage
) -> None:
    marks = check_queue(stage, **ahead)
    assert (marks["first"], marks["second"]) == ("blocked", "blocked")
    assert not Run.objects.filter(run_id="first", overdue_severity__gt=0).exists()


@pytest.mark.parametrize(
    ("ahead", "reasons"),
    [({"started_at": NOW}, ("", "")), ({"removed_at": NOW}, ("queue", "blocked"))],
    ids=["on time", "removed"],
)
def test_run_in_the_queue_is_overdue_only_if_nothing_is_ahead_of_it(
    ahead: dict[str, Any], reasons: tuple[str, str], stage: Stage
) -> None:
    marks = check_queue(stage, **ahead)
    assert (marks["first"], marks["second"]) == reasons


def test_run_in_the_queue_whose_abort_is_overdue_is_not_blocked(stage: Stage) -> None:
    fields = {"status": "queued", "started_at": None, "created_at": NOW - HOUR}
    factories.run(stage, "first", abort_severity=1, **fields)
    marks = check_queue(stage)
    assert (marks["first"], marks["second"]) == ("", "blocked")


@pytest.mark.parametrize("status", ["aborted", "success", "failure"])
@pytest.mark.parametrize("policy", ["queue", "latest", ""])
def test_clock_of_the_next_in_the_queue_starts_when_the_run_before_it_ends(
    policy: str, status: str, stage: Stage
) -> None:
    assert check_queue(stage, policy)["first"] == "blocked"
    end = {"status": status, "concluded": True, "in_flight": False, "concluded_at": NOW}
    Run.objects.filter(run_id="ahead").update(**end)
    overdue_checker.check_runs(NOW + MINUTE)
    runs = {run.run_id: run for run in Run.objects.all()}
    assert (runs["first"].turn_since, runs["first"].overdue_reason) == (NOW, "")
    assert (runs["second"].turn_since, runs["second"].overdue_reason) == (None, "")
    overdue_checker.check_runs(NOW + 16 * MINUTE)  # as long as a wait of unknown length may take
    runs = {run.run_id: run for run in Run.objects.all()}
    assert (runs["first"].overdue_reason, runs["second"].overdue_reason) == ("queue", "blocked")


def test_run_that_was_aborted_in_the_queue_was_not_the_one_that_the_next_waited_for(
    stage: Stage,
) -> None:
    check_queue(stage)
    ended = {"status": "aborted", "concluded": True, "in_flight": False}
    Run.objects.filter(run_id="first").update(concluded_at=NOW - 30 * MINUTE, **ended)
    Run.objects.filter(run_id="ahead").update(concluded_at=NOW, **ended)
    overdue_checker.check_runs(NOW + MINUTE)
    assert Run.objects.get(run_id="second").turn_since == NOW


@pytest.mark.parametrize("policy", ["allow", "forbid", "replace"])
def test_clock_of_a_queued_run_starts_at_its_creation_where_no_run_waits_for_another(
    policy: str, stage: Stage
) -> None:
    assert check_queue(stage, policy, started_at=NOW)["second"] == "queue"
    assert Run.objects.get(run_id="second").turn_since == NOW - HOUR


def severity(run: Run) -> int:
    run.refresh_from_db()
    return run.overdue_severity


def test_run_that_hangs_gets_no_milder_by_a_longer_typical_duration(stage: Stage) -> None:
    timing = factories.timing(stage, observed_run_median=300, observed_run_p95=300)
    run = factories.run(stage, status="running", started_at=NOW - 59 * MINUTE)
    overdue_checker.check_runs(NOW)
    assert severity(run) == Severity.CRITICAL
    StageTiming.objects.filter(pk=timing.pk).update(observed_run_median=None, observed_run_p95=None)
    overdue_checker.check_runs(NOW + 9 * MINUTE)
    assert severity(run) == Severity.CRITICAL
    StageTiming.objects.filter(pk=timing.pk).update(override_run_median=7200)
    overdue_checker.check_runs(NOW + 10 * MINUTE)
    assert severity(run) == Severity.OK


def tree_at_step(since: datetime) -> Any:
    step = factories.node("JobRun", label="migrate", ref="migrate", started_at=since)
    return msgspec.to_builtins(factories.node("Workflow", steps=(step,)))


_SECONDS = st.none() | st.integers(1, 20_000)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(1, 90), _SECONDS, _SECONDS, st.booleans()), min_size=2, max_size=8
    )
)
def test_severity_falls_only_when_the_run_itself_changes(
    stage: Stage, history: list[tuple[int, int | None, int | None, bool]]
) -> None:
    Run.objects.all().delete()
    run = factories.run(stage, status="running", started_at=NOW, steps=tree_at_step(NOW))
    timing = StageTiming.objects.get_or_create(stage=stage)[0]
    moment, before = NOW, 0
    for minutes, run_seconds, step_seconds, is_next_step in history:
        moment += minutes * MINUTE
        known_step = {"migrate": [step_seconds, step_seconds]} if step_seconds else {}
        StageTiming.objects.filter(pk=timing.pk).update(
            observed_run_median=run_seconds, observed_run_p95=run_seconds, observed_steps=known_step
        )
        if is_next_step:
            Run.objects.filter(pk=run.pk).update(steps=tree_at_step(moment))
        overdue_checker.check_runs(moment)
        assert is_next_step or severity(run) >= before
        before = severity(run)


def test_run_is_blocked_by_no_younger_run_and_by_none_of_another_stage(stage: Stage) -> None:
    other = factories.stage("Staging")
    fields = {"status": "queued", "started_at": None, "created_at": NOW - 3 * HOUR}
    factories.run(stage, "first", **fields)
    factories.run(other, "second", **fields)
    marks = check_queue(stage)
    assert (marks["first"], marks["second"]) == ("queue", "queue")


@pytest.mark.parametrize(
    ("policy", "status", "is_blocked"),
    [
        ("queue", "pending", True),
        ("", "pending", True),
        ("allow", "queued", False),
        ("forbid", "pending", False),
        ("forbid", "queued", False),
        ("replace", "pending", False),
        ("latest", "pending", True),
    ],
)
def test_run_is_blocked_only_where_the_policy_queues_runs(
    policy: str, status: str, is_blocked: bool, stage: Stage
) -> None:
    fields = {"status": status, "started_at": None, "created_at": NOW - HOUR}
    factories.run(stage, "first", **fields)
    assert (check_queue(stage, policy)["first"] == "blocked") == is_blocked
