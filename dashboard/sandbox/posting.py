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
    url_parts = urlsplit(url)
    ssl_context = ssl.create_default_context() if url_parts.scheme == "https" else None
    port = url_parts.port or (443 if ssl_context else 80)
    reader, writer = await asyncio.open_connection(url_parts.hostname, port, ssl=ssl_context)
    try:
        target = (url_parts.path or "/") + (f"?{url_parts.query}" if url_parts.query else "")
        all_headers = {"Host": url_parts.netloc.rpartition("@")[2]} | headers
        all_headers |= {"Content-Length": str(len(body)), "Connection": "close"}
        head = "".join(f"{name}: {value}\r\n" for name, value in all_headers.items())
        writer.write(f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body)
        await writer.drain()
        return int((await reader.readline()).split()[1])
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
