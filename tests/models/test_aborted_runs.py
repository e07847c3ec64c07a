"""On SQLite, triggers keep what aborts belong to, whatever a prompt does with foreign keys.

PostgreSQL has its foreign keys for that, which no session can switch off that owns no table.
"""

from uuid import uuid4

import pytest
from django.contrib.auth.models import User
from django.db import DatabaseError, connection, transaction

from dashboard.aborts.bulk_request import request_bulk_abort
from dashboard.aborts.request import AbortRequest
from dashboard.models import Run
from tests.support import factories

pytestmark = pytest.mark.skipif(
    connection.vendor == "postgresql", reason="PostgreSQL refuses it by its foreign keys"
)


def execute(statement: str) -> None:
    # Foreign keys are checked at the end of the test's transaction, thus not here.
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


@pytest.mark.parametrize("table", ["run", "stage", "pipeline", "project"])
def test_what_an_abort_belongs_to_cannot_be_deleted(table: str, manager: User) -> None:
    factories.abort(factories.run(factories.stage(), status="aborted"), manager, "concluded")
    with pytest.raises(DatabaseError, match="cannot be deleted"):
        execute(f"DELETE FROM dashboard_{table}")


def test_run_of_a_bulk_abort_cannot_be_deleted(manager: User) -> None:
    run = factories.run(factories.stage())
    request_bulk_abort([run.pk], AbortRequest(manager, "Stuck"), uuid4())
    with pytest.raises(DatabaseError, match="cannot be deleted"):
        execute("DELETE FROM dashboard_run")


def test_run_without_abort_can_be_deleted(manager: User) -> None:
    stage = factories.stage()
    factories.abort(factories.run(stage, "aborted"), manager)
    factories.run(stage, "other")
    execute("DELETE FROM dashboard_run WHERE run_id = 'other'")
    assert [run.run_id for run in Run.objects.all()] == ["aborted"]


def test_project_without_runs_can_be_deleted(db: None) -> None:
    project = factories.stage().pipeline.project
    project.delete()
    assert not type(project).objects.exists()
