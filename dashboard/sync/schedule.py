"""How often each stage and run is read. Pure: a function of what is known and the allowance."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

WATCHED_FOR = timedelta(seconds=60)  # a look counts this long
RECENT_FOR = timedelta(minutes=30)  # a stage is "recent" this long after its last change


class StageClass(Enum):
    """Why a stage is read, with the seconds wanted between two readings."""

    WATCHED = 5.0
    IN_FLIGHT = 20.0
    RECENT = 90.0
    IDLE = 300.0
    NO_FLOW = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What decides a stage's class."""

    has_flow: bool | None
    in_flight: int
    watched_at: datetime | None
    active_at: datetime | None


def class_of(facts: StageFacts, now: datetime) -> StageClass:
    """Return why, and so how often, the stage is read."""
    if facts.has_flow is False:
        return StageClass.NO_FLOW
    watched = facts.watched_at is not None and now - facts.watched_at < WATCHED_FOR
    if watched and facts.in_flight:
        return StageClass.WATCHED
    if facts.in_flight:
        return StageClass.IN_FLIGHT
    if watched or (facts.active_at is not None and now - facts.active_at < RECENT_FOR):
        return StageClass.RECENT
    return StageClass.IDLE


def stretch(
    stages: Mapping[StageClass, int], requests_per_second: float, *, watched_runs: int = 0
) -> float:
    """Return the one factor (at least 1) by which every interval grows to fit the allowance."""
    wanted = sum(count / kind.value for kind, count in stages.items())
    wanted += watched_runs / StageClass.WATCHED.value
    if wanted <= requests_per_second:
        return 1.0
    # With nothing left to spend the worker does not read at all; the cap only keeps dates sane.
    return min(wanted / max(requests_per_second, 1e-9), 1000.0)


def aborting_interval(since: timedelta) -> timedelta:
    """Return how long to wait before an aborting run is read again; it is never stretched."""
    seconds = since.total_seconds()
    if seconds < 30:
        return timedelta(seconds=2)
    if seconds < 180:
        return timedelta(seconds=5)
    return timedelta(seconds=15) if seconds < 3600 else timedelta(seconds=60)


def after_failure(failures: int) -> timedelta:
    """Return how long a stage rests after that many failed readings in a row."""
    return timedelta(seconds=min(5.0 * 2 ** min(failures, 10), 300.0))
