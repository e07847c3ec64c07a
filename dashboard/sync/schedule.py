"""Decide how often each stage and run is read. Pure: a function of stage facts and rate budget.

Reading has two parts: tracking reads runs in flight and watched stages; discovery finds new runs,
pipelines and older runs. Each part has one factor for all its intervals and a share of the rate, so
three thousand idle stages do not delay reads of runs in flight.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import Protocol

from dashboard.upstream.rate_budget import ReadBudget

WATCHED_FOR = timedelta(seconds=60)  # a stage or run counts as watched this long after a view
RECENT_FOR = timedelta(minutes=30)  # a stage counts as RECENT this long after its last change

CATALOG_INTERVAL = timedelta(minutes=10)  # how often projects and their pipelines are listed
# How long a stage that has lost its release flow, or was added without, is read like an idle one:
# one may come yet.
NO_FLOW_GRACE = timedelta(days=1)
# How often the release flow of a stage without one is looked for while somebody watches the stage.
WATCHED_FLOW_INTERVAL = timedelta(minutes=5)
# Between two reads of a run's detail because its status has changed again.
MIN_STEPS_AGE = timedelta(minutes=1)
STUCK_ABORT_AGE = timedelta(minutes=10)  # after which a run with an open abort is read less often
FLOW_INTERVAL = timedelta(hours=6)  # how often a release flow's definition is read
FLOW_RETRY = timedelta(minutes=15)  # how often one is tried that cannot be read
HISTORY_INTERVAL = timedelta(minutes=10)  # how often older runs are read, until all are here

# Minimum share of the rate for discovery. With a tenth, data of runs in flight is at most 1.11
# times as old as without any discovery.
DISCOVERY_SHARE = 0.1
# While webhook events announce new runs, discovery only has to find those they missed.
DISCOVERY_SHARE_WITH_WEBHOOK = 0.05
# Reads that webhook events add for each run: one at its start, and part of one at its end, which
# replaces the stage's next read and so saves half an interval on average; less if the interval is
# longer than the run. A higher figure would leave requests unused at the window's end.
WEBHOOK_READS_PER_RUN = 1.7
# While stages are unread: missing data is worse than slightly older data.
DISCOVERY_SHARE_WITH_GAPS = 0.5
# Share of the rate for details that step baselines need: data of runs in flight gets 1.01 times as
# old. A new window may allow more, so the interval has a maximum.
BASELINE_SHARE = 0.01
MAX_BASELINE_INTERVAL = timedelta(hours=1)
# Bounds of the interval factors. A stage in flight is read every 4 s at most and a watched one
# every 2 s, because steps take longer than that; an idle one every 100 s, because requests not
# needed now are worth more to the next run.
TRACKING_FACTORS = 0.4, 1000.0
DISCOVERY_FACTORS = 1 / 3, 10_000.0


# A stage not read for twice its planned interval, and at least this long, counts as unread.
MIN_GAP_AGE = timedelta(minutes=5)
# Rate of first reads with quick answers; with slower ones an estimate is too short.
FIRST_READS_PER_SECOND = 12.0
MAX_ESTIMATE = timedelta(days=7)  # no estimate beyond this
# Order of first reads by stage name: a stuck run in Production is the most urgent.
FIRST_READ_ORDER = ("Production", "Staging", "Development")


def is_watched(last_viewed_at: datetime | None, now: datetime) -> bool:
    """Return whether a stage or run last viewed at that time counts as watched."""
    return last_viewed_at is not None and now - last_viewed_at < WATCHED_FOR


class Gap(IntEnum):
    """Missing data of a stage, the most urgent first."""

    UNREAD = 0  # never read, or not since a long outage
    OLDER_IN_FLIGHT = 1  # runs in flight that are not among its newest are unread


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


def find_gap(stage: ReadState, now: datetime) -> Gap | None:
    """Return the gap in a stage's data; None if it was read and is not long out of date."""
    if stage.synced_at is None:
        return Gap.UNREAD
    if stage.has_flow is False:
        return None  # no runs without a flow
    opens_at = gap_opens_at(stage)
    if opens_at is not None and opens_at < now:
        return Gap.UNREAD
    return Gap.OLDER_IN_FLIGHT if stage.in_flight_incomplete else None


