"""Print the coverage of each room, lines and branches together, and hold it to its floor.

uv run .ci/coverage_floors.py           after the suite; fails where a room is below its floor
uv run .ci/coverage_floors.py --write   raise the floors to what is measured; none is ever lowered

A room is a folder of dashboard/; the modules beside these folders are one room, `dashboard`. The
floors are in coverage_floors.toml, in whole percent and SLACK below what was measured: lines that
wait for chance or time are not met by every run.
"""

import json
import math
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = Path(__file__).with_suffix(".toml")
REPORT = ROOT / "var" / "coverage" / "report.json"
SLACK = 0.5  # percent
COUNTS = ("num_statements", "covered_lines", "num_branches", "covered_branches")


def measure() -> dict[str, list[int]]:
    """Return the COUNTS of each room, of all that has been measured since the last erasure."""
    coverage = [sys.executable, "-m", "coverage"]
    if any(REPORT.parent.glob("data.*")):
        subprocess.run([*coverage, "combine", "--quiet", "--append"], check=True, cwd=ROOT)
    subprocess.run([*coverage, "json", "--quiet", "-o", REPORT], check=True, cwd=ROOT)
    rooms: dict[str, list[int]] = defaultdict(lambda: [0] * len(COUNTS))
    for name, file in json.loads(REPORT.read_text())["files"].items():
        room = Path(name).parts[1] if len(Path(name).parts) > 2 else "dashboard"
        for at, count in enumerate(COUNTS):
            rooms[room][at] += file["summary"].get(count, 0)
    return dict(rooms)


def percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 100.0


def main() -> int:
    floors: dict[str, int] = tomllib.loads(FLOORS.read_text()) if FLOORS.exists() else {}
    below, new_floors = [], dict(floors)
    print(f"{'room':<12} {'lines':>7} {'branches':>9} {'both':>7} {'floor':>6}")
    for room, (lines, hit_lines, branches, hit_branches) in sorted(measure().items()):
        total = percent(hit_lines + hit_branches, lines + branches)
        floor = floors.get(room, 0)
        columns = f"{percent(hit_lines, lines):>6.1f}% {percent(hit_branches, branches):>8.1f}%"
        print(f"{room:<12} {columns} {total:>6.1f}% {floor:>5}%")
        new_floors[room] = max(floor, math.floor(total - SLACK))
        if total < floor:
            below.append(room)
    if "--write" in sys.argv:
        FLOORS.write_text(
            "".join(f"{room} = {floor}\n" for room, floor in sorted(new_floors.items()))
        )
    for room in below:
        print(f"{room} is below its floor: what is not covered is in {REPORT.relative_to(ROOT)}")
    for room in sorted(new_floors):
        if room in floors and new_floors[room] > floors[room]:
            print(f"{room} has risen above its floor: run this with --write")
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
