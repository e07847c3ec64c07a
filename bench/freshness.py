"""How fresh the mirror is, and whom its requests cost: simulated days, the sync's real rules.

    uv run bench/freshness.py [--quick] [--days DAYS] [--seed SEED]

Drives `dashboard.sync.schedule` and `dashboard.allowance` against a simulated account whose window
is the sandbox's, and two naive designs against the same. Prints tables in Markdown, and ends with
1 if a target is missed. docs/performance.md says what the figures mean.
"""

import argparse
import heapq
import math
import os
import random
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from dashboard import allowance as rules
from dashboard.northflank import RateLimit
from dashboard.sandbox.limit import Window
from dashboard.sync import schedule
from dashboard.sync.schedule import Demand, StageFacts

LIMIT, RESERVE = 1000, 100
HOUR, DAY = 3600.0, 86400.0
EPOCH = datetime(2026, 3, 2, tzinfo=UTC)
TICK = 0.5  # as the worker's
AT_ONCE, A_READING = 4, 6  # as the worker's
PLAN_EVERY = 5.0  # as the worker's
REPLAN_ALL = 600.0  # seconds between two looks at the thousands of idle stages
LATENCY = 0.2  # seconds from a question to its answer
BELL_SHARE, IN_A_ROW = 0.5, 20  # as the doorbell's
BELL = 1.0  # seconds from an event to its webhook
BELL_ARRIVES = 0.97
VIEWERS = 20


def moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


# --- The world ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mix:
    """One situation: so many stages, about so many of them in flight, what others take."""

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
    awaited: bool = False  # it began in a stage where nothing was known to be in flight
    seen: bool = False
    known_from: float | None = None


