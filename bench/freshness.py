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
from simulated import DAY, Figures, Mix, World


def mixes() -> list[tuple[str, Mix]]:
    sizes = [(30, 6), (300, 15), (3000, 40)]
    product_mixes = [
        ("ours", Mix(stages, flying, others, push))
        for stages, flying in sizes
        for others in (0.0, 0.3, 0.6)
        for push in (False, True)
    ]
    compared = [
        (design, mix)
        for design in ("ours, without learning", "ours, details as runs end")
        for _, mix in product_mixes
        if mix.others == 0.3
    ]
    naive = [
        (design, Mix(stages, flying, 0.3))
        for design, simulation in DESIGNS.items()
        if not issubclass(simulation, ProductSync)
        for stages, flying in sizes[:2]  # more stages make it worse and the simulation slow
    ]
    return product_mixes + compared + naive


def simulate(job: tuple[str, Mix, float, int]) -> tuple[str, Mix, Figures]:
    design, mix, days, seed = job
    return design, mix, DESIGNS[design](World(mix, days, seed)).run()


def seconds(figure: float) -> str:
    return f"{figure:.1f} s" if figure < 600 else f"{figure / 60:.0f} min"


def _times(age: float, bound: float) -> str:
    return f"{age / bound:.2f}" if bound else ""


