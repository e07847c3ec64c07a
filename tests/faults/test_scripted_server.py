"""The scripted server goes on where a client has closed its connection, and hides no defect."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop

from tests.support.scripted_server import Responder, ScriptedServer


async def write_after_close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)  # uvloop closes the handle in the loop's next turn
    await asyncio.sleep(0)
    writer.write(b" ")
    await writer.drain()


async def fail(writer: asyncio.StreamWriter) -> None:
    raise RuntimeError("a defect")


async def unhandled_errors(responder: Responder) -> list[str]:
    """The errors of the server's tasks when it responds to a request."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _loop, context: contexts.append(context)
    )
    async with ScriptedServer() as server:
        server.enqueue(responder)
        reader, writer = await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await server.wait_for_requests(1)
        assert await reader.read() == b""
        await asyncio.gather(server.wait_until_closed(), return_exceptions=True)
        writer.close()
    return [str(context["exception"]) for context in contexts]


@pytest.mark.parametrize(("responder", "errors"), [(write_after_close, []), (fail, ["a defect"])])
def test_write_to_closed_connection_is_no_error(responder: Responder, errors: list[str]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(unhandled_errors(responder)) == errors
