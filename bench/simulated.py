"""A simulated account: its events, and the figures of a design."""

import math
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

LIMIT, RESERVE = 1000, 100
HOUR, DAY = 3600.0, 86400.0
LASTS, SPREAD = 20 * 60, 1.0  # a run's median in seconds, and its spread: most last minutes
FAILS = 0.1  # share of all runs


# --- The world ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mix:
    """One situation: number of stages, about how many in flight, usage of others."""

    stages: int
    in_flight: int
    others: float  # share of the limit, on average
    push: bool = False

    def __str__(self) -> str:
        return f"{self.stages:,} / {self.in_flight} | {self.others:.0%} | {_on(self.push)}"


def _on(push: bool) -> str:
    return "on" if push else "off"


@dataclass(eq=False)
class Run:
    stage: int
    start: float
    end: float
    succeeds: bool
    read: bool = False  # its detail was read, so its steps are known
    awaited: bool = False  # it started in a stage without known runs in flight
    seen: bool = False
    known_from: float | None = None


@dataclass
class World:
    """All events of a mix, the same for every design."""

    mix: Mix
    days: float
    seed: int
    events: list[tuple[float, int, str, object]] = field(default_factory=list)
    runs_a_second: float = 0.0

    def __post_init__(self) -> None:
        chance = random.Random(f"{self.seed} {self.mix.stages}")
        happenings = [
            *self._runs(chance),
            *self._looks(random.Random(f"{self.seed} looks")),
            *self._aborts(random.Random(f"{self.seed} aborts")),
            *self._other_requests(random.Random(f"{self.seed} others {self.mix.others}")),
        ]
        happenings.sort(key=lambda event: event[0])
        self.events = [(at, n, kind, payload) for n, (at, kind, payload) in enumerate(happenings)]

    @property
    def end(self) -> float:
        return self.days * DAY

    @property
    def weights(self) -> list[float]:
        """Return each stage's share of all runs; few have most of them."""
        return [1 / rank**0.8 for rank in range(1, self.mix.stages + 1)]

    def _runs(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        weights = self.weights
        mean = LASTS * math.exp(SPREAD**2 / 2)
        ends = random.Random(f"{self.seed} ends")
        # In the busiest stages runs overlap; the rate is raised until the stages in flight fit.
        low, high = 0.0, 10.0 * self.mix.in_flight / mean
        for _ in range(50):
            rate = (low + high) / 2
            loads = (rate * weight / sum(weights) * mean for weight in weights)
            if sum(1 - math.exp(-load) for load in loads) < self.mix.in_flight:
                low = rate
            else:
                high = rate
        self.runs_a_second = rate
        at = 0.0
        while (at := at + chance.expovariate(rate * 1.6)) < self.end:
            if chance.random() < (1 if by_day(at) else 0.25):  # 1.6 by day, 0.4 by night
                (stage,) = chance.choices(range(self.mix.stages), weights)
                lasts = min(max(chance.lognormvariate(math.log(LASTS), SPREAD), 60), 8 * HOUR)
                yield at, "start", Run(stage, at, at + lasts, ends.random() >= FAILS)

    def _looks(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        # Most of twenty users have Now or the board open, which needs no requests; at times one
        # opens a stage or a run.
        at = 0.0
        while (at := at + chance.expovariate(6 / HOUR)) < self.end:
            if by_day(at) or chance.random() < 0.2:
                yield at, "look", (chance.random(), chance.expovariate(1 / 240))

    def _aborts(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        at = 0.0
        while (at := at + chance.expovariate(5 / DAY)) < self.end:
            for _ in range(5 if chance.random() < 0.1 else 1):
                yield at, "abort", chance.random()

    def _other_requests(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        if not self.mix.others:
            return
        mean = 5.5  # requests of one script within half a minute
        at = 0.0
        while (at := at + chance.expovariate(self.mix.others * LIMIT / HOUR / mean)) < self.end:
            for _ in range(chance.randint(1, 10)):
                yield at + chance.uniform(0, 30), "other", None


def by_day(at: float) -> bool:
    return 8 <= at % DAY / HOUR < 20


# --- Figures ------------------------------------------------------------------------------------


@dataclass
class Ages:
    """Ages over time: between two reads `length` apart, ages from 0 to it are equally likely."""

    lengths: Counter[int] = field(default_factory=Counter)  # in half seconds, weighted

    def add(self, length: float, weight: float = 1.0) -> None:
        self.lengths[round(length * 2)] += weight  # type: ignore[assignment]

    @property
    def mean(self) -> float:
        time_ = sum(weight * length for length, weight in self.lengths.items())
        return sum(w * n * n for n, w in self.lengths.items()) / 4 / time_ if time_ else 0.0

    @property
    def p95(self) -> float:
        time_ = sum(weight * length for length, weight in self.lengths.items())
        low, high = 0.0, max(self.lengths, default=0)
        for _ in range(40):
            age = (low + high) / 2
            older = sum(w * (n - age) for n, w in self.lengths.items() if n > age)
            low, high = (age, high) if older > 0.05 * time_ else (low, age)
        return low / 2


@dataclass
class Hour:
    """One window of the account."""

    opened_at: float
    ours: int = 0  # reads, without aborts
    aborts: int = 0  # sends, and reads of aborting runs
    others: int = 0
    refused: int = 0
    found: int = 0  # stages newly known as in flight
    always_in_flight: bool = True
    flights: dict[int, float] = field(default_factory=dict)  # stages in flight -> seconds


@dataclass
class Figures:
    """Results of one design in one mix."""

    ages: Ages = field(default_factory=Ages)
    bound: Ages = field(default_factory=Ages)
    all_spent: Ages = field(default_factory=Ages)  # bound without the cost of finding runs
    delays: list[float] = field(default_factory=list)
    refused_ours: int = 0
    refused_for_us: int = 0
    aborts: int = 0
    aborts_refused: int = 0
    used: float = 0.0
    usable: float = 0.0
    requests: int = 0  # requests of ours for reading
    details: int = 0  # of these, details for baselines
    observed_at: dict[int, float] = field(default_factory=dict)  # stages with known steps
    teaching: int = 0  # stages with enough successes for that
    known_time: float = 0.0
    run_time: float = 0.0

    def add_hour(self, hour: Hour) -> None:
        self.requests += hour.ours
        demand = hour.others + hour.aborts  # requests without our reads
        self.refused_for_us += max(hour.refused - max(demand - LIMIT, 0), 0)
        usable = LIMIT - RESERVE - demand
        if hour.always_in_flight and usable > 0:
            self.used += hour.ours
            self.usable += usable
        # A stage's first age begins with the read that finds its run: k ages, k + 1 reads.
        for bound, requests in ((self.bound, usable - hour.found), (self.all_spent, usable)):
            rate = max(requests, 36) / HOUR
            for flying, seconds in hour.flights.items():
                # Spread evenly over the stages in flight: each is read every `flying / rate` s.
                bound.add(flying / rate, seconds * rate)
