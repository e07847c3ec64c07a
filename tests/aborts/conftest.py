"""Runs to abort, and an abort."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.contrib.auth.models import User

from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run
from tests.support import factories
from tests.support.live import Live, close_connections
from tests.support.live_runs import create_run_in_flight


@pytest.fixture
def runs(live: Live) -> list[Run]:
    """Five runs in flight."""
    return [create_run_in_flight(live) for _ in range(5)]


@pytest.fixture
def run(transactional_db: None) -> Iterator[Run]:
    """A run in flight."""
    created = factories.run(factories.stage("Staging"), "r1")
    yield Run.objects.with_stage().get(pk=created.pk)
    for pool in (db_threads.executor, db_threads.abort_executor):
        close_connections(pool)


@pytest.fixture
def abort(run: Run, manager: User) -> Abort:
    """An abort that was just recorded."""
    return request_abort(run, AbortRequest(manager, "Stuck")).abort


@pytest.fixture
def abort_with_expired_lease(abort: Abort) -> Abort:
    """An abort whose lease has expired."""
    Abort.objects.update(claimed_at=abort.claimed_at - timedelta(seconds=16))
    return Abort.objects.get()
