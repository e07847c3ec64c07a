"""Say what became of the mutants that `make mutants` has tried, and show each that lives.

uv run --group mutants .ci/mutants.py [MODULE]   such as dashboard/runs/overdue.py, dashboard/aborts

Those that nothing can notice are listed in tests/mutants.md, each by its key with the reason.
"""

import hashlib
import re
import sys
from collections import Counter
from pathlib import Path

from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files

LIST = Path("tests/mutants.md")
OUTCOMES = ("killed", "timeout", "survived", "equivalent", "no tests", "not checked")


def change(mutant: str, path: Path) -> tuple[str, list[str]]:
    """Return the mutant's key, which outlasts its number, and its changed lines."""
    lines = get_diff_for_mutant(mutant, path=path).splitlines()[2:]
    changed = [line[0] + line[1:].strip() for line in lines if line[:1] in {"-", "+"}]
    function = re.sub(r"__mutmut_\d+$", "", mutant)
    source = "\n".join([function, *lines])  # with the lines around: the same change may come twice
    return hashlib.sha256(source.encode()).hexdigest()[:8], changed


def main() -> int:
    equivalent = set(re.findall(r"`([0-9a-f]{8})`", LIST.read_text() if LIST.exists() else ""))
    module = sys.argv[1] if len(sys.argv) > 1 else ""
    table: list[tuple[str, Counter[str]]] = []
    alive = 0
    for path in sorted(walk_mutatable_files()):
        data = SourceFileMutationData(path=path)
        data.load()
        if not str(path).startswith(module) or not data.exit_code_by_key:
            continue
        counts: Counter[str] = Counter()
        for mutant, code in data.exit_code_by_key.items():
            outcome = status_by_exit_code[code]
            if outcome not in {"killed", "not checked"}:
                key, changed = change(mutant, path)
                if outcome == "survived" and key in equivalent:
                    outcome = "equivalent"
                else:
                    alive += outcome != "timeout"
                    print(f"\n{outcome} `{key}` {mutant}", *changed, sep="\n    ")
            counts[outcome] += 1
        table.append((str(path), counts))
    table.append(("all", sum((counts for _, counts in table), Counter())))
    print(f"\n{'':36}{'mutants':>12}" + "".join(f"{outcome:>12}" for outcome in OUTCOMES))
    for name, counts in table:
        numbers = "".join(f"{counts[outcome]:>12}" for outcome in OUTCOMES)
        print(f"{name:36}{counts.total():>12}{numbers}")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main())
