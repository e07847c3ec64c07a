"""What changed in the database since a version, and its encoding for the event stream."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from django.db.models import Exists, F, OuterRef

from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Acknowledgement, ChangeCounter, Run
from dashboard.web.http.site_context import SiteContext
from dashboard.web.live.page import ENDED_RUN_MAX_AGE, PAGES, LivePart, render_part
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


@dataclass
class ChangeSet:
    """What changed since a version; each thing is read once for all channels."""

    version: int
    since_version: int | None  # None: unknown
    runs: list[Run]  # changed, in the order of their changes
    is_truncated: bool = False
    now: datetime = field(default_factory=db_threads.now)
    site: SiteContext = field(default_factory=SiteContext)
    _snapshots: dict[object, Snapshot] = field(default_factory=dict, init=False)

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
        parts = snapshot.memoized((channel.page, channel.key, channel.query), page.status_parts)
        return [*parts, self._break_glass_part] if channel.permissions.is_superuser else parts

    @cached_property
    def _break_glass_part(self) -> LivePart:
        site = SiteContext(is_superuser=lambda: True)
        return render_part("break-glass", "components/live_region.html#break-glass", site=site)

    def snapshot(self, permissions: Permissions) -> Snapshot:
        """Return what pages read for all users who may view the same stages; it grants no abort."""
        audience = permissions.visible_scopes
        if audience not in self._snapshots:
            self._snapshots[audience] = Snapshot(
                permissions.without_abort(), self.version, self.now, self.site
            )
        return self._snapshots[audience]


def load_changes(since_version: int | None) -> ChangeSet:
    """Load what changed since a version; None: nothing, only the current version."""
    version = ChangeCounter.latest()
    runs: list[Run] = []
    if since_version is not None and since_version < version:
        changed_runs = Run.objects.filter(version__gt=since_version).order_by("version")
        # Runs that ended long before their first sync are on no open page.
        is_acknowledged = Exists(Acknowledgement.objects.filter(run=OuterRef("pk")))
        oldest = db_threads.now() - ENDED_RUN_MAX_AGE
        changed_runs = changed_runs.exclude(
            ~is_acknowledged, ended_at__lt=oldest, first_synced_at=F("synced_at")
        )
        runs = list(changed_runs.with_stage().without_detail()[: MAX_RUNS + 1])
    # A version from the future is another database's.
    is_truncated = len(runs) > MAX_RUNS or (since_version or 0) > version
    return ChangeSet(version, since_version, runs[:MAX_RUNS], is_truncated)


def encode_parts(parts: Iterable[LivePart], version: int) -> bytes:
    """Write parts as one message of an event stream."""
    markup = "".join(
        f'<hx-partial hx-target="#{part.id}" hx-swap="outerMorph'
        f'{" new:true" if part.is_new else ""}">{part.html}</hx-partial>'
        for part in parts
    )
    return encode_event("", markup, version)


def encode_event(name: str, data: str, version: int) -> bytes:
    """Write one message of an event stream; https://html.spec.whatwg.org/#server-sent-events."""
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return "\n".join([*lines, f"id: {version}", "", ""]).encode(errors="replace")
