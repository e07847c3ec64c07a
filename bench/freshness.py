"""How late the mirror shows what happened at Northflank: simulated days with the sync's real rules.

    uv run bench/freshness.py [--days DAYS] [--seed SEED] [--only TEXT]

Runs `dashboard.sync.plan` and `dashboard.upstream.rate_budget` with a simulated account. The plan
learns how often runs start, and is not told. A delay is the time from the start or end of a run
until it is mirrored; means are weighted as the plan weights changes. Beside them are the optimum,
from the true rates and with all requests that others leave, and the delay of a plan by classes of
stages (in flight 10 s, changed lately 90 s, idle 300 s, stretched to nine and one tenth of the
requests). Exits with 1 if a target is missed.
"""

import argparse
import heapq
import math
import os
import random
import sys
import time
from collections import defaultdict, deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from simulation import DAY, HOUR, LIMIT, MEDIAN_DURATION, RESERVE, STAGE_NAMES, Mix, Run, World

from dashboard.northflank import RateLimit
from dashboard.sync import plan as rules
from dashboard.sync.plan import Plan, RunFacts
from dashboard.upstream import rate_budget

EPOCH = datetime(2026, 3, 2, tzinfo=UTC)
RESPONSE_TIME = 0.2  # seconds
# Seconds; the sync plans more often.
PLAN_INTERVAL, OPTIMUM_INTERVAL = 60.0, 600.0
WEBHOOK_DELAY, WEBHOOK_DELIVERY_RATE = 1.0, 0.97  # seconds until an event arrives; share that does
OVERDUE_AFTER = 4.0 * MEDIAN_DURATION  # a twelfth of all runs
STAGES_PER_LIST = 30  # of pipelines: one for each project
TARGET = 1.2  # times the optimum
WEBHOOK_TARGET = 2.0  # seconds, the median of delivered events


