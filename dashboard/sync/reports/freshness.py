"""Decide whether data is stale, and describe the health of the sync in a sentence. Pure.

With each read of a stage the sync sets `Stage.fresh_until`: now plus the planned interval of the
stage's class. Later failures and delays do not change it; a later plan may extend it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

GRACE = timedelta(seconds=30)  # for the read itself and for a free slot
HEARTBEAT_TIMEOUT = timedelta(seconds=30)  # workers send a heartbeat every 5 s


def is_stale(fresh_until: datetime | None, now: datetime) -> bool:
    """Return whether the data is older than planned; False if never read (None)."""
    limit = stale_at(fresh_until)
    return limit is not None and limit < now


def stale_at(fresh_until: datetime | None) -> datetime | None:
    """Return when data becomes stale; None if never read."""
    return None if fresh_until is None else fresh_until + GRACE


def is_alive(heartbeat_at: datetime, now: datetime) -> bool:
    """Return whether a worker's last heartbeat is recent enough."""
    return now - heartbeat_at <= HEARTBEAT_TIMEOUT


@dataclass(frozen=True, slots=True)
class SyncState:
    """The facts that `assess` bases its result on."""

    stages: int
    stale: int = 0
    incomplete: str = ""  # the text of `Coverage`; empty if complete
    failing: int = 0
    failing_lists: int = 0
    partial_lists: int = 0  # lists read only in part
    workers: int = 0
    last_heartbeat_at: datetime | None = None  # the latest of any worker
    upstream_error: str = ""  # account-wide, as a sentence
    upstream_error_since: datetime | None = None
    backoff_until: datetime | None = None
    remaining: int = 0  # requests left in this hour, as last reported
    limit: int = 0
    is_probing: bool = False  # the pause after a 429 is over, but no request was answered since
    is_restricted: bool = False  # the user may not see everything


@dataclass(frozen=True, slots=True)
class SyncHealth:
    """The health of the sync: a tone and one sentence, with its start or end time if known."""

    tone: str
    text: str
    since: datetime | None = None
    until: datetime | None = None
    has_banner: bool = False  # the banner of every page already shows it

    @property
    def is_syncing(self) -> bool:
        """Whether any worker is running."""
        return self.tone != "bad"

    @property
    def template(self) -> str:
        """The sentence, with a place for each of its times."""
        if self.since and self.until:
            return _("%(text)s since %(since)s until %(until)s")
        if self.since:
            return _("%(text)s since %(since)s")
        return _("%(text)s until %(until)s") if self.until else "%(text)s"


def assess(state: SyncState) -> SyncHealth:
    """Return the worst problem, or that all stages are up to date."""
    if not state.workers:
        if state.last_heartbeat_at is None:
            return SyncHealth("bad", _("Sync is not running; data is not being updated."))
        return SyncHealth(
            "bad",
            _("Sync stopped: no worker heartbeat"),
            since=state.last_heartbeat_at,
        )
    if state.backoff_until is not None:
        return SyncHealth(
            "warning",
            _paused_message(state),
            since=state.upstream_error_since,
            until=state.backoff_until,
        )
    if state.is_probing:
        text = _("Rate limit pause is over: updates resume once a test request succeeds.")
        return SyncHealth("warning", text)
    if state.upstream_error:
        text = _("No updates from Northflank")
        return SyncHealth("warning", text, since=state.upstream_error_since, has_banner=True)
    if not state.stages and state.is_restricted:
        return SyncHealth("info", no_access_message())
    if state.incomplete:
        return SyncHealth("warning", f"{state.incomplete} {problems_message(state)}".strip())
    if not state.stages:
        return SyncHealth("info", _("The API token has access to no pipelines."))
    if state.stale or state.failing or state.failing_lists or state.partial_lists:
        return SyncHealth("warning", problems_message(state))
    template = ngettext(
        "%(n)d stage is up to date.",
        "All %(n)d stages are up to date.",
        state.stages,
    )
    return SyncHealth("good", template % {"n": state.stages})


def _paused_message(state: SyncState) -> str:
    if not state.remaining:
        return _("Rate limit reached: updates paused")
    template = _(
        "Rate limited by Northflank (429) with %(left)s of %(limit)s requests left: updates paused"
    )
    return template % {"left": f"{state.remaining:,}", "limit": f"{state.limit:,}"}


def no_access_message() -> str:
    """Return the message for a user who may see none of the stages."""
    return _("No pipelines that you can see.")


def problems_message(state: SyncState) -> str:
    """Return one sentence for each kind of problem (stale, unreadable, partial); empty if none."""
    sentences = []
    if state.stale:
        template = ngettext(
            "%(n)d of %(stages)s is out of date.",
            "%(n)d of %(stages)s are out of date.",
            state.stale,
        )
        sentences.append(_format_share(template, state.stale, state.stages))
    if state.failing:
        failing = ngettext(
            "%(n)d stage cannot be read.", "%(n)d stages cannot be read.", state.failing
        )
        sentences.append(failing % {"n": state.failing})
    if state.failing_lists:
        failing_lists = ngettext(
            "%(n)d list of projects or pipelines could not be loaded.",
            "%(n)d lists of projects or pipelines could not be loaded.",
            state.failing_lists,
        )
        sentences.append(failing_lists % {"n": state.failing_lists})
    if state.partial_lists:
        partial_lists = ngettext(
            "%(n)d list was only partly loaded.",
            "%(n)d lists were only partly loaded.",
            state.partial_lists,
        )
        sentences.append(partial_lists % {"n": state.partial_lists})
    return " ".join(sentences)


def _format_share(template: str, count: int, total: int) -> str:
    stages = ngettext("%(n)d stage", "%(n)d stages", total) % {"n": total}
    return template % {"n": count, "stages": stages}
