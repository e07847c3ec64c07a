"""Rows of any number of runs and aborts need the same few queries, and are cached while true."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.models import Abort, Acknowledgement, Pipeline, Project, Run, Stage
from dashboard.models.abort_lifecycle import AbortState, EventType
from dashboard.runs.statuses import RUN_STATUSES
from dashboard.web.components.aborts import abort_log
from dashboard.web.components.runs import rendered_rows, row_queries
from tests.support import factories


@pytest.fixture
def runs_in_all_states(stage: Stage, manager: User) -> list[Run]:
    """Runs of every status, listed and removed, each overdue, acknowledged and aborted."""
    now = timezone.now()
    factories.timing(stage)
    runs = []
    open_states = [AbortState.REQUESTED, AbortState.ACCEPTED, AbortState.UNKNOWN]
    settled_states = [state for state in AbortState if state not in open_states[:2]]
    for number, status in enumerate([*RUN_STATUSES, "aborting", "new status"] * 2):
        run = factories.run(
            stage,
            status=status,
            removed_at=now if number >= len(RUN_STATUSES) else None,
            step="Build",
            step_started_at=now,
            overdue_severity=1,
            overdue_reason="run",
            aborting_since=now - timedelta(minutes=number),
        )
        Acknowledgement.objects.create(
            run=run, user=manager, username=manager.username, acknowledged_at=now
        )
        for states, settled_at in ((settled_states, now), (open_states, None)):
            state = states[number % len(states)]
            abort = factories.abort(run, manager, state, settled_at=settled_at)
            abort.add_event(EventType.SENT, now)
        runs.append(run)
    return runs


def test_rows_of_runs_need_no_query_each(runs_in_all_states: list[Run]) -> None:
    keys = row_queries.load_keys(Run.objects.values_list("pk", flat=True))
    with CaptureQueriesContext(connection) as queries:
        rows = rendered_rows.render_rows(keys, permissions.ALL)
    assert len(rows) == len(runs_in_all_states)
    tables = "run", "stage", "abort", "stagetiming", "run", "acknowledgement"
    assert [f"dashboard_{table}" for table in tables] == [
        query["sql"].partition(" FROM ")[2].split()[0].strip('"')
        for query in queries.captured_queries
    ]


def test_run_that_is_deleted_with_its_stage_meanwhile_has_no_row(stage: Stage) -> None:
    factories.run(stage, "r-1")
    keys = row_queries.load_keys(Run.objects.values_list("pk", flat=True))

    def delete_before(execute: Any, sql: str, *arguments: Any) -> Any:
        if sql.partition(" FROM ")[2].startswith('"dashboard_stage"'):
            for table in ("run", "stage"):
                execute(f"DELETE FROM dashboard_{table}", None, *arguments[1:])
        return execute(sql, *arguments)

    with connection.execute_wrapper(delete_before):
        assert rendered_rows.render_rows(keys, permissions.ALL) == {}


def test_rows_of_aborts_need_no_query_each(runs_in_all_states: list[Run]) -> None:
    keys = abort_log.load_keys(Abort.objects.all())
    with CaptureQueriesContext(connection) as queries:
        rows = abort_log.render_rows(keys)
    assert len(rows) == 2 * len(runs_in_all_states)
    assert len(queries) == 2  # the aborts, and their events


def test_rows_show_the_new_names_of_pipeline_and_project(stage: Stage, manager: User) -> None:
    run = factories.run(stage, "r-1")
    abort = factories.abort(run, manager)

    def render() -> list[str]:
        run_keys = row_queries.load_keys([run.pk])
        abort_keys = abort_log.load_keys(Abort.objects.all())
        loaded = Run.objects.with_stage().without_detail()
        return [
            rendered_rows.render_rows(run_keys, permissions.ALL)[run.pk],
            rendered_rows.render_loaded(loaded, permissions.ALL)[run.pk],
            abort_log.render_rows(abort_keys)[abort.pk],
        ]

    render()
    for entries, name in ((Pipeline.objects, "Checkout 2"), (Project.objects, "Webshop 2")):
        entries.update(name=name)
        assert [name in row for row in render()] == [True] * 3
