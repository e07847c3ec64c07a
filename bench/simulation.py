"""A simulated account: its events, and the figures of a design."""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

LIMIT, RESERVE = 1000, 100  # requests an hour
HOUR, DAY = 3600.0, 86400.0  # seconds
# Durations of runs are log-normal: most runs take minutes, a few take hours.
MEDIAN_DURATION, SIGMA = 20 * 60, 1.0  # seconds; standard deviation of the logarithm
FAILURE_RATE = 0.1


# --- The account --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mix:
    """The size of an account and its traffic."""

    stages: int
    in_flight: int  # about how many stages have runs in flight
    others_share: float  # mean share of the limit that other clients use
    has_webhooks: bool = False

    def __str__(self) -> str:
        webhooks = "on" if self.has_webhooks else "off"
        return f"{self.stages:,} / {self.in_flight} | {self.others_share:.0%} | {webhooks}"


@dataclass(eq=False)
class Run:
    stage: int
    start: float
    end: float
    is_success: bool
    has_detail: bool = False  # its detail was read, so its step durations are in the mirror
    is_first_in_stage: bool = False  # at its start the mirror had no run in flight in its stage
    mirrored_at: float | None = None


@dataclass
class World:
    """All events of a mix, the same for every design."""

    mix: Mix
    days: float
    seed: int
    events: list[tuple[float, int, str, object]] = field(default_factory=list)
    runs_per_second: float = 0.0

    def __post_init__(self) -> None:
        # Each kind has a generator of its own, so that a change of one leaves the others as they
        # are. The published figures depend on the texts of these seeds.
        events = [
            *self._generate_runs(random.Random(f"{self.seed} {self.mix.stages}")),
            *self._generate_views(random.Random(f"{self.seed} looks")),
            *self._generate_aborts(random.Random(f"{self.seed} aborts")),
            *self._generate_other_requests(
                random.Random(f"{self.seed} others {self.mix.others_share}")
            ),
        ]
        events.sort(key=lambda event: event[0])
        self.events = [(at, seq, kind, payload) for seq, (at, kind, payload) in enumerate(events)]

    @property
    def end(self) -> float:
        return self.days * DAY

    @property
    def weights(self) -> list[float]:
        """Relative rate of runs of each stage; few stages have most of them."""
        return [1 / rank**0.8 for rank in range(1, self.mix.stages + 1)]

    def _generate_runs(self, rng: random.Random) -> Iterator[tuple[float, str, object]]:
        weights = self.weights
        mean_duration = MEDIAN_DURATION * math.exp(SIGMA**2 / 2)
        outcome_rng = random.Random(f"{self.seed} ends")
        # In the busiest stages runs overlap; the rate is raised until the stages in flight fit.
        low, high = 0.0, 10.0 * self.mix.in_flight / mean_duration
        for _ in range(50):
            rate = (low + high) / 2
            loads = (rate * weight / sum(weights) * mean_duration for weight in weights)
            if sum(1 - math.exp(-load) for load in loads) < self.mix.in_flight:
                low = rate
            else:
                high = rate
        self.runs_per_second = rate
        at = 0.0
        while (at := at + rng.expovariate(rate * 1.6)) < self.end:
            if rng.random() < (1 if is_daytime(at) else 0.25):  # 1.6 by day, 0.4 by night
                (stage,) = rng.choices(range(self.mix.stages), weights)
                duration = rng.lognormvariate(math.log(MEDIAN_DURATION), SIGMA)
                duration = min(max(duration, 60), 8 * HOUR)
                is_success = outcome_rng.random() >= FAILURE_RATE
                yield at, "run_start", Run(stage, at, at + duration, is_success)

    def _generate_views(self, rng: random.Random) -> Iterator[tuple[float, str, object]]:
        # Most of twenty users have Now or the board open, which needs no requests; at times one
        # opens a stage or a run.
        at = 0.0
        while (at := at + rng.expovariate(6 / HOUR)) < self.end:
            if is_daytime(at) or rng.random() < 0.2:
                yield at, "view", (rng.random(), rng.expovariate(1 / 240))

    def _generate_aborts(self, rng: random.Random) -> Iterator[tuple[float, str, object]]:
        at = 0.0
        while (at := at + rng.expovariate(5 / DAY)) < self.end:
            for _ in range(5 if rng.random() < 0.1 else 1):
                yield at, "abort", rng.random()

    def _generate_other_requests(self, rng: random.Random) -> Iterator[tuple[float, str, object]]:
        if not self.mix.others_share:
            return
        mean_burst = 5.5  # requests of one script within half a minute
        bursts_per_second = self.mix.others_share * LIMIT / HOUR / mean_burst
        at = 0.0
        while (at := at + rng.expovariate(bursts_per_second)) < self.end:
            for _ in range(rng.randint(1, 10)):
                yield at + rng.uniform(0, 30), "other_request", None


