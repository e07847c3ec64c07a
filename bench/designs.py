"""Designs of a sync with a simulated account: the product's own rules, and two naive ones."""

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

from simulation import (
    DAY,
    HOUR,
    LIMIT,
    MEDIAN_DURATION,
    RESERVE,
    SIGMA,
    Figures,
    Run,
    WindowCounts,
    World,
    is_daytime,
)

from dashboard.models.typical_duration import MAX_SAMPLES, MIN_SAMPLES
from dashboard.northflank import RateLimit
from dashboard.sandbox.rate_limit import RateLimitWindow
from dashboard.sync import schedule
from dashboard.sync.schedule import Demand, StageFacts
from dashboard.sync.stage_reader import MAX_REQUESTS_PER_FIRST_READ, MAX_REQUESTS_PER_READ
from dashboard.sync.webhooks.events import MAX_BURST, MAX_SPACING, RATE_SHARE
from dashboard.sync.worker import (
    INITIAL_FIRST_READS,
    MAX_CONCURRENT_READS,
    MAX_FIRST_READS,
    PLAN_INTERVAL,
    TICK_INTERVAL,
)
from dashboard.upstream import rate_budget

EPOCH = datetime(2026, 3, 2, tzinfo=UTC)
# Seconds between two plans that include the idle stages, of which there may be thousands.
IDLE_PLAN_INTERVAL = 600.0
RESPONSE_TIME = 0.2  # seconds
WEBHOOK_DELAY = 1.0  # seconds until an event arrives
WEBHOOK_DELIVERY_RATE = 0.97
VIEWERS = 20
OVERDUE_AFTER = MEDIAN_DURATION * math.exp(1.28 * SIGMA)  # p90: a tenth of all runs are overdue


def to_datetime(seconds: float) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


