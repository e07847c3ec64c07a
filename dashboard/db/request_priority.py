"""Requests before background work: Python runs one thread at a time, so each slows down the other.

A part of an answer takes milliseconds, and so does most database work of the sync and the stream.
That work starts while no request is being answered, or 20 ms later.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

_POLL_INTERVAL = 0.001  # seconds


class RequestPriority:
    """The requests that threads of this process are answering; for its event loop.

    Background work waits for them, `max_wait` seconds at most, and while the last one ended less
    than `pause` seconds ago: the parts of an abort's answer follow each other closely.
    """

    def __init__(self, max_wait: float = 0.02, pause: float = 0.005) -> None:
        self._max_wait, self._pause = max_wait, pause
        self._under_way: set[object] = set()
        self._last_ended_at = -pause  # time.monotonic, in seconds

    async def run[T](self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """Return the result of `work`, a part of an answer, which a thread of `pool` does."""
        part = object()
        self._under_way.add(part)
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        finally:
            self._under_way.remove(part)
            self._last_ended_at = monotonic()

    async def wait(self) -> None:
        """Return once no request is being answered, or after `max_wait` seconds."""
        deadline = monotonic() + self._max_wait
        # Polled, since time ends a pause.
        while self.is_answering() and monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_INTERVAL)

    def is_answering(self) -> bool:
        """Return whether a request is being answered, or was a moment ago (`pause`)."""
        return bool(self._under_way) or monotonic() - self._last_ended_at < self._pause


request_priority = RequestPriority()
