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

from dashboard.upstream.rate_budget import Allowance

WATCHED_FOR = timedelta(seconds=60)  # a look counts this long
RECENT_FOR = timedelta(minutes=30)  # a stage is "recent" this long after its last change

CATALOGUE_EVERY = timedelta(minutes=10)  # how often projects and their pipelines are listed
LOST_FOR = timedelta(days=1)  # a stage that lost its flow is looked at as an idle one so long
FLOW_EVERY = timedelta(hours=6)  # how often a stage's release flow itself is read
PAST_EVERY = timedelta(minutes=10)  # how often a stage's past is read on, while some is missing

# The least share of the rate that discovery has while there is something to follow. With a tenth,
# runs in flight are at most 1.11 times as old as they would be without any discovery.
DISCOVERY = 0.1
# While webhooks come in they tell of new runs; reading is left to find what they missed.
DISCOVERY_PUSHED = 0.05
# What webhooks add for each run: a reading at its start, and part of one at its end, which comes
# before the stage's next and takes its place. Half an interval is saved so on average; less, where
# the interval is longer than the run. To put more aside leaves requests to the window's end.
READINGS_A_RUN = 1.7
# While stages have never been read: what nobody knows of is worse than what is a little older.
DISCOVERY_UNREAD = 0.5
# The share of the rate for details of successes, from which is learned what is usual of steps,
# while any is wanted: a run in flight is 1.01 times as old for them. A new window may have more to
# give, so none is booked for later than the longest.
LEARNING = 0.01
LEARNING_LONGEST = timedelta(hours=1)
# Intervals grow and shrink between these: a stage in flight is read every 4 s at most, and a
# watched one every 2 s, because steps take longer than that; an idle one every 100 s, because
# requests that nobody needs now are worth more to the next run.
FOLLOWING_FACTORS = 0.4, 1000.0
DISCOVERY_FACTORS = 1 / 3, 10_000.0


# What was not read for twice the interval that it was promised, and for so long, is not known.
LOST_AFTER = timedelta(minutes=5)
# What first reads come to with quick answers; where they are slower it takes longer than was said.
FIRST_READS_A_SECOND = 12.0
LONGEST_TOLD = timedelta(days=7)  # what would take longer has no end that could be told
# Whose first reads come first: what is stuck there hurts most.
FIRST = ("Production", "Staging", "Development")


class Gap(IntEnum):
    """What nobody knows of a stage, the worst first."""

    RUNS = 0  # it was never read, or not since a long outage
    OLDER = 1  # which runs are in flight, but are not among its newest


class ReadState(Protocol):
    """What decides whether something of a stage is not known."""

    @property
    def has_flow(self) -> bool | None: ...
    @property
    def synced_at(self) -> datetime | None: ...
    @property
    def promised_at(self) -> datetime | None: ...
    @property
    def in_flight_unread(self) -> bool: ...


def gap(of: ReadState, now: datetime) -> Gap | None:
    """Return what nobody knows of a stage; None: it was read, and is not long out of date."""
    if of.synced_at is None:
        return Gap.RUNS
    if of.has_flow is False:
        return None  # there is nothing that could run
    if of.promised_at is not None:
        twice = 2 * (of.promised_at - of.synced_at)
        if now - of.synced_at > max(twice, LOST_AFTER):
            return Gap.RUNS
    return Gap.OLDER if of.in_flight_unread else None


@dataclass(frozen=True, slots=True)
class Place:
    """A stage among others: its key, its name, and the key of its project."""

    key: int
    name: str
    project: int


def first_reads(places: Iterable[tuple[Place, Gap | None]]) -> list[int]:
    """Return the keys of the stages of which something is not known, in the order to read them.

    `places` are all stages, in the order of their pipelines. What was never read comes before
    older runs; then Production before Staging before Development; and all projects take turns.
    """
    turns: Counter[tuple[int, str]] = Counter()
    order = []
    for place, gap_ in places:
        turns[place.project, place.name] += 1
        if gap_ is not None:
            rank = FIRST.index(place.name) if place.name in FIRST else len(FIRST)
            turn = turns[place.project, place.name]
            order.append((gap_, rank, turn, place.project, place.key))
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
    def followed(self) -> bool:
        """Say whether reading it is following, not discovery."""
        return self in {StageClass.WATCHED, StageClass.IN_FLIGHT, StageClass.EXPECTED}


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What decides how often a stage is read."""

    has_flow: bool | None
    in_flight: int
    watched_at: datetime | None
    active_at: datetime | None
    missing_at: datetime | None = None


def is_lost(has_flow: bool | None, missing_at: datetime | None, now: datetime) -> bool:
    """Say whether a stage has lost its release flow lately, so that it may well come back."""
    return has_flow is False and missing_at is not None and now - missing_at < LOST_FOR


def class_of(facts: StageFacts, now: datetime) -> StageClass:
    """Return why the stage is read."""
    if facts.has_flow is False:
        lost = is_lost(facts.has_flow, facts.missing_at, now)
        return StageClass.IDLE if lost else StageClass.NO_FLOW
    watched = facts.watched_at is not None and now - facts.watched_at < WATCHED_FOR
    if facts.in_flight:
        return StageClass.WATCHED if watched else StageClass.IN_FLIGHT
    if watched:
        return StageClass.EXPECTED
    if facts.active_at is not None and now - facts.active_at < RECENT_FOR:
        return StageClass.RECENT
    return StageClass.IDLE


@dataclass(frozen=True, slots=True)
class Demand:
    """The requests a second it would take to read everything as often as wanted."""

    following: float = 0.0
    discovery: float = 0.0
    rung: float = 0.0  # what webhooks add
    unread: bool = False  # something of some stages is not known
    learning: bool = False  # details of successes are wanted, for what is usual


@dataclass(frozen=True, slots=True)
class Plan:
    """The factors by which the wanted intervals are stretched (above 1) or shrunk (below)."""

    following: float
    discovery: float
    unread: bool = False  # something of some stages is not known: first reads come first

    def interval(self, facts: StageFacts, now: datetime) -> timedelta:
        """Return the time between two readings of a stage."""
        return self.every(class_of(facts, now))

    def every(self, kind: StageClass) -> timedelta:
        """Return the time between two readings of a stage of this class."""
        return timedelta(seconds=kind.value * (self.following if kind.followed else self.discovery))

    @property
    def watched(self) -> timedelta:
        """The time between two readings of a run in flight that somebody looks at."""
        return timedelta(seconds=StageClass.WATCHED.value * self.following)

    @property
    def catalogue(self) -> timedelta:
        return CATALOGUE_EVERY * self.discovery

    def flow_is_due(self, has_flow: bool | None, seen_at: datetime | None, now: datetime) -> bool:
        """Say whether a visit now reads the stage's release flow itself, last seen at `seen_at`."""
        if seen_at is None:
            return True
        # A stage without one is visited for nothing else, as often as the plan of then wanted.
        return now - seen_at >= FLOW_EVERY * (self.discovery if has_flow else DISCOVERY_FACTORS[0])

    def past_is_due(self, read_at: datetime | None, now: datetime) -> bool:
        """Say whether a visit now reads on in the past of a stage last visited at `read_at`.

        So at most once in a stretched `PAST_EVERY`, however often the stage is visited; never at
        a first visit, which others wait for.
        """
        if read_at is None:
            return False
        every = (PAST_EVERY * self.discovery).total_seconds()
        return now.timestamp() // every != read_at.timestamp() // every


