"""Who opened which logs is recorded once an hour."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from dashboard.accounts import access_log
from dashboard.models import AccessEvent, Run
from tests.support import factories

NOW = timezone.now()
MINUTE = timedelta(minutes=1)


@pytest.fixture
def run(db: None) -> Run:
    return factories.run(factories.stage("Staging"), run_id="run-1")


def opened(user: User, run: Run, source: str = "job run migrate-1", **changes: object) -> None:
    values = {"at": NOW, "client_address": "192.0.2.1"} | changes
    access_log.record_logs_opened(user, run, source, **values)  # type: ignore[arg-type]


def test_opened_logs_are_recorded_with_run_and_source(viewer: User, run: Run) -> None:
    opened(viewer, run, token_name="Runbook")
    event = AccessEvent.objects.get()
    pipeline = run.stage.pipeline
    assert (event.kind, event.username, event.client_address) == (
        "logs_opened",
        "viewer",
        "192.0.2.1",
    )
    assert event.token_name == "Runbook"
    assert event.detail == (
        f"Run run-1 in Staging of {pipeline.project.slug}/{pipeline.slug}: job run migrate-1."
    )


def test_logs_of_an_open_page_are_recorded_once_an_hour(
    viewer: User, run: Run, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    opened(viewer, run)
    with django_assert_num_queries(1):
        opened(viewer, run, at=NOW + 59 * MINUTE)
    assert AccessEvent.objects.count() == 1
    opened(viewer, run, at=NOW + 61 * MINUTE)
    assert AccessEvent.objects.count() == 2


def test_logs_opened_otherwise_are_recorded_too(viewer: User, manager: User, run: Run) -> None:
    opened(viewer, run)
    opened(manager, run)
    opened(viewer, run, client_address="192.0.2.2")
    opened(viewer, run, client_address=None)
    opened(viewer, run, token_name="Runbook")
    opened(viewer, run, "build a-1")
    opened(viewer, factories.run(run.stage, run_id="run-2"))
    assert AccessEvent.objects.count() == 7
    opened(viewer, run)
    assert AccessEvent.objects.count() == 7
