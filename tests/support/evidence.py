"""Evidence of failed tests: screenshots and texts of pages, logs of processes."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

FOLDER: Path = settings.BASE_DIR / "var" / "failed-tests"

type Save = Callable[[Path, str], object]  # saves into a folder, under a name without suffix

_sources: list[tuple[str, Save]] = []


def add(name: str, save: Save) -> None:
    """Call `save` if the current test fails."""
    _sources.append((name, save))


def clear_sources() -> None:
    """Remove the sources of the previous test."""
    _sources.clear()


def clear() -> None:
    """Remove the evidence of an earlier run of the suite."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def collect(test: str, report: str) -> Path:
    """Write a failure's report and the evidence of all sources; return the folder."""
    folder = FOLDER / re.sub(r"[^\w.-]+", "-", test)[-150:].strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text(report)
    for number, (name, save) in enumerate(_sources, start=1):
        try:
            save(folder, f"{number}-{name}")
        except Exception as error:  # must not hide the test's own failure
            (folder / f"{number}-{name}.missing.txt").write_text(f"{type(error).__name__}: {error}")
    return folder