@dataclass
class World:
    """What happens, whoever looks: made once for a mix, the same for every design."""

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
            *self._others(random.Random(f"{self.seed} others {self.mix.others}")),
        ]
        happenings.sort(key=lambda event: event[0])
        self.events = [(at, n, kind, what) for n, (at, kind, what) in enumerate(happenings)]

    @property
    def end(self) -> float:
        return self.days * DAY

    @property
    def weights(self) -> list[float]:
        """The stages' parts of all runs: few have most of them."""
        return [1 / rank**0.8 for rank in range(1, self.mix.stages + 1)]

    def _runs(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        # Most runs last minutes, some hours.
        weights = self.weights
        median, spread = 20 * 60, 1.0
        mean = median * math.exp(spread**2 / 2)
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
            if chance.random() < (1 if _by_day(at) else 0.25):  # 1.6 a day's hour, 0.4 a night's
                (stage,) = chance.choices(range(self.mix.stages), weights)
                lasts = min(max(chance.lognormvariate(math.log(median), spread), 60), 8 * HOUR)
                yield at, "start", Run(stage, at, at + lasts)

    def _looks(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        # Of twenty people most have Now or the board open, which asks for nothing; now and then
        # one opens a stage or a run.
        at = 0.0
        while (at := at + chance.expovariate(6 / HOUR)) < self.end:
            if _by_day(at) or chance.random() < 0.2:
                yield at, "look", (chance.random(), chance.expovariate(1 / 240))

    def _aborts(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        at = 0.0
        while (at := at + chance.expovariate(5 / DAY)) < self.end:
            for _ in range(5 if chance.random() < 0.1 else 1):
                yield at, "abort", chance.random()

    def _others(self, chance: random.Random) -> Iterator[tuple[float, str, object]]:
        if not self.mix.others:
            return
        mean = 5.5  # requests of one script, within half a minute
        at = 0.0
        while (at := at + chance.expovariate(self.mix.others * LIMIT / HOUR / mean)) < self.end:
            for _ in range(chance.randint(1, 10)):
                yield at + chance.uniform(0, 30), "other", None


def _by_day(at: float) -> bool:
    return 8 <= at % DAY / HOUR < 20


# --- What is counted ----------------------------------------------------------------------------


@dataclass
class Ages:
    """Ages over time: between two readings `length` apart each age from 0 to it occurs alike."""

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

    opened: float
    ours: int = 0  # readings, aborts left out
    aborts: int = 0  # sending and following
    others: int = 0
    refused: int = 0
    found: int = 0  # stages that came to be known as in flight
    always_in_flight: bool = True
    flights: dict[int, float] = field(default_factory=dict)  # stages in flight -> seconds


@dataclass
class Figures:
    """What came out for one design in one mix."""

    ages: Ages = field(default_factory=Ages)
    bound: Ages = field(default_factory=Ages)
    all_spent: Ages = field(default_factory=Ages)  # a bound that finds for nothing
    delays: list[float] = field(default_factory=list)
    refused_ours: int = 0
    refused_for_us: int = 0
    aborts: int = 0
    aborts_refused: int = 0
    used: float = 0.0
    usable: float = 0.0
    known_time: float = 0.0
    run_time: float = 0.0

    def add_hour(self, hour: Hour) -> None:
        demand = hour.others + hour.aborts  # what would have been asked without our reading
        self.refused_for_us += max(hour.refused - max(demand - LIMIT, 0), 0)
        usable = LIMIT - RESERVE - demand
        if hour.always_in_flight and usable > 0:
            self.used += hour.ours
            self.usable += usable
        # A stage's first age begins with the reading that finds its run: k ages, k + 1 readings.
        for bound, requests in ((self.bound, usable - hour.found), (self.all_spent, usable)):
            rate = max(requests, 36) / HOUR
            for flying, seconds in hour.flights.items():
                # Spread evenly over the stages in flight: each is read every `flying / rate` s.
                bound.add(flying / rate, seconds * rate)


# --- Simulations --------------------------------------------------------------------------------


class Simulation:
    """An account, a mirror of it, and what happens to both; designs say when to read what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = 0.0
        self.window = Window(LIMIT, HOUR)
        self.hour: Hour | None = None
        self.figures = Figures()
        self.flying: dict[int, set[Run]] = {}  # the truth
        self.unseen: dict[int, list[Run]] = {}
        self.known: dict[int, float] = {}  # stages mirrored as in flight -> when last read
        self.known_runs: dict[int, set[Run]] = {}
        self._known_at = 0.0
        self._next = 0
        self._later: list[tuple[float, int, str, object]] = []
        self._count = len(world.events)
        self.chance = random.Random(f"{world.seed} design")

    def later(self, at: float, kind: str, what: object) -> None:
        self._count += 1
        heapq.heappush(self._later, (at, self._count, kind, what))

    def next_event(self) -> float:
        events = self.world.events
        soonest = events[self._next][0] if self._next < len(events) else math.inf
        return min(soonest, self._later[0][0]) if self._later else soonest

    def happen(self, until: float) -> None:
        """Let all happen that happens until then."""
        events = self.world.events
        while self.next_event() <= until:
            if self._later and (
                self._next == len(events) or self._later[0][0] < events[self._next][0]
            ):
                at, _, kind, what = heapq.heappop(self._later)
            else:
                at, _, kind, what = events[self._next]
                self._next += 1
            self.now = max(self.now, at)
            getattr(self, f"on_{kind}")(at, what)
        self.now = max(self.now, until)

    def take(self, at: float, who: str) -> bool:
        """Count a request upstream; False: 429."""
        before = self.window.opened
        taken = self.window.take(at)
        if self.window.opened != before:
            self._turn(at)
        assert self.hour is not None
        setattr(self.hour, who, getattr(self.hour, who) + 1)
        self.hour.refused += not taken
        return taken

    def _turn(self, at: float) -> None:
        self._count_flights(at)
        if self.hour is not None:
            self.figures.add_hour(self.hour)
        self.hour = Hour(at, always_in_flight=any(self.flying.values()))

    def _count_flights(self, at: float) -> None:
        if self.hour is not None:
            n = len(self.known)
            if n:
                self.hour.flights[n] = self.hour.flights.get(n, 0.0) + at - self._known_at
        self._known_at = at

    def see(self, stage: int, at: float) -> bool:
        """Mirror a stage as it is now; True: something has changed."""
        if stage in self.known:
            self.figures.ages.add(at - self.known[stage])
        self._count_flights(at)
        new = self.unseen.pop(stage, [])
        for run in new:
            run.seen = True
            run.known_from = at
            if run.awaited:
                self.figures.delays.append(at - run.start)
        flying = self.flying.get(stage, set())
        before = self.known_runs.get(stage, set())
        for run in before - flying:
            assert run.known_from is not None
            self.figures.known_time += run.end - run.known_from
        changed = bool(new) or before != flying
        if flying and stage not in self.known and self.hour is not None:
            self.hour.found += 1
        if flying:
            self.known[stage], self.known_runs[stage] = at, set(flying)
        else:
            self.known.pop(stage, None)
            self.known_runs.pop(stage, None)
        return changed

    def see_run(self, run: Run, at: float) -> None:
        """Mirror a run's detail: where it is all that is in flight, its stage is as fresh."""
        if self.known_runs.get(run.stage) == {run} and run.end > at:
            self.figures.ages.add(at - self.known[run.stage])
            self.known[run.stage] = at

    def on_start(self, at: float, run: Run) -> None:
        run = Run(run.stage, run.start, run.end, awaited=run.stage not in self.known)
        self.flying.setdefault(run.stage, set()).add(run)
        self.unseen.setdefault(run.stage, []).append(run)
        self.later(run.end, "end", run)
        self._ring(at, run.stage)

    def on_end(self, at: float, run: Run) -> None:
        if run.end > at or run not in self.flying.get(run.stage, ()):
            return
        self.flying[run.stage].discard(run)
        if not self.flying[run.stage]:
            del self.flying[run.stage]
        if not self.flying and self.hour is not None:
            self.hour.always_in_flight = False
        self.figures.run_time += run.end - run.start
        self._ring(at, run.stage)

    def _ring(self, at: float, stage: int) -> None:
        if self.world.mix.push and self.chance.random() < BELL_ARRIVES:
            self.later(at + BELL, "bell", stage)

    def on_bell(self, at: float, stage: int) -> None: ...

    def on_look(self, at: float, what: object) -> None: ...

    def on_other(self, at: float, _: None) -> None:
        self.take(at, "others")

    def on_abort(self, at: float, chance: float) -> None:
        runs = [
            run
            for stage in sorted(self.known)
            for run in sorted(self.known_runs[stage], key=lambda run: run.start)
            if run.end > at + 60
        ]
        if not runs:
            return
        run = runs[int(chance * len(runs))]
        self.figures.aborts += 1
        if not self.take(at, "aborts"):
            self.figures.aborts_refused += 1
            return
        run.end = min(run.end, at + 10 + 60 * chance)
        self.later(run.end, "end", run)
        self.aborted(run, at)

    def aborted(self, run: Run, at: float) -> None: ...

    def run(self) -> Figures:
        self.work()
        self._turn(self.now)
        return self.figures

    def work(self) -> None:
        raise NotImplementedError


class Ours(Simulation):
    """The sync's own rules: `schedule` says what is wanted, `allowance` what may be spent."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.budget: rules.Window | None = None
        self.active: dict[int, datetime] = {}
        self.watched: dict[int, float] = {}  # stage -> until when
        self.watched_runs: dict[Run, tuple[float, float]] = {}  # until when, when read
        self.aborting: dict[Run, tuple[float, float]] = {}  # since when, due
        self.followed: dict[int, tuple[float, float, float]] = {}  # last, booked, wanted
        # The mirror is there already: each stage was read some time ago, and quiet since its last
        # run.
        self.read_at: dict[int, float] = {}
        each = world.runs_a_second / sum(world.weights)
        for stage, weight in enumerate(world.weights):
            self.active[stage] = moment(-self.chance.expovariate(each * weight))
            self.read_at[stage] = 0.0
        self.booked = dict.fromkeys(self.read_at, math.inf)
        self.due: list[tuple[float, int]] = []
        self.bells: deque[float] = deque()  # of the last hour
        self.paced_until = -math.inf
        self.rung: set[int] = set()  # not yet read since
        # Lists of the catalogue, and flows read again: each kind as one queue.
        self.projects = 1 + math.ceil(world.mix.stages / 10)
        self.queues = {"catalogue": 0.0, "flow": 0.0}
        self.discovery = 0.0
        self.planned_at = self.looked_at_all = -math.inf
        self.plan = schedule.plan(Demand(), 0.25)

    def facts(self, stage: int) -> StageFacts:
        watched = self.watched.get(stage, -math.inf) > self.now
        return StageFacts(
            True,
            len(self.known_runs.get(stage, ())),
            moment(self.now) if watched else None,
            self.active.get(stage),
        )

    def book(self, stage: int) -> None:
        facts, now = self.facts(stage), moment(self.now)
        booked = self.now + LATENCY + self.plan.interval(facts, now).total_seconds()
        self.booked[stage] = booked
        if schedule.class_of(facts, now).followed:
            self.followed[stage] = self.read_at[stage], booked, schedule.class_of(facts, now).value
        else:
            self.followed.pop(stage, None)
            heapq.heappush(self.due, (booked, stage))

    # What changes a stage's class

    def on_look(self, at: float, what: object) -> None:
        chance, lasts = what  # type: ignore[misc]
        known = sorted(self.known)
        if chance < 0.75 and known:
            stage = known[int(chance / 0.75 * len(known))]
            if int(chance * 1000) % 2:
                run = min(self.known_runs[stage], key=lambda run: run.start)
                self.watched_runs[run] = at + lasts, -math.inf
                return
        else:
            stage = int(chance * 1e6) % self.world.mix.stages
        until = at + lasts + schedule.WATCHED_FOR.total_seconds()
        self.watched[stage] = until
        self.later(until, "unlook", stage)
        self._hurry(stage)

    def on_unlook(self, at: float, stage: int) -> None:
        if self.watched.get(stage, math.inf) <= at:
            del self.watched[stage]
            self.book(stage)

    def _hurry(self, stage: int) -> None:
        facts, now = self.facts(stage), moment(self.now)
        wanted = schedule.class_of(facts, now).value
        self.followed[stage] = self.read_at[stage], self.booked[stage], wanted

    def on_bell(self, at: float, stage: int) -> None:
        self.bells.append(at)
        # It is followed, and goes before what is only overdue; at its turn, as the doorbell's.
        rate = rules.allowance(self.budget, RESERVE, moment(at)).per_second * BELL_SHARE
        gap = min(1 / max(rate, 1e-6), 300.0)
        turn = max(self.paced_until, at - gap * IN_A_ROW) + gap
        booked = self.booked[stage]
        if booked <= max(turn, at) and (stage in self.known or stage in self.rung):
            return
        self.paced_until = turn
        self.booked[stage] = min(booked, max(turn, at))
        self.rung.add(stage)
        self._hurry(stage)

    def aborted(self, run: Run, at: float) -> None:
        self._heard(at, refused=False)
        self.aborting[run] = at, at + schedule.aborting_interval(timedelta()).total_seconds()

    # Requests

    def _heard(self, at: float, *, refused: bool) -> None:
        window, now = self.window, moment(at)
        said = RateLimit(LIMIT, max(LIMIT - window.used, 0), window.resets_in(at))
        self.budget = rules.heard(self.budget, said, RESERVE, now)
        if refused:
            self.budget = rules.refused(self.budget, said.reset_seconds, now)

    def ask(self, who: str = "ours") -> bool:
        taken = self.take(self.now, who)
        self._heard(self.now, refused=not taken)
        self.figures.refused_ours += not taken
        return taken

    def read(self, stage: int) -> None:
        if self.ask():
            self.rung.discard(stage)
            self.read_at[stage] = self.now
            if self.see(stage, self.now):
                self.active[stage] = moment(self.now)
        self.book(stage)

    def follow_abort(self, run: Run) -> None:
        if not self.ask("aborts"):
            return
        since, _ = self.aborting[run]
        if run.end <= self.now:
            del self.aborting[run]
            self.on_bell(self.now, run.stage)  # its detail tells the end; its list follows
            return
        wait = schedule.aborting_interval(timedelta(seconds=self.now - since)).total_seconds()
        self.aborting[run] = since, self.now + wait

    def replan(self, spend: rules.Allowance) -> None:
        now = moment(self.now)
        first = self.looked_at_all == -math.inf
        if self.now - self.looked_at_all > REPLAN_ALL:
            self.looked_at_all = self.now
            self.discovery, rebooked = 0.0, []
            for stage in range(self.world.mix.stages):
                if stage in self.followed:
                    continue
                facts = self.facts(stage)
                self.discovery += 1 / schedule.class_of(facts, now).value
                wanted = self.plan.interval(facts, now).total_seconds()
                self.booked[stage] = min(self.booked[stage], self.read_at[stage] + wanted)
                rebooked.append((self.booked[stage], stage))
            heapq.heapify(rebooked)
            self.due = rebooked
        following = sum(
            1 / wanted
            for stage, (_, _, wanted) in self.followed.items()
            if stage in self.known or stage not in self.rung  # the bells have their own part
        )
        self.watched_runs = {
            run: (until, last)
            for run, (until, last) in self.watched_runs.items()
            if until > self.now and run in self.known_runs.get(run.stage, ())
        }
        following += len(self.watched_runs) / schedule.StageClass.WATCHED.value
        lists = self.projects / schedule.CATALOGUE_EVERY.total_seconds()
        flows = self.world.mix.stages / schedule.FLOW_EVERY.total_seconds()
        while self.bells and self.bells[0] < self.now - HOUR:
            self.bells.popleft()
        # The sync counts the runs that have ended; each rings when it starts and when it ends.
        rung = schedule.READINGS_A_RUN * len(self.bells) / 2 / HOUR
        demand = Demand(following, self.discovery + lists + flows, rung=rung)
        self.plan = schedule.plan(demand, spend.per_second, push_alive=self.world.mix.push)
        self.planned_at = self.now
        if first:
            for stage in self.read_at:
                interval = self.plan.interval(self.facts(stage), now).total_seconds()
                self.booked[stage] = self.chance.random() * interval
                self.read_at[stage] = self.booked[stage] - interval
            self.due = sorted((booked, stage) for stage, booked in self.booked.items())

    def work(self) -> None:
        while self.now < self.world.end:
            wake = self._tick()
            soonest = min(max(wake, self.now + TICK), self.now + 30)
            # What happens meanwhile may make something due.
            while self.next_event() < soonest and self._quiet_until(soonest):
                pass
            ahead = math.ceil(soonest / TICK) * TICK
            self.happen(ahead)

    def _quiet_until(self, soonest: float) -> bool:
        """Let others' requests happen; False: something of ours comes first."""
        events = self.world.events
        if self._next < len(events) and events[self._next][2] == "other":
            at = events[self._next][0]
            if at < soonest and (not self._later or self._later[0][0] > at):
                self.happen(at)
                return True
        return False

    def _tick(self) -> float:  # noqa: PLR0912 - it is the worker's tick, as one piece
        """Read what is due and may be read; return when to look again."""
        spend = rules.allowance(self.budget, RESERVE, moment(self.now))
        if spend.refused_until is not None:
            return (spend.refused_until - EPOCH).total_seconds()
        if not spend.may_follow:
            return self.now + 5
        wake = self.now + 5
        hands = AT_ONCE
        for run, (_, due) in list(self.aborting.items()):
            if due <= self.now and hands:
                hands -= 1
                self.follow_abort(run)
            elif due < wake:
                wake = due
        hands = min(hands, spend.requests // A_READING) if spend.may_read else 0
        if hands <= 0:
            return min(wake, self.now + TICK)
        if self.now - self.planned_at >= PLAN_EVERY:
            self.replan(spend)
        factor, watched = self.plan.following, self.plan.watched.total_seconds()
        for run, (until, last) in list(self.watched_runs.items()):
            if last + watched <= self.now and hands:
                hands -= 1
                self.watched_runs[run] = until, self.now
                if self.ask():
                    self.see_run(run, self.now)
            else:
                wake = min(wake, last + watched)
        due = []
        for stage, (last, booked, wanted) in self.followed.items():
            at = min(booked, last + wanted * factor)
            if at <= self.now:
                due.append((at, stage))
            elif at < wake:
                wake = at
        due.sort()
        for _, stage in due[:hands]:
            self.read(stage)
        hands -= len(due[:hands])
        if not hands:
            return self.now + TICK
        if not spend.may_discover:
            return min(wake, self.now + 2.0)
        for kind, each in (
            ("catalogue", schedule.CATALOGUE_EVERY / self.projects),
            ("flow", schedule.FLOW_EVERY / self.world.mix.stages),
        ):
            if self.queues[kind] <= self.now and hands:
                hands -= 1
                self.ask()
                every = each.total_seconds() * self.plan.discovery
                self.queues[kind] = max(self.queues[kind], self.now - HOUR) + every
        while self.due:
            booked, stage = self.due[0]
            if booked > self.now:
                return min(wake, booked)
            if not hands:
                return self.now + TICK
            heapq.heappop(self.due)
            if booked == self.booked[stage] and stage not in self.followed:
                hands -= 1
                self.read(stage)
        return wake


class FixedInterval(Simulation):
    """Every stage once a minute, whatever is going on; what is refused is tried next time."""

    every = 60.0

    def work(self) -> None:
        stages = self.world.mix.stages
        while self.now < self.world.end:
            for stage in range(stages):
                self.happen(self.now + self.every / stages)
                if self.take(self.now, "ours"):
                    self.see(stage, self.now)
                else:
                    self.figures.refused_ours += 1


class OnView(Simulation):
    """Each open page asks Northflank at each of its refreshes; nothing is read otherwise."""

    every = 15.0

    def work(self) -> None:
        shown = [0] * VIEWERS
        while self.now < self.world.end:
            people = VIEWERS if _by_day(self.now) else 2
            for person in range(people):
                self.happen(self.now + self.every / people)
                if self.chance.random() < self.every / 300:  # another page, every five minutes
                    flying = sorted(self.flying)
                    anywhere = self.chance.randrange(self.world.mix.stages)
                    shown[person] = self.chance.choice(flying) if flying else anywhere
                if self.take(self.now, "ours"):
                    self.see(shown[person], self.now)
                else:
                    self.figures.refused_ours += 1


DESIGNS: dict[str, Callable[[World], Simulation]] = {
    "ours": Ours,
    "every stage, once a minute": FixedInterval,
    "on page view, 20 viewers": OnView,
}


# --- Tables -------------------------------------------------------------------------------------


def mixes() -> list[tuple[str, Mix]]:
    sizes = [(30, 6), (300, 15), (3000, 40)]
    ours = [
        ("ours", Mix(stages, flying, others, push))
        for stages, flying in sizes
        for others in (0.0, 0.3, 0.6)
        for push in (False, True)
    ]
    naive = [
        (design, Mix(stages, flying, 0.3))
        for design in DESIGNS
        if design != "ours"
        for stages, flying in sizes[:2]  # more stages make it worse, and the simulation long
    ]
    return ours + naive


def simulate(job: tuple[str, Mix, float, int]) -> tuple[str, Mix, Figures]:
    design, mix, days, seed = job
    return design, mix, DESIGNS[design](World(mix, days, seed)).run()


def seconds(figure: float) -> str:
    return f"{figure:.1f} s" if figure < 600 else f"{figure / 60:.0f} min"


def _times(age: float, bound: float) -> str:
    return f"{age / bound:.2f}" if bound else ""


def row(mix: Mix, found: Figures) -> tuple[list[str], int]:
    """Return the cells of one line, and how many targets it misses (those are bold)."""
    missed = 0

    def held(text: str, met: bool) -> str:
        nonlocal missed
        missed += not met
        return text if met else f"**{text}**"

    delays = sorted(found.delays)
    mean = found.ages.mean / found.bound.mean if found.bound.mean else 0.0
    p95 = found.ages.p95 / found.bound.p95 if found.bound.p95 else 0.0
    used = found.used / found.usable if found.usable else 0.0
    cells = [
        str(mix),
        held(f"{found.refused_ours + found.refused_for_us}", met=not found.refused_for_us),
        f"{seconds(found.ages.mean)} / {seconds(found.bound.mean)}",
        held(f"{mean:.2f}", mean <= 1.2),
        f"{seconds(found.ages.p95)} / {seconds(found.bound.p95)}",
        held(f"{p95:.2f}", p95 <= 1.2),
        _times(found.ages.mean, found.all_spent.mean),
        _times(found.ages.p95, found.all_spent.p95),
        f"{found.known_time / found.run_time:.0%}" if found.run_time else "",
        seconds(delays[len(delays) // 2]) if delays else "",
        seconds(delays[int(len(delays) * 0.95)]) if delays else "",
        held(f"{used:.1%}", used >= 0.95) if found.usable else "",
        held(f"{found.aborts_refused} of {found.aborts}", not found.aborts_refused),
    ]
    return cells, missed


HEAD = (
    "Stages / in flight | Others | Push | Refused | Mean age / bound | × | p95 / bound | × "
    "| Finding free: × | p95 × | Known | New run: p50 | p95 | Used | Aborts refused"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="two days")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="mixes that hold this text, e.g. '300 / 15'")
    asked = parser.parse_args()
    days = 2.0 if asked.quick else asked.days
    jobs = [(d, m, days, asked.seed) for d, m in mixes() if asked.only in f"{d} | {m}"]
    began, missed, last = time.perf_counter(), 0, ""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for design, mix, found in pool.map(simulate, jobs):
            if design != last:
                print(f"\n**{design}**\n\n| {HEAD} |\n|{' --- |' * len(HEAD.split(' | '))}")
                last = design
            cells, misses = row(mix, found)
            missed += misses if design == "ours" else 0
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"\n{days:g} days, seed {asked.seed}; {missed} targets missed.")
    print(f"{time.perf_counter() - began:.0f} s", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
