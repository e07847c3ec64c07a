"""Hold each room to its budget of lines: less code is the aim, so more of it is a decision.

uv run .ci/line_budget.py           print both; fails where a room has more lines than its budget
uv run .ci/line_budget.py --write   lower the budgets to what is there; none is ever raised

A room is a folder of dashboard/; the modules beside these folders are one, `dashboard`; so are
tests/ and bench/ as a whole. The budgets are in line_budget.toml, rounded up to the next STEP.
"""

import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = Path(__file__).with_suffix(".toml")
STEP = 10


def count_lines() -> Counter[str]:
    """Return the lines of all Python modules by room."""
    lines: Counter[str] = Counter()
    for top in ("bench", "dashboard", "tests"):
        for path in (ROOT / top).rglob("*.py"):
            folder = path.relative_to(ROOT).parts[1:-1]
            room = f"{top}/{folder[0]}" if top == "dashboard" and folder else top
            lines[room] += len(path.read_bytes().splitlines())
    return lines


def main() -> int:
    budgets: dict[str, int] = tomllib.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}
    lines = count_lines()
    if "--write" in sys.argv:
        lowered = {
            room: min(-(-count // STEP) * STEP, budgets.get(room, count + STEP))
            for room, count in lines.items()
        }
        BUDGETS.write_text("".join(f'"{room}" = {lowered[room]}\n' for room in sorted(lowered)))
        return 0
    for room in sorted(lines | budgets):
        mark = "  over its budget" if lines[room] > budgets.get(room, 0) else ""
        print(f"{room:<22} {lines[room]:>6} of {budgets.get(room, 0):>6}{mark}")
    return 1 if any(count > budgets.get(room, 0) for room, count in lines.items()) else 0


if __name__ == "__main__":
    sys.exit(main())