class Simulation:
    """An account and its mirror; subclasses decide when to read what."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.now = 0.0
        self.account_window = RateLimitWindow(LIMIT, HOUR)
        self.window_counts: WindowCounts | None = None
        self.figures = Figures()
        # All by stage; a stage without such runs has no entry.
        self.runs_in_flight: dict[int, set[Run]] = {}  # at Northflank
        self.new_runs: dict[int, list[Run]] = {}  # not in the mirror yet
        self.mirrored_runs: dict[int, set[Run]] = {}  # in flight in the mirror
        self.mirrored_at: dict[int, float] = {}  # when the stages of mirrored_runs were last read
        self._in_flight_counted_at = 0.0
        self._next_index = 0  # of world.events
        self._scheduled_events: list[tuple[float, int, str, object]] = []
        self._event_seq = len(world.events)
        self.rng = random.Random(f"{world.seed} design")

    def schedule_event(self, at: float, kind: str, payload: object) -> None:
        self._event_seq += 1
        heapq.heappush(self._scheduled_events, (at, self._event_seq, kind, payload))

    @property
    def next_event_at(self) -> float:
        events, scheduled = self.world.events, self._scheduled_events
        next_at = events[self._next_index][0] if self._next_index < len(events) else math.inf
        return min(next_at, scheduled[0][0]) if scheduled else next_at

    def process_events(self, until: float) -> None:
        """Process all events until this time."""
        events, scheduled = self.world.events, self._scheduled_events
        while self.next_event_at <= until:
            if scheduled and (
                self._next_index == len(events) or scheduled[0][0] < events[self._next_index][0]
            ):
                at, _, kind, payload = heapq.heappop(scheduled)
            else:
                at, _, kind, payload = events[self._next_index]
                self._next_index += 1
            self.now = max(self.now, at)
            getattr(self, f"on_{kind}")(at, payload)
        self.now = max(self.now, until)

    def count_request(self, at: float, purpose: str) -> bool:
        """Count a request and return whether it is within the limit."""
        opened_at = self.account_window.opened_at
        is_accepted = self.account_window.count_request(at)
        if self.account_window.opened_at != opened_at:
            self._start_window_counts(at)
        assert self.window_counts is not None
        self.window_counts.requests[purpose] += 1
        self.window_counts.refused += not is_accepted
        return is_accepted

    def _start_window_counts(self, at: float) -> None:
        self._count_in_flight(at)
        if self.window_counts is not None:
            self.figures.add_window(self.window_counts)
        self.window_counts = WindowCounts(at, is_always_in_flight=any(self.runs_in_flight.values()))

    def _count_in_flight(self, at: float) -> None:
        if self.window_counts is not None and (stages := len(self.mirrored_runs)):
            seconds_in_flight = self.window_counts.seconds_in_flight
            seconds = at - self._in_flight_counted_at
            seconds_in_flight[stages] = seconds_in_flight.get(stages, 0.0) + seconds
        self._in_flight_counted_at = at

    def mirror_stage(self, stage: int, at: float) -> bool:
        """Mirror a stage's current state; return whether it changed."""
        if stage in self.mirrored_at:
            self.figures.ages.add(at - self.mirrored_at[stage])
        self._count_in_flight(at)
        new_runs = self.new_runs.pop(stage, [])
        for run in new_runs:
            run.mirrored_at = at
            if run.is_first_in_stage:
                self.figures.discovery_delays.append(at - run.start)
            if run.end <= at:
                self.handle_run_end(run, was_in_flight=False)
        in_flight = self.runs_in_flight.get(stage, set())
        previous = self.mirrored_runs.get(stage, set())
        for run in sorted(previous - in_flight, key=lambda run: run.start):  # for the same sums
            assert run.mirrored_at is not None
            self.figures.mirrored_seconds += run.end - run.mirrored_at
            self.handle_run_end(run, was_in_flight=True)
        if in_flight and not previous and self.window_counts is not None:
            self.window_counts.discovered_stages += 1
        if in_flight:
            self.mirrored_at[stage], self.mirrored_runs[stage] = at, set(in_flight)
        else:
            self.mirrored_at.pop(stage, None)
            self.mirrored_runs.pop(stage, None)
        return bool(new_runs) or previous != in_flight

    def mirror_detail(self, run: Run, at: float) -> None:
        """Mirror a run's detail; its stage is as fresh if no other run is in flight in it."""
        if self.mirrored_runs.get(run.stage) == {run} and run.end > at:
            self.figures.ages.add(at - self.mirrored_at[run.stage])
            self.mirrored_at[run.stage] = at

    def on_run_start(self, at: float, run: Run) -> None:
        # A copy, since an abort changes it, and the world is the same for all designs.
        run = replace(run, is_first_in_stage=run.stage not in self.mirrored_runs)
        self.runs_in_flight.setdefault(run.stage, set()).add(run)
        self.new_runs.setdefault(run.stage, []).append(run)
        self.schedule_event(run.end, "run_end", run)
        self._send_webhook_event(at, run.stage)

    def on_run_end(self, at: float, run: Run) -> None:
        if run.end > at or run not in self.runs_in_flight.get(run.stage, ()):
            return
        self.runs_in_flight[run.stage].discard(run)
        if not self.runs_in_flight[run.stage]:
            del self.runs_in_flight[run.stage]
        if not self.runs_in_flight and self.window_counts is not None:
            self.window_counts.is_always_in_flight = False
        self.figures.in_flight_seconds += run.end - run.start
        self._send_webhook_event(at, run.stage)

    def _send_webhook_event(self, at: float, stage: int) -> None:
        if self.world.mix.has_webhooks and self.rng.random() < WEBHOOK_DELIVERY_RATE:
            self.schedule_event(at + WEBHOOK_DELAY, "webhook_event", stage)

    def on_webhook_event(self, at: float, stage: int) -> None: ...

    def on_view(self, at: float, payload: tuple[float, float]) -> None: ...

    def on_other_request(self, at: float, _: None) -> None:
        self.count_request(at, "other")

    def on_abort(self, at: float, choice: float) -> None:
        runs = [
            run
            for stage in sorted(self.mirrored_runs)
            for run in sorted(self.mirrored_runs[stage], key=lambda run: run.start)
            if run.end > at + 60
        ]
        if not runs:
            return
        run = runs[int(choice * len(runs))]
        self.figures.aborts += 1
        if not self.count_request(at, "abort"):
            self.figures.refused_aborts += 1
            return
        run.end, run.is_success = min(run.end, at + 10 + 60 * choice), False
        self.schedule_event(run.end, "run_end", run)
        self.handle_abort(run, at)

    def handle_abort(self, run: Run, at: float) -> None:
        """Handle an abort that Northflank has accepted."""

    def handle_run_end(self, run: Run, *, was_in_flight: bool) -> None:
        """Handle the end of a run; `was_in_flight`: the mirror had it as in flight before."""

    def run(self) -> Figures:
        self.simulate()
        self._start_window_counts(self.now)
        return self.figures

    def simulate(self) -> None:
        raise NotImplementedError


