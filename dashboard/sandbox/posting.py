"""A POST over HTTP/1.1, and no more of HTTP than that takes. Cancelling ends it at once."""

import asyncio
import contextlib
import ssl
from urllib.parse import urlsplit

TIMEOUT = 10.0
"""Seconds a receiver has to answer."""


async def post(url: str, headers: dict[str, str], body: bytes) -> int:
    """Post a body and return the status of the answer; 0 where none comes in time."""
    try:
        async with asyncio.timeout(TIMEOUT):
            return await _post(url, headers, body)
    except (OSError, EOFError, ValueError, IndexError):  # a timeout is an OSError
        return 0


async def _post(url: str, headers: dict[str, str], body: bytes) -> int:
    at = urlsplit(url)
    secure = ssl.create_default_context() if at.scheme == "https" else None
    port = at.port or (443 if secure else 80)
    reader, writer = await asyncio.open_connection(at.hostname, port, ssl=secure)
    try:
        target = (at.path or "/") + (f"?{at.query}" if at.query else "")
        sent = {"Host": at.netloc.rpartition("@")[2]} | headers
        sent |= {"Content-Length": str(len(body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        writer.write(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