def gap_opens_at(stage: ReadTimes) -> datetime | None:
    """Return when a stage that was read counts as unread again, unless it is read before."""
    if stage.synced_at is None or stage.fresh_until is None or stage.has_flow is False:
        return None
    return stage.synced_at + max(2 * (stage.fresh_until - stage.synced_at), MIN_GAP_AGE)


@dataclass(frozen=True, slots=True)
class StageRef:
    """A stage's key and name, and the key of its project."""

    key: int
    name: str
    project_key: int


def order_first_reads(stages: Iterable[tuple[StageRef, Gap | None]]) -> list[int]:
    """Return the keys of the stages that have a gap, in the order to read them.

    Pass all stages, ordered by pipeline, each with its gap. Unread stages come before older runs in
    flight, then Production before Staging before Development, and projects take turns.
    """
    turns: Counter[tuple[int, str]] = Counter()
    order = []
    for stage, gap in stages:
        turns[stage.project_key, stage.name] += 1
        if gap is not None:
            rank = (
                FIRST_READ_ORDER.index(stage.name)
                if stage.name in FIRST_READ_ORDER
                else len(FIRST_READ_ORDER)
            )
            turn = turns[stage.project_key, stage.name]
            order.append((gap, rank, turn, stage.project_key, stage.key))
    return [key for *_, key in sorted(order)]


class StageClass(Enum):
    """Why a stage is read; the value is its target interval in seconds."""

    WATCHED = 5.0
    IN_FLIGHT = 10.0
    EXPECTED = 20.0  # watched, but nothing is in flight
    RECENT = 90.0
    IDLE = 300.0
    NO_FLOW = 6 * 3600.0

    @property
    def is_tracked(self) -> bool:
        """Whether reads of this class are tracking, not discovery."""
        return self in {StageClass.WATCHED, StageClass.IN_FLIGHT, StageClass.EXPECTED}


@dataclass(frozen=True, slots=True)
class StageFacts:
    """The fields that decide how often a stage is read."""

    has_flow: bool | None
    in_flight_runs: int
    last_viewed_at: datetime | None
    last_run_change_at: datetime | None
    missing_since: datetime | None = None


def classify(facts: StageFacts, now: datetime) -> StageClass:
    """Return the class of a stage."""
    if facts.has_flow is False:
        may_come = facts.missing_since is not None and now - facts.missing_since < NO_FLOW_GRACE
        return StageClass.IDLE if may_come else StageClass.NO_FLOW
    if is_watched(facts.last_viewed_at, now):
        return StageClass.WATCHED if facts.in_flight_runs else StageClass.EXPECTED
    if facts.in_flight_runs:
        return StageClass.IN_FLIGHT
    if facts.last_run_change_at is not None and now - facts.last_run_change_at < RECENT_FOR:
        return StageClass.RECENT
    return StageClass.IDLE


@dataclass(frozen=True, slots=True)
class Demand:
    """The requests per second needed to read everything at its target interval."""

    tracking: float = 0.0
    discovery: float = 0.0
    webhook_reads: float = 0.0  # caused by webhook events
    has_gaps: bool = False  # some stages have a gap
    has_baseline_reads: bool = False  # baselines need details of successes


@dataclass(frozen=True, slots=True)
class Plan:
    """Factors on the target intervals: above 1 they are longer, below 1 shorter."""

    tracking: float
    discovery: float
    has_gaps: bool = False  # some stages have a gap: first reads come first

    def stage_interval(self, facts: StageFacts, now: datetime) -> timedelta:
        """Return the time between two reads of a stage."""
        return self.class_interval(classify(facts, now))

    def class_interval(self, stage_class: StageClass) -> timedelta:
        """Return the time between two reads of a stage of this class."""
        return timedelta(
            seconds=stage_class.value
            * (self.tracking if stage_class.is_tracked else self.discovery)
        )

    @property
    def watched_interval(self) -> timedelta:
        """The time between two reads of a watched run in flight."""
        return timedelta(seconds=StageClass.WATCHED.value * self.tracking)

    @property
    def catalog_interval(self) -> timedelta:
        return CATALOG_INTERVAL * self.discovery

    def is_flow_due(self, has_flow: bool | None, synced_at: datetime | None, now: datetime) -> bool:
        """Return whether to read the stage's release flow now; it was last read at `synced_at`.

        A stage without a flow is read for this check only.
        """
        if synced_at is None or has_flow is False:
            return True
        return now - synced_at >= FLOW_INTERVAL * self.discovery

    def is_history_due(self, read_at: datetime | None, now: datetime) -> bool:
        """Return whether to read older runs too, for a stage last read at `read_at`.

        True at most once per HISTORY_INTERVAL (times the discovery factor), however often the stage
        is read; never at its first read, since other stages wait.
        """
        if read_at is None:
            return False
        interval = (HISTORY_INTERVAL * self.discovery).total_seconds()
        return now.timestamp() // interval != read_at.timestamp() // interval


