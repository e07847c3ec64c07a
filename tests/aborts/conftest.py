"""Runs to abort."""

import pytest

from dashboard.models import Run
from tests.support.live import Live
from tests.support.live_runs import create_run_in_flight


@pytest.fixture
def runs(live: Live) -> list[Run]:
    """Five runs in flight."""
    return [create_run_in_flight(live) for _ in range(5)]
