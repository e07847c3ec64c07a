"""Fixtures for the tests of the Northflank client."""

from collections.abc import AsyncIterator

import pytest

from dashboard.northflank import NorthflankClient
from tests.support.scripted_server import ScriptedServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as scripted:
        yield scripted


@pytest.fixture
async def client(server: ScriptedServer) -> AsyncIterator[NorthflankClient]:
    async with NorthflankClient("TKN", base_url=server.url) as created_client:
        created_client._spell = str.lower  # as after an answer about a stage
        yield created_client


@pytest.fixture
async def short_timeout_client(server: ScriptedServer) -> AsyncIterator[NorthflankClient]:
    """A client with a short timeout, for missing responses; a busy machine may exceed it."""
    async with NorthflankClient("TKN", base_url=server.url, timeout_seconds=0.4) as created_client:
        yield created_client
