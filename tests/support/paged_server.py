"""A stand-in for Northflank that sends given bodies: lists by the number of their page."""

import asyncio
from typing import Any
from urllib.parse import parse_qsl

from dashboard.northflank import NorthflankClient
from tests.support import payloads
from tests.support.live import Live
from tests.support.live_runs import replace_client
from tests.support.scripted_server import Request, ScriptedServer, respond_with

_NOT_FOUND = respond_with(payloads.error("not found"), status=404)


class PagedServer(ScriptedServer):
    """Sends the bodies in `pages`, one for each page of "METHOD /path"; 404 for all others.

    Without a page number in the query it is the first. "METHOD /path?concluded=false" has those of
    a filtered list; without it the filter is ignored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pages: dict[str, list[Any]] = {}

    async def _respond(self, request: Request, writer: asyncio.StreamWriter) -> None:
        query = dict(parse_qsl(request.query))
        route = f"{request.method} {request.path}"
        filtered = f"{route}?concluded={query.get('concluded')}"
        bodies = self.pages.get(filtered, self.pages.get(route, []))
        number = int(query.get("page", 1))
        is_there = number <= len(bodies)
        await (respond_with(bodies[number - 1]) if is_there else _NOT_FOUND)(writer)


def connect(live: Live, server: PagedServer) -> None:
    """Make the server, once it is open, the dashboard's Northflank."""
    connection = live.connection
    replace_client(
        live,
        NorthflankClient(
            connection.token, base_url=server.url, on_call=connection.unrecorded_calls.append
        ),
    )
