"""Runs that tests of several pages use."""

import pytest

from dashboard.models import Run, Stage
from tests.support import factories


@pytest.fixture
def run_in_each_stage(stage: Stage) -> list[Run]:
    """A run in each stage, Development first."""
    dev = factories.stage("Development", parent=stage.pipeline)
    staging = factories.stage("Staging", parent=stage.pipeline)
    return [
        factories.run(dev, name="Dev", step="build"),
        factories.run(staging, name="Stg"),
        factories.run(stage, name="Prod"),
    ]
