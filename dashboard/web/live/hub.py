"""The open streams by channel: one bounded queue a viewer, the same bytes for all of a channel.

Used on one event loop; independent of Django and the database.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

MAX_QUEUED = 64  # messages a slow viewer may fall behind before the stream ends; it then catches up
# A stream ends after about this long, in seconds, so that the session is checked again when it is
# reopened. A range, so that a thousand viewers do not reconnect together after a deployment.
STREAM_LIFETIME = (600.0, 1200.0)


class Viewer[Session]:
    """One open stream."""

    __slots__ = ("_expires_at", "_is_closed", "_queue", "session")

    def __init__(self, session: Session, expires_at: float) -> None:
        self.session = session
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._expires_at = expires_at
        self._is_closed = False

    async def next(self) -> bytes | None:
        """Return the next message, or None at the end of the stream."""
        return await self._queue.get()

    def put(self, message: bytes, now: float) -> None:
        if self._is_closed:
            return
        if now >= self._expires_at or self._queue.qsize() >= MAX_QUEUED:
            self.close()
        else:
            self._queue.put_nowait(message)

    def close(self) -> None:
        self._is_closed = True
        self._queue.put_nowait(None)


class Hub[Channel: Hashable, Session: Hashable]:
    """The viewers of this process, by channel.

    `account_of` returns whose a session is; without it each session counts as an account.
    """

    # Of one process. A page without a stream refreshes itself at intervals.
    max_streams = 5_000
    max_streams_per_account = 50

    def __init__(self, account_of: Callable[[Session], Hashable] = lambda session: session) -> None:
        self._account_of = account_of
        self._viewers: dict[Channel, set[Viewer[Session]]] = {}
        self._streams: Counter[Hashable] = Counter()  # by account
        self._is_closed = False

    @property
    def channels(self) -> list[Channel]:
        """The channels that have viewers."""
        return list(self._viewers)

    @property
    def viewers(self) -> int:
        return sum(map(len, self._viewers.values()))

    @property
    def sessions(self) -> set[Session]:
        """The sessions with open streams."""
        return {viewer.session for viewers in self._viewers.values() for viewer in viewers}

    def is_full(self, session: Session) -> bool:
        """Return whether the session's account, or all, have as many streams as they may."""
        streams = self._streams[self._account_of(session)]
        return streams >= self.max_streams_per_account or self.viewers >= self.max_streams

    @contextmanager
    def subscribe(self, channel: Channel, session: Session) -> Iterator[Viewer[Session]]:
        """Subscribe a viewer to a channel until the block ends; above a limit, its stream ends."""
        lifetime = random.uniform(*STREAM_LIFETIME)  # noqa: S311
        viewer = Viewer(session, asyncio.get_running_loop().time() + lifetime)
        # Several streams may have been opened since `is_full` was asked.
        if self._is_closed or self.is_full(session):
            viewer.close()
        viewers = self._viewers.setdefault(channel, set())
        viewers.add(viewer)
        account = self._account_of(session)
        self._streams[account] += 1
        try:
            yield viewer
        finally:
            viewers.discard(viewer)
            self._streams[account] -= 1
            if not self._streams[account]:
                del self._streams[account]
            if not viewers and self._viewers.get(channel) is viewers:
                del self._viewers[channel]

    def publish(self, channel: Channel, message: bytes) -> None:
        """Send `message` to all viewers of the channel."""
        now = asyncio.get_running_loop().time()
        for viewer in self._viewers.get(channel, ()):
            viewer.put(message, now)

    def close_streams(
        self, should_close: Callable[[Channel, Session], bool], last_message: bytes = b""
    ) -> None:
        """Close the streams for which `should_close(channel, session)` is true."""
        now = asyncio.get_running_loop().time()
        for channel, viewers in self._viewers.items():
            for viewer in viewers:
                if should_close(channel, viewer.session):
                    if last_message:
                        viewer.put(last_message, now)
                    viewer.close()

    def close(self) -> None:
        """Close all streams, and each that is opened later."""
        self._is_closed = True
        self.close_streams(lambda _channel, _session: True)