def make_plan(demand: Demand, requests_per_second: float, *, webhook_alive: bool = False) -> Plan:
    """Return the plan that fits `demand` into the rate, with intervals as short as it allows.

    If one part reaches its shortest intervals, the other part gets the rest of the rate.
    `webhook_alive`: webhook events currently announce new runs.
    """
    share = DISCOVERY_SHARE_WITH_WEBHOOK if webhook_alive else DISCOVERY_SHARE
    if demand.has_gaps:
        share = DISCOVERY_SHARE_WITH_GAPS
    # However many webhook events come, they get at most half of the rate.
    rate = requests_per_second - min(demand.webhook_reads, requests_per_second / 2)
    if demand.has_baseline_reads:
        rate -= BASELINE_SHARE * requests_per_second
    max_discovery_rate = demand.discovery / DISCOVERY_FACTORS[0]  # at its shortest intervals
    tracking = _fit(demand.tracking, rate - min(share * rate, max_discovery_rate), TRACKING_FACTORS)
    discovery_rate = rate - demand.tracking / tracking
    return Plan(
        tracking, _fit(demand.discovery, discovery_rate, DISCOVERY_FACTORS), demand.has_gaps
    )


def _fit(demand: float, rate: float, bounds: tuple[float, float]) -> float:
    # Without budget the worker does not read at all; the bound only keeps dates in range.
    smallest, largest = bounds
    return min(max(demand / max(rate, 1e-9), smallest), largest)


def baseline_interval(requests_per_second: float) -> timedelta:
    """Return the time between two details read for baselines."""
    max_seconds = MAX_BASELINE_INTERVAL.total_seconds()
    return timedelta(seconds=min(1 / max(BASELINE_SHARE * requests_per_second, 1e-9), max_seconds))


def is_flow_retry_due(failing_since: datetime, read_at: datetime | None, now: datetime) -> bool:
    """Return whether to try again a release flow that cannot be read; its stage was at `read_at`.

    True once in FLOW_RETRY, counted from `failing_since`, however often the stage is read.
    """
    if read_at is None:
        return True
    return (now - failing_since) // FLOW_RETRY != (read_at - failing_since) // FLOW_RETRY


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


# Seconds between the tries of the detail of a run that has ended, as long as nobody views it: one
# that can never be read would take its share of all reads for as long as the run is kept. The last
# of them comes an hour after the first, so that no shorter failure has any run given up.
_ENDED_RUN_BACKOFFS = (10, 30, 90, 270, 810, 2430)


def ended_run_backoff(failures: int) -> timedelta | None:
    """Return the time until the next try after this many failed reads of an ended run in a row.

    None: it is given up.
    """
    is_given_up = failures > len(_ENDED_RUN_BACKOFFS)
    return None if is_given_up else timedelta(seconds=_ENDED_RUN_BACKOFFS[failures - 1])


def estimate_seconds(reads: int, read_budget: ReadBudget, limit: int) -> float | None:
    """Return the seconds that `reads` first reads take; None if more than a week."""
    seconds, remaining = 0.0, float(reads)
    while seconds < MAX_ESTIMATE.total_seconds():
        immediate = min(
            remaining,
            read_budget.first_read_requests + max(read_budget.margin - read_budget.burst, 0.0),
        )
        immediate = min(immediate, max(read_budget.requests, 0))
        duration, remaining = immediate / FIRST_READS_PER_SECOND, remaining - immediate
        if remaining <= 0:
            return seconds + duration
        # The rest is read at the even rate of the remaining budget, with half of the discovery
        # share, since catalog lists need the other half.
        rate = max(read_budget.requests_per_second - immediate / max(read_budget.seconds, 1.0), 0.0)
        rate *= DISCOVERY_SHARE_WITH_GAPS / 2
        if remaining <= rate * read_budget.seconds:
            return seconds + max(remaining / rate, duration)
        remaining -= rate * read_budget.seconds
        seconds += read_budget.seconds
        read_budget = read_budget.next_window(limit)
    return None