class ProductSync(Simulation):
    """The sync's own rules: `schedule` for intervals, `rate_budget` for the rate."""

    has_baselines = True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.recorded_window: rate_budget.RateLimitWindow | None = None
        self.last_run_change_at: dict[int, datetime] = {}
        self.watched_until: dict[int, float] = {}  # by stage
        self.watched_runs: dict[Run, tuple[float, float]] = {}  # end of the view, last read
        self.aborting_runs: dict[Run, tuple[float, float]] = {}  # time of the abort, next read
        # The latest successes of each stage, for step baselines; the mirror has none at the start.
        self.successes: defaultdict[int, deque[Run]] = defaultdict(
            lambda: deque(maxlen=MAX_SAMPLES)
        )
        self.due_details: deque[Run] = deque()  # for baselines of watched stages
        self.scheduled_detail: tuple[float, Run] | None = None  # for a baseline: next read, run
        # Last read, next read, target interval.
        self.tracked_stages: dict[int, tuple[float, float, float]] = {}
        # The mirror is complete: each stage was read some time ago, and had no change since its
        # last run.
        self.read_at: dict[int, float] = {}
        rate_per_weight = world.runs_per_second / sum(world.weights)
        for stage, weight in enumerate(world.weights):
            quiet_seconds = self.rng.expovariate(rate_per_weight * weight)
            self.last_run_change_at[stage] = to_datetime(-quiet_seconds)
            self.read_at[stage] = 0.0
        self.next_read_at = dict.fromkeys(self.read_at, math.inf)
        # Next reads by time; an entry that differs from next_read_at is out of date.
        self.discovery_queue: list[tuple[float, int]] = []
        self.webhook_event_times: deque[float] = deque()  # of the last hour
        self.last_webhook_slot = -math.inf
        self.stages_with_event: set[int] = set()  # a webhook event since their last read
        self.stages_with_gap: set[int] = set()
        # Catalog lists and release flows: one queue for each kind.
        self.catalog_list_count = 1 + math.ceil(world.mix.stages / 10)
        self.next_read_at_by_kind = {"catalog": 0.0, "flow": 0.0}
        self.idle_demand = 0.0  # requests per second of the stages that are not tracked
        self.planned_at = self.idle_planned_at = -math.inf
        self.plan = schedule.make_plan(Demand(), 0.25)

    def make_facts(self, stage: int) -> StageFacts:
        is_watched = self.watched_until.get(stage, -math.inf) > self.now
        return StageFacts(
            True,
            len(self.mirrored_runs.get(stage, ())),
            to_datetime(self.now) if is_watched else None,
            self.last_run_change_at.get(stage),
        )

    def schedule_read(self, stage: int) -> None:
        facts, now = self.make_facts(stage), to_datetime(self.now)
        interval = self.plan.stage_interval(facts, now).total_seconds()
        next_read_at = self.now + RESPONSE_TIME + interval
        self.next_read_at[stage] = next_read_at
        if schedule.classify(facts, now).is_tracked:
            self._track_stage(stage)
        else:
            self.tracked_stages.pop(stage, None)
            heapq.heappush(self.discovery_queue, (next_read_at, stage))

    def _track_stage(self, stage: int) -> None:
        target = schedule.classify(self.make_facts(stage), to_datetime(self.now)).value
        self.tracked_stages[stage] = self.read_at[stage], self.next_read_at[stage], target

    # Events that change a stage's class

    def on_view(self, at: float, payload: tuple[float, float]) -> None:
        choice, duration = payload
        stages = sorted(self.mirrored_runs)
        if choice < 0.75 and stages:
            stage = stages[int(choice / 0.75 * len(stages))]
            if int(choice * 1000) % 2:
                run = min(self.mirrored_runs[stage], key=lambda run: run.start)
                self.watched_runs[run] = at + duration, -math.inf
                self._request_details(stage)
                return
        else:
            stage = int(choice * 1e6) % self.world.mix.stages
        until = at + duration + schedule.WATCHED_FOR.total_seconds()
        self.watched_until[stage] = until
        self.schedule_event(until, "view_end", stage)
        self._track_stage(stage)

    def on_view_end(self, at: float, stage: int) -> None:
        if self.watched_until.get(stage, math.inf) <= at:
            del self.watched_until[stage]
            self.schedule_read(stage)

    def on_webhook_event(self, at: float, stage: int) -> None:
        self.webhook_event_times.append(at)
        # Tracked, and before stages that are only due; spaced as in sync/webhooks/events.py.
        read_budget = rate_budget.compute(self.recorded_window, RESERVE, to_datetime(at))
        rate = read_budget.requests_per_second * RATE_SHARE
        spacing = min(1 / max(rate, 1e-6), MAX_SPACING.total_seconds())
        slot = max(self.last_webhook_slot, at - spacing * MAX_BURST) + spacing
        due_at = max(slot, at)
        is_tracked = stage in self.mirrored_runs or stage in self.stages_with_event
        if self.next_read_at[stage] <= due_at and is_tracked:
            return
        self.last_webhook_slot = slot
        self.next_read_at[stage] = min(self.next_read_at[stage], due_at)
        self.stages_with_event.add(stage)
        self._track_stage(stage)

    def handle_abort(self, run: Run, at: float) -> None:
        self._record_response(at, is_accepted=True)
        interval = schedule.aborting_interval(timedelta()).total_seconds()
        self.aborting_runs[run] = at, at + interval

    # Typical durations: the rules of sync/baselines.py

    def _has_step_baseline(self, stage: int) -> bool:
        return sum(run.has_detail for run in self.successes[stage]) >= MIN_SAMPLES

    def handle_run_end(self, run: Run, *, was_in_flight: bool) -> None:
        if run.is_success and self.has_baselines:
            self.successes[run.stage].append(run)
            self._update_baseline(run.stage)

    def _update_baseline(self, stage: int) -> None:
        if self._has_step_baseline(stage):
            self.figures.baseline_at.setdefault(stage, self.now)

    def _request_details(self, stage: int) -> None:
        """Make due as many details of a stage's latest successes as its step baseline needs."""
        if len(self.successes[stage]) >= MIN_SAMPLES and not self._has_step_baseline(stage):
            latest = list(self.successes[stage])[-MIN_SAMPLES:]
            self.due_details += [
                run for run in latest if not run.has_detail and run not in self.due_details
            ]

    def schedule_next_detail(self, read_budget: rate_budget.ReadBudget) -> bool:
        """Schedule one success's detail unless one is scheduled; return if one is now."""
        if self.scheduled_detail is None and (run := self._choose_detail()) is not None:
            interval = schedule.baseline_interval(read_budget.requests_per_second).total_seconds()
            self.scheduled_detail = self.now + interval, run
        return self.scheduled_detail is not None

    def _choose_detail(self) -> Run | None:
        overdue_stages = {
            stage
            for stage, runs in self.mirrored_runs.items()
            if any(run.start + OVERDUE_AFTER <= self.now for run in runs)
        }
        candidates = [
            (
                stage not in overdue_stages,
                stage in self.figures.baseline_at,
                -sum(run.has_detail for run in successes),
                successes[-1].end,
                stage,
            )
            for stage, successes in self.successes.items()
            if len(successes) >= MIN_SAMPLES and not self._has_step_baseline(stage)
        ]
        if not candidates:
            return None
        successes = self.successes[min(candidates)[-1]]
        return next(run for run in reversed(successes) if not run.has_detail)

    def read_due_details(self, slots: int) -> int:
        """Read due details with the free slots; return how many slots are left."""
        while self.due_details and slots:
            slots -= 1
            if not self.send_request():
                break
            self._mirror_baseline_detail(self.due_details.popleft())
        if self.scheduled_detail is not None and self.scheduled_detail[0] <= self.now and slots:
            slots -= 1
            _, run = self.scheduled_detail
            if self.send_request():
                self._mirror_baseline_detail(run)
            self.scheduled_detail = None
        return slots

    def _mirror_baseline_detail(self, run: Run) -> None:
        run.has_detail = True
        self.figures.baseline_details += 1
        self._update_baseline(run.stage)

    # Requests

    def _record_response(self, at: float, *, is_accepted: bool) -> None:
        window, now = self.account_window, to_datetime(at)
        rate_limit = RateLimit(
            LIMIT, max(LIMIT - window.request_count, 0), window.seconds_until_reset(at)
        )
        recorded_window = rate_budget.after_response(self.recorded_window, rate_limit, RESERVE, now)
        if not is_accepted:
            recorded_window = rate_budget.after_rate_limited(
                recorded_window, rate_limit.reset_seconds, now
            )
        self.recorded_window = recorded_window

    def compute_budget(self) -> rate_budget.ReadBudget:
        return rate_budget.compute(self.recorded_window, RESERVE, to_datetime(self.now))

    def send_request(self, purpose: str = "read") -> bool:
        """Send a request of the sync and return whether it is within the limit."""
        is_accepted = self.count_request(self.now, purpose)
        self._record_response(self.now, is_accepted=is_accepted)
        return is_accepted

    def read_stage(self, stage: int) -> None:
        if self.send_request():
            self.stages_with_event.discard(stage)
            self._mirror_read(stage)
        self.schedule_read(stage)

    def _mirror_read(self, stage: int) -> None:
        self.stages_with_gap.discard(stage)
        self.read_at[stage] = self.now
        if self.mirror_stage(stage, self.now):
            self.last_run_change_at[stage] = to_datetime(self.now)

    def read_aborting_run(self, run: Run) -> None:
        if not self.send_request("abort"):
            return
        aborted_at, _ = self.aborting_runs[run]
        if run.end <= self.now:
            del self.aborting_runs[run]
            # The detail shows the end; the list is read next.
            self.on_webhook_event(self.now, run.stage)
            return
        elapsed = timedelta(seconds=self.now - aborted_at)
        interval = schedule.aborting_interval(elapsed).total_seconds()
        self.aborting_runs[run] = aborted_at, self.now + interval

    def plan_reads(self, read_budget: rate_budget.ReadBudget) -> None:
        now = to_datetime(self.now)
        is_first_plan = self.idle_planned_at == -math.inf
        if self.now - self.idle_planned_at > IDLE_PLAN_INTERVAL:
            self._plan_idle_stages(now)
        tracking = sum(
            1 / target
            for stage, (_, _, target) in self.tracked_stages.items()
            # Reads that webhook events cause have their own share.
            if stage in self.mirrored_runs or stage not in self.stages_with_event
        )
        self.watched_runs = {
            run: (until, read_at)
            for run, (until, read_at) in self.watched_runs.items()
            if until > self.now and run in self.mirrored_runs.get(run.stage, ())
        }
        tracking += len(self.watched_runs) / schedule.StageClass.WATCHED.value
        lists = self.catalog_list_count / schedule.CATALOG_INTERVAL.total_seconds()
        flows = self.world.mix.stages / schedule.FLOW_INTERVAL.total_seconds()
        while self.webhook_event_times and self.webhook_event_times[0] < self.now - HOUR:
            self.webhook_event_times.popleft()
        # The sync counts ended runs; each has an event at its start and its end.
        ended_runs = len(self.webhook_event_times) / 2
        demand = Demand(
            tracking,
            self.idle_demand + lists + flows,
            webhook_reads=schedule.WEBHOOK_READS_PER_RUN * ended_runs / HOUR,
            has_baseline_reads=self.has_baselines and self.schedule_next_detail(read_budget),
            has_gaps=bool(self.stages_with_gap),
        )
        self.plan = schedule.make_plan(
            demand, read_budget.requests_per_second, webhook_alive=self.world.mix.has_webhooks
        )
        self.planned_at = self.now
        if is_first_plan:
            for stage in self.read_at:
                interval = self.plan.stage_interval(self.make_facts(stage), now).total_seconds()
                self.next_read_at[stage] = self.rng.random() * interval
                self.read_at[stage] = self.next_read_at[stage] - interval
            self.discovery_queue = sorted((at, stage) for stage, at in self.next_read_at.items())

    def _plan_idle_stages(self, now: datetime) -> None:
        """Sum up the demand of all stages that are not tracked, and reschedule them."""
        self.idle_planned_at = self.now
        self.idle_demand, queue = 0.0, []
        for stage in range(self.world.mix.stages):
            if stage in self.tracked_stages:
                continue
            facts = self.make_facts(stage)
            self.idle_demand += 1 / schedule.classify(facts, now).value
            interval = self.plan.stage_interval(facts, now).total_seconds()
            self.next_read_at[stage] = min(self.next_read_at[stage], self.read_at[stage] + interval)
            queue.append((self.next_read_at[stage], stage))
        heapq.heapify(queue)
        self.discovery_queue = queue

    def simulate(self) -> None:
        self._run_worker()
        self.figures.baseline_candidates = sum(
            len(successes) >= MIN_SAMPLES for successes in self.successes.values()
        )

    def _run_worker(self) -> None:
        while self.now < self.world.end:
            wake_at = self._limit_sleep(self._tick())
            # Events meanwhile may make something due.
            while self.next_event_at < wake_at and self._process_other_request(wake_at):
                pass
            self.process_events(math.ceil(wake_at / TICK_INTERVAL) * TICK_INTERVAL)

    def _limit_sleep(self, wake_at: float) -> float:
        return min(max(wake_at, self.now + TICK_INTERVAL), self.now + 30)

    def _process_other_request(self, before: float) -> bool:
        """Process the next event if it is a request of others; return whether it was one."""
        events, scheduled = self.world.events, self._scheduled_events
        if self._next_index < len(events) and events[self._next_index][2] == "other_request":
            at = events[self._next_index][0]
            if at < before and (not scheduled or scheduled[0][0] > at):
                self.process_events(at)
                return True
        return False

    def _tick(self) -> float:  # noqa: PLR0912 - the worker's tick in one piece
        """Read what is due, within the budget; return the time of the next tick."""
        read_budget = self.compute_budget()
        if read_budget.backoff_until is not None:
            return (read_budget.backoff_until - EPOCH).total_seconds()
        if not read_budget.may_reconcile_aborts:
            return self.now + 5
        wake_at = self.now + 5
        slots = MAX_CONCURRENT_READS
        for run, (_, next_read_at) in list(self.aborting_runs.items()):
            if next_read_at <= self.now and slots:
                slots -= 1
                self.read_aborting_run(run)
            elif next_read_at < wake_at:
                wake_at = next_read_at
        slots = (
            min(slots, read_budget.requests // MAX_REQUESTS_PER_READ) if read_budget.may_read else 0
        )
        if slots <= 0:
            return min(wake_at, self.now + TICK_INTERVAL)
        slots = self.read_due_details(slots)
        if not slots:
            return self.now + TICK_INTERVAL
        if self.now - self.planned_at >= PLAN_INTERVAL:
            self.plan_reads(read_budget)
        watched_interval = self.plan.watched_interval.total_seconds()
        for run, (until, read_at) in list(self.watched_runs.items()):
            if read_at + watched_interval <= self.now and slots:
                slots -= 1
                self.watched_runs[run] = until, self.now
                if self.send_request():
                    run.has_detail = True
                    self.mirror_detail(run, self.now)
            else:
                wake_at = min(wake_at, read_at + watched_interval)
        due_stages = []
        for stage, (read_at, next_read_at, target) in self.tracked_stages.items():
            due_at = min(next_read_at, read_at + target * self.plan.tracking)
            if due_at <= self.now:
                due_stages.append((due_at, stage))
            elif due_at < wake_at:
                wake_at = due_at
        due_stages.sort()
        for _, stage in due_stages[:slots]:
            self.read_stage(stage)
        slots -= len(due_stages[:slots])
        if not slots:
            return self.now + TICK_INTERVAL
        if not read_budget.may_discover:
            return min(wake_at, self.now + 2.0)
        for kind, interval in (
            ("catalog", schedule.CATALOG_INTERVAL / self.catalog_list_count),
            ("flow", schedule.FLOW_INTERVAL / self.world.mix.stages),
        ):
            if self.next_read_at_by_kind[kind] <= self.now and slots:
                slots -= 1
                self.send_request()
                self.next_read_at_by_kind[kind] = (
                    max(self.next_read_at_by_kind[kind], self.now - HOUR)
                    + interval.total_seconds() * self.plan.discovery
                )
        while self.discovery_queue:
            next_read_at, stage = self.discovery_queue[0]
            if next_read_at > self.now:
                return min(wake_at, next_read_at)
            if not slots:
                return self.now + TICK_INTERVAL
            heapq.heappop(self.discovery_queue)
            if next_read_at == self.next_read_at[stage] and stage not in self.tracked_stages:
                slots -= 1
                self.read_stage(stage)
        return wake_at


class WithoutBaselines(ProductSync):
    """The same without reads for baselines, to measure their cost."""

    has_baselines = False


class DetailsAtRunEnd(ProductSync):
    """The same, but details are read at once when a run succeeds or is overdue."""

    def handle_run_end(self, run: Run, *, was_in_flight: bool) -> None:
        needs_detail = run.is_success and not run.has_detail
        if was_in_flight and needs_detail and not self._has_step_baseline(run.stage):
            self.due_details.append(run)
        super().handle_run_end(run, was_in_flight=was_in_flight)

    def on_run_start(self, at: float, run: Run) -> None:
        super().on_run_start(at, run)
        self.schedule_event(run.start + OVERDUE_AFTER, "run_overdue", run.stage)

    def on_run_overdue(self, at: float, stage: int) -> None:
        if any(run.start + OVERDUE_AFTER <= at for run in self.mirrored_runs.get(stage, ())):
            self._request_details(stage)

    def schedule_next_detail(self, read_budget: rate_budget.ReadBudget) -> bool:
        return False


class ColdStart(ProductSync):
    """The same, started at noon with a mirror that is new or was not updated for hours.

    `in_flight_read_after`, `production_read_after` and `all_read_after` are seconds from then on.
    """

    has_baselines = False
    start_at = DAY / 2  # by day, when most is in flight

    def __init__(self, world: World, outage: float | None) -> None:
        super().__init__(world)
        self.outage = outage  # seconds without updates; None: the database is new
        self.first_read_limit = INITIAL_FIRST_READS
        self.unread_flow_count = 0
        self.unread_list_count = 0  # catalog lists, which are read first
        self.unread_in_flight: set[int] = set()  # stages in flight at the start and unread since
        # Of stages, at the start.
        self.unread_count = self.unread_in_flight_count = 0
        self.estimate_seconds: float | None = None
        self.in_flight_read_after: float | None = None
        self.production_read_after: float | None = None
        self.all_read_after: float | None = None

    def simulate(self) -> None:
        end = self.world.end
        self.world.days = (self.start_at - (self.outage or self.start_at)) / DAY
        self._run_worker()
        self.world.days = end / DAY
        self.process_events(self.start_at)
        self._queue_first_reads()
        while self.now < end and self.all_read_after is None:
            wake_at = self._limit_sleep(self._tick())
            self.process_events(math.ceil(wake_at / TICK_INTERVAL) * TICK_INTERVAL)

    def _queue_first_reads(self) -> None:
        names = schedule.FIRST_READ_ORDER
        order = schedule.order_first_reads(
            (schedule.StageRef(stage, names[stage % 3], stage // 30), self._find_gap(stage))
            for stage in range(self.world.mix.stages)
        )
        self.first_reads, self.stages_with_gap = deque(order), set(order)
        self.unread_in_flight = self.stages_with_gap & set(self.runs_in_flight)
        self.unread_count = len(self.stages_with_gap)
        self.unread_in_flight_count = len(self.unread_in_flight)
        if self.outage is None:
            self.unread_flow_count = len(order)
            self.unread_list_count = self.catalog_list_count
            self.idle_planned_at = self.now
            self.read_at = dict.fromkeys(self.read_at, self.now)
            self.idle_demand = len(order) / schedule.StageClass.RECENT.value
        for position, stage in enumerate(order):
            self.next_read_at[stage] = self.now + position * 1e-6
        self.discovery_queue = sorted((at, stage) for stage, at in self.next_read_at.items())
        self.planned_at = -math.inf
        self._send_first_read()  # the estimate needs the window, which every response contains
        self.estimate_seconds = schedule.estimate_seconds(
            len(order) + self.unread_list_count, self.compute_budget(), LIMIT
        )

    def _find_gap(self, stage: int) -> schedule.Gap | None:
        if self.outage is None:
            return schedule.Gap.UNREAD
        synced_at = to_datetime(self.read_at[stage])
        fresh_until = to_datetime(min(self.next_read_at[stage], self.world.end))
        read_state = StageReadState(True, synced_at, fresh_until)
        return schedule.find_gap(read_state, to_datetime(self.now))

    def _send_first_read(self) -> bool:
        """Send a request ahead of the even rate and return whether it is within the limit."""
        is_accepted = self.send_request()
        assert self.recorded_window is not None
        self.recorded_window = rate_budget.exclude_from_burst(self.recorded_window, 1)
        return is_accepted

    def _tick(self) -> float:
        if self.now < self.start_at:
            return super()._tick()
        read_budget = self.compute_budget()
        has_first_reads = bool(self.stages_with_gap) and read_budget.backoff_until is None
        limit = min(
            read_budget.first_read_requests // MAX_REQUESTS_PER_FIRST_READ, self.first_read_limit
        )
        if has_first_reads and limit > 0:
            # A slot sends again as soon as it has its response, possibly in the same tick.
            reads_per_tick = int(limit * TICK_INTERVAL / RESPONSE_TIME)
            for _ in range(min(reads_per_tick, read_budget.first_read_requests)):
                if self.unread_list_count:
                    self.unread_list_count -= 1
                    self._send_first_read()
                    continue
                while self.first_reads and self.first_reads[0] not in self.stages_with_gap:
                    self.first_reads.popleft()
                if not self.first_reads or not self._send_first_read():
                    break
                stage = self.first_reads.popleft()
                self._mirror_read(stage)
                self.schedule_read(stage)
            self.first_read_limit = min(self.first_read_limit + limit, MAX_FIRST_READS)
            self._record_progress()
            return self.now + TICK_INTERVAL
        if self.unread_list_count:
            if read_budget.may_discover and has_first_reads:
                self.unread_list_count -= 1
                self.send_request()
            return self.now + TICK_INTERVAL
        wake_at = super()._tick()
        may_discover = self.compute_budget().may_discover
        if not self.stages_with_gap and self.unread_flow_count and may_discover:
            self.unread_flow_count -= 1
            self.send_request()
        self._record_progress()
        return self.now + TICK_INTERVAL if self.stages_with_gap else wake_at

    def _record_progress(self) -> None:
        elapsed = self.now - self.start_at + RESPONSE_TIME
        self.unread_in_flight &= self.stages_with_gap & set(self.runs_in_flight)
        if not self.unread_in_flight and self.in_flight_read_after is None:
            self.in_flight_read_after = elapsed
        if self.production_read_after is None and all(stage % 3 for stage in self.stages_with_gap):
            self.production_read_after = elapsed
        if not self.stages_with_gap and self.all_read_after is None:
            self.all_read_after = elapsed


@dataclass(frozen=True)
class StageReadState:
    has_flow: bool | None
    synced_at: datetime | None
    fresh_until: datetime | None
    in_flight_incomplete: bool = False


class FixedInterval(Simulation):
    """Every stage once a minute; a refused read is repeated a minute later."""

    interval = 60.0  # seconds

    def simulate(self) -> None:
        stages = self.world.mix.stages
        while self.now < self.world.end:
            for stage in range(stages):
                self.process_events(self.now + self.interval / stages)
                if self.count_request(self.now, "read"):
                    self.mirror_stage(stage, self.now)


class ReadOnView(Simulation):
    """Each open page reads Northflank at each refresh; nothing else is read."""

    interval = 15.0  # seconds between two refreshes

    def simulate(self) -> None:
        viewed_stages = [0] * VIEWERS
        while self.now < self.world.end:
            viewers = VIEWERS if is_daytime(self.now) else 2
            for viewer in range(viewers):
                self.process_events(self.now + self.interval / viewers)
                # A different page every five minutes.
                if self.rng.random() < self.interval / 300:
                    in_flight = sorted(self.runs_in_flight)
                    any_stage = self.rng.randrange(self.world.mix.stages)
                    viewed_stages[viewer] = self.rng.choice(in_flight) if in_flight else any_stage
                if self.count_request(self.now, "read"):
                    self.mirror_stage(viewed_stages[viewer], self.now)


DESIGNS: dict[str, type[Simulation]] = {
    "The sync": ProductSync,
    "The sync, without baselines": WithoutBaselines,
    "The sync, details as runs end": DetailsAtRunEnd,
    "Every stage, once a minute": FixedInterval,
    "At each page view, 20 viewers": ReadOnView,
}
