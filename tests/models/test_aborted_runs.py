"""On SQLite, triggers keep what aborts belong to, whatever a prompt does with foreign keys.

PostgreSQL has its foreign keys for that, which no session can switch off that owns no table.
"""

from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction

from dashboard import aborts
from dashboard.models import Run
from tests.support import factories

pytestmark = pytest.mark.skipif(
    connection.vendor == "postgresql", reason="PostgreSQL refuses it by its foreign keys"
)

STATEMENTS = [
    "DELETE FROM dashboard_run",
    "DELETE FROM dashboard_stage",
    "DELETE FROM dashboard_pipeline",
    "DELETE FROM dashboard_project",
    "UPDATE dashboard_run SET id = id + 99",
    "UPDATE dashboard_run SET stage_id = stage_id + 99",
    "UPDATE dashboard_stage SET id = id + 99",
    "UPDATE dashboard_stage SET pipeline_id = pipeline_id + 99",
    "UPDATE dashboard_pipeline SET id = id + 99",
    "UPDATE dashboard_pipeline SET project_id = project_id + 99",
    "UPDATE dashboard_project SET id = id + 99",
]


REPLACEABLE = ["dashboard_run", "dashboard_stage", "dashboard_pipeline", "dashboard_project"]


def execute(statement: str) -> None:
    # Foreign keys are checked at the end of the test's transaction, thus not here.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_what_an_abort_belongs_to_cannot_be_taken_from_it(statement: str, manager: User) -> None:
    factories.abort(factories.run(factories.stage(), status="aborted"), manager, "concluded")
    with pytest.raises(DatabaseError, match="cannot be"):
        execute(statement)


@pytest.mark.parametrize("id_column", ["id", "id + 99"])
@pytest.mark.parametrize("table", REPLACEABLE)
def test_what_an_abort_belongs_to_cannot_be_replaced(
    table: str, id_column: str, manager: User
) -> None:
    factories.abort(factories.run(factories.stage(), status="aborted"), manager, "concluded")
    with connection.cursor() as cursor:
        description = connection.introspection.get_table_description(cursor, table)
        generated = {field.column for field in Run._meta.concrete_fields if field.generated}
    columns = [column.name for column in description if column.name not in {"id", *generated}]
    with pytest.raises(DatabaseError, match="cannot be replaced"):
        execute(
            f"INSERT OR REPLACE INTO {table} (id, {', '.join(columns)})"
            f" SELECT {id_column}, {', '.join(columns)} FROM {table}"
        )


def test_run_of_a_bulk_abort_cannot_be_deleted(manager: User) -> None:
    run = factories.run(factories.stage())
    aborts.request_bulk_abort([run.pk], aborts.AbortRequest(manager, "Stuck"), uuid4())
    with pytest.raises(DatabaseError, match="cannot be deleted"):
        execute("DELETE FROM dashboard_run")


def test_run_without_abort_can_be_deleted(manager: User) -> None:
    stage = factories.stage()
    factories.abort(factories.run(stage, "aborted"), manager)
    factories.run(stage, "other")
    execute("DELETE FROM dashboard_run WHERE run_id = 'other'")
    assert [run.run_id for run in Run.objects.all()] == ["aborted"]


def test_what_an_abort_belongs_to_can_be_saved(manager: User) -> None:
    run = factories.run(factories.stage(), status="aborted")
    factories.abort(run, manager, "concluded")
    for row in (run, run.stage, run.stage.pipeline, run.stage.pipeline.project):
        row.save()


def test_project_without_runs_can_be_deleted(db: None) -> None:
    project = factories.stage().pipeline.project
    project.delete()
    assert not type(project).objects.exists()
