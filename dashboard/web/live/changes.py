"""What changed in the database since a version, and its encoding for the event stream."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache, cached_property

from django.db.models import BigIntegerField, Exists, F, OuterRef

from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.db.prepared import NOW, Parameter, PreparedModels
from dashboard.models import Acknowledgement, ChangeCounter, Run
from dashboard.web.http.site_context import SiteContext
from dashboard.web.live import event_ids
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
