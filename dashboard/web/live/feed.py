"""Tells every open page what changed, as soon as it is committed, by whichever process.

One loop a process: it hears the bell (db/notify.py), reads once what is new, makes one message for
each channel somebody listens to, and gives it to the hub. Rows are rendered once per version and
audience, whatever the number of viewers.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog

from dashboard.accounts import permissions
from dashboard.db import health as db_health
from dashboard.db import notify as db_notify
from dashboard.db.threads import in_database, now
from dashboard.sync import watchers
from dashboard.web.http import database_outage
from dashboard.web.live import parts as live_parts
from dashboard.web.live.hub import Hub
from dashboard.web.live.parts import Channel, News, Part

log = structlog.get_logger(__name__)

# Seconds between two looks: ages change without a bell, and one may be lost.
BEAT = 5.0
# Seconds of silence that a stream may have: proxies cut at 60.
SILENCE = 15.0
# How a page that missed too much is told to fetch itself; app.js knows the word.
STALE = "stale"
ALIVE = "alive"
# The database is away: the page says so, and keeps what it shows; app.js knows the word.
AWAY = "away"


class Feed:
    """The changes of the database, for the viewers of this process; make it on their event loop.

    `beat` are the seconds between two looks when no bell rings, `silence` those after which a
    channel is told that its stream is alive.
    """

    def __init__(self, *, beat: float = BEAT, silence: float = SILENCE) -> None:
        self.hub = Hub[Channel]()
        self.beat, self.silence = beat, silence
        self._bell = asyncio.Event()
        self._told: int | None = None  # a version
        self._frames: dict[Channel, _Frame] = {}
        self._spoke: dict[Channel, float] = {}
        self._look_at = 0.0  # when to look at people's rights again
        self._failing = False
        self._away = False  # as the pages were told of the database

    async def run(self) -> None:
        """Tell changes until cancelled."""
        listening = asyncio.create_task(db_notify.listen(self._bell.set))
        try:
            while True:
                try:
                    await self._end_where_rights_changed()
                    await self._tell()
                except Exception as error:
                    # What was not told is told in a later round.
                    if db_health.is_outage(error):
                        self._tell_outage()
                    elif not self._failing:
                        log.exception("feed.round_failed")
                        self._failing = True
                else:
                    if self._failing:
                        log.info("feed.recovered")
                    self._failing = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.beat):
                        await self._bell.wait()
                self._bell.clear()
        finally:
            listening.cancel()

    def close(self) -> None:
        """End all streams."""
        self.hub.close()

    async def follow(self, channel: Channel, since: int | None, who: int) -> AsyncIterator[bytes]:
        """Yield what changed in a channel since a version, and from then on what changes.

        None: the page says nothing of what it shows, and is told to fetch itself. The stream ends
        soon after the rights of whoever listens, the person with the key `who`, have changed.
        """
        # First a viewer, then the reading: whatever is told in between is told twice, not lost.
        with self.hub.viewer(channel, who) as viewer:
            yield await self._opening(channel, since)
            while (message := await viewer.next()) is not None:
                yield message

    async def _opening(self, channel: Channel, since: int | None) -> bytes:
        frame, version = self._frames.get(channel), self._told
        if frame and version is not None and since == version:
            # Nothing was missed, and others have been told what there is: a thousand viewers who
            # come back together cost no thousand readings.
            parts = [Part(id, html) for id, html in frame.items()]
            return live_parts.encode(parts, version)
        try:
            return await in_database(_opening, channel, since)
        except Exception as error:
            # An answer that broke off here would be asked for again at once, and for ever.
            if db_health.is_outage(error):
                return live_parts.event(AWAY, database_outage.sentence(), since or 0)
            log.exception("feed.channel_failed", page=channel.page, key=channel.key)
            return live_parts.event(STALE, "", since or 0)

    async def _end_where_rights_changed(self) -> None:
        loop_time = asyncio.get_running_loop().time()
        if loop_time < self._look_at or not (people := self.hub.people):
            return
        self._look_at = loop_time + self.beat
        now = await in_database(permissions.rights_of, people)
        # Who came while that was read is not among `people`, and is looked at next time.
        self.hub.end_where(lambda channel, who: who in people and channel.rights != now.get(who))

    def _tell_outage(self) -> None:
        """Say it on all open pages, and so that their streams are alive."""
        self._away = True
        message = live_parts.event(AWAY, database_outage.sentence(), self._told or 0)
        for channel in self.hub.channels:
            self.hub.publish(channel, message)

    async def _tell(self) -> None:
        news = await in_database(live_parts.read, self._told)
        # Who comes after this line reads what these news are made of from the database.
        channels = self.hub.channels
        told = {channel: self._frames.get(channel, {}) for channel in channels}
        messages, frames = await in_database(_messages, news, told)
        self._told, self._frames = news.version, frames
        loop_time = asyncio.get_running_loop().time()
        spoke = {channel: self._spoke.get(channel, loop_time) for channel in channels}
        for channel in channels:
            message = messages[channel]
            if message or self._away or loop_time - spoke[channel] >= self.silence:
                self.hub.publish(channel, message or live_parts.event(ALIVE, "", news.version))
                spoke[channel] = loop_time
        self._spoke, self._away = spoke, False


def _opening(channel: Channel, since: int | None) -> bytes:
    news = live_parts.read(since)
    parts = [*live_parts.changed(channel, news), *live_parts.frame(channel, news)]
    opening = live_parts.encode(parts, news.version)
    if since is None or news.too_many:
        opening += live_parts.event(STALE, "", news.version)
    return opening


type _Frame = dict[str, str]  # the markup last told of each part, by its id


def _messages(
    news: News, told: dict[Channel, _Frame]
) -> tuple[dict[Channel, bytes], dict[Channel, _Frame]]:
    """Return the message for each channel, empty where there is nothing to tell, and the frames."""
    # Whoever has a stream no longer asks for the page, which is how interest was noted.
    watchers.goes_on(
        [channel.key for channel in told if channel.page == "stage"],
        [channel.key for channel in told if channel.page == "run"],
        now(),
    )
    messages, frames = {}, {}
    for channel, before in told.items():
        try:
            messages[channel], frames[channel] = _message(channel, news, before)
        except Exception as error:
            if db_health.is_outage(error):
                raise
            # One that can't be told must not silence the others; its pages fetch themselves.
            log.exception("feed.channel_failed", page=channel.page, key=channel.key)
            messages[channel] = live_parts.event(STALE, "", news.version)
    return messages, frames


def _message(channel: Channel, news: News, told: _Frame) -> tuple[bytes, _Frame]:
    frame = live_parts.frame(channel, news)
    new = [part for part in frame if told.get(part.id) != part.html]
    message = b""
    if parts := [*live_parts.changed(channel, news), *new]:
        message = live_parts.encode(parts, news.version)
    if news.too_many:
        message += live_parts.event(STALE, "", news.version)
    return message, {part.id: part.html for part in frame}


_open: list[Feed] = []  # at most one


def open_feed(*, beat: float = BEAT, silence: float = SILENCE) -> Feed:
    """Make this process's feed, on the running loop, and return it; somebody has to `run` it."""
    _open[:] = [Feed(beat=beat, silence=silence)]
    return _open[0]


def close_feed() -> None:
    """End all streams of this process, whose pages then ask by themselves; on the feed's loop."""
    while _open:
        _open.pop().close()


def feed() -> Feed | None:
    """Return this process's feed, or None where nobody runs one."""
    return _open[0] if _open else None
