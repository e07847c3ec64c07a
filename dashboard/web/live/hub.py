"""Who is listening to what: one bounded queue a viewer, the same bytes for all of a channel.

Lives on one event loop and knows neither Django nor the database.
"""

import asyncio
import random
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

QUEUED = 64  # messages a slow viewer may fall behind before the stream ends; it then catches up
# A stream ends by itself after about this long, in seconds: who opens it again is asked again who
# they are. Spread, so that a thousand viewers of one deployment don't come back together.
LASTS = (600.0, 1200.0)


class Viewer:
    """One open stream."""

    __slots__ = ("_ended", "_ends_at", "_queue", "who")

    def __init__(self, who: int, ends_at: float) -> None:
        self.who = who
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._ends_at = ends_at
        self._ended = False

    async def next(self) -> bytes | None:
        """Return the next message, or None at the end of the stream."""
        return await self._queue.get()

    def put(self, message: bytes, now: float) -> None:
        if self._ended:
            return
        if now >= self._ends_at or self._queue.qsize() >= QUEUED:
            self.end()
        else:
            self._queue.put_nowait(message)

    def end(self) -> None:
        self._ended = True
        self._queue.put_nowait(None)


class Hub[Channel: Hashable]:
    """The viewers of this process, by channel."""

    def __init__(self) -> None:
        self._viewers: dict[Channel, set[Viewer]] = {}
        self._closed = False

    @property
    def channels(self) -> list[Channel]:
        """The channels that somebody listens to."""
        return list(self._viewers)

    @property
    def viewers(self) -> int:
        return sum(map(len, self._viewers.values()))

    @property
    def people(self) -> set[int]:
        """The keys of the people who listen."""
        return {viewer.who for listening in self._viewers.values() for viewer in listening}

    @contextmanager
    def viewer(self, channel: Channel, who: int = 0) -> Iterator[Viewer]:
        """Listen to a channel until the block ends, as the person with the key `who`."""
        viewer = Viewer(who, asyncio.get_running_loop().time() + random.uniform(*LASTS))  # noqa: S311
        if self._closed:
            viewer.end()
        listening = self._viewers.setdefault(channel, set())
        listening.add(viewer)
        try:
            yield viewer
        finally:
            listening.discard(viewer)
            if not listening and self._viewers.get(channel) is listening:
                del self._viewers[channel]

    def publish(self, channel: Channel, message: bytes) -> None:
        """Give `message` to everybody who listens to the channel."""
        now = asyncio.get_running_loop().time()
        for viewer in self._viewers.get(channel, ()):
            viewer.put(message, now)

    def end_where(self, over: Callable[[Channel, int], bool]) -> None:
        """End the streams of which `over` says so, asked with the channel and who listens."""
        for channel, listening in self._viewers.items():
            for viewer in listening:
                if over(channel, viewer.who):
                    viewer.end()

    def close(self) -> None:
        """End all streams, and each that is opened from now on."""
        self._closed = True
        self.end_where(lambda _channel, _who: True)
