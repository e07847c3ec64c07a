"""The messages of a channel: what changed on its page, as events of its stream."""

from collections.abc import Collection, Container
from typing import NamedTuple

import structlog

from dashboard.db import health as db_health
from dashboard.web.live import changes
from dashboard.web.live.changes import ChangeSet, Channel
from dashboard.web.live.event_ids import Since
from dashboard.web.live.page import LivePart

log = structlog.get_logger(__name__)

# Makes a page that missed too much reload its live region; handled by live.js.
STALE_EVENT = "stale"
HEARTBEAT_EVENT = "heartbeat"
# Database outage: the page shows a notice and keeps its content; handled by live.js.
OUTAGE_EVENT = "outage"

type Parts = dict[str, LivePart]  # the last sent status parts, by id


class Messages(NamedTuple):
    """The messages of a round for a channel; each is empty if there is nothing to send."""

    changed: bytes  # for all viewers
    # The other status parts, for viewers who opened their stream after the last round: their pages
    # may have been read while one of these parts was different for a moment.
    unchanged: bytes = b""


def read_first_message(channel: Channel, since: Since) -> bytes:
    """Return what has changed on a channel's page since what it shows, as its first message."""
    change_set = changes.load_changes(since.version)
    parts = [
        *change_set.changed_parts(channel),
        *(
            _with_new_rows(part, None, channel, change_set)
            for part in change_set.status_parts(channel)
        ),
    ]
    is_stale = since.is_stale or change_set.is_truncated
    return _encode(parts, channel.event_id(change_set.version), is_stale=is_stale)


def _encode(parts: Collection[LivePart], event_id: str, *, is_stale: bool) -> bytes:
    """Return a message with parts, and one that asks the page to reload if `is_stale`."""
    if not is_stale:
        return changes.encode_parts(parts, event_id) if parts else b""
    # The parts have no id: if the connection breaks after them, the next stream asks again.
    message = changes.encode_parts(parts) if parts else b""
    return message + changes.encode_event(STALE_EVENT, "", event_id)


def build_messages(
    change_set: ChangeSet, last_parts: dict[Channel, Parts], newly_viewed: Container[Channel] = ()
) -> tuple[dict[Channel, Messages], dict[Channel, Parts]]:
    """Return each channel's messages and its status parts; `newly_viewed` have new viewers."""
    messages, parts = {}, {}
    for channel, channel_parts in last_parts.items():
        try:
            messages[channel], parts[channel] = _build_messages(
                channel, change_set, channel_parts, has_new_viewers=channel in newly_viewed
            )
        except Exception as error:
            if db_health.is_outage(error):
                raise
            # One failing channel must not block the others; its pages reload instead.
            log.exception("feed.channel_failed", page=channel.page, key=channel.key)
            event_id = channel.event_id(change_set.version)
            messages[channel] = Messages(changes.encode_event(STALE_EVENT, "", event_id))
    return messages, parts


def _build_messages(
    channel: Channel, change_set: ChangeSet, last_parts: Parts, *, has_new_viewers: bool
) -> tuple[Messages, Parts]:
    changed_status_parts, unchanged_status_parts = [], []
    status_parts = change_set.status_parts(channel)
    for part in status_parts:
        last = last_parts.get(part.id)
        if last is None or last.html != part.html:
            changed_status_parts.append(_with_new_rows(part, last, channel, change_set))
        elif has_new_viewers:
            unchanged_status_parts.append(part)
    parts = [*change_set.changed_parts(channel), *changed_status_parts]
    # In the first round of a process there are no earlier changes to compare with.
    is_stale = change_set.is_truncated or change_set.since_version is None
    event_id = channel.event_id(change_set.version)
    messages = Messages(
        _encode(parts, event_id, is_stale=is_stale),
        _encode(unchanged_status_parts, event_id, is_stale=False),
    )
    return messages, {part.id: part for part in status_parts}


def _with_new_rows(
    part: LivePart, last: LivePart | None, channel: Channel, change_set: ChangeSet
) -> LivePart:
    """Return the part with the rows that the channel's pages may not have yet."""
    if last is not None:
        present = {key.pk for key in last.rows}
    else:  # the page itself listed the rows that have not changed since its version
        since_version = change_set.since_version or 0
        present = {key.pk for key in part.rows if key.version <= since_version}
    return part.with_rows(channel.permissions, present)
