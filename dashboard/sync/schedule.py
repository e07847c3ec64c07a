"""How often each stage and run is read. Pure: a function of what is known and the allowance.

Reading has two parts. *Following* keeps up with runs in flight and with what somebody looks at;
*discovery* finds new runs, pipelines and the past. Each has one common stretch, and a share of the
rate, so that three thousand quiet stages leave the runs in flight their requests.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, IntEnum
from typing import Protocol

from dashboard.upstream.rate_budget import ReadBudget

WATCHED_FOR = timedelta(seconds=60)  # a look counts this long
RECENT_FOR = timedelta(minutes=30)  # a stage is "recent" this long after its last change

CATALOGUE_INTERVAL = timedelta(minutes=10)  # how often projects and their pipelines are listed
LOST_FLOW_GRACE = timedelta(
    days=1
)  # a stage that lost its flow is looked at as an idle one so long
FLOW_INTERVAL = timedelta(hours=6)  # how often a stage's release flow itself is read
HISTORY_INTERVAL = timedelta(
    minutes=10
)  # how often a stage's past is read on, while some is missing

# The least share of the rate that discovery has while there is something to follow. With a tenth,
# runs in flight are at most 1.11 times as old as they would be without any discovery.
DISCOVERY_SHARE = 0.1
# While webhooks come in they tell of new runs; reading is left to find what they missed.
DISCOVERY_SHARE_WITH_WEBHOOK = 0.05
# What webhooks add for each run: a reading at its start, and part of one at its end, which comes
# before the stage's next and takes its place. Half an interval is saved so on average; less, where
# the interval is longer than the run. To put more aside leaves requests to the window's end.
WEBHOOK_READS_PER_RUN = 1.7
# While stages have never been read: what nobody knows of is worse than what is a little older.
DISCOVERY_SHARE_WITH_GAPS = 0.5
# The share of the rate for details of successes, from which is learned what is usual of steps,
# while any is wanted: a run in flight is 1.01 times as old for them. A new window may have more to
# give, so none is booked for later than the longest.
BASELINE_SHARE = 0.01
MAX_BASELINE_INTERVAL = timedelta(hours=1)
# Intervals grow and shrink between these: a stage in flight is read every 4 s at most, and a
# watched one every 2 s, because steps take longer than that; an idle one every 100 s, because
# requests that nobody needs now are worth more to the next run.
TRACKING_FACTORS = 0.4, 1000.0
DISCOVERY_FACTORS = 1 / 3, 10_000.0


# What was not read for twice the interval that it was promised, and for so long, is not known.
MIN_GAP_AGE = timedelta(minutes=5)
# What first reads come to with quick answers; where they are slower it takes longer than was said.
FIRST_READS_PER_SECOND = 12.0
MAX_ESTIMATE = timedelta(days=7)  # what would take longer has no end that could be told
# Whose first reads come first: what is stuck there hurts most.
FIRST_READ_ORDER = ("Production", "Staging", "Development")


class Gap(IntEnum):
    """What nobody knows of a stage, the worst first."""

    UNREAD = 0  # it was never read, or not since a long outage
    OLDER_IN_FLIGHT = 1  # which runs are in flight, but are not among its newest


class ReadState(Protocol):
    """What decides whether something of a stage is not known."""

    @property
    def has_flow(self) -> bool | None: ...
    @property
    def synced_at(self) -> datetime | None: ...
    @property
    def fresh_until(self) -> datetime | None: ...
    @property
    def in_flight_incomplete(self) -> bool: ...


def find_gap(stage: ReadState, now: datetime) -> Gap | None:
    """Return what nobody knows of a stage; None: it was read, and is not long out of date."""
    if stage.synced_at is None:
        return Gap.UNREAD
    if stage.has_flow is False:
        return None  # there is nothing that could run
    if stage.fresh_until is not None:
        max_age = 2 * (stage.fresh_until - stage.synced_at)
        if now - stage.synced_at > max(max_age, MIN_GAP_AGE):
            return Gap.UNREAD
    return Gap.OLDER_IN_FLIGHT if stage.in_flight_incomplete else None


@dataclass(frozen=True, slots=True)
class StageRef:
    """A stage among others: its key, its name, and the key of its project."""

    key: int
    name: str
    project_key: int


def order_first_reads(stages: Iterable[tuple[StageRef, Gap | None]]) -> list[int]:
    """Return the keys of the stages of which something is not known, in the order to read them.

    `places` are all stages, in the order of their pipelines. What was never read comes before
    older runs; then Production before Staging before Development; and all projects take turns.
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
    """Why a stage is read, with the seconds wanted between two readings."""

    WATCHED = 5.0
    IN_FLIGHT = 10.0
    EXPECTED = 20.0  # nothing is in flight, but somebody looks
    RECENT = 90.0
    IDLE = 300.0
    NO_FLOW = 6 * 3600.0

    @property
    def is_tracked(self) -> bool:
        """Say whether reading it is following, not discovery."""
        return self in {StageClass.WATCHED, StageClass.IN_FLIGHT, StageClass.EXPECTED}


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What decides how often a stage is read."""

    has_flow: bool | None
    in_flight_runs: int
    last_viewed_at: datetime | None
    last_run_change_at: datetime | None
    missing_since: datetime | None = None


def has_lost_flow(has_flow: bool | None, missing_since: datetime | None, now: datetime) -> bool:
    """Say whether a stage has lost its release flow lately, so that it may well come back."""
    return has_flow is False and missing_since is not None and now - missing_since < LOST_FLOW_GRACE


def classify(facts: StageFacts, now: datetime) -> StageClass:
    """Return why the stage is read."""
    if facts.has_flow is False:
        lost_recently = has_lost_flow(facts.has_flow, facts.missing_since, now)
        return StageClass.IDLE if lost_recently else StageClass.NO_FLOW
    is_watched = facts.last_viewed_at is not None and now - facts.last_viewed_at < WATCHED_FOR
    if facts.in_flight_runs:
        return StageClass.WATCHED if is_watched else StageClass.IN_FLIGHT
    if is_watched:
        return StageClass.EXPECTED
    if facts.last_run_change_at is not None and now - facts.last_run_change_at < RECENT_FOR:
        return StageClass.RECENT
    return StageClass.IDLE


@dataclass(frozen=True, slots=True)
class Demand:
    """The requests a second it would take to read everything as often as wanted."""

    tracking: float = 0.0
    discovery: float = 0.0
    webhook_reads: float = 0.0  # what webhooks add
    has_gaps: bool = False  # something of some stages is not known
    has_baseline_reads: bool = False  # details of successes are wanted, for what is usual


@dataclass(frozen=True, slots=True)
class Plan:
    """The factors by which the wanted intervals are stretched (above 1) or shrunk (below)."""

    tracking: float
    discovery: float
    has_gaps: bool = False  # something of some stages is not known: first reads come first

    def stage_interval(self, facts: StageFacts, now: datetime) -> timedelta:
        """Return the time between two readings of a stage."""
        return self.class_interval(classify(facts, now))

    def class_interval(self, stage_class: StageClass) -> timedelta:
        """Return the time between two readings of a stage of this class."""
        return timedelta(
            seconds=stage_class.value
            * (self.tracking if stage_class.is_tracked else self.discovery)
        )

    @property
    def watched_interval(self) -> timedelta:
        """The time between two readings of a run in flight that somebody looks at."""
        return timedelta(seconds=StageClass.WATCHED.value * self.tracking)

    @property
    def catalog_interval(self) -> timedelta:
        return CATALOGUE_INTERVAL * self.discovery

    def is_flow_due(self, has_flow: bool | None, synced_at: datetime | None, now: datetime) -> bool:
        """Return whether to read the stage's release flow now, last read at `synced_at`."""
        if synced_at is None:
            return True
        # A stage without one is visited for nothing else, as often as the plan of then wanted.
        return now - synced_at >= FLOW_INTERVAL * (
            self.discovery if has_flow else DISCOVERY_FACTORS[0]
        )

    def is_history_due(self, read_at: datetime | None, now: datetime) -> bool:
        """Say whether a visit now reads on in the past of a stage last visited at `read_at`.

        So at most once in a stretched `PAST_EVERY`, however often the stage is visited; never at
        a first visit, which others wait for.
        """
        if read_at is None:
            return False
        interval = (HISTORY_INTERVAL * self.discovery).total_seconds()
        return now.timestamp() // interval != read_at.timestamp() // interval


