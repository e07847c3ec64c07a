"""Hold each room to its budgets: less code is the aim, so more of it is a decision.

uv run .ci/line_budget.py           print them; fails where a room exceeds one of its budgets
uv run .ci/line_budget.py --write   lower the budgets to what is there; none is ever raised

A room is a folder of dashboard/; the modules beside these folders are one, `dashboard`; so are
tests/ and bench/ as a whole. Decisions and conditional expressions are counted in dashboard/, apart
from migrations; templates and scripts by lines, style sheets by bytes. The budgets are in
line_budget.toml, each rounded up to the next STEP of its kind.
"""

import ast
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUDGETS = Path(__file__).with_suffix(".toml")
STEP = {"lines": 10, "decisions": 5, "conditional expressions": 1, "bytes": 100}


def measure() -> dict[str, Counter[str]]:
    """Return what there is of each kind, by room."""
    found: dict[str, Counter[str]] = {kind: Counter() for kind in STEP}
    for top in ("bench", "dashboard", "tests"):
        for path in (ROOT / top).rglob("*.py"):
            folder = path.relative_to(ROOT).parts[1:-1]
            room = f"{top}/{folder[0]}" if top == "dashboard" and folder else top
            found["lines"][room] += count_lines(path)
            if top == "dashboard" and "migrations" not in folder:
                count_decisions(path, room, found)
    for path in (ROOT / "templates").rglob("*.html"):
        found["lines"]["templates"] += count_lines(path)
    for path in (ROOT / "static").rglob("*.js"):
        if "htmx" not in path.name:
            found["lines"]["static, scripts"] += count_lines(path)
    for path in (ROOT / "static").rglob("*.css"):
        found["bytes"]["static, style sheets"] += path.stat().st_size
    return found


def count_lines(path: Path) -> int:
    return len(path.read_bytes().splitlines())


def count_decisions(path: Path, room: str, found: dict[str, Counter[str]]) -> None:
    """Add a module's `if`, `elif`, `except`, conditional expressions, `and` and `or`."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.If | ast.IfExp | ast.ExceptHandler):
            found["decisions"][room] += 1
        elif isinstance(node, ast.BoolOp):
            found["decisions"][room] += len(node.values) - 1
        if isinstance(node, ast.IfExp):
            found["conditional expressions"][room] += 1


def lowered(kind: str, counts: Counter[str], budgets: dict[str, int]) -> dict[str, int]:
    step = STEP[kind]
    rounded = {room: -(-count // step) * step for room, count in counts.items()}
    return {room: min(rounded[room], budgets.get(room, rounded[room])) for room in sorted(rounded)}


def main() -> int:
    budgets: dict[str, dict[str, int]] = tomllib.loads(BUDGETS.read_text())
    found = measure()
    if "--write" in sys.argv:
        tables = [
            f'["{kind}"]\n'
            + "".join(
                f'"{room}" = {budget}\n'
                for room, budget in lowered(kind, counts, budgets.get(kind, {})).items()
            )
            for kind, counts in found.items()
        ]
        BUDGETS.write_text("\n".join(tables))
        return 0
    status = 0
    for kind, counts in found.items():
        print(f"{kind}:")
        of_kind = budgets.get(kind, {})
        for room in sorted(counts.keys() | of_kind.keys()):
            mark = ""
            if counts[room] > of_kind.get(room, 0):
                mark, status = "  over its budget", 1
            print(f"  {room:<22} {counts[room]:>6} of {of_kind.get(room, 0):>6}{mark}")
    return status


if __name__ == "__main__":
    sys.exit(main())
