"""Print how many lines and branches the suite has executed; fail below FLOOR.

uv run .ci/coverage_report.py, after the suite. `.ci/coverage/measurement.py` measures.
"""

import json
import os
import pickle
import sys
from pathlib import Path

from slipcover import Slipcover

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "var" / "coverage"
REPORT = DATA / "report.json"
FLOOR = 98.0  # percent of lines and branches
WORST = 10  # files that are printed
NO_CODE = r"^\s*\.\.\.$"  # the body of a method of a protocol


def main() -> int:
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
    report = measurement.get_coverage()
    REPORT.write_text(json.dumps(report, indent=1))
    percents = {name: file["summary"]["percent_covered"] for name, file in report["files"].items()}
    for name in sorted(percents, key=lambda name: percents[name])[:WORST]:
        print(f"{percents[name]:6.1f} %  {name}")
    covered: float = report["summary"]["percent_covered"]
    print(f"{covered:6.1f} %  in all; at least {FLOOR:g} % (details: {REPORT.relative_to(ROOT)})")
    return int(covered < FLOOR)


if __name__ == "__main__":
    sys.exit(main())
