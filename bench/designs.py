"""Schedules against a simulated account: the sync's own rules, and two naive designs."""

import heapq
import math
import os
import random
import sys
from collections import defaultdict, deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
# The rules import models, which need settings; nothing is read from a database.
os.environ |= {
    "DJANGO_SETTINGS_MODULE": "dashboard.settings",
    "NORTHFLANK_API_TOKEN": "sandbox",
    "SECRET_KEY": "only-for-the-bench-" + "x" * 40,
}

import django

django.setup()

from simulated import DAY, HOUR, LASTS, LIMIT, RESERVE, SPREAD, Figures, Hour, Run, World, by_day

from dashboard.models.typical_duration import MAX_SAMPLES, MIN_SAMPLES
from dashboard.northflank import RateLimit
from dashboard.sandbox.http import RateLimitWindow
from dashboard.sync import schedule
from dashboard.sync.schedule import Demand, StageFacts
from dashboard.upstream import rate_budget as rules

EPOCH = datetime(2026, 3, 2, tzinfo=UTC)
TICK = 0.5  # as the worker's
AT_ONCE, A_READING = 4, 6  # as the worker's
FIRST_AT_ONCE, MOST_AT_ONCE, A_FIRST_READING = 4, 12, 3  # as the worker's
PLAN_EVERY = 5.0  # as the worker's
REPLAN_ALL = 600.0  # seconds between two plans that include all idle stages
LATENCY = 0.2  # seconds from a request to its answer
BELL_SHARE, IN_A_ROW = 0.5, 20  # as in sync/webhooks/events.py
BELL = 1.0  # seconds until an event arrives
BELL_ARRIVES = 0.97
VIEWERS = 20
OVERDUE_AFTER = LASTS * math.exp(1.28 * SPREAD)  # above p95: a tenth of all runs


