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

from designs import DESIGNS, FromTheDark, Ours
from simulated import DAY, Figures, Mix, World


def mixes() -> list[tuple[str, Mix]]:
    sizes = [(30, 6), (300, 15), (3000, 40)]
    ours = [
        ("ours", Mix(stages, flying, others, push))
        for stages, flying in sizes
        for others in (0.0, 0.3, 0.6)
        for push in (False, True)
    ]
    compared = [
        (design, mix)
        for design in ("ours, without learning", "ours, details as runs end")
        for _, mix in ours
        if mix.others == 0.3
    ]
    naive = [
        (design, Mix(stages, flying, 0.3))
        for design, made in DESIGNS.items()
        if not issubclass(made, Ours)
        for stages, flying in sizes[:2]  # more stages make it worse and the simulation slow
    ]
    return ours + compared + naive


def simulate(job: tuple[str, Mix, float, int]) -> tuple[str, Mix, Figures]:
    design, mix, days, seed = job
    return design, mix, DESIGNS[design](World(mix, days, seed)).run()


def seconds(figure: float) -> str:
    return f"{figure:.1f} s" if figure < 600 else f"{figure / 60:.0f} min"


def _times(age: float, bound: float) -> str:
    return f"{age / bound:.2f}" if bound else ""


def row(mix: Mix, found: Figures) -> tuple[list[str], int]:
    """Return the cells of a row, and the number of missed targets (bold)."""
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


def learning(found: dict[tuple[str, Mix], Figures], days: float) -> Iterator[str]:
    """Yield a table of the cost of baselines, and of the time until they are known."""
    designs = ("ours, without learning", "ours, details as runs end", "ours")
    mixes_ = [mix for design, mix in found if design == designs[0]]
    compared = [(m, d) for m in mixes_ for d in designs if (d, m) in found]
    if not compared:
        return
    yield "\n**Cost of baselines**\n"
    yield (
        "| Stages / in flight | Others | Webhooks | | Details a day | Share of ours "
        "| Requests a day | Mean age | × | p95 | × | Steps known of | 80% of these after |"
    )
    yield f"|{' --- |' * 13}"
    for mix, design in compared:
        one = found[design, mix]
        learned = sorted(one.observed_at.values())
        enough = math.ceil(0.8 * one.teaching)
        soon = f"{learned[enough - 1] / DAY:.1f} days" if 0 < enough <= len(learned) else "not yet"
        learns = design != designs[0]
        cells = [
            str(mix),
            design,
            f"{one.details / days:.0f}",
            f"{one.details / one.requests:.2%}",
            f"{one.requests / days:,.0f}",
            seconds(one.ages.mean),
            _times(one.ages.mean, one.bound.mean),
            seconds(one.ages.p95),
            _times(one.ages.p95, one.bound.p95),
            f"{len(learned)} of {one.teaching}" if learns else "",
            soon if learns else "",
        ]
        yield f"| {' | '.join(cells)} |"


# Cold start: a new database, and the end of an outage

COLD = {180: 60.0, 300: 100.0}  # seconds until all in flight are read, without others


@dataclass(frozen=True)
class Light:
    """Results of one cold start; times are seconds since its start."""

    mix: Mix
    outage: float | None
    gaps: int
    awaited: int
    stated: float | None  # estimate shown by pages at the start
    known: float | None  # all runs in flight read
    production: float | None  # every Production stage read
    read: float | None  # every stage read
    refused: int  # requests of others that only ours caused to be refused


def from_the_dark(job: tuple[Mix, float | None, int]) -> Light:
    mix, outage, seed = job
    one = FromTheDark(World(mix, 1.0, seed), outage)
    figures = one.run()
    return Light(
        mix,
        outage,
        one.asked,
        one.flew,
        one.stated,
        one.known_after,
        one.production_after,
        one.read_after,
        figures.refused_for_us,
    )


def in_the_dark(only: str) -> list[tuple[Mix, float | None]]:
    sizes = [(30, 6), (180, 20), (300, 38), (3000, 100)]
    jobs = [
        (Mix(stages, flying, others), outage)
        for outage in (None, 2 * 3600.0)
        for stages, flying in sizes
        for others in (0.0, 0.3, 0.6)
    ]
    return [job for job in jobs if only in f"dark | {job[0]}"]


DARK_HEAD = (
    "Stages / in flight | Others | Start | Unread: stages / in flight | Refused "
    "| All in flight read | Production read | All read | Estimate"
)


def dark_row(light: Light) -> tuple[list[str], int]:
    """Return the cells of a row, and the number of missed targets (bold)."""
    missed = 0

    def held(text: str, met: bool) -> str:
        nonlocal missed
        missed += not met
        return text if met else f"**{text}**"

    def after(figure: float | None) -> str:
        return "not within half a day" if figure is None else seconds(figure)

    target = COLD.get(light.mix.stages) if not light.mix.others else None
    in_time = target is None or (light.known is not None and light.known <= target)
    # The estimate is met if reading takes at most a quarter and a minute longer.
    told = light.stated if light.stated is not None else math.inf
    kept = light.read is None or light.read <= 1.25 * told + 60
    mix = str(light.mix).rpartition(" | ")[0]  # webhooks make no difference
    cells = [
        mix,
        "new" if light.outage is None else f"after {light.outage / 3600:g} h",
        f"{light.gaps:,} / {light.awaited}",
        held(str(light.refused), met=not light.refused),
        held(after(light.known), met=in_time),
        after(light.production),
        held(after(light.read), met=kept),
        "" if light.stated is None else seconds(light.stated),
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
    asked = parser.parse_args()
    days = 2.0 if asked.quick else asked.days
    jobs = [(d, m, days, asked.seed) for d, m in mixes() if asked.only in f"{d} | {m}"]
    started_at, missed, last = time.perf_counter(), 0, ""
    figures: dict[tuple[str, Mix], Figures] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for design, mix, found in pool.map(simulate, jobs):
            if design != last:
                print(f"\n**{design}**\n\n| {HEAD} |\n|{' --- |' * len(HEAD.split(' | '))}")
                last = design
            figures[design, mix] = found
            cells, misses = row(mix, found)
            missed += misses if design == "ours" else 0
            print(f"| {' | '.join(cells)} |", flush=True)
        print(f"\n**Cold start**\n\n| {DARK_HEAD} |\n|{' --- |' * len(DARK_HEAD.split(' | '))}")
        dark = [(mix, outage, asked.seed) for mix, outage in in_the_dark(asked.only)]
        for light in pool.map(from_the_dark, dark):
            cells, misses = dark_row(light)
            missed += misses
            print(f"| {' | '.join(cells)} |", flush=True)
    for line in learning(figures, days):
        print(line)
    print(f"\n{days:g} days, seed {asked.seed}; {missed} targets missed.")
    print(f"{time.perf_counter() - started_at:.0f} s", file=sys.stderr)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
