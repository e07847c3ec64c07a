"""The steps of runs from before 0002: compressed by 0003, taken over by 0004."""

import json
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from dashboard.models import Run
from tests.support import factories

STEPS = {"kind": "Workflow", "label": "näive", "steps": [{"kind": "Build", "label": "build"}]}
OTHER_STEPS = {"kind": "Workflow", "label": "later", "steps": []}

migration: Any = import_module("dashboard.migrations._uncompressed_steps")


@pytest.fixture
def old_columns(db: None) -> None:
    """The columns of 0001 beside ours."""
    kind = "jsonb" if connection.vendor == "postgresql" else "text"
    with connection.cursor() as cursor:
        for column in ("steps", "raw"):
            cursor.execute(f"ALTER TABLE dashboard_run ADD COLUMN {column} {kind} NULL")


def write_old_steps(steps: object, **filter: Any) -> None:
    """Write steps as the older version does."""
    keys = list(Run.objects.filter(**filter).values_list("pk", flat=True))
    with connection.cursor() as cursor:
        cursor.executemany(
            "UPDATE dashboard_run SET steps = %s WHERE id = %s",
            [(json.dumps(steps), key) for key in keys],
        )


@pytest.mark.usefixtures("old_columns")
def test_steps_of_more_runs_than_a_batch_are_compressed(db: None) -> None:
    run = factories.run(factories.stage(), status="success")
    factories.create_copies(run, migration.BATCH + 1)
    write_old_steps(STEPS)
    migration.compress(connection)
    compressed: list[Any] = list(Run.objects.values_list("steps", flat=True))
    assert compressed == [STEPS] * (migration.BATCH + 2)


@pytest.mark.usefixtures("old_columns")
def test_steps_that_are_deleted_unread_or_newer_stay_as_they_are(db: None) -> None:
    stage, now = factories.stage(), timezone.now()
    factories.run(stage, "deleted", steps_removed_at=now)
    factories.run(stage, "newer", steps=OTHER_STEPS)
    factories.run(stage, "unread")
    write_old_steps(STEPS, run_id__in=["deleted", "newer"])
    write_old_steps(None, run_id="unread")
    migration.compress(connection)
    steps: dict[str, Any] = dict(Run.objects.values_list("run_id", "steps"))
    assert steps == {"deleted": None, "newer": OTHER_STEPS, "unread": None}


@pytest.mark.usefixtures("old_columns")
def test_run_that_both_versions_have_read_differently_is_read_again(db: None) -> None:
    stage, now = factories.stage(), timezone.now()
    factories.run(stage, "same", steps=STEPS)
    factories.run(stage, "different", steps=OTHER_STEPS)
    factories.run(stage, "ours", steps=OTHER_STEPS)
    write_old_steps(STEPS, run_id__in=["same", "different"])
    assert migration.read_again_where_different(connection, now) == 1
    due = Run.objects.filter(next_detail_sync_at__lte=now + timedelta(seconds=1))
    assert [run.run_id for run in due] == ["different"]


@pytest.mark.usefixtures("old_columns")
def test_columns_of_the_older_version_are_dropped(db: None) -> None:
    migration.drop(connection)
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, "dashboard_run")
    assert {column.name for column in columns}.isdisjoint({"steps", "raw"})


def test_migration_that_has_dropped_the_columns_can_run_again(transactional_db: None) -> None:
    """Migration 0004 may end before it is recorded."""
    assert not migration.exist(connection)
    take_over: Any = import_module("dashboard.migrations.0004_drop_uncompressed_steps").take_over
    with connection.schema_editor(atomic=False) as editor:
        take_over(None, editor)