def to_datetime(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def weigh(run: Run, at: float) -> float:
    """Return the weight of a change of a run."""
    if at - run.start > OVERDUE_AFTER:
        return rules.URGENT_WEIGHT
    return rules.WEIGHTS[STAGE_NAMES[run.stage % 3]]


@dataclass
class WeightedMean:
    total: float = 0.0
    weight: float = 0.0

    def add(self, value: float, weight: float) -> None:
        self.total += value * weight
        self.weight += weight

    @property
    def mean(self) -> float:
        return self.total / self.weight if self.weight else 0.0


@dataclass
class Figures:
    """What a design achieved; times are seconds."""

    delay: WeightedMean = field(default_factory=WeightedMean)
    optimum: WeightedMean = field(default_factory=WeightedMean)
    lost: WeightedMean = field(default_factory=WeightedMean)  # changes without a webhook event
    delivered: list[float] = field(default_factory=list)  # delays of changes with one
    idle_intervals: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    step_ages: list[float] = field(default_factory=list)
    refused: int = 0
    requests: int = 0
    usable: float = 0.0  # requests that others left


class Simulation:
    """An account and its mirror, read by the product's plan."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.figures = Figures()
        self.rng = random.Random(f"{world.seed} design")
        self.now = self.planned_at = 0.0
        count = world.mix.stages
        lists = 1 + count // STAGES_PER_LIST
        self.in_flight: list[set[Run]] = [set() for _ in range(count)]  # at Northflank
        self.mirrored: list[list[Run]] = [[] for _ in range(count)]  # in flight in the mirror
        self.unseen: list[list[tuple[float, Run, bool]]] = [[] for _ in range(count)]
        self.starts: list[deque[float]] = [deque() for _ in range(count)]  # mirrored, of HISTORY
        self.lost: set[tuple[Run, bool]] = set()  # changes whose webhook event did not arrive
        self.turns = [0] * count  # of details, while a stage has runs in flight
        self.steps_read_at: dict[Run, float] = {}
        # Of stages, then of lists of pipelines.
        self.read_at = [-self.rng.random() * HOUR for _ in range(count + lists)]
        self.due_at = [0.0] * (count + lists)
        self.urgencies = [1.0] * count + [rules.LIST_URGENCY] * lists
        self.due: list[tuple[float, int]] = []
        self.wanted: deque[int] = deque()  # stages with a webhook event
        self.other_reads: deque[float] = deque()  # when, of the last hour
        self.window: rate_budget.RateLimitWindow | None = None
        self.opened_at, self.count = -math.inf, 0  # Northflank's window
        self.plan = Plan(60.0, HOUR)
        self.plan_interval = max(PLAN_INTERVAL, count / 10)
        self.optimum_at = -math.inf
        self.account_rate = 0.0
        self.events: list[tuple[float, int, str, object]] = []
        for run in world.runs:
            if run.start < 0:
                self.starts[run.stage].append(run.start)
                if run.end < 0:
                    continue
                self.in_flight[run.stage].add(run)
                self.mirrored[run.stage].append(run)
            else:
                self._add_event(run.start, "start", run)
            self._add_event(run.end, "end", run)
        for at in world.other_requests:
            self._add_event(at, "other", None)
        self.usable_by_hour = self._count_usable()
        heapq.heapify(self.events)

    def _add_event(self, at: float, kind: str, payload: object) -> None:
        self.events.append((at, len(self.events), kind, payload))

    def _count_usable(self) -> list[float]:
        hours = [float(LIMIT - RESERVE)] * (math.ceil(self.world.days * 24) + 1)
        for at in self.world.other_requests:
            if at >= 0:
                hours[min(int(at / HOUR), len(hours) - 1)] -= 1
        return [max(usable, 36.0) for usable in hours]

    # What happens at Northflank

    def run_events(self, until: float) -> None:
        while self.events and self.events[0][0] <= until:
            at, _, kind, payload = heapq.heappop(self.events)
            self.now = max(self.now, at)
            if kind == "other":
                if at >= 0:
                    self.count_request()
            elif kind == "webhook":
                assert isinstance(payload, int)
                self.wanted.append(payload)
            else:
                assert isinstance(payload, Run)
                self._change(payload, at, is_end=kind == "end")
        self.now = max(self.now, until)

    def _change(self, run: Run, at: float, *, is_end: bool) -> None:
        (self.in_flight[run.stage].discard if is_end else self.in_flight[run.stage].add)(run)
        self.unseen[run.stage].append((at, run, is_end))
        if not self.world.mix.has_webhooks:
            return
        if self.rng.random() < WEBHOOK_DELIVERY_RATE:
            seq = len(self.world.runs) * 3 + self.figures.requests + run.stage
            event = (at + WEBHOOK_DELAY, seq + int(at), "webhook", run.stage)
            heapq.heappush(self.events, event)
        else:
            self.lost.add((run, is_end))

    def count_request(self) -> bool:
        if self.now - self.opened_at >= HOUR:
            self.opened_at, self.count = self.now, 0
        self.count += 1
        return self.count <= LIMIT

    # What the sync does

    def send(self) -> bool:
        self.figures.requests += 1
        is_accepted = self.count_request()
        self.figures.refused += not is_accepted
        now = to_datetime(self.now)
        limit = RateLimit(
            LIMIT, max(LIMIT - self.count, 0), math.ceil(self.opened_at + HOUR - self.now)
        )
        self.window = rate_budget.after_response(self.window, limit, RESERVE, now)
        if not is_accepted:
            self.window = rate_budget.after_rate_limited(self.window, limit.reset_seconds, now)
        return is_accepted

    def see(self, stage: int, changes: list[tuple[float, Run, bool]]) -> None:
        """Mirror these changes of a stage."""
        for at, run, is_end in changes:
            delay, weight = self.now + RESPONSE_TIME - at, weigh(run, at)
            self.figures.delay.add(delay, weight)
            if (run, is_end) in self.lost:
                self.lost.discard((run, is_end))
                self.figures.lost.add(delay, weight)
            elif self.world.mix.has_webhooks:
                self.figures.delivered.append(delay)
            if is_end:
                self.steps_read_at.pop(run, None)
            else:
                self.starts[stage].append(at)
        self.mirrored[stage] = sorted(
            ({*self.mirrored[stage]} | {run for _, run, is_end in changes if not is_end})
            - {run for _, run, is_end in changes if is_end},
            key=lambda run: run.start,
        )

    def read_list(self, stage: int) -> None:
        if self.send():
            changes, self.unseen[stage] = self.unseen[stage], []
            self.see(stage, changes)
        self.read_at[stage] = self.now

    def read_detail(self, stage: int) -> None:
        """Read the detail of one of a stage's runs in flight, in turn."""
        run = min(self.mirrored[stage], key=lambda run: self.steps_read_at.get(run, -math.inf))
        if self.send():
            if run in self.steps_read_at:
                self.figures.step_ages.append(self.now - self.steps_read_at[run])
            self.steps_read_at[run] = self.now
            ends = [change for change in self.unseen[stage] if change[1] is run and change[2]]
            self.unseen[stage] = [
                change for change in self.unseen[stage] if change[1] is not run or not change[2]
            ]
            self.see(stage, ends)
        self.read_at[stage] = self.now

    def read(self, stage: int) -> None:
        if stage >= self.world.mix.stages:
            self.send()
            self.read_at[stage] = self.now
            self.schedule(stage)
            return
        self.turns[stage] += 1
        oldest = min(
            (self.steps_read_at.get(run, -math.inf) for run in self.mirrored[stage]),
            default=math.inf,
        )
        if self.turns[stage] % 2 and self.now - oldest >= rules.MIN_STEPS_AGE.total_seconds():
            self.read_detail(stage)
        else:
            self.read_list(stage)
        self.schedule(stage)

    def assess(self, stage: int) -> float:
        """Return a stage's urgency, from what the mirror knows."""
        if stage >= self.world.mix.stages:
            return rules.LIST_URGENCY
        oldest = self.now - rules.HISTORY.total_seconds()
        starts = self.starts[stage]
        while starts and starts[0] < oldest:
            starts.popleft()
        runs = [
            RunFacts(
                timedelta(seconds=self.now - run.start),
                timedelta(seconds=MEDIAN_DURATION),
                is_urgent=self.now - run.start > OVERDUE_AFTER,
            )
            for run in self.mirrored[stage]
        ]
        new_runs = rules.start_rate(len(starts), self.account_rate)
        return rules.urgency(STAGE_NAMES[stage % 3], new_runs, runs)

    def schedule(self, stage: int) -> None:
        self.urgencies[stage] = self.assess(stage)
        interval = self.plan.interval(self.urgencies[stage])
        self.due_at[stage] = self.read_at[stage] + interval
        heapq.heappush(self.due, (self.due_at[stage], stage))

    def make_plan(self, requests_per_second: float) -> None:
        self.planned_at = self.now
        self.account_rate = sum(map(len, self.starts)) / len(self.starts)
        self.account_rate /= rules.HISTORY.total_seconds()
        self.urgencies = [self.assess(stage) for stage in range(len(self.urgencies))]
        while self.other_reads and self.other_reads[0] < self.now - HOUR:
            self.other_reads.popleft()
        other_reads = len(self.other_reads) / max(min(self.now, HOUR), 600.0)
        self.plan = rules.make_plan(self.urgencies, requests_per_second, other_reads=other_reads)
        if self.now - self.optimum_at >= OPTIMUM_INTERVAL:
            self._sum_optimum()
        self.due = []
        for stage, urgency in enumerate(self.urgencies):
            interval = self.plan.interval(urgency)
            self.due_at[stage] = self.read_at[stage] + interval
            self.due.append((self.due_at[stage], stage))
            if stage < self.world.mix.stages and not self.mirrored[stage]:
                self.figures.idle_intervals[STAGE_NAMES[stage % 3]].append(interval)
        heapq.heapify(self.due)

    def _sum_optimum(self) -> None:
        """Add the least delay at present, which the true rates and all requests would give."""
        self.optimum_at = self.now
        costs = []
        for stage, runs in enumerate(self.in_flight):
            weight = rules.WEIGHTS[STAGE_NAMES[stage % 3]]
            cost = weight * self.world.start_rate(stage, self.now)
            cost += sum(weigh(run, self.now) * run.hazard(self.now) for run in runs)
            costs.append(cost)
        hour = min(int(self.now / HOUR), len(self.usable_by_hour) - 1)
        reads_per_second = self.usable_by_hour[hour] / HOUR
        urgencies = [math.sqrt(cost) for cost in costs]
        best = rules.make_plan(urgencies, reads_per_second)
        for cost, urgency in zip(costs, urgencies, strict=True):
            self.figures.optimum.add(best.interval(urgency) / 2, cost)

    def tick(self) -> None:
        """Read one thing that is due, if the budget allows."""
        budget = rate_budget.compute(self.window, RESERVE, to_datetime(self.now))
        if budget.backoff_until is not None or not budget.may_read:
            return
        if self.now - self.planned_at >= self.plan_interval or not self.due:
            self.make_plan(budget.requests_per_second)
        if self.wanted:
            stage = self.wanted.popleft()
            if self.unseen[stage]:  # else it was read since
                self.other_reads.append(self.now)
                self.read_list(stage)
                self.schedule(stage)
            return
        if not budget.may_read_planned:
            return
        while self.due and self.due[0][0] <= self.now:
            due_at, stage = heapq.heappop(self.due)
            if due_at == self.due_at[stage]:
                self.read(stage)
                return

    def simulate(self) -> Figures:
        while self.now < self.world.end:
            self.tick()
            next_due = self.due[0][0] if self.due else 0.0
            wake_at = (
                self.now + 0.1 if self.wanted else min(max(next_due, self.now + 0.1), self.now + 5)
            )
            while not self.wanted and self.events and self.events[0][0] < wake_at:
                self.run_events(self.events[0][0])
            self.run_events(max(self.now + 0.1, wake_at) if not self.wanted else self.now + 0.5)
        self.figures.usable = sum(self.usable_by_hour[: int(self.world.end / HOUR)])
        return self.figures


class PlanByClasses(Simulation):
    """The plan that came before: three classes of stages, and shares of the requests."""

    def read(self, stage: int) -> None:
        if stage < self.world.mix.stages:
            self.read_list(stage)
            self.schedule(stage)
        else:
            super().read(stage)

    def assess(self, stage: int) -> float:
        """Return the target interval in seconds, of the class."""
        if stage >= self.world.mix.stages:
            return 600.0
        if self.mirrored[stage]:
            return 10.0
        return 90.0 if self.now - (self.starts[stage] or [-DAY])[-1] < HOUR / 2 else 300.0

    def make_plan(self, requests_per_second: float) -> None:
        super().make_plan(requests_per_second)
        tracking = sum(1 / target for target in self.urgencies if target == 10.0)
        discovery = sum(1 / target for target in self.urgencies if target != 10.0)
        share = 0.05 if self.world.mix.has_webhooks else 0.1
        rate = requests_per_second
        stretch = max(tracking / (rate - min(share * rate, discovery * 3)), 0.4)
        rest = rate - tracking / stretch
        self.plan = StretchedClasses(stretch, max(discovery / max(rest, 1e-9), 1 / 3))
        self.due = []
        for stage in range(len(self.urgencies)):
            self.schedule(stage)


@dataclass(frozen=True)
class StretchedClasses(Plan):
    scale: float  # factor of the interval of stages in flight
    longest: float  # of the others

    def interval(self, stage_urgency: float) -> float:
        return stage_urgency * (self.scale if stage_urgency == 10.0 else self.longest)


def simulate(job: tuple[Mix, float, int]) -> tuple[Mix, Figures, Figures]:
    mix, days, seed = job
    return (
        mix,
        PlanByClasses(World(mix, days, seed)).simulate(),
        Simulation(World(mix, days, seed)).simulate(),
    )


def format_seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def median(values: list[float], share: float = 0.5) -> float:
    return sorted(values)[int(share * len(values))] if values else 0.0


def make_row(mix: Mix, former: Figures, figures: Figures, without: float) -> list[str]:
    """Return the cells; a missed target is bold. `without`: the delay without webhooks."""

    def mark(text: str, *, is_met: bool) -> str:
        return text if is_met else f"**{text}**"

    ratio = figures.delay.mean / figures.optimum.mean
    delivered = median(figures.delivered)
    lost_bound = 2 * without
    return [
        str(mix),
        mark(str(figures.refused), is_met=not figures.refused),
        format_seconds(former.delay.mean),
        format_seconds(figures.delay.mean),
        format_seconds(figures.optimum.mean),
        mark(f"{ratio:.2f}", is_met=mix.has_webhooks or ratio <= TARGET),
        mark(format_seconds(delivered), is_met=delivered <= WEBHOOK_TARGET),
        mark(
            format_seconds(figures.lost.mean),
            is_met=not without or figures.lost.mean <= lost_bound,
        ),
        *(format_seconds(median(figures.idle_intervals[name])) for name in STAGE_NAMES),
        format_seconds(median(figures.step_ages)),
        f"{figures.requests / figures.usable:.0%}",
    ]


HEAD = (
    "Stages / in flight | Others | Webhooks | Refused | Classes | Delay | Optimum | x "
    "| Delivered: p50 | Lost: mean | Idle Production | Staging | Development | Steps | Used"
)


def make_jobs() -> list[Mix]:
    sizes = [(15, 1), (15, 5), (60, 10), (288, 1), (288, 38), (288, 100), (3000, 38), (3000, 100)]
    return [
        Mix(stages, in_flight, others, has_webhooks)
        for stages, in_flight in sizes
        for others in (0.0, 0.3, 0.6)
        for has_webhooks in (False, True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="mixes that contain this text, e.g. '288 / 38'")
    options = parser.parse_args()
    jobs = [(mix, options.days, options.seed) for mix in make_jobs() if options.only in str(mix)]
    started_at, missed, without = time.perf_counter(), 0, 0.0
    print(f"| {HEAD} |\n|{' --- |' * len(HEAD.split(' | '))}")
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for mix, former, figures in pool.map(simulate, jobs):
            without = without if mix.has_webhooks else figures.delay.mean
            cells = make_row(mix, former, figures, without)
            missed += sum(cell.startswith("**") for cell in cells)
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{options.days:g} days, seed {options.seed}; {missed} targets missed.")
    print(f"{time.perf_counter() - started_at:.0f} s", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
