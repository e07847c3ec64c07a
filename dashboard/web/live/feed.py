"""Push committed changes of any process to every open page.

One loop per process waits for a notification (db/notify.py), reads the changes once, builds one
message per subscribed channel and publishes it to the hub. Rows are rendered once per version and
audience, whatever the number of viewers.
"""

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import AsyncGenerator

import structlog

from dashboard.accounts import sessions
from dashboard.accounts.sessions import SignedInSession
from dashboard.db import health as db_health
from dashboard.db import notify as db_notify
from dashboard.db.threads import now, run_in_db_thread
from dashboard.sync import watchers
from dashboard.web.http import database_outage
from dashboard.web.live import changes, event_ids
from dashboard.web.live.changes import (
    HEARTBEAT_EVENT,
    OUTAGE_EVENT,
    STALE_EVENT,
    Channel,
    Parts,
    build_messages,
    read_first_message,
)
from dashboard.web.live.event_ids import Since
from dashboard.web.live.hub import Hub, Viewer

log = structlog.get_logger(__name__)

# Seconds between polls: ages change without a notification, and one may be lost.
POLL_INTERVAL = 5.0
# Seconds a stream may be idle: proxies cut it at 60.
HEARTBEAT_INTERVAL = 15.0


class Broadcaster:
    """Sends database changes to the viewers of this process; create it on their event loop.

    `poll_interval` is in seconds between reads without a notification; a channel without a
    message for `heartbeat_interval` seconds gets a heartbeat.
    """

    def __init__(
        self,
        *,
        poll_interval: float = POLL_INTERVAL,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
    ) -> None:
        # No two accounts have the same hash of a password: each has a salt of its own.
        self.hub = Hub[Channel, SignedInSession](lambda session: session.password)
        self.poll_interval, self.heartbeat_interval = poll_interval, heartbeat_interval
        self._notified = asyncio.Event()
        self.version: int | None = None  # of the last round's changes; None: no round yet
        self._last_parts: dict[Channel, Parts] = {}
        self._last_sent_at: dict[Channel, float] = {}
        # When the last round began, in milliseconds, and at which version.
        self._round_began_at, self._round_version = math.inf, 0  # no round yet
        # Who has opened a stream since, and where.
        self._new_viewers: dict[Viewer[SignedInSession], Channel] = {}
        # By channel and version: what viewers get who open a stream before the next round.
        self._first_messages: dict[tuple[Channel, Since], asyncio.Task[bytes]] = {}
        self._next_session_check = self._next_watch = 0.0  # loop time, in seconds
        self.accounts_changed = False  # since the last check of sessions
        self._is_failing = False
        self._outage_published = False  # the last message was an outage

    async def run(self) -> None:
        """Broadcast changes until cancelled."""
        callbacks = {
            db_notify.Topic.RUNS: self._notified.set,
            db_notify.Topic.ACCOUNTS: self._notice_account_change,
        }
        listener = asyncio.create_task(db_notify.listen(callbacks))
        try:
            while True:
                try:
                    await self.check_sessions()
                    await self._keep_watched()
                    await self.broadcast()
                except Exception as error:
                    self._first_messages = {}  # those who connect from now on read anew
                    # Unsent changes are sent in a later round.
                    if db_health.is_outage(error):
                        self._broadcast_outage()
                    elif not self._is_failing:
                        log.exception("feed.round_failed")
                        self._is_failing = True
                else:
                    if self._is_failing:
                        log.info("feed.recovered")
                    self._is_failing = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.poll_interval):
                        await self._notified.wait()
                self._notified.clear()
        finally:
            listener.cancel()

    def close(self) -> None:
        """End all streams."""
        self.hub.close()

    async def stream(
        self, channel: Channel, since: Since, session: SignedInSession
    ) -> AsyncGenerator[bytes]:
        """Yield what has changed on a channel's page, then each change as it comes, as events.

        The stream ends with the session, and when the permissions of its user change.
        """
        # Subscribe before reading: a change in between is sent twice, not lost.
        with self.hub.subscribe(channel, session) as viewer:
            if self._is_newer(since):
                # The parts of the last round may be older than the page. Without an id: a page that
                # reconnects before the next round is as old as it was.
                yield changes.encode_event(HEARTBEAT_EVENT, "")
            else:
                yield await self.first_message(channel, since)
            self._new_viewers[viewer] = channel
            try:
                while (message := await viewer.next()) is not None:
                    yield message
            finally:
                self._new_viewers.pop(viewer, None)

    async def first_message(self, channel: Channel, since: Since) -> bytes:
        """Return what has changed on a channel's page; viewers before the next round share it."""
        since = since._replace(read_at=None)
        if since.version is None:  # the page reloads, so it may be newer than what others got
            return await self._load_first_message(channel, since)
        key = channel, since
        if key not in self._first_messages:
            self._first_messages[key] = asyncio.create_task(
                self._load_first_message(channel, since)
            )
        return await asyncio.shield(self._first_messages[key])  # others wait for it too

    def _is_newer(self, since: Since) -> bool:
        """Return whether a page was read after the last round began, so lacks no change of it."""
        return (
            not since.is_stale
            and (since.version or 0) >= self._round_version
            # A page from before the restore of a database has a higher version.
            and (since.read_at or 0) >= self._round_began_at
        )

    async def _load_first_message(self, channel: Channel, since: Since) -> bytes:
        parts, version = self._last_parts.get(channel), self.version
        if parts and version is not None and since == Since(version):
            # Nothing was missed and the markup is cached: a thousand viewers who reconnect together
            # cost no database reads.
            return changes.encode_parts(parts.values(), channel.event_id(version))
        try:
            return await run_in_db_thread(read_first_message, channel, since)
        except Exception as error:
            self._first_messages.pop((channel, since), None)  # the next viewer tries again
            event_id = channel.event_id(since.version or 0)
            # A response that broke off here would be retried at once, endlessly.
            if db_health.is_outage(error):
                # Later rounds send what is newer than theirs: the page has to reload.
                return changes.encode_event(
                    OUTAGE_EVENT, str(database_outage.outage_message()), event_id
                ) + changes.encode_event(STALE_EVENT, "", event_id)
            log.exception("feed.channel_failed", page=channel.page, key=channel.key)
            return changes.encode_event(STALE_EVENT, "", event_id)

    def _notice_account_change(self) -> None:
        self.accounts_changed = True
        self._notified.set()

    async def check_sessions(self) -> None:
        """Close the streams whose session has ended or whose user's permissions have changed.

        All are checked together: at each notification, and once an interval since SQL sends none.
        """
        loop_time = asyncio.get_running_loop().time()
        if loop_time < self._next_session_check and not self.accounts_changed:
            return
        # Before the read: what changes during it is checked in the next round.
        self.accounts_changed = False
        self._next_session_check = loop_time + self.poll_interval
        if not (checked := self.hub.sessions):
            return
        try:
            current = await run_in_db_thread(sessions.current_permissions, checked, now())
        except Exception:
            self.accounts_changed = True
            raise
        # A viewer who subscribed during that read is not in `checked`; checked next time.
        self.hub.close_streams(lambda _, session: session in checked and session not in current)
        # These reconnect with the new permissions; what the page already shows is outdated.
        self.hub.close_streams(
            lambda channel, session: (
                session in checked
                and session in current
                and channel.permissions != current[session]
            ),
            # Its id has no permissions: these viewers had various ones.
            changes.encode_event(STALE_EVENT, "", str(self.version or 0)),
        )

    async def _keep_watched(self) -> None:
        """Record what is being viewed, once an interval.

        Pages with a stream make no further requests, which would record them as watched.
        """
        loop_time = asyncio.get_running_loop().time()
        if loop_time < self._next_watch or not (channels := self.hub.channels):
            return
        if db_health.down_since() is not None:  # views are a write; pages can still be read
            return
        self._next_watch = loop_time + self.poll_interval
        keys_by_page: defaultdict[str, set[int]] = defaultdict(set)
        for channel in channels:
            keys_by_page[channel.page].add(channel.key)
        for page, keys in keys_by_page.items():
            await run_in_db_thread(watchers.keep_alive, page, keys, now())

    def _broadcast_outage(self) -> None:
        """Send the outage to all open pages; it also serves as their heartbeat."""
        self._outage_published = True
        text = str(database_outage.outage_message())
        for channel in self.hub.channels:
            event_id = channel.event_id(self.version or 0)
            self.hub.publish(channel, changes.encode_event(OUTAGE_EVENT, text, event_id))

    async def broadcast(self) -> None:
        """Send all changes since the last round to the viewers, in one round."""
        change_set = await run_in_db_thread(changes.load_changes, self.version)
        # A viewer who shares one of these has subscribed by now, so gets what it lacks.
        self._first_messages = {}
        # Viewers who subscribe after this line read these changes from the database.
        channels = self.hub.channels
        new_viewers = dict(self._new_viewers)
        self._round_began_at = event_ids.milliseconds(change_set.now)
        self._round_version = change_set.version
        last_parts = {channel: self._last_parts.get(channel, {}) for channel in channels}
        # Drops channels without viewers: a viewer who reconnects while the messages are built reads
        # these changes from the database.
        self._last_parts = last_parts
        messages, parts = await run_in_db_thread(
            build_messages, change_set, last_parts, set(new_viewers.values())
        )
        self.version, self._last_parts = change_set.version, parts
        loop_time = asyncio.get_running_loop().time()
        last_sent_at = {channel: self._last_sent_at.get(channel, loop_time) for channel in channels}
        for channel in channels:
            message = messages[channel].changed
            if (
                message
                or self._outage_published
                or loop_time - last_sent_at[channel] >= self.heartbeat_interval
            ):
                event_id = channel.event_id(change_set.version)
                self.hub.publish(
                    channel, message or changes.encode_event(HEARTBEAT_EVENT, "", event_id)
                )
                last_sent_at[channel] = loop_time
        for viewer, channel in new_viewers.items():
            self._new_viewers.pop(viewer, None)
            if channel in messages and (unchanged := messages[channel].unchanged):
                viewer.put(unchanged, loop_time)
        self._last_sent_at, self._outage_published = last_sent_at, False


_current: list[Broadcaster] = []  # at most one


def open_broadcaster(**intervals: float) -> Broadcaster:
    """Create and return this process's broadcaster on the running loop; the caller runs it."""
    _current[:] = [Broadcaster(**intervals)]
    return _current[0]


def close_broadcaster() -> None:
    """End all streams of this process; pages then poll. Call on the broadcaster's loop."""
    while _current:
        _current.pop().close()


def current_broadcaster() -> Broadcaster | None:
    """Return this process's broadcaster, or None if it has none."""
    return _current[0] if _current else None
