"""What a failed test leaves behind: pictures and texts of its pages, logs of its processes."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from django.conf import settings

FOLDER: Path = settings.BASE_DIR / "var" / "failed-tests"

type Save = Callable[[Path, str], object]  # into a folder, under a name without its suffix

_sources: list[tuple[str, Save]] = []


def add(name: str, save: Save) -> None:
    """Have `save` called if the test that is running fails."""
    _sources.append((name, save))


def clear_sources() -> None:
    """Forget the sources of the test before."""
    _sources.clear()


def clear() -> None:
    """Remove what an earlier run of the suite has left."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def collect(test: str, report: str) -> Path:
    """Write down how a test failed, with all that its sources can tell; return the folder."""
    folder = FOLDER / re.sub(r"[^\w.-]+", "-", test)[-150:].strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text(report)
    for number, (name, save) in enumerate(_sources, start=1):
        try:
            save(folder, f"{number}-{name}")
        except Exception as error:  # whatever it is, the test's own failure is what matters
            (folder / f"{number}-{name}.missing.txt").write_text(f"{type(error).__name__}: {error}")
    return folder