def row(mix: Mix, figures: Figures) -> tuple[list[str], int]:
    """Return the cells of a row, and the number of missed targets (bold)."""
    missed = 0

    def mark(text: str, met: bool) -> str:
        nonlocal missed
        missed += not met
        return text if met else f"**{text}**"

    delays = sorted(figures.delays)
    mean = figures.ages.mean / figures.bound.mean if figures.bound.mean else 0.0
    p95 = figures.ages.p95 / figures.bound.p95 if figures.bound.p95 else 0.0
    share_used = figures.used / figures.usable if figures.usable else 0.0
    cells = [
        str(mix),
        mark(f"{figures.refused_ours + figures.refused_for_us}", met=not figures.refused_for_us),
        f"{seconds(figures.ages.mean)} / {seconds(figures.bound.mean)}",
        mark(f"{mean:.2f}", mean <= 1.2),
        f"{seconds(figures.ages.p95)} / {seconds(figures.bound.p95)}",
        mark(f"{p95:.2f}", p95 <= 1.2),
        _times(figures.ages.mean, figures.all_spent.mean),
        _times(figures.ages.p95, figures.all_spent.p95),
        f"{figures.known_time / figures.run_time:.0%}" if figures.run_time else "",
        seconds(delays[len(delays) // 2]) if delays else "",
        seconds(delays[int(len(delays) * 0.95)]) if delays else "",
        mark(f"{share_used:.1%}", share_used >= 0.95) if figures.usable else "",
        mark(f"{figures.aborts_refused} of {figures.aborts}", not figures.aborts_refused),
    ]
    return cells, missed


def learning(figures_by_job: dict[tuple[str, Mix], Figures], days: float) -> Iterator[str]:
    """Yield a table of the cost of baselines, and of the time until they are known."""
    designs = ("ours, without learning", "ours, details as runs end", "ours")
    mixes_ = [mix for design, mix in figures_by_job if design == designs[0]]
    compared = [(m, d) for m in mixes_ for d in designs if (d, m) in figures_by_job]
    if not compared:
        return
    yield "\n**Cost of baselines**\n"
    yield (
        "| Stages / in flight | Others | Webhooks | | Details a day | Share of ours "
        "| Requests a day | Mean age | × | p95 | × | Steps known of | 80% of these after |"
    )
    yield f"|{' --- |' * 13}"
    for mix, design in compared:
        figures = figures_by_job[design, mix]
        observed_times = sorted(figures.observed_at.values())
        sample_count = math.ceil(0.8 * figures.teaching)
        soon = (
            f"{observed_times[sample_count - 1] / DAY:.1f} days"
            if 0 < sample_count <= len(observed_times)
            else "not yet"
        )
        learns = design != designs[0]
        cells = [
            str(mix),
            design,
            f"{figures.details / days:.0f}",
            f"{figures.details / figures.requests:.2%}",
            f"{figures.requests / days:,.0f}",
            seconds(figures.ages.mean),
            _times(figures.ages.mean, figures.bound.mean),
            seconds(figures.ages.p95),
            _times(figures.ages.p95, figures.bound.p95),
            f"{len(observed_times)} of {figures.teaching}" if learns else "",
            soon if learns else "",
        ]
        yield f"| {' | '.join(cells)} |"


# Cold start: a new database, and the end of an outage

COLD = {180: 60.0, 300: 100.0}  # seconds until all in flight are read, without others


@dataclass(frozen=True)
class ColdStartResult:
    """Results of one cold start; times are seconds since its start."""

    mix: Mix
    outage: float | None
    unread_count: int
    unread_in_flight_count: int
    estimate_seconds: float | None  # estimate shown by pages at the start
    in_flight_read_after: float | None  # all runs in flight read
    production_read_after: float | None  # every Production stage read
    all_read_after: float | None  # every stage read
    refused: int  # requests of others that only ours caused to be refused


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
        simulation.known_after,
        simulation.production_after,
        simulation.read_after,
        figures.refused_for_us,
    )


def cold_start_mixes(only: str) -> list[tuple[Mix, float | None]]:
    sizes = [(30, 6), (180, 20), (300, 38), (3000, 100)]
    jobs = [
        (Mix(stages, flying, others), outage)
        for outage in (None, 2 * 3600.0)
        for stages, flying in sizes
        for others in (0.0, 0.3, 0.6)
    ]
    return [job for job in jobs if only in f"cold start | {job[0]}"]


COLD_START_HEAD = (
    "Stages / in flight | Others | Start | Unread: stages / in flight | Refused "
    "| All in flight read | Production read | All read | Estimate"
)


def cold_start_row(result: ColdStartResult) -> tuple[list[str], int]:
    """Return the cells of a row, and the number of missed targets (bold)."""
    missed = 0

    def mark(text: str, met: bool) -> str:
        nonlocal missed
        missed += not met
        return text if met else f"**{text}**"

    def after(figure: float | None) -> str:
        return "not within half a day" if figure is None else seconds(figure)

    target = COLD.get(result.mix.stages) if not result.mix.others else None
    in_time = target is None or (
        result.in_flight_read_after is not None and result.in_flight_read_after <= target
    )
    # The estimate is met if reading takes at most a quarter and a minute longer.
    estimate = result.estimate_seconds if result.estimate_seconds is not None else math.inf
    is_estimate_met = result.all_read_after is None or result.all_read_after <= 1.25 * estimate + 60
    mix = str(result.mix).rpartition(" | ")[0]  # webhooks make no difference
    cells = [
        mix,
        "new" if result.outage is None else f"after {result.outage / 3600:g} h",
        f"{result.unread_count:,} / {result.unread_in_flight_count}",
        mark(str(result.refused), met=not result.refused),
        mark(after(result.in_flight_read_after), met=in_time),
        after(result.production_read_after),
        mark(after(result.all_read_after), met=is_estimate_met),
        "" if result.estimate_seconds is None else seconds(result.estimate_seconds),
    ]
    return cells, missed


HEAD = (
    "Stages / in flight | Others | Webhooks | Refused | Mean age / bound | × | p95 / bound | × "
    "| Finding free: × | p95 × | Known | New run: p50 | p95 | Used | Aborts refused"
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--quick", action="store_true", help="two days")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="mixes that contain this text, e.g. '300 / 15'")
    options = parser.parse_args()
    days = 2.0 if options.quick else options.days
    jobs = [(d, m, days, options.seed) for d, m in mixes() if options.only in f"{d} | {m}"]
    started_at, missed, last = time.perf_counter(), 0, ""
    figures: dict[tuple[str, Mix], Figures] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for design, mix, mix_figures in pool.map(simulate, jobs):
            if design != last:
                print(f"\n**{design}**\n\n| {HEAD} |\n|{' --- |' * len(HEAD.split(' | '))}")
                last = design
            figures[design, mix] = mix_figures
            cells, misses = row(mix, mix_figures)
            missed += misses if design == "ours" else 0
            print(f"| {' | '.join(cells)} |", flush=True)
        print(
            f"\n**Cold start**\n\n| {COLD_START_HEAD} |\n"
            f"|{' --- |' * len(COLD_START_HEAD.split(' | '))}"
        )
        cold_start_jobs = [
            (mix, outage, options.seed) for mix, outage in cold_start_mixes(options.only)
        ]
        for result in pool.map(simulate_cold_start, cold_start_jobs):
            cells, misses = cold_start_row(result)
            missed += misses
            print(f"| {' | '.join(cells)} |", flush=True)
    for line in learning(figures, days):
        print(line)
    print(f"\n{days:g} days, seed {options.seed}; {missed} targets missed.")
    print(f"{time.perf_counter() - started_at:.0f} s", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
