"""Whether the sync reads as planned and, if not, why and until when: the same for all users."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from django.utils.translation import gettext_lazy

from dashboard.db.prepared import CombinedQuery
from dashboard.models import Lead, RateBudget, Upstream
from dashboard.sync import lead, stage_reader
from dashboard.texts.rich_text import MessageTable, RichText, Value, to_text
from dashboard.upstream import budget_store
from dashboard.upstream.rate_budget import RateLimitWindow

_SHORT_PAUSE = timedelta(minutes=2)  # too short to be reported
_text = MessageTable(
    {
        "not_running": gettext_lazy("Sync is not running; data is not being updated."),
        "stopped": gettext_lazy("Sync stopped: no sign of life"),
        "stalled": gettext_lazy("Sync stalled: no round has ended"),
        "clock_set_back": gettext_lazy("The database’s clock was set back: updates paused"),
        "rate_limited": gettext_lazy("Northflank is limiting requests (429): updates paused"),
        "probing": gettext_lazy("Checking whether Northflank accepts requests again."),
        "used_up": gettext_lazy("This hour’s requests are used up: updates paused"),
        "upstream_down": gettext_lazy("No updates from Northflank"),
        # The times of these, if known.
        "since": gettext_lazy("%(text)s since %(since)s"),
        "until": gettext_lazy("%(text)s until %(until)s"),
        "since_until": gettext_lazy("%(text)s since %(since)s until %(until)s"),
    }
)


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

    @property
    def reason(self) -> str:
        """The text as a sentence of its own, where its times are not shown."""
        return f"{to_text(self.text).rstrip('.')}."

    def sentence(self, since: Value, until: Value) -> RichText:
        """Return the sentence with its times, each only if known, as the caller shows them."""
        if not self.since and not self.until:
            return self.text
        key = "until" if not self.since else "since_until" if self.until else "since"
        return _text(key, text=self.text, since=since, until=until)


class RateLimitUsage(RateLimitWindow):
    """The rate limit's window; of one that has ended, the full one that the next request starts."""

    @property
    def reserve(self) -> int:
        """How many requests of the hour are kept for aborts."""
        return budget_store.abort_reserve(self.limit)

    @property
    def reserve_start(self) -> int:
        """How many requests of the hour come before those that are kept for aborts."""
        return max(self.limit - self.reserve, 0)

    @property
    def is_probing(self) -> bool:
        """Whether the pause is over, but no request has been answered since."""
        return self.refusals > 0 and self.backoff_until is None


@dataclass(frozen=True, slots=True)
class SyncState:
    """The last sign of life of who reads, the account-wide error, and the rate limit."""

    now: datetime = field(repr=False, compare=False)
    holder: str = ""  # of the lead; empty: nobody
    last_heartbeat_at: datetime | None = None
    round_ended_at: datetime | None = None
    upstream_error: str = ""  # its cause
    upstream_error_since: datetime | None = None
    rate_limit: RateLimitUsage | None = None

    @property
    def is_running(self) -> bool:
        """Whether a process reads."""
        return lead.is_alive(self.holder, self.last_heartbeat_at, self.now)

    @property
    def outage(self) -> SyncHealth | None:
        """Why Northflank is not read, whatever requests are left; None: it is."""
        if not self.is_running:
            key = "stopped" if self.last_heartbeat_at else "not_running"
            return SyncHealth("bad", _text(key), since=self.last_heartbeat_at)
        if lead.is_stalled(self.round_ended_at, self.now):
            return SyncHealth("bad", _text("stalled"), since=self.round_ended_at)
        if caught_up_at := lead.clock_catches_up_at(self.last_heartbeat_at, self.now):
            return SyncHealth("bad", _text("clock_set_back"), until=caught_up_at)
        usage, since = self.rate_limit, self.upstream_error_since
        if usage and usage.backoff_until:
            return SyncHealth("warning", _text("rate_limited"), since, usage.backoff_until)
        if usage and usage.is_probing:
            return SyncHealth("warning", _text("probing"))
        if self.upstream_error:
            return SyncHealth("warning", _text("upstream_down"), since, has_banner=True)
        return None

    @property
    def pause(self) -> SyncHealth | None:
        """Why nothing is read: an outage, or too few requests are left; None: all is."""
        return self.outage or self._used_up

    @property
    def _used_up(self) -> SyncHealth | None:
        usage = self.rate_limit
        # Near the end of the hour the requests are used up as planned.
        if usage is None or usage.resets_at - self.now < _SHORT_PAUSE:
            return None
        if usage.remaining - usage.reserve >= stage_reader.MAX_REQUESTS_PER_READ:
            return None
        return SyncHealth("warning", _text("used_up"), until=usage.resets_at)


def load(now: datetime) -> SyncState:
    """Return the state of the sync; takes one query of a few rows."""
    _, holder, heartbeat_at, round_ended_at, error, error_since, *budget = _query().fetch()[0]
    since = _time(error_since)
    usage = _usage(now, budget)
    heartbeat = _time(heartbeat_at), _time(round_ended_at)
    return SyncState(now, holder or "", *heartbeat, error or "", since, usage)


_TIMES = {"resets_at", "synced_at", "backoff_until"}


@cache
def _query() -> CombinedQuery:
    return CombinedQuery(
        [
            Lead.objects.order_by("pk").values_list("holder", "renewed_at", "round_ended_at")[:1],
            Upstream.objects.exclude(error="")
            .order_by("pk")
            .values_list("error", "error_since")[:1],
            RateBudget.objects.order_by("pk").values_list(*budget_store.WINDOW_FIELDS)[:1],
        ]
    )


def _time(value: str | datetime | None) -> datetime | None:
    # SQLite's own type is a text or a naive time, in UTC.
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at is not None and at.tzinfo is None else at


def _usage(now: datetime, row: Sequence[Any]) -> RateLimitUsage | None:
    if row[0] is None:
        return None
    columns = zip(budget_store.WINDOW_FIELDS, row, strict=True)
    values: list[Any] = [_time(value) if name in _TIMES else value for name, value in columns]
    usage = RateLimitUsage(*values)
    if usage.backoff_until and usage.backoff_until <= now:
        usage = replace(usage, backoff_until=None)
    has_ended = usage.resets_at <= now
    return replace(usage, remaining=usage.limit, own_requests=0) if has_ended else usage
