"""Age of the mirror, and its cost to others: simulated days with the sync's real rules.

    uv run bench/freshness.py [--quick] [--days DAYS] [--seed SEED]

Runs `dashboard.sync.schedule` and `dashboard.upstream.rate_budget` with a simulated account whose
rate limit works like the sandbox's, and two naive designs with the same. Prints Markdown tables and
exits with 1 if a target is missed. docs/performance.md explains the figures.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from designs import DESIGNS, ColdStart, ProductSync
from simulation import DAY, HOUR, Figures, Mix, World

SYNC = "The sync"
BASELINE_DESIGNS = ("The sync, without baselines", "The sync, details as runs end", SYNC)


def make_jobs() -> list[tuple[str, Mix]]:
    """Return the keys of the designs to simulate, each with a mix."""
    sizes = [(30, 6), (300, 15), (3000, 40)]
    sync_jobs = [
        (SYNC, Mix(stages, in_flight, others_share, has_webhooks))
        for stages, in_flight in sizes
        for others_share in (0.0, 0.3, 0.6)
        for has_webhooks in (False, True)
    ]
    baseline_jobs = [
        (design, mix)
        for design in BASELINE_DESIGNS[:-1]
        for _, mix in sync_jobs
        if mix.others_share == 0.3
    ]
    naive_jobs = [
        (design, Mix(stages, in_flight, 0.3))
        for design, simulation in DESIGNS.items()
        if not issubclass(simulation, ProductSync)
        for stages, in_flight in sizes[:2]  # more stages make it worse and the simulation slow
    ]
    return sync_jobs + baseline_jobs + naive_jobs


def simulate(job: tuple[str, Mix, float, int]) -> tuple[str, Mix, Figures]:
    design, mix, days, seed = job
    return design, mix, DESIGNS[design](World(mix, days, seed)).run()


def format_seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def format_ratio(age: float, bound: float) -> str:
    return f"{age / bound:.2f}" if bound else ""


def mark(text: str, *, is_met: bool) -> str:
    """Return the text of a figure that has a target, bold if it is missed."""
    return text if is_met else f"**{text}**"


def count_missed(cells: list[str]) -> int:
    return sum(cell.startswith("**") for cell in cells)


def make_row(mix: Mix, figures: Figures) -> list[str]:
    delays = sorted(figures.discovery_delays)
    mean = figures.ages.mean / figures.bound.mean if figures.bound.mean else 0.0
    p95 = figures.ages.p95 / figures.bound.p95 if figures.bound.p95 else 0.0
    usable = figures.usable_requests
    used_share = figures.used_requests / usable if usable else 0.0
    in_flight_seconds = figures.in_flight_seconds
    return [
        str(mix),
        mark(str(figures.avoidable_refusals), is_met=not figures.avoidable_refusals),
        f"{format_seconds(figures.ages.mean)} / {format_seconds(figures.bound.mean)}",
        mark(f"{mean:.2f}", is_met=mean <= 1.2),
        f"{format_seconds(figures.ages.p95)} / {format_seconds(figures.bound.p95)}",
        mark(f"{p95:.2f}", is_met=p95 <= 1.2),
        format_ratio(figures.ages.mean, figures.strict_bound.mean),
        format_ratio(figures.ages.p95, figures.strict_bound.p95),
        f"{figures.mirrored_seconds / in_flight_seconds:.0%}" if in_flight_seconds else "",
        format_seconds(delays[len(delays) // 2]) if delays else "",
        format_seconds(delays[int(len(delays) * 0.95)]) if delays else "",
        mark(f"{used_share:.1%}", is_met=used_share >= 0.95) if usable else "",
        mark(f"{figures.refused_aborts} of {figures.aborts}", is_met=not figures.refused_aborts),
    ]


def format_baseline_table(
    figures_by_job: dict[tuple[str, Mix], Figures], days: float
) -> Iterator[str]:
    """Yield a table of the cost of baselines, and of the time until stages have one."""
    without_baselines = BASELINE_DESIGNS[0]
    mixes = [mix for design, mix in figures_by_job if design == without_baselines]
    jobs = [(d, m) for m in mixes for d in BASELINE_DESIGNS if (d, m) in figures_by_job]
    if not jobs:
        return
    yield "\n**Cost of baselines**\n"
    yield (
        "| Stages / in flight | Others | Webhooks | Design | Details a day "
        "| Share of our requests | Requests a day | Mean age | × | p95 | × "
        "| Stages with known steps | 80% of these after |"
    )
    yield f"|{' --- |' * 13}"
    for design, mix in jobs:
        figures = figures_by_job[design, mix]
        times = sorted(figures.baseline_at.values())
        candidates = figures.baseline_candidates
        count = math.ceil(0.8 * candidates)
        is_reached = 0 < count <= len(times)
        has_baselines = design != without_baselines
        cells = [
            str(mix),
            design,
            f"{figures.baseline_details / days:.0f}",
            f"{figures.baseline_details / figures.read_requests:.2%}",
            f"{figures.read_requests / days:,.0f}",
            format_seconds(figures.ages.mean),
            format_ratio(figures.ages.mean, figures.bound.mean),
            format_seconds(figures.ages.p95),
            format_ratio(figures.ages.p95, figures.bound.p95),
            f"{len(times)} of {candidates}" if has_baselines else "",
            (f"{times[count - 1] / DAY:.1f} days" if is_reached else "not yet")
            if has_baselines
            else "",
        ]
        yield f"| {' | '.join(cells)} |"


# Cold start: a new database, and the end of an outage

# Seconds until all runs in flight are read without requests of others, by number of stages.
COLD_START_TARGETS = {180: 60.0, 300: 100.0}


@dataclass(frozen=True)
class ColdStartResult:
    """Results of one cold start; times are seconds since its start."""

    mix: Mix
    outage: float | None  # seconds without updates; None: the database is new
    unread_count: int  # stages
    unread_in_flight_count: int  # of these, stages with runs in flight
    estimate_seconds: float | None  # estimate shown by pages at the start
    in_flight_read_after: float | None  # all runs in flight read
    production_read_after: float | None  # every Production stage read
    all_read_after: float | None  # every stage read
    avoidable_refusals: int


def simulate_cold_start(job: tuple[Mix, float | None, int]) -> ColdStartResult:
    mix, outage, seed = job
    simulation = ColdStart(World(mix, 1.0, seed), outage)
    figures = simulation.run()
    return ColdStartResult(
        mix,
        outage,
        simulation.unread_count,
        simulation.unread_in_flight_count,
        simulation.estimate_seconds,
        simulation.in_flight_read_after,
        simulation.production_read_after,
        simulation.all_read_after,
        figures.avoidable_refusals,
    )


def make_cold_start_jobs(only: str) -> list[tuple[Mix, float | None]]:
    """Return mixes that contain this text, each with the outage before."""
    sizes = [(30, 6), (180, 20), (300, 38), (3000, 100)]
    jobs = [
        (Mix(stages, in_flight, others_share), outage)
        for outage in (None, 2 * HOUR)
        for stages, in_flight in sizes
        for others_share in (0.0, 0.3, 0.6)
    ]
    return [job for job in jobs if only in f"cold start | {job[0]}"]


COLD_START_HEAD = (
    "Stages / in flight | Others | Start | Unread: stages / in flight | Others refused "
    "| All in flight read | Production read | All read | Estimate"
)


def make_cold_start_row(result: ColdStartResult) -> list[str]:
    def format_read_time(seconds: float | None) -> str:
        return "not within half a day" if seconds is None else format_seconds(seconds)

    target = math.inf
    if not result.mix.others_share:
        target = COLD_START_TARGETS.get(result.mix.stages, math.inf)
    in_flight_read_after = result.in_flight_read_after
    is_in_time = target == math.inf or (
        in_flight_read_after is not None and in_flight_read_after <= target
    )
    # The estimate is met if reading takes at most a quarter and a minute longer.
    estimate = result.estimate_seconds if result.estimate_seconds is not None else math.inf
    is_estimate_met = result.all_read_after is None or result.all_read_after <= 1.25 * estimate + 60
    return [
        str(result.mix).rpartition(" | ")[0],  # webhooks make no difference
        "new" if result.outage is None else f"after {result.outage / HOUR:g} h",
        f"{result.unread_count:,} / {result.unread_in_flight_count}",
        mark(str(result.avoidable_refusals), is_met=not result.avoidable_refusals),
        mark(format_read_time(in_flight_read_after), is_met=is_in_time),
        format_read_time(result.production_read_after),
        mark(format_read_time(result.all_read_after), is_met=is_estimate_met),
        "" if result.estimate_seconds is None else format_seconds(result.estimate_seconds),
    ]


HEAD = (
    "Stages / in flight | Others | Webhooks | Refused | Mean age / bound | × | p95 / bound | × "
    "| Strict bound: × | p95 × | Mirrored | New run: p50 | p95 | Used | Aborts refused"
)


def print_head(title: str, head: str) -> None:
    print(f"\n**{title}**\n\n| {head} |\n|{' --- |' * len(head.split(' | '))}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="two days")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="mixes that contain this text, e.g. '300 / 15'")
    options = parser.parse_args()
    days = 2.0 if options.quick else options.days
    jobs = [(d, m, days, options.seed) for d, m in make_jobs() if options.only in f"{d} | {m}"]
    started_at, missed, previous_design = time.perf_counter(), 0, ""
    figures_by_job: dict[tuple[str, Mix], Figures] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for design, mix, figures in pool.map(simulate, jobs):
            if design != previous_design:
                print_head(design, HEAD)
                previous_design = design
            figures_by_job[design, mix] = figures
            cells = make_row(mix, figures)
            missed += count_missed(cells) if design == SYNC else 0
            print(f"| {' | '.join(cells)} |", flush=True)
        print_head("Cold start", COLD_START_HEAD)
        cold_start_jobs = [
            (mix, outage, options.seed) for mix, outage in make_cold_start_jobs(options.only)
        ]
        for result in pool.map(simulate_cold_start, cold_start_jobs):
            cells = make_cold_start_row(result)
            missed += count_missed(cells)
            print(f"| {' | '.join(cells)} |", flush=True)
    for line in format_baseline_table(figures_by_job, days):
        print(line)
    print(f"\n{days:g} days, seed {options.seed}; {missed} targets missed.")
    print(f"{time.perf_counter() - started_at:.0f} s", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