def moment(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


class Simulation:
    """An account and its mirror; subclasses decide when to read what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = 0.0
        self.window = RateLimitWindow(LIMIT, HOUR)
        self.hour: Hour | None = None
        self.figures = Figures()
        self.flying: dict[int, set[Run]] = {}  # stage -> runs really in flight
        self.unseen: dict[int, list[Run]] = {}
        self.known: dict[int, float] = {}  # stages mirrored as in flight -> when last read
        self.known_runs: dict[int, set[Run]] = {}
        self._known_at = 0.0
        self._next = 0
        self._later: list[tuple[float, int, str, object]] = []
        self._count = len(world.events)
        self.chance = random.Random(f"{world.seed} design")

    def later(self, at: float, kind: str, payload: object) -> None:
        self._count += 1
        heapq.heappush(self._later, (at, self._count, kind, payload))

    def next_event(self) -> float:
        events = self.world.events
        soonest = events[self._next][0] if self._next < len(events) else math.inf
        return min(soonest, self._later[0][0]) if self._later else soonest

    def happen(self, until: float) -> None:
        """Process all events until this time."""
        events = self.world.events
        while self.next_event() <= until:
            if self._later and (
                self._next == len(events) or self._later[0][0] < events[self._next][0]
            ):
                at, _, kind, payload = heapq.heappop(self._later)
            else:
                at, _, kind, payload = events[self._next]
                self._next += 1
            self.now = max(self.now, at)
            getattr(self, f"on_{kind}")(at, payload)
        self.now = max(self.now, until)

    def take(self, at: float, caller: str) -> bool:
        """Count a request; False: it is answered 429."""
        before = self.window.opened_at
        taken = self.window.count_request(at)
        if self.window.opened_at != before:
            self._turn(at)
        assert self.hour is not None
        setattr(self.hour, caller, getattr(self.hour, caller) + 1)
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
        """Mirror a stage's current state; return whether it changed."""
        if stage in self.known:
            self.figures.ages.add(at - self.known[stage])
        self._count_flights(at)
        new = self.unseen.pop(stage, [])
        for run in new:
            run.seen = True
            run.known_from = at
            if run.awaited:
                self.figures.delays.append(at - run.start)
            if run.end <= at:
                self.ended(run, is_known=False)
        flying = self.flying.get(stage, set())
        before = self.known_runs.get(stage, set())
        for run in before - flying:
            assert run.known_from is not None
            self.figures.known_time += run.end - run.known_from
            self.ended(run, is_known=True)
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
        """Mirror a run's detail; its stage is as fresh if no other run is in flight there."""
        if self.known_runs.get(run.stage) == {run} and run.end > at:
            self.figures.ages.add(at - self.known[run.stage])
            self.known[run.stage] = at

    def on_start(self, at: float, run: Run) -> None:
        awaited = run.stage not in self.known
        run = Run(run.stage, run.start, run.end, run.succeeds, awaited=awaited)
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

    def on_look(self, at: float, payload: object) -> None: ...

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
        run.end, run.succeeds = min(run.end, at + 10 + 60 * chance), False
        self.later(run.end, "end", run)
        self.aborted(run, at)

    def aborted(self, run: Run, at: float) -> None: ...

    def ended(self, run: Run, *, is_known: bool) -> None:
        """Handle the end of a run; `known`: it was mirrored as in flight before."""

    def run(self) -> Figures:
        self.work()
        self._turn(self.now)
        return self.figures

    def work(self) -> None:
        raise NotImplementedError


class ProductSync(Simulation):
    """The sync's own rules: `schedule` for intervals, `rate_budget` for the rate."""

    learns = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.budget: rules.RateLimitWindow | None = None
        self.active: dict[int, datetime] = {}
        self.watched: dict[int, float] = {}  # stage -> until when
        self.watched_runs: dict[Run, tuple[float, float]] = {}  # until when, when read
        self.aborting: dict[Run, tuple[float, float]] = {}  # since when, due
        # The latest successes of each stage, for step baselines; none is known at the start.
        self.successes: defaultdict[int, deque[Run]] = defaultdict(
            lambda: deque(maxlen=MAX_SAMPLES)
        )
        self.unread: deque[Run] = deque()  # runs whose detail is due because somebody watches
        self.next_detail: tuple[float, Run] | None = None  # time and run of the scheduled detail
        self.followed: dict[int, tuple[float, float, float]] = {}  # last read, next, target
        # The mirror is complete: each stage was read some time ago, and had no change since its
        # last run.
        self.read_at: dict[int, float] = {}
        rate_per_weight = world.runs_a_second / sum(world.weights)
        for stage, weight in enumerate(world.weights):
            self.active[stage] = moment(-self.chance.expovariate(rate_per_weight * weight))
            self.read_at[stage] = 0.0
        self.booked = dict.fromkeys(self.read_at, math.inf)
        self.due: list[tuple[float, int]] = []
        self.bells: deque[float] = deque()  # times of the events of the last hour
        self.reads_booked_until = -math.inf
        self.rung: set[int] = set()  # stages with an event since their last read
        self.gaps: set[int] = set()  # unread stages
        # Catalog lists and release flows: one queue for each kind.
        self.projects = 1 + math.ceil(world.mix.stages / 10)
        self.queues = {"catalog": 0.0, "flow": 0.0}
        self.discovery = 0.0
        self.planned_at = self.looked_at_all = -math.inf
        self.plan = schedule.make_plan(Demand(), 0.25)

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
        booked = self.now + LATENCY + self.plan.stage_interval(facts, now).total_seconds()
        self.booked[stage] = booked
        if schedule.classify(facts, now).is_tracked:
            self.followed[stage] = self.read_at[stage], booked, schedule.classify(facts, now).value
        else:
            self.followed.pop(stage, None)
            heapq.heappush(self.due, (booked, stage))

    # Events that change a stage's class

    def on_look(self, at: float, payload: object) -> None:
        chance, lasts = payload  # type: ignore[misc]
        stages = sorted(self.known)
        if chance < 0.75 and stages:
            stage = stages[int(chance / 0.75 * len(stages))]
            if int(chance * 1000) % 2:
                run = min(self.known_runs[stage], key=lambda run: run.start)
                self.watched_runs[run] = at + lasts, -math.inf
                self._wonder(stage)
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
        target = schedule.classify(facts, now).value
        self.followed[stage] = self.read_at[stage], self.booked[stage], target

    def on_bell(self, at: float, stage: int) -> None:
        self.bells.append(at)
        # Tracked, and before stages that are only due; spaced as in webhook_events.py.
        rate = rules.compute(self.budget, RESERVE, moment(at)).requests_per_second * BELL_SHARE
        gap = min(1 / max(rate, 1e-6), 300.0)
        turn = max(self.reads_booked_until, at - gap * IN_A_ROW) + gap
        booked = self.booked[stage]
        if booked <= max(turn, at) and (stage in self.known or stage in self.rung):
            return
        self.reads_booked_until = turn
        self.booked[stage] = min(booked, max(turn, at))
        self.rung.add(stage)
        self._hurry(stage)

    def aborted(self, run: Run, at: float) -> None:
        self._heard(at, refused=False)
        self.aborting[run] = at, at + schedule.aborting_interval(timedelta()).total_seconds()

    # Typical durations: the rules of sync/baselines.py

    def _knows_steps(self, stage: int) -> bool:
        return sum(run.read for run in self.successes[stage]) >= MIN_SAMPLES

    def ended(self, run: Run, *, is_known: bool) -> None:
        if run.succeeds and self.learns:
            self.successes[run.stage].append(run)
            self._learn(run.stage)

    def _learn(self, stage: int) -> None:
        if self._knows_steps(stage):
            self.figures.observed_at.setdefault(stage, self.now)

    def _wonder(self, stage: int) -> None:
        """Make the details for a stage's baseline due, because somebody watches it."""
        if len(self.successes[stage]) >= MIN_SAMPLES and not self._knows_steps(stage):
            latest = list(self.successes[stage])[-MIN_SAMPLES:]
            self.unread += [run for run in latest if not run.read and run not in self.unread]

    def book_detail(self, spend: rules.ReadBudget) -> bool:
        """Schedule the next detail without a viewer; return whether one is scheduled."""
        if self.next_detail is None and (run := self._choose_detail()) is not None:
            wait = schedule.baseline_interval(spend.requests_per_second).total_seconds()
            self.next_detail = self.now + wait, run
        return self.next_detail is not None

    def _choose_detail(self) -> Run | None:
        late = {
            stage
            for stage, runs in self.known_runs.items()
            if any(run.start + OVERDUE_AFTER <= self.now for run in runs)
        }
        wanting = [
            (
                stage not in late,
                stage in self.figures.observed_at,
                -sum(run.read for run in successes),
                successes[-1].end,
                stage,
            )
            for stage, successes in self.successes.items()
            if len(successes) >= MIN_SAMPLES and not self._knows_steps(stage)
        ]
        if not wanting:
            return None
        successes = self.successes[min(wanting)[-1]]
        return next(run for run in reversed(successes) if not run.read)

    def read_details(self, slots: int) -> int:
        """Read due details with the free slots; return how many slots are left."""
        while self.unread and slots:
            slots -= 1
            if not self.ask():
                break
            self._read_detail(self.unread.popleft())
        if self.next_detail is not None and self.next_detail[0] <= self.now and slots:
            slots -= 1
            _, run = self.next_detail
            if self.ask():
                self._read_detail(run)
            self.next_detail = None
        return slots

    def _read_detail(self, run: Run) -> None:
        run.read = True
        self.figures.details += 1
        self._learn(run.stage)

    # Requests

    def _heard(self, at: float, *, refused: bool) -> None:
        window, now = self.window, moment(at)
        rate_limit = RateLimit(
            LIMIT, max(LIMIT - window.request_count, 0), window.seconds_until_reset(at)
        )
        self.budget = rules.after_response(self.budget, rate_limit, RESERVE, now)
        if refused:
            self.budget = rules.after_rate_limited(self.budget, rate_limit.reset_seconds, now)

    def ask(self, caller: str = "ours") -> bool:
        taken = self.take(self.now, caller)
        self._heard(self.now, refused=not taken)
        self.figures.refused_ours += not taken
        return taken

    def read(self, stage: int) -> None:
        if self.ask():
            self.rung.discard(stage)
            self.gaps.discard(stage)
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
            self.on_bell(self.now, run.stage)  # the detail shows the end; the list is read next
            return
        wait = schedule.aborting_interval(timedelta(seconds=self.now - since)).total_seconds()
        self.aborting[run] = since, self.now + wait

    def replan(self, spend: rules.ReadBudget) -> None:
        now = moment(self.now)
        first = self.looked_at_all == -math.inf
        if self.now - self.looked_at_all > REPLAN_ALL:
            self.looked_at_all = self.now
            self.discovery, rebooked = 0.0, []
            for stage in range(self.world.mix.stages):
                if stage in self.followed:
                    continue
                facts = self.facts(stage)
                self.discovery += 1 / schedule.classify(facts, now).value
                interval = self.plan.stage_interval(facts, now).total_seconds()
                self.booked[stage] = min(self.booked[stage], self.read_at[stage] + interval)
                rebooked.append((self.booked[stage], stage))
            heapq.heapify(rebooked)
            self.due = rebooked
        following = sum(
            1 / interval
            for stage, (_, _, interval) in self.followed.items()
            if stage in self.known or stage not in self.rung  # webhook events have their own share
        )
        self.watched_runs = {
            run: (until, last)
            for run, (until, last) in self.watched_runs.items()
            if until > self.now and run in self.known_runs.get(run.stage, ())
        }
        following += len(self.watched_runs) / schedule.StageClass.WATCHED.value
        lists = self.projects / schedule.CATALOG_INTERVAL.total_seconds()
        flows = self.world.mix.stages / schedule.FLOW_INTERVAL.total_seconds()
        while self.bells and self.bells[0] < self.now - HOUR:
            self.bells.popleft()
        # The sync counts ended runs; each has an event at its start and its end.
        rung = schedule.WEBHOOK_READS_PER_RUN * len(self.bells) / 2 / HOUR
        learning = self.learns and self.book_detail(spend)
        discovery = self.discovery + lists + flows
        unread = bool(self.gaps)
        demand = Demand(
            following, discovery, webhook_reads=rung, has_baseline_reads=learning, has_gaps=unread
        )
        self.plan = schedule.make_plan(
            demand, spend.requests_per_second, webhook_alive=self.world.mix.push
        )
        self.planned_at = self.now
        if first:
            for stage in self.read_at:
                interval = self.plan.stage_interval(self.facts(stage), now).total_seconds()
                self.booked[stage] = self.chance.random() * interval
                self.read_at[stage] = self.booked[stage] - interval
            self.due = sorted((booked, stage) for stage, booked in self.booked.items())

    def work(self) -> None:
        self._work()
        self.figures.teaching = sum(
            len(successes) >= MIN_SAMPLES for successes in self.successes.values()
        )

    def _work(self) -> None:
        while self.now < self.world.end:
            wake = self._tick()
            soonest = min(max(wake, self.now + TICK), self.now + 30)
            # Events meanwhile may make something due.
            while self.next_event() < soonest and self._quiet_until(soonest):
                pass
            ahead = math.ceil(soonest / TICK) * TICK
            self.happen(ahead)

    def _quiet_until(self, soonest: float) -> bool:
        """Process requests of others; False: one of ours comes first."""
        events = self.world.events
        if self._next < len(events) and events[self._next][2] == "other":
            at = events[self._next][0]
            if at < soonest and (not self._later or self._later[0][0] > at):
                self.happen(at)
                return True
        return False

    def _tick(self) -> float:  # noqa: PLR0912 - the worker's tick in one piece
        """Read what is due, within the budget; return the time of the next tick."""
        spend = rules.compute(self.budget, RESERVE, moment(self.now))
        if spend.backoff_until is not None:
            return (spend.backoff_until - EPOCH).total_seconds()
        if not spend.may_reconcile_aborts:
            return self.now + 5
        wake = self.now + 5
        slots = AT_ONCE
        for run, (_, due) in list(self.aborting.items()):
            if due <= self.now and slots:
                slots -= 1
                self.follow_abort(run)
            elif due < wake:
                wake = due
        slots = min(slots, spend.requests // A_READING) if spend.may_read else 0
        if slots <= 0:
            return min(wake, self.now + TICK)
        slots = self.read_details(slots)
        if not slots:
            return self.now + TICK
        if self.now - self.planned_at >= PLAN_EVERY:
            self.replan(spend)
        factor, watched = self.plan.tracking, self.plan.watched_interval.total_seconds()
        for run, (until, last) in list(self.watched_runs.items()):
            if last + watched <= self.now and slots:
                slots -= 1
                self.watched_runs[run] = until, self.now
                if self.ask():
                    run.read = True
                    self.see_run(run, self.now)
            else:
                wake = min(wake, last + watched)
        due = []
        for stage, (last, booked, target) in self.followed.items():
            at = min(booked, last + target * factor)
            if at <= self.now:
                due.append((at, stage))
            elif at < wake:
                wake = at
        due.sort()
        for _, stage in due[:slots]:
            self.read(stage)
        slots -= len(due[:slots])
        if not slots:
            return self.now + TICK
        if not spend.may_discover:
            return min(wake, self.now + 2.0)
        for kind, period in (
            ("catalog", schedule.CATALOG_INTERVAL / self.projects),
            ("flow", schedule.FLOW_INTERVAL / self.world.mix.stages),
        ):
            if self.queues[kind] <= self.now and slots:
                slots -= 1
                self.ask()
                every = period.total_seconds() * self.plan.discovery
                self.queues[kind] = max(self.queues[kind], self.now - HOUR) + every
        while self.due:
            booked, stage = self.due[0]
            if booked > self.now:
                return min(wake, booked)
            if not slots:
                return self.now + TICK
            heapq.heappop(self.due)
            if booked == self.booked[stage] and stage not in self.followed:
                slots -= 1
                self.read(stage)
        return wake


class WithoutLearning(ProductSync):
    """The same without reads for baselines, to measure their cost."""

    learns = False


class AsTheyEnd(ProductSync):
    """The same, but details are read when a run succeeds, if few are known, or is overdue."""

    def ended(self, run: Run, *, is_known: bool) -> None:
        if is_known and run.succeeds and not run.read and not self._knows_steps(run.stage):
            self.unread.append(run)
        super().ended(run, is_known=is_known)

    def on_start(self, at: float, run: Run) -> None:
        super().on_start(at, run)
        self.later(run.start + OVERDUE_AFTER, "overdue", run.stage)

    def on_overdue(self, at: float, stage: int) -> None:
        if any(run.start + OVERDUE_AFTER <= at for run in self.known_runs.get(stage, ())):
            self._wonder(stage)

    def book_detail(self, spend: rules.ReadBudget) -> bool:
        return False


class ColdStart(ProductSync):
    """The same with an outdated mirror at noon: it is new, or was not updated for hours.

    `known_after`, `production_after` and `read_after` are seconds from then on.
    """

    learns = False
    noon = DAY / 2

    def __init__(self, world: World, outage: float | None) -> None:
        super().__init__(world)
        self.outage = outage  # seconds without updates; None: the database is new
        self.width = FIRST_AT_ONCE
        self.undefined = 0  # stages whose release flow is unread
        self.unlisted = 0  # catalog lists, which are read first
        self.awaited: set[int] = set()  # stages in flight at noon and unread since
        self.unread_count = self.unread_in_flight_count = (
            0  # number of unread stages, and of those in flight
        )
        self.estimate_seconds: float | None = None
        self.known_after: float | None = None
        self.production_after: float | None = None
        self.read_after: float | None = None

    def work(self) -> None:
        end = self.world.end
        self.world.days = (self.noon - (self.outage or self.noon)) / DAY
        self._work()
        self.world.days = end / DAY
        self.happen(self.noon)
        self._start_unread()
        while self.now < end and self.read_after is None:
            wake = self._tick()
            self.happen(math.ceil(min(max(wake, self.now + TICK), self.now + 30) / TICK) * TICK)

    def _start_unread(self) -> None:
        gaps = (self._gap(stage) for stage in range(self.world.mix.stages))
        order = schedule.order_first_reads(
            (schedule.StageRef(stage, schedule.FIRST_READ_ORDER[stage % 3], stage // 30), gap)
            for stage, gap in enumerate(gaps)
        )
        self.order, self.gaps = deque(order), set(order)
        self.awaited = self.gaps & set(self.flying)
        self.unread_count, self.unread_in_flight_count = len(self.gaps), len(self.awaited)
        if self.outage is None:
            self.undefined, self.unlisted = len(order), self.projects
            self.looked_at_all = self.now
            self.read_at = dict.fromkeys(self.read_at, self.now)
            self.discovery = len(order) / schedule.StageClass.RECENT.value
        for rank, stage in enumerate(order):
            self.booked[stage] = self.now + rank * 1e-6
        self.due = sorted((booked, stage) for stage, booked in self.booked.items())
        self.planned_at = -math.inf
        self._ahead()  # every answer contains the window
        spend = rules.compute(self.budget, RESERVE, moment(self.now))
        self.estimate_seconds = schedule.estimate_seconds(len(order) + self.unlisted, spend, LIMIT)

    def _gap(self, stage: int) -> schedule.Gap | None:
        if self.outage is None:
            return schedule.Gap.UNREAD
        read_at, promised = self.read_at[stage], self.booked[stage]
        known = StageKnown(True, moment(read_at), moment(min(promised, self.world.end)))
        return schedule.find_gap(known, moment(self.now))

    def _ahead(self) -> bool:
        taken = self.ask()
        assert self.budget is not None
        self.budget = replace(self.budget, burst=max(self.budget.burst - 1, 0.0))
        return taken

    def _tick(self) -> float:
        if self.now < self.noon:
            return super()._tick()
        spend = rules.compute(self.budget, RESERVE, moment(self.now))
        waits = bool(self.gaps) and spend.backoff_until is None
        if waits and (most := min(spend.first_read_requests // A_FIRST_READING, self.width)) > 0:
            # A slot sends again as soon as it has its answer, possibly in the same tick.
            for _ in range(min(int(most * TICK / LATENCY), spend.first_read_requests)):
                if self.unlisted:
                    self.unlisted -= 1
                    self._ahead()
                    continue
                while self.order and self.order[0] not in self.gaps:
                    self.order.popleft()
                if not self.order or not self._ahead():
                    break
                self._first(self.order.popleft())
            self.width = min(self.width + most, MOST_AT_ONCE)
            self._look()
            return self.now + TICK
        if self.unlisted:
            if spend.may_discover and waits:
                self.unlisted -= 1
                self.ask()
            return self.now + TICK
        wake = super()._tick()
        spend = rules.compute(self.budget, RESERVE, moment(self.now))
        if not self.gaps and self.undefined and spend.may_discover:
            self.undefined -= 1
            self.ask()
        self._look()
        return self.now + TICK if self.gaps else wake

    def _first(self, stage: int) -> None:
        self.gaps.discard(stage)
        self.read_at[stage] = self.now
        if self.see(stage, self.now):
            self.active[stage] = moment(self.now)
        self.book(stage)

    def _look(self) -> None:
        after = self.now - self.noon + LATENCY
        self.awaited &= self.gaps & set(self.flying)
        if not self.awaited and self.known_after is None:
            self.known_after = after
        if self.production_after is None and not any(stage % 3 == 0 for stage in self.gaps):
            self.production_after = after
        if not self.gaps and self.read_after is None:
            self.read_after = after


@dataclass(frozen=True)
class StageKnown:
    has_flow: bool | None
    synced_at: datetime | None
    fresh_until: datetime | None
    in_flight_incomplete: bool = False


class FixedInterval(Simulation):
    """Every stage once a minute; refused reads are tried again the next time."""

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
    """Each open page reads Northflank at each refresh; nothing else is read."""

    every = 15.0

    def work(self) -> None:
        pages = [0] * VIEWERS
        while self.now < self.world.end:
            people = VIEWERS if by_day(self.now) else 2
            for client in range(people):
                self.happen(self.now + self.every / people)
                if self.chance.random() < self.every / 300:  # a different page every five minutes
                    flying = sorted(self.flying)
                    anywhere = self.chance.randrange(self.world.mix.stages)
                    pages[client] = self.chance.choice(flying) if flying else anywhere
                if self.take(self.now, "ours"):
                    self.see(pages[client], self.now)
                else:
                    self.figures.refused_ours += 1


DESIGNS: dict[str, type[Simulation]] = {
    "ours": ProductSync,
    "ours, without learning": WithoutLearning,
    "ours, details as runs end": AsTheyEnd,
    "every stage, once a minute": FixedInterval,
    "on page view, 20 viewers": OnView,
}