def make_plan(demand: Demand, requests_per_second: float, *, webhook_alive: bool = False) -> Plan:
    """Fit what is wanted to the rate: the planned readings take no more, and no less than needed.

    What one part leaves because it can't be read more often goes to the other. `push_alive` says
    that Northflank's webhooks tell of new runs at present.
    """
    share = DISCOVERY_SHARE_WITH_WEBHOOK if webhook_alive else DISCOVERY_SHARE
    if demand.has_gaps:
        share = DISCOVERY_SHARE_WITH_GAPS
    # However often the bell is rung, it gets half of the rate at most.
    rate = requests_per_second - min(demand.webhook_reads, requests_per_second / 2)
    if demand.has_baseline_reads:
        rate -= BASELINE_SHARE * requests_per_second
    max_discovery_rate = demand.discovery / DISCOVERY_FACTORS[0]  # what discovery can spend
    tracking = _fit(demand.tracking, rate - min(share * rate, max_discovery_rate), TRACKING_FACTORS)
    discovery_rate = rate - demand.tracking / tracking
    return Plan(
        tracking, _fit(demand.discovery, discovery_rate, DISCOVERY_FACTORS), demand.has_gaps
    )


def _fit(demand: float, rate: float, bounds: tuple[float, float]) -> float:
    # With nothing left to spend the worker does not read at all; the bound only keeps dates sane.
    smallest, largest = bounds
    return min(max(demand / max(rate, 1e-9), smallest), largest)