def is_daytime(at: float) -> bool:
    return 8 <= at % DAY / HOUR < 20


# --- Figures ------------------------------------------------------------------------------------


@dataclass
class Ages:
    """Ages over time: during an interval between two reads, ages from 0 to it are equally likely.

    Mean and p95 are in seconds.
    """

    # Weights, by interval in half seconds.
    intervals: defaultdict[int, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, interval: float, weight: float = 1.0) -> None:
        self.intervals[round(interval * 2)] += weight

    @property
    def mean(self) -> float:
        total = sum(weight * interval for interval, weight in self.intervals.items())
        return sum(w * n * n for n, w in self.intervals.items()) / 4 / total if total else 0.0

    @property
    def p95(self) -> float:
        total = sum(weight * interval for interval, weight in self.intervals.items())
        low, high = 0.0, float(max(self.intervals, default=0))
        for _ in range(40):
            age = (low + high) / 2
            older = sum(w * (n - age) for n, w in self.intervals.items() if n > age)
            low, high = (age, high) if older > 0.05 * total else (low, age)
        return low / 2


@dataclass
class WindowCounts:
    """Counts of one rate limit window of the account."""

    opened_at: float
    requests: Counter[str] = field(default_factory=Counter)  # "read", "abort" or "other"
    refused: int = 0  # requests answered 429, of all clients
    discovered_stages: int = 0  # stages whose first run in flight was mirrored
    is_always_in_flight: bool = True
    seconds_in_flight: dict[int, float] = field(default_factory=dict)  # by stages in flight


@dataclass
class Figures:
    """Results of one design in one mix."""

    ages: Ages = field(default_factory=Ages)
    bound: Ages = field(default_factory=Ages)
    strict_bound: Ages = field(default_factory=Ages)  # without the cost of discovering runs
    discovery_delays: list[float] = field(default_factory=list)  # seconds
    avoidable_refusals: int = 0  # ours, and those of others that aborts alone would not cause
    aborts: int = 0
    refused_aborts: int = 0
    used_requests: float = 0.0
    usable_requests: float = 0.0
    read_requests: int = 0
    baseline_details: int = 0  # of these
    baseline_at: dict[int, float] = field(default_factory=dict)  # time of first steps, by stage
    baseline_candidates: int = 0  # stages with enough successes for a baseline
    mirrored_seconds: float = 0.0  # of in_flight_seconds, with the run in the mirror
    in_flight_seconds: float = 0.0  # of all runs

    def add_window(self, window: WindowCounts) -> None:
        self.read_requests += window.requests["read"]
        demand = window.requests["other"] + window.requests["abort"]
        self.avoidable_refusals += max(window.refused - max(demand - LIMIT, 0), 0)
        usable = LIMIT - RESERVE - demand
        if window.is_always_in_flight and usable > 0:
            self.used_requests += window.requests["read"]
            self.usable_requests += usable
        # A stage's first age begins with the read that discovers its run: k ages, k + 1 reads.
        for bound, requests in (
            (self.bound, usable - window.discovered_stages),
            (self.strict_bound, usable),
        ):
            rate = max(requests, 36) / HOUR
            for stages, seconds in window.seconds_in_flight.items():
                # Spread evenly over the stages in flight: each is read every `stages / rate` s.
                bound.add(stages / rate, seconds * rate)
