"""Tells every open page what changed, as soon as it is committed, by whichever process.

One loop a process: it hears the bell (changes.py), reads once what is new, makes one message for
each channel somebody listens to, and gives it to the hub. Rows are rendered once per version and
audience, whatever the number of viewers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from django.db import DatabaseError
from django.utils import timezone

from dashboard import changes
from dashboard.database import in_database
from dashboard.sync import interest
from dashboard.web import fragments
from dashboard.web.fragments import Channel, News, Part
from dashboard.web.hub import Hub

log = structlog.get_logger(__name__)

# Seconds between two looks when no bell rings: ages change without one, and one may be lost.
BEAT = 5.0
# Seconds of silence after which a channel is told that its stream is alive; proxies cut at 60.
SILENCE = 15.0
# How a page that missed too much is told to fetch itself; app.js knows the word.
STALE = "stale"
ALIVE = "alive"


class Feed:
    """The changes of the database, for the viewers of this process; make it on their event loop."""

    def __init__(self) -> None:
        self.hub = Hub[Channel]()
        self._bell = asyncio.Event()
        self._told: News | None = None
        self._frames: dict[Channel, dict[str, str]] = {}
        self._spoke: dict[Channel, float] = {}

    async def run(self) -> None:
        """Tell changes until cancelled."""
        listening = asyncio.create_task(changes.listen(self._bell.set))
        try:
            while True:
                try:
                    await self._tell()
                except DatabaseError:
                    # What was not told is told when the database is back.
                    log.exception("feed.database_away")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BEAT):
                        await self._bell.wait()
                self._bell.clear()
        finally:
            listening.cancel()

    def close(self) -> None:
        """End all streams."""
        self.hub.close()

    async def follow(self, channel: Channel, since: int | None) -> AsyncIterator[bytes]:
        """Yield what changed in a channel since a version, and from then on what changes.

        None: the page says nothing of what it shows, and is told to fetch itself.
        """
        # First a viewer, then the reading: whatever is told in between is told twice, not lost.
        with self.hub.viewer(channel) as viewer:
            frame, told = self._frames.get(channel), self._told
            if frame and told and since == told.version:
                # Nothing was missed, and others have been told what there is: a thousand viewers
                # who come back together cost no thousand readings.
                parts = [Part(id, html) for id, html in frame.items()]
                yield fragments.encode(parts, told.version)
            else:
                yield await in_database(_opening, channel, since)
            while (message := await viewer.next()) is not None:
                yield message

    async def _tell(self) -> None:
        before = self._told
        news = await in_database(fragments.read, before.version if before else None, before)
        # Who comes after this line reads what these news are made of from the database.
        channels = self.hub.channels
        frames = {channel: self._frames.get(channel, {}) for channel in channels}
        messages = await in_database(_messages, channels, news, frames)
        self._told, self._frames = news, frames
        now = asyncio.get_running_loop().time()
        for channel in channels:
            message = messages.get(channel)
            if message is None and now - self._spoke.get(channel, 0.0) < SILENCE:
                continue
            self.hub.publish(channel, message or fragments.event(ALIVE, "", news.version))
            self._spoke[channel] = now
        self._spoke = {channel: self._spoke[channel] for channel in channels}


def _opening(channel: Channel, since: int | None) -> bytes:
    news = fragments.read(since)
    parts = [*fragments.changed(channel, news), *fragments.frame(channel, news)]
    opening = fragments.encode(parts, news.version)
    # A version from the future is another database's.
    if since is None or news.too_many or since > news.version:
        opening += fragments.event(STALE, "", news.version)
    return opening


def _messages(
    channels: list[Channel], news: News, frames: dict[Channel, dict[str, str]]
) -> dict[Channel, bytes]:
    # Whoever has a stream no longer asks for the page, which is how interest was noted.
    interest.goes_on(
        [channel.key for channel in channels if channel.page == "stage"],
        [channel.key for channel in channels if channel.page == "run"],
        timezone.now(),
    )
    messages = {}
    for channel in channels:
        told = frames[channel]
        frame = [part for part in fragments.frame(channel, news) if told.get(part.id) != part.html]
        told |= {part.id: part.html for part in frame}
        message = b""
        if parts := [*fragments.changed(channel, news), *frame]:
            message = fragments.encode(parts, news.version)
        if news.too_many or (news.rearranged and channel.page in {"board", "pipeline"}):
            message += fragments.event(STALE, "", news.version)
        if message:
            messages[channel] = message
    return messages


_open: list[Feed] = []  # at most one


def open_feed() -> Feed:
    """Make this process's feed, on the running loop, and return it; somebody has to `run` it."""
    _open[:] = [Feed()]
    return _open[0]


def feed() -> Feed | None:
    """Return this process's feed, or None where nobody runs one."""
    return _open[0] if _open else None
