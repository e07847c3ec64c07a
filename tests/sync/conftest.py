"""A small part of the sandbox's world with a stopped clock, and rows without any HTTP."""

from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from pytest_django import Settings

from dashboard.db import threads as db_threads
from dashboard.models import Pipeline, Project, Stage
from tests.support import factories
from tests.support.live import Live, close_connections
from tests.support.world import T0, LoggedEvents, World


@pytest.fixture
def world(live: Live, settings: Settings) -> World:
    """The sandbox's project `payments`: two pipelines, one stage without a release flow."""
    settings.NORTHFLANK_PROJECTS = ["payments"]
    return World(live)


@pytest.fixture
def closing_connections(transactional_db: None) -> Iterator[None]:
    """At the end, the database threads' connections are closed: they would keep the database."""
    yield
    for pool in (db_threads.executor, db_threads.abort_executor):
        close_connections(pool)


@pytest.fixture
def full_world(live: Live) -> World:
    """All projects of the sandbox."""
    return World(live)


@pytest.fixture
def read_stage(db: None) -> Stage:
    """A stage that has just been read."""
    return factories.stage()


@pytest.fixture
def stage(db: None) -> Stage:
    """A stage with a release flow whose runs have not been read yet."""
    project = Project.objects.create(slug="shop", name="Shop", synced_at=T0)
    pipeline = Pipeline.objects.create(
        project=project, slug="checkout", name="Checkout", synced_at=T0
    )
    return Stage.objects.create(
        pipeline=pipeline,
        name="Production",
        has_flow=True,
        flow_synced_at=T0,
        next_sync_at=T0,
    )


@pytest.fixture
def logged_events(caplog: pytest.LogCaptureFixture) -> LoggedEvents:
    """Return a function that lists the log lines of one event."""
    caplog.set_level("INFO")
    structlog.get_logger("dashboard")

    def find_lines(event: str) -> list[dict[str, Any]]:
        events = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        return [line for line in events if line["event"] == event]

    return find_lines