def baseline_interval(requests_per_second: float) -> timedelta:
    """Return the time between two details that are read for what is usual."""
    max_seconds = MAX_BASELINE_INTERVAL.total_seconds()
    return timedelta(seconds=min(1 / max(BASELINE_SHARE * requests_per_second, 1e-9), max_seconds))


def aborting_interval(elapsed: timedelta) -> timedelta:
    """Return how long to wait before an aborting run is read again; it is never stretched."""
    seconds = elapsed.total_seconds()
    if seconds < 30:
        return timedelta(seconds=2)
    if seconds < 180:
        return timedelta(seconds=5)
    return timedelta(seconds=15) if seconds < 3600 else timedelta(seconds=60)


# Seconds of rest after the first failure in a row, doubled with each, up to the last: by cause.
_BACKOFFS = {
    # A right that was withdrawn, or a thing that was deleted: people bring it back, if anybody.
    **dict.fromkeys(("forbidden", "not_found", "feature_off", "rejected"), (60.0, 900.0)),
    "timeout": (10.0, 60.0),  # a slow list may well be in time at the next attempt
}
_DEFAULT_BACKOFF = (10.0, 300.0)


def failure_backoff(failures: int, cause: str) -> timedelta:
    """Return how long something rests after that many failed readings in a row."""
    initial, maximum = _BACKOFFS.get(cause, _DEFAULT_BACKOFF)
    return timedelta(seconds=min(initial * 2 ** min(max(failures - 1, 0), 10), maximum))


def estimate_seconds(reads: int, read_budget: ReadBudget, limit: int) -> float | None:
    """Return how many seconds so many first reads take; None: more than a week."""
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
        # The rest goes at the even rate of what is left then: as discovery, beside the catalog.
        rate = max(read_budget.requests_per_second - immediate / max(read_budget.seconds, 1.0), 0.0)
        rate *= DISCOVERY_SHARE_WITH_GAPS / 2
        if remaining <= rate * read_budget.seconds:
            return seconds + max(remaining / rate, duration)
        remaining -= rate * read_budget.seconds
        seconds += read_budget.seconds
        read_budget = read_budget.next_window(limit)
    return None
