"""Decide when a stage or run is read beside the plan (plan.py): gaps, failures, aborts. Pure."""

from datetime import datetime, timedelta
from typing import Protocol

WATCHED_FOR = timedelta(seconds=60)  # a stage or run counts as watched this long after a view
# How long a stage that has lost its release flow, or was added without, is read like an idle one:
# one may come yet.
NO_FLOW_GRACE = timedelta(days=1)
# How often the release flow of a stage without one is looked for while somebody watches the stage.
WATCHED_FLOW_INTERVAL = timedelta(minutes=5)
STUCK_ABORT_AGE = timedelta(minutes=10)  # after which a run with an open abort is read less often
# How often a release flow is read again: one that decides something, and any other.
FLOW_INTERVAL, IDLE_FLOW_INTERVAL = timedelta(hours=6), timedelta(days=1)
# Older runs are read with every so many reads of their stage, until all are here; but no more often
# than at this interval.
HISTORY_READS, HISTORY_INTERVAL = 4, timedelta(minutes=10)
FLOW_SPREAD = 10_007.0  # seconds between the daily reads of two stages that follow each other
NO_FLOW_INTERVAL = timedelta(hours=6)  # how often a stage without one is looked at

# Share of the rate for stages with a gap: missing data is worse than slightly older data.
GAPS_SHARE = 0.5
BASELINE_INTERVAL = timedelta(minutes=10)  # between two details that step baselines need

GRACE = timedelta(seconds=30)  # for the read itself and for a free slot
# A stage not read for twice its planned interval, and at least this long, counts as unread.
MIN_GAP_AGE = timedelta(minutes=5)


def is_watched(last_viewed_at: datetime | None, now: datetime) -> bool:
    """Return whether a stage or run last viewed at that time counts as watched."""
    return last_viewed_at is not None and now - last_viewed_at < WATCHED_FOR


def is_stale(fresh_until: datetime | None, now: datetime) -> bool:
    """Return whether a stage's data is older than planned; False if never read (None).

    With each read the sync sets `Stage.fresh_until`: now plus the planned interval of the stage.
    Later failures and delays do not change it; a later plan may extend it.
    """
    return fresh_until is not None and fresh_until + GRACE < now


class ReadTimes(Protocol):
    """The fields of a stage that decide how old its data is."""

    @property
    def has_flow(self) -> bool | None: ...
    @property
    def synced_at(self) -> datetime | None: ...
    @property
    def fresh_until(self) -> datetime | None: ...


class ReadState(ReadTimes, Protocol):
    """The fields of a stage that decide whether it has a gap."""

    @property
    def in_flight_incomplete(self) -> bool: ...


def is_unread(stage: ReadTimes, now: datetime) -> bool:
    """Return whether a stage was never read, or not since a long outage."""
    if stage.synced_at is None:
        return True
    if stage.has_flow is False or stage.fresh_until is None:
        return False  # no runs without a flow
    planned = stage.fresh_until - stage.synced_at
    return stage.synced_at + max(2 * planned, MIN_GAP_AGE) < now


def has_gap(stage: ReadState, now: datetime) -> bool:
    """Return whether a stage is unread, or runs in flight that are not among its newest are."""
    return is_unread(stage, now) or (stage.has_flow is not False and stage.in_flight_incomplete)


def is_idle_without_flow(
    has_flow: bool | None, missing_since: datetime | None, now: datetime
) -> bool:
    """Return whether a stage has no release flow, and none is expected soon."""
    is_expected = missing_since is not None and now - missing_since < NO_FLOW_GRACE
    return has_flow is False and not is_expected


class FlowState(ReadTimes, Protocol):
    """The fields of a stage that decide whether its release flow is read."""

    @property
    def pk(self) -> int: ...
    @property
    def flow_synced_at(self) -> datetime | None: ...


def is_flow_due(stage: FlowState, now: datetime, *, is_decisive: bool) -> bool:
    """Return whether to read the release flow of a stage whose runs are read now.

    `is_decisive`: runs queue in the stage, or somebody looks at it or at one of its runs. Others
    are read once a day, spread over the day. A stage without a flow, or that may have none, is read
    for this check.
    """
    if not stage.has_flow:
        return True
    if is_decisive:
        return stage.flow_synced_at is None or now - stage.flow_synced_at >= FLOW_INTERVAL
    if stage.synced_at is None:
        return False
    day, offset = IDLE_FLOW_INTERVAL.total_seconds(), stage.pk * FLOW_SPREAD
    days = [(moment.timestamp() + offset) // day for moment in (stage.synced_at, now)]
    return days[0] != days[1]


def is_history_due(read_at: datetime | None, interval: timedelta, now: datetime) -> bool:
    """Return whether to read older runs too, for a stage read at this interval, last at `read_at`.

    Never at its first read, since other stages wait.
    """
    if read_at is None:
        return False
    seconds = max(HISTORY_INTERVAL, HISTORY_READS * interval).total_seconds()
    return now.timestamp() // seconds != read_at.timestamp() // seconds


def aborting_interval(elapsed: timedelta, open_aborts: int = 1) -> timedelta:
    """Return the time until an aborting run is read again; it does not depend on the plan.

    `open_aborts` are those younger than STUCK_ABORT_AGE, or the others, as this one is. However
    many there are, their reads take at most twice the requests of a single one, except those of
    watched runs.
    """
    seconds = elapsed.total_seconds()
    if seconds < 30:
        interval = timedelta(seconds=2)
    elif seconds < 180:
        interval = timedelta(seconds=5)
    else:
        interval = timedelta(seconds=15 if elapsed < STUCK_ABORT_AGE else 60)
    return interval * max(1, open_aborts / 2)


# Backoff by cause: seconds after the first failure, doubled with each further one up to a maximum.
_BACKOFFS = {
    # A revoked permission or a deleted object: only a person can restore it.
    **dict.fromkeys(("forbidden", "not_found", "feature_off", "rejected"), (60.0, 900.0)),
    "timeout": (10.0, 60.0),  # a slow list may well be in time at the next attempt
}
_DEFAULT_BACKOFF = (10.0, 300.0)


def failure_backoff(failures: int, cause: str) -> timedelta:
    """Return the time until the next try after this many failed reads in a row."""
    initial, maximum = _BACKOFFS.get(cause, _DEFAULT_BACKOFF)
    return timedelta(seconds=min(initial * 2 ** min(max(failures - 1, 0), 10), maximum))
