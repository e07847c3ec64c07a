"""A dashboard whose upstream fails as a test says."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import time_machine
from django.contrib.auth.models import User

from tests.support.faulty_upstream import FaultyUpstream
from tests.support.live import Live
from tests.support.world import NOW


@pytest.fixture
def upstream(live: Live, manager: User) -> Iterator[FaultyUpstream]:
    """A dashboard that has read nothing yet, with a proxy of faults before its sandbox."""
    start = datetime.fromtimestamp(NOW, UTC)
    with time_machine.travel(start) as clock, FaultyUpstream(live, clock).run() as faulty:
        yield faulty
