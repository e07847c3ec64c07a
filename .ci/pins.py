"""Hold every package to one version: each transitive one is pinned in pyproject.toml.

uv run .ci/pins.py           say what is not pinned as it resolves, and what a deployment would
                             install otherwise, or without a hash
uv run .ci/pins.py --write   pin it; `make requirements` is for deploy/requirements.txt
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"
REQUIREMENTS = ROOT / "deploy" / "requirements.txt"
HASHED = re.compile(r"^(\S.*?) \\\n +--hash=sha256:[0-9a-f]{64}\b", re.MULTILINE)


def resolve(groups: str) -> dict[str, str]:
    """Return each resolved package's line, `name==version ; marker`, by its name."""
    command = f"uv export --quiet {groups} --no-hashes --no-emit-project --no-annotate --no-header"
    lines = subprocess.run(
        command.split(), check=True, capture_output=True, text=True, cwd=ROOT
    ).stdout.splitlines()
    return {name_of(line): line.strip() for line in lines if line.strip()}


def name_of(requirement: str) -> str:
    """Return the package's name in a requirement, normalised."""
    return re.split(r"[\[=<>!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def main() -> int:
    text = PYPROJECT.read_text()
    project = tomllib.loads(text)
    groups = project["dependency-groups"].values()
    direct = [*project["project"]["dependencies"], *(line for group in groups for line in group)]
    loose = [line for line in direct if "==" not in line]
    names = {name_of(line) for line in direct}
    resolved = resolve("--all-groups")
    expected_pins = sorted(line for name, line in resolved.items() if name not in names)
    pins = project["tool"]["uv"].get("constraint-dependencies", [])
    if "--write" in sys.argv:
        # Markers hold apostrophes only, so TOML's plain strings take them.
        lines = "".join(f'    "{line}",\n' for line in expected_pins)
        block = f"constraint-dependencies = [\n{lines}]\n"
        text = re.sub(r"(?sm)constraint-dependencies = \[\n.*?^\]\n", "", text)
        PYPROJECT.write_text(text.rstrip("\n") + "\n" + block)
        return 0
    missing = sorted(set(expected_pins) - set(pins))
    for line in [*loose, *missing]:
        print(f"not pinned: {line}")
    # Not the hashes themselves: each wheel that is published later adds one.
    deployed = HASHED.findall(REQUIREMENTS.read_text())
    stale = sorted(set(resolve("--no-dev").values()) ^ set(deployed))
    for line in stale:
        print(f"not the same in deploy/requirements.txt, or without a hash: {line}")
    return 1 if loose or missing or stale else 0


if __name__ == "__main__":
    sys.exit(main())
