"""Print the coverage of each room, lines and branches together, and hold it to its floor.

uv run .ci/coverage_floors.py           after the suite; fails where a room is below its floor
uv run .ci/coverage_floors.py --write   raise the floors to what is measured; none is ever lowered

A room is a folder of dashboard/; the modules beside these folders are one room, `dashboard`. The
floors are in coverage_floors.toml, in whole percent and SLACK below what was measured: lines that
wait for chance or time are not met by every run. `.ci/coverage/measurement.py` measures.
"""

import json
import math
import os
import pickle
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

from slipcover import Slipcover

ROOT = Path(__file__).resolve().parent.parent
FLOORS = Path(__file__).with_suffix(".toml")
DATA = ROOT / "var" / "coverage"
REPORT = DATA / "report.json"
SLACK = 0.5  # percent
NO_CODE = r"^\s*\.\.\.$"  # the body of a method of a protocol


def measure() -> dict[str, Any]:
    """Return slipcover's report by file, of all that has been measured since the last erasure."""
    measurement = Slipcover(
        branch=True,
        source=[str(ROOT / "dashboard")],
        omit=["*/migrations/*"],
        exclude_also=[NO_CODE],
    )
    for path in DATA.glob("*.data"):
        for name, places in pickle.loads(path.read_bytes()).items():
            # Some tests run a copy of the product.
            file = ROOT / "dashboard" / name.rpartition("/dashboard/")[2]
            measurement.newly_seen[str(file)] |= places
    os.chdir(ROOT)  # paths in the report are relative to the current folder
    files: dict[str, Any] = measurement.get_coverage()["files"]
    REPORT.write_text(json.dumps(files, indent=1))
    return files


def percent(hit: int, missed: int) -> float:
    return 100 * hit / (hit + missed) if hit + missed else 100.0


def main() -> int:
    floors: dict[str, int] = tomllib.loads(FLOORS.read_text()) if FLOORS.exists() else {}
    new_floors = dict(floors)
    rooms: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for name, file in measure().items():
        room = Path(name).parts[1] if len(Path(name).parts) > 2 else "dashboard"
        for count in ("executed_lines", "missing_lines", "executed_branches", "missing_branches"):
            rooms[room][count] += len(file[count])
    below = sorted(floors.keys() - rooms.keys())  # a room that is gone or was renamed
    print(f"{'room':<12} {'lines':>7} {'branches':>9} {'both':>7} {'floor':>6}")
    for room, counts in sorted(rooms.items()):
        lines, missing_lines, branches, missing_branches = counts.values()
        total = percent(lines + branches, missing_lines + missing_branches)
        floor = floors.get(room, 0)
        columns = (
            f"{percent(lines, missing_lines):>6.1f}% {percent(branches, missing_branches):>8.1f}%"
        )
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
