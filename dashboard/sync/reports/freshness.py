"""Decide whether data is stale, and describe the health of the sync in a sentence. Pure.

With each read of a stage the sync sets `Stage.fresh_until`: now plus the planned interval of the
stage's class. Later failures and delays do not change it; a later plan may extend it, if the rate
limit leaves requests for it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils.translation import gettext_lazy, ngettext

from dashboard.texts.rich_text import Message, MessageTable, RichText, Value, join_texts

GRACE = timedelta(seconds=30)  # for the read itself and for a free slot

_text = MessageTable(
    {
        # The health of the sync; its times, if known, are added by the last three.
        "not_running": gettext_lazy("Sync is not running; data is not being updated."),
        "stopped": gettext_lazy("Sync stopped: no worker heartbeat"),
        "rate_limit_reached": gettext_lazy("Rate limit reached: updates paused"),
        "rate_limited": gettext_lazy(
            "Rate limited by Northflank (429) with %(left)s of %(limit)s requests left: updates "
            "paused"
        ),
        "probing": gettext_lazy(
            "Rate limit pause is over: updates resume once a test request succeeds."
        ),
        "used_up": gettext_lazy("This hour’s requests are used up: updates paused"),
        "slowed": gettext_lazy("Few of this hour’s requests are left: updates slowed"),
        "upstream_down": gettext_lazy("No updates from Northflank"),
        "no_access": gettext_lazy("No pipelines that you can see."),
        "no_pipelines": gettext_lazy("The API token has access to no pipelines."),
        "up_to_date": lambda n: ngettext(
            "%(n)d stage is up to date.", "All %(n)d stages are up to date.", n
        ),
        "since": gettext_lazy("%(text)s since %(since)s"),
        "until": gettext_lazy("%(text)s until %(until)s"),
        "since_until": gettext_lazy("%(text)s since %(since)s until %(until)s"),
        # Problems.
        "stale": lambda n: ngettext(
            "%(n)d of %(stages)s is out of date.", "%(n)d of %(stages)s are out of date.", n
        ),
        "stages": lambda n: ngettext("%(n)d stage", "%(n)d stages", n),
        "failing": lambda n: ngettext(
            "%(n)d stage cannot be read.", "%(n)d stages cannot be read.", n
        ),
        "failing_lists": lambda n: ngettext(
            "%(n)d list of projects or pipelines could not be loaded.",
            "%(n)d lists of projects or pipelines could not be loaded.",
            n,
        ),
        "partial_lists": lambda n: ngettext(
            "%(n)d list was only partly loaded.", "%(n)d lists were only partly loaded.", n
        ),
    }
)


def is_stale(fresh_until: datetime | None, now: datetime) -> bool:
    """Return whether the data is older than planned; False if never read (None)."""
    limit = stale_at(fresh_until)
    return limit is not None and limit < now


def stale_at(fresh_until: datetime | None) -> datetime | None:
    """Return when data becomes stale; None if never read."""
    return None if fresh_until is None else fresh_until + GRACE


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
    used_up_until: datetime | None = None  # too few requests are left for a read until then
    slowed_until: datetime | None = None  # few requests are left for reads until then
    is_restricted: bool = False  # the user may not see everything


@dataclass(frozen=True, slots=True)
class SyncHealth:
    """The health of the sync: a tone and one sentence, with its start or end time if known."""

    tone: str
    text: RichText
    since: datetime | None = None
    until: datetime | None = None
    has_banner: bool = False  # the banner of every page already shows it

    @property
    def is_syncing(self) -> bool:
        """Whether any worker is running."""
        return self.tone != "bad"

    def sentence(self, since: Value, until: Value) -> RichText:
        """Return the sentence with its times, each only if known, as the caller shows them."""
        if not self.since and not self.until:
            return self.text
        key = "until" if not self.since else "since_until" if self.until else "since"
        return _text(key, text=self.text, since=since, until=until)


def assess(state: SyncState) -> SyncHealth:
    """Return the worst problem, or that all stages are up to date."""
    if not state.workers:
        if state.last_heartbeat_at is None:
            return SyncHealth("bad", _text("not_running"))
        return SyncHealth("bad", _text("stopped"), since=state.last_heartbeat_at)
    if state.backoff_until is not None:
        return SyncHealth(
            "warning",
            _paused_message(state),
            since=state.upstream_error_since,
            until=state.backoff_until,
        )
    if state.is_probing:
        return SyncHealth("warning", _text("probing"))
    if state.upstream_error:
        text = _text("upstream_down")
        return SyncHealth("warning", text, since=state.upstream_error_since, has_banner=True)
    if not state.stages and state.is_restricted:
        return SyncHealth("info", no_access_message())
    if state.used_up_until is not None:
        return SyncHealth("warning", _text("used_up"), until=state.used_up_until)
    problems = problems_message(state)
    if state.incomplete:
        return SyncHealth("warning", join_texts(state.incomplete, problems))
    if not state.stages:
        return SyncHealth("info", _text("no_pipelines"))
    if problems:
        return SyncHealth("warning", problems)
    if state.slowed_until is not None:
        return SyncHealth("warning", _text("slowed"), until=state.slowed_until)
    return SyncHealth("good", _text("up_to_date", n=state.stages))


def _paused_message(state: SyncState) -> Message:
    if not state.remaining:
        return _text("rate_limit_reached")
    return _text("rate_limited", left=f"{state.remaining:,}", limit=f"{state.limit:,}")


def no_access_message() -> Message:
    """Return the message for a user who may see none of the stages."""
    return _text("no_access")


def problems_message(state: SyncState) -> RichText:
    """Return one sentence for each kind of problem (stale, unreadable, partial); empty if none."""
    counts = {
        "stale": state.stale,
        "failing": state.failing,
        "failing_lists": state.failing_lists,
        "partial_lists": state.partial_lists,
    }
    stages = _text("stages", n=state.stages)
    return join_texts(*(_text(key, n=n, stages=stages) for key, n in counts.items() if n))
