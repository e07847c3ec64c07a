"""The team of the token, which each process asks Northflank for at its start."""

import asyncio
from datetime import datetime, timedelta

import pytest
from django.db import InterfaceError
from django.utils import timezone

from dashboard.db.threads import run_in_db_thread
from dashboard.models import RateBudget, Upstream
from dashboard.sandbox import parse_fault
from dashboard.server import process
from dashboard.upstream.connection import Connection
from tests.support.world import LoggedEvents, World


def test_team_of_token_is_requested_until_answered(world: World) -> None:
    world.sandbox.faults = [parse_fault("500*4@/auth")]

    async def fetch_team() -> None:
        task = asyncio.ensure_future(process.fetch_team(world.live.connection, retry_interval=0.01))
        while not task.done():
            world.live.connection.retry_at = 0
            await asyncio.sleep(0.01)
        await task

    world.live.run(fetch_team)
    assert Upstream.objects.get().team == "acme"


def pause(left: timedelta) -> datetime:
    """Store the pause of another process after a 429; return when it ends, `left` from now."""
    now = timezone.now()
    window = {"limit": 1000, "remaining": 900, "resets_at": now + timedelta(minutes=30)}
    times = {"synced_at": now - timedelta(minutes=10), "backoff_until": now + left}
    RateBudget.objects.create(pk=1, refusals=1, **window, **times)
    return now + left


# After the pause one request of all processes tries, which the sync workers agree upon.
@pytest.mark.parametrize("left", [timedelta(minutes=5), timedelta(minutes=-1)])
@pytest.mark.parametrize("repeats", [True, False])
def test_team_of_token_is_requested_once_pause_has_ended(
    world: World, repeats: bool, left: timedelta
) -> None:
    class CountedConnection(Connection):
        rounds = 0

        def may_call(self) -> bool:
            self.rounds += 1
            return super().may_call()

    def end_pause() -> None:
        assert RateBudget.objects.get().backoff_until == backoff_until
        RateBudget.objects.update(backoff_until=None, refusals=0)

    backoff_until = pause(left)
    requests_during_pause = []

    async def fetch_team() -> None:
        connection = CountedConnection(world.sandbox.options.token, world.live.upstream_url)
        task = asyncio.ensure_future(
            process.fetch_team(connection, repeats=repeats, retry_interval=0.01)
        )
        while connection.rounds < 3 and not task.done():
            await asyncio.sleep(0.01)
        requests_during_pause.extend(world.requests_for("/auth"))
        await run_in_db_thread(end_pause)
        await task
        await connection.close()

    world.live.run(fetch_team)
    assert requests_during_pause == []
    assert Upstream.objects.get().team == "acme"


@pytest.mark.parametrize("fault", ["404@/auth", "error-without-wrapper:403@/auth"])
def test_refused_request_for_team_is_not_repeated(
    world: World, fault: str, logged_events: LoggedEvents
) -> None:
    world.sandbox.faults = [parse_fault(fault)]
    world.live.run(lambda: process.fetch_team(world.live.connection))
    assert world.requests_for("/auth") == ["GET /v1/auth"]
    assert len(logged_events("northflank.team_unknown")) == 1


def test_team_of_token_is_stored_after_database_outage(world: World) -> None:
    calls: list[int] = []

    class UnavailableConnection:
        """A connection whose first call fails, without a database."""

        def may_call(self) -> bool:
            return True

        async def call(self, request: object) -> object:
            calls.append(1)
            if len(calls) == 1:
                raise InterfaceError("connection already closed")
            return await world.live.connection.client.get_auth()

    world.live.run(lambda: process.fetch_team(UnavailableConnection(), retry_interval=0.01))  # type: ignore[arg-type]
    assert len(calls) == 2
    assert Upstream.objects.get().team == "acme"
