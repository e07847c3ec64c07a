"""Reconciliations that take longer than the worker waits: how many, and what of a failed one."""

import asyncio
from typing import Any

import pytest
from django.db import InterfaceError
from structlog.testing import capture_logs

from dashboard.aborts import reconcile
from dashboard.aborts.reconcile import cancel_tasks, reconcile_in_background
from dashboard.upstream.connection import Connection


class Reconciliations:
    """Reconciliations that last until they are cancelled or, with `ends`, until all have begun."""

    def __init__(self, *, ends: bool, error: Exception | None = None) -> None:
        self.ends, self.error = ends, error
        self.started = self.ended = 0
        self.failures: list[Any] = []  # of what runs once one has ended
        self.ended_when_cancelled = 0
        self._may_end = asyncio.Event()

    async def reconcile(self, _: Connection) -> None:
        self.started += 1
        try:
            await self._may_end.wait()
            if self.error:
                raise self.error
        finally:
            await asyncio.sleep(0)  # what it has to tidy up takes a turn of the loop
            self.ended += 1

    async def start(self, count: int) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.failures.append(context))
        connection = Connection("token", "http://northflank.invalid")
        for _ in range(count):
            await reconcile_in_background(connection, 0)
        if self.ends:
            self._may_end.set()
            for _ in range(4):  # turns of the loop in which they end
                await asyncio.sleep(0)
        await cancel_tasks()
        self.ended_when_cancelled = self.ended
        await asyncio.sleep(0)
        await connection.close()

    def run(self, monkeypatch: pytest.MonkeyPatch, count: int = 1) -> list[Any]:
        """Start some, and return what is logged of them."""
        monkeypatch.setattr(reconcile, "reconcile_open_aborts", self.reconcile)
        with capture_logs() as logs:
            asyncio.run(self.start(count))
        return list(logs)


def test_failed_reconciliation_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    error = RuntimeError("It broke")
    logs = Reconciliations(ends=True, error=error).run(monkeypatch)
    assert logs == [{"event": "abort.reconcile_failed", "exc_info": error, "log_level": "error"}]


def test_outage_during_reconciliation_is_not_logged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    error = InterfaceError("connection lost")  # logged by db/health.py
    assert Reconciliations(ends=True, error=error).run(monkeypatch) == []


@pytest.mark.parametrize("ends", [True, False])
def test_ended_and_cancelled_reconciliations_are_not_logged(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    reconciliations = Reconciliations(ends=ends)
    assert reconciliations.run(monkeypatch) == []
    assert reconciliations.started == reconciliations.ended_when_cancelled == 1
    assert reconciliations.failures == []


def test_number_of_reconciliations_in_progress_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    reconciliations = Reconciliations(ends=False)
    reconciliations.run(monkeypatch, count=reconcile.MAX_CONCURRENT + 2)
    assert reconciliations.started == reconcile.MAX_CONCURRENT
