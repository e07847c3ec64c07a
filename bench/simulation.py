"""A simulated account: when its runs start and end, and what others send. Times are seconds."""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

LIMIT, RESERVE = 1000, 100  # requests an hour
HOUR, DAY = 3600.0, 86400.0
# Durations of runs are log-normal: most runs take minutes, a few take hours.
MEDIAN_DURATION, SIGMA = 20 * 60, 1.0  # seconds; standard deviation of the logarithm
STAGE_NAMES = ("Production", "Staging", "Development")


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


@dataclass(frozen=True, eq=False)
class Run:
    stage: int
    start: float
    end: float

    def hazard(self, at: float) -> float:
        """Return the true rate, a second, at which a run like this ends after this time."""
        elapsed = max(at - self.start, 1.0)
        z = (math.log(elapsed) - math.log(MEDIAN_DURATION)) / SIGMA
        density = math.exp(-(z**2) / 2) / (elapsed * SIGMA * math.sqrt(2 * math.pi))
        return density / max(math.erfc(z / math.sqrt(2)) / 2, 1e-9)


@dataclass
class World:
    """All that happens in a mix from `begin` to `end`, the same for every design.

    The time before 0 is the history that a new database finds.
    """

    mix: Mix
    days: float
    seed: int
    begin: float = -14 * DAY
    runs: list[Run] = field(default_factory=list)  # by start
    other_requests: list[float] = field(default_factory=list)
    runs_per_second: float = 0.0

    def __post_init__(self) -> None:
        self.shares: list[float] = [1 / rank**0.8 for rank in range(1, self.mix.stages + 1)]
        # Few stages have most runs, whatever their names.
        random.Random(f"{self.seed} order").shuffle(self.shares)
        self.shares = [share / sum(self.shares) for share in self.shares]
        self.runs = list(self._generate_runs(random.Random(f"{self.seed} {self.mix.stages}")))
        rng = random.Random(f"{self.seed} others {self.mix.others_share}")
        self.other_requests = sorted(self._generate_other_requests(rng))

    @property
    def end(self) -> float:
        return self.days * DAY

    def start_rate(self, stage: int, at: float) -> float:
        """Return the true rate, a second, of new runs of a stage."""
        return self.runs_per_second * self.shares[stage] * (1.6 if is_daytime(at) else 0.4)

    def _generate_runs(self, rng: random.Random) -> Iterator[Run]:
        mean_duration = MEDIAN_DURATION * math.exp(SIGMA**2 / 2)
        # In the busiest stages runs overlap; the rate is raised until the stages in flight fit.
        low, high = 0.0, 10.0 * self.mix.in_flight / mean_duration
        for _ in range(50):
            rate = (low + high) / 2
            loads = (rate * share * mean_duration for share in self.shares)
            if sum(1 - math.exp(-load) for load in loads) < self.mix.in_flight:
                low = rate
            else:
                high = rate
        self.runs_per_second, at = rate, self.begin
        if not rate:
            return
        while (at := at + rng.expovariate(rate * 1.6)) < self.end:
            if is_daytime(at) or rng.random() < 0.25:
                (stage,) = rng.choices(range(self.mix.stages), self.shares)
                duration = rng.lognormvariate(math.log(MEDIAN_DURATION), SIGMA)
                yield Run(stage, at, at + min(max(duration, 60), 8 * HOUR))

    def _generate_other_requests(self, rng: random.Random) -> Iterator[float]:
        if not self.mix.others_share:
            return
        mean_burst = 5.5  # requests of one script within half a minute
        bursts_per_second = self.mix.others_share * LIMIT / HOUR / mean_burst
        at = 0.0
        while (at := at + rng.expovariate(bursts_per_second)) < self.end:
            for _ in range(rng.randint(1, 10)):
                yield at + rng.uniform(0, 30)


def is_daytime(at: float) -> bool:
    return 8 <= at % DAY / HOUR < 20
