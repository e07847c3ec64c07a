"""Overdue runs on every page, and a run's elapsed time beside its typical duration."""

from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from selectolax.lexbor import LexborNode

from dashboard.accounts import permissions
from dashboard.models import Run, Stage, StageTiming
from dashboard.models.severity import Severity
from dashboard.runs.overdue import OverdueReason
from dashboard.sync import mirror, overdue_checker
from dashboard.web.components.runs import rendered_rows, row_queries
from tests.support import factories
from tests.support.html import GetPage, select_one, text_of
from tests.support.world import detail

MINUTE = timedelta(minutes=1)


@pytest.fixture
def typical_duration(stage: Stage) -> StageTiming:
    """Six to nine minutes: a run is overdue after nine, and critical after eighteen."""
    return factories.timing(stage)


def run_in_flight(stage: Stage, minutes: float = 4, status: str = "running", **fields: Any) -> Run:
    """A run that started `minutes` ago, a minute after its creation."""
    started_at = timezone.now() - minutes * MINUTE
    times = {"created_at": started_at - MINUTE, "started_at": started_at}
    return factories.run(stage, status=status, **times | fields)


def overdue_run(
    stage: Stage, level: Severity = Severity.WARNING, reason: str = OverdueReason.RUN, **fields: Any
) -> Run:
    return run_in_flight(stage, 12, overdue_severity=level, overdue_reason=reason, **fields)


def row_of(get_page: GetPage, run: Run, address: str = "/") -> LexborNode:
    return select_one(get_page(address), f'tr[data-run="{run.run_id}"]')


def progress_limits(bar: LexborNode) -> tuple[datetime, int, int]:
    """The start of a bar, and after how many seconds it is overdue, and critical."""
    attributes = bar.attributes
    assert attributes["data-since"]
    assert attributes["data-overdue-after"]
    assert attributes["data-critical-after"]
    since = datetime.fromisoformat(attributes["data-since"])
    return since, int(attributes["data-overdue-after"]), int(attributes["data-critical-after"])


# --- Elapsed and typical time -------------------------------------------------------------------


def test_run_row_shows_typical_duration(get_page: GetPage, typical_duration: StageTiming) -> None:
    cell = select_one(row_of(get_page, run_in_flight(typical_duration.stage)), "td.duration")
    assert text_of(select_one(cell, ".typical-duration")) == "usually 6 to 9 min"


def test_progress_bar_has_overdue_and_critical_limits(
    get_page: GetPage, typical_duration: StageTiming
) -> None:
    run = run_in_flight(typical_duration.stage)
    bar = select_one(row_of(get_page, run), "svg.progress")
    assert progress_limits(bar) == (run.started_at, 540, 1080)


def test_queued_run_row_shows_typical_queue_time(
    get_page: GetPage, typical_duration: StageTiming
) -> None:
    run = run_in_flight(typical_duration.stage, status="queued", started_at=None)
    cell = select_one(row_of(get_page, run), "td.duration")
    assert text_of(select_one(cell, ".typical-duration")) == "usually waits 40 to 90 s"
    assert progress_limits(select_one(cell, "svg.progress")) == (run.created_at, 100, 120)


def run_awaiting_approval(stage: Stage) -> Run:
    """A run that has waited for an approval for three minutes."""
    since = timezone.now() - 3 * MINUTE
    approval = factories.node(
        "Approval", label="sign-off", ref="sign-off", status="approval_wait", started_at=since
    )
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(approval,)))
    return run_in_flight(stage, 50, "approval_wait", steps=tree, status_since=since)


def test_approval_wait_row_shows_typical_approval_time(get_page: GetPage, stage: Stage) -> None:
    factories.timing(stage, observed_steps={"sign-off": [300, 1200]})
    cell = select_one(row_of(get_page, run_awaiting_approval(stage)), "td.duration")
    assert text_of(select_one(cell, ".typical-duration")) == "usually approved in 5 to 20 min"
    since, overdue_after, _ = progress_limits(select_one(cell, "svg.progress"))
    assert timezone.now() - since < 4 * MINUTE
    assert overdue_after == 1200


def test_run_row_shows_typical_duration_of_step_and_run(get_page: GetPage, stage: Stage) -> None:
    factories.timing(stage, observed_steps={"migrate": [120, 240]})
    since = timezone.now() - 2 * MINUTE
    step = factories.node("JobRun", ref="migrate", status="waiting", started_at=since)
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(step,)))
    run = run_in_flight(
        stage, steps=tree, step="migrate", step_key="migrate", step_started_at=since
    )
    row = row_of(get_page, run)
    assert "usually 2 to 4 min" in text_of(select_one(row, "p.step"))
    assert text_of(select_one(row, ".typical-duration")) == "usually 6 to 9 min"


def test_run_card_shows_typical_duration_of_step_and_run(get_page: GetPage, stage: Stage) -> None:
    factories.timing(stage, observed_steps={"sign-off": [300, 1200]})
    html = get_page(factories.address(run_awaiting_approval(stage)))
    assert "(usually 5 to 20 min)" in text_of(select_one(html, "[data-verdict]"))
    assert (
        text_of(select_one(html, ".state .typical-duration")) == "usually approved in 5 to 20 min"
    )


