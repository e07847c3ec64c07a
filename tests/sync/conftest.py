"""A small part of the sandbox's world with a stopped clock, and rows without any HTTP."""

import pytest
from pytest_django import Settings

from dashboard.models import Pipeline, Project, Stage
from tests.support import factories
from tests.support.live import Live
from tests.support.world import T0, World


@pytest.fixture
def world(live: Live, settings: Settings) -> World:
    """The sandbox's project `payments`: two pipelines, one stage without a release flow."""
    settings.NORTHFLANK_PROJECTS = ["payments"]
    return World(live)


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