def plan(demand: Demand, requests_per_second: float, *, push_alive: bool = False) -> Plan:
    """Fit what is wanted to the rate: the planned readings take no more, and no less than needed.

    What one part leaves because it can't be read more often goes to the other. `push_alive` says
    that Northflank's webhooks tell of new runs at present.
    """
    share = DISCOVERY_PUSHED if push_alive else DISCOVERY
    if demand.unread:
        share = DISCOVERY_UNREAD
    # However often the bell is rung, it gets half of the rate at most.
    rate = requests_per_second - min(demand.rung, requests_per_second / 2)
    if demand.learning:
        rate -= LEARNING * requests_per_second
    most = demand.discovery / DISCOVERY_FACTORS[0]  # what discovery can spend
    following = _fit(demand.following, rate - min(share * rate, most), FOLLOWING_FACTORS)
    left = rate - demand.following / following
    return Plan(following, _fit(demand.discovery, left, DISCOVERY_FACTORS), demand.unread)


def _fit(demanded: float, rate: float, between: tuple[float, float]) -> float:
    # With nothing left to spend the worker does not read at all; the bound only keeps dates sane.
    smallest, largest = between
    return min(max(demanded / max(rate, 1e-9), smallest), largest)


def learning_interval(requests_per_second: float) -> timedelta:
    """Return the time between two details that are read for what is usual."""
    longest = LEARNING_LONGEST.total_seconds()
    return timedelta(seconds=min(1 / max(LEARNING * requests_per_second, 1e-9), longest))


def aborting_interval(since: timedelta) -> timedelta:
    """Return how long to wait before an aborting run is read again; it is never stretched."""
    seconds = since.total_seconds()
    if seconds < 30:
        return timedelta(seconds=2)
    if seconds < 180:
        return timedelta(seconds=5)
    return timedelta(seconds=15) if seconds < 3600 else timedelta(seconds=60)


# Seconds of rest after the first failure in a row, doubled with each, up to the last: by cause.
_RESTS = {
    # A right that was withdrawn, or a thing that was deleted: people bring it back, if anybody.
    **dict.fromkeys(("forbidden", "not_found", "feature_off", "refused"), (60.0, 900.0)),
    "timeout": (10.0, 60.0),  # a slow list may well be in time at the next attempt
}
_REST = (10.0, 300.0)


def after_failure(failures: int, cause: str) -> timedelta:
    """Return how long something rests after that many failed readings in a row."""
    first, longest = _RESTS.get(cause, _REST)
    return timedelta(seconds=min(first * 2 ** min(max(failures - 1, 0), 10), longest))


def seconds_to_read(reads: int, spend: Allowance, limit: int) -> float | None:
    """Return how many seconds so many first reads take; None: more than a week."""
    seconds, left = 0.0, float(reads)
    while seconds < LONGEST_TOLD.total_seconds():
        at_once = min(left, spend.first_reads + max(spend.slack - spend.ahead, 0.0))
        at_once = min(at_once, max(spend.requests, 0))
        took, left = at_once / FIRST_READS_A_SECOND, left - at_once
        if left <= 0:
            return seconds + took
        # The rest goes at the even rate of what is left then: as discovery, beside the catalogue.
        rate = max(spend.per_second - at_once / max(spend.seconds, 1.0), 0.0)
        rate *= DISCOVERY_UNREAD / 2
        if left <= rate * spend.seconds:
            return seconds + max(left / rate, took)
        left -= rate * spend.seconds
        seconds += spend.seconds
        spend = spend.next_hour(limit)
    return None