def run_awaiting_approval_too_long(stage: Stage, run_id: str = "r-1") -> Run:
    """A mirrored run, `waiting` by its status, that has waited for an approval for five hours."""
    now = timezone.now()
    since = now - timedelta(hours=5)
    approval = factories.node(
        "Approval", ref="sign-off", label="sign-off", status="approval_wait", started_at=since
    )
    times = {"created_at": since - MINUTE, "started_at": since - MINUTE}
    read = detail(run_id, factories.node("Workflow", steps=(approval,)), status="waiting", **times)
    mirror.apply_runs(stage.pk, [read.run], requested_at=now)
    mirror.apply_detail(stage.pk, read, requested_at=now)
    overdue_checker.check_runs(now)
    return Run.objects.with_stage().get(stage=stage, run_id=run_id)


def test_progress_bar_excludes_approval_time(
    get_page: GetPage, typical_duration: StageTiming
) -> None:
    started_at = timezone.now() - 30 * MINUTE
    approval = factories.node(
        "Approval", status="success", started_at=started_at, ended_at=started_at + 25 * MINUTE
    )
    build = factories.node(status="waiting", started_at=started_at + 25 * MINUTE)
    tree = msgspec.to_builtins(factories.node("Workflow", steps=(approval, build)))
    cell = select_one(
        row_of(get_page, run_in_flight(typical_duration.stage, 30, steps=tree)), "td.duration"
    )
    since, _, _ = progress_limits(select_one(cell, "svg.progress"))
    assert timezone.now() - since < 6 * MINUTE
    assert text_of(select_one(cell, ".typical-duration")) == "usually 6 to 9 min excl. approvals"


@pytest.mark.parametrize("status", ["success", "failure"])
def test_ended_run_row_has_no_progress_bar(
    status: str, get_page: GetPage, typical_duration: StageTiming
) -> None:
    run = factories.run(typical_duration.stage, status=status)
    assert (
        row_of(get_page, run, factories.address(typical_duration.stage)).css(
            ".progress, .typical-duration"
        )
        == []
    )


def test_run_row_html_is_independent_of_render_time(
    typical_duration: StageTiming, manager: User
) -> None:
    run = Run.objects.with_stage().get(pk=overdue_run(typical_duration.stage).pk)
    user_permissions = permissions.for_user(manager)
    first = rendered_rows.render_loaded([run], user_permissions)
    cache.clear()
    later = rendered_rows.render_loaded([run], user_permissions)
    assert first == later


# --- The mark -----------------------------------------------------------------------------------

OVERDUE_MARKS = [
    (Severity.WARNING, "Overdue", "g-overdue"),
    (Severity.CRITICAL, "Overdue 3×", "g-critical-overdue"),
]


@pytest.mark.parametrize(("level", "word", "glyph"), OVERDUE_MARKS)
def test_overdue_run_row_is_marked_by_word_and_icon(
    level: Severity, word: str, glyph: str, get_page: GetPage, typical_duration: StageTiming
) -> None:
    row = row_of(get_page, overdue_run(typical_duration.stage, level))
    assert row.attributes["data-overdue"] == str(int(level))
    mark = select_one(row, "td.status .overdue")
    assert text_of(mark) == word
    assert select_one(mark, "use").attributes["href"] == f"#{glyph}"


@pytest.mark.parametrize("page", ["run", "pipeline", "board"])
def test_overdue_run_is_marked_on_every_page(
    page: str, get_page: GetPage, typical_duration: StageTiming
) -> None:
    run = overdue_run(typical_duration.stage)
    address = {
        "run": factories.address(run),
        "pipeline": factories.address(typical_duration.stage.pipeline),
        "board": "/board/",
    }
    element = select_one(get_page(address[page]), '[data-overdue="1"]')
    assert text_of(select_one(element, ".overdue")) == "Overdue"


# --- Order --------------------------------------------------------------------------------------


# --- Queries ------------------------------------------------------------------------------------


def test_run_rows_load_typical_durations_in_one_query(
    typical_duration: StageTiming, manager: User
) -> None:
    for number in range(3):
        other = factories.stage(parent=factories.pipeline(f"pipeline-{number}"))
        factories.timing(other)
        run_in_flight(other)
    with CaptureQueriesContext(connection) as queries:
        rendered_rows.render_rows(
            row_queries.load_keys(Run.objects.values_list("pk", flat=True)),
            permissions.for_user(manager),
        )
    timing_queries = [
        query for query in queries.captured_queries if "dashboard_stagetiming" in query["sql"]
    ]
    assert len(timing_queries) == 1


def test_rows_that_await_approval_without_baseline_load_all_steps_in_one_query(
    manager: User, stage: Stage
) -> None:
    stages = [
        factories.stage(parent=factories.pipeline(f"pipeline-{number}")) for number in range(3)
    ]
    for other in stages:
        run_awaiting_approval_too_long(other)
    run_in_flight(stage)
    keys = row_queries.load_keys(Run.objects.values_list("pk", flat=True))
    with CaptureQueriesContext(connection) as queries:
        rendered_rows.render_rows(keys, permissions.for_user(manager))
    run_queries = [
        query["sql"] for query in queries.captured_queries if 'FROM "dashboard_run"' in query["sql"]
    ]
    assert ['"steps"' in sql for sql in run_queries] == [False, True]


# --- Updates ------------------------------------------------------------------------------------
