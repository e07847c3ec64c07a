"""What changed in the database since a version, as the messages of an event stream."""

import re
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property
from typing import NamedTuple

import structlog
from django.db.models import BigIntegerField, Exists, F, OuterRef

from dashboard.accounts.permissions import Permissions
from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.db.prepared import NOW, Parameter, PreparedModels
from dashboard.models import Acknowledgement, ChangeCounter, Run
from dashboard.web.http.site_context import SiteContext
from dashboard.web.live import event_ids
from dashboard.web.live.event_ids import Since
from dashboard.web.live.page import ENDED_RUN_MAX_AGE, PAGES, LivePart
from dashboard.web.live.snapshot import Snapshot

MAX_RUNS = 60  # changed runs in one message; after more, pages reload their live region
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class Channel:
    """A page and its viewers' permissions; all viewers of a channel get the same messages."""

    page: str  # a key of PAGES
    key: int
    permissions: Permissions
    query: str = ""

    def event_id(self, version: int) -> str:
        """Return the id of its events of this version."""
        return event_ids.encode(version, self.permissions)


@dataclass
class ChangeSet:
    """What changed since a version; each thing is read once for all channels, when it is needed."""

    version: int
    since_version: int | None  # None: unknown
    now: datetime = field(default_factory=db_threads.now)
    site: SiteContext = field(default_factory=SiteContext)
    _snapshots: dict[object, Snapshot] = field(default_factory=dict, init=False)

    @property
    def runs(self) -> list[Run]:
        """The changed runs, in the order of their changes; the first MAX_RUNS of them."""
        return self._changed_runs[:MAX_RUNS]

    @property
    def is_truncated(self) -> bool:
        """Whether more runs have changed, or the version is from the future: another database's."""
        return len(self._changed_runs) > MAX_RUNS or (self.since_version or 0) > self.version

    @cached_property
    def _changed_runs(self) -> list[Run]:
        if self.since_version is None or self.since_version >= self.version:
            return []
        return _changed_runs_query().fetch(
            since=self.since_version, until=self.version, now=self.now
        )

    def changed_parts(self, channel: Channel) -> list[LivePart]:
        """Return the parts of a channel's page that changed with a run."""
        runs = [run for run in self.runs if channel.permissions.can_view(run.stage)]
        if not runs:
            return []
        snapshot, page = self.snapshot(channel.permissions), PAGES[channel.page]
        return page(
            snapshot, channel.permissions, key=channel.key, query=channel.query
        ).changed_parts(runs)

    def status_parts(self, channel: Channel) -> list[LivePart]:
        """Return the parts of a channel's page that may change without a run's change."""
        snapshot = self.snapshot(channel.permissions)
        # The same for all of the audience.
        page = PAGES[channel.page](snapshot, key=channel.key, query=channel.query)
        return snapshot.memoized((channel.page, channel.key, channel.query), page.status_parts)

    def snapshot(self, permissions: Permissions) -> Snapshot:
        """Return what pages read for all users who may view the same stages; it grants no more."""
        audience = permissions.visible_scopes
        if audience not in self._snapshots:
            self._snapshots[audience] = Snapshot(
                permissions.view_only(), self.version, self.now, self.site
            )
        return self._snapshots[audience]


def load_changes(since_version: int | None) -> ChangeSet:
    """Load what changed since a version; None: nothing, only the current version."""
    return ChangeSet(ChangeCounter.latest(), since_version)


@cache
def _changed_runs_query() -> PreparedModels[Run]:
    since, until = Parameter("since", BigIntegerField()), Parameter("until", BigIntegerField())
    changed_runs = Run.objects.filter(version__gt=since, version__lte=until).order_by("version")
    # Runs that ended long before their first sync are on no open page.
    is_acknowledged = Exists(Acknowledgement.objects.filter(run=OuterRef("pk")))
    changed_runs = changed_runs.exclude(
        ~is_acknowledged, ended_at__lt=NOW - ENDED_RUN_MAX_AGE, first_synced_at=F("synced_at")
    )
    return PreparedModels(changed_runs.with_stage().without_detail()[: MAX_RUNS + 1])


def encode_parts(parts: Iterable[LivePart], event_id: str = "") -> bytes:
    """Write parts as one message of an event stream."""
    markup = "".join(
        f'<hx-partial hx-target="#{part.id}" hx-swap="outerMorph'
        f"{' new:true' if part.is_new else ''}{' unlisted:true' if part.is_unlisted else ''}"
        f'">{part.html}</hx-partial>'
        for part in parts
    )
    return encode_event("", markup, event_id)


def encode_event(name: str, data: str, event_id: str = "") -> bytes:
    """Write one message of an event stream; https://html.spec.whatwg.org/#server-sent-events.

    After one without an id, the browser has that of the message before.
    """
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    lines += [f"id: {event_id}"] if event_id else []
    return "\n".join([*lines, "", ""]).encode(errors="replace")


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
    change_set = load_changes(since.version)
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
        return encode_parts(parts, event_id) if parts else b""
    # The parts have no id: if the connection breaks after them, the next stream asks again.
    message = encode_parts(parts) if parts else b""
    return message + encode_event(STALE_EVENT, "", event_id)


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
            messages[channel] = Messages(encode_event(STALE_EVENT, "", event_id))
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
