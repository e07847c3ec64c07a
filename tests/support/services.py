"""The servers and programs that the suite uses if this machine has them."""

import os
import shutil
from pathlib import Path

# The headless shell is Chromium without its desktop part: the same pages for a third of the CPU
# time.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
# For `make firefox`.
FIREFOX = os.environ.get("FIREFOX") or shutil.which("firefox-esr") or shutil.which("firefox")
# A server on which tests may create databases.
POSTGRES = os.environ.get("TEST_POSTGRES_URL") or "postgres://postgres@127.0.0.1:5432/postgres"
# Every variant, instead of a choice that the suite can afford: `make crawl`, `faults`, `outages`.
EXHAUSTIVE = os.environ.get("EXHAUSTIVE") == "1"
IN_CI = os.environ.get("CI") == "true"


def _find_postgres_programs() -> Path | None:
    """Return the folder of initdb and pg_ctl; Debian has it in no PATH, one for each version."""
    if (program := shutil.which("initdb")) is not None:
        return Path(program).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(folders, key=lambda folder: int(folder.parent.name), default=None)


POSTGRES_PROGRAMS = _find_postgres_programs()
