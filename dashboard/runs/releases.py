"""Which release a run is, and by how many releases a stage is behind the one before it. Pure.

Northflank has no word for a release. Two runs are of the same one if their steps name the same
commits or builds (`Run.release_key`) or, where these cannot be compared, if their names are equal.
"""

from collections.abc import Iterable

from dashboard.models import Run

MAX_COMPARED = 20  # the latest successes of the stage before


def is_same(run: Run, other: Run) -> bool | None:
    """Return whether two runs are of the same release; None: not known."""
    key, other_key = run.release_key or "", other.release_key or ""
    if key and key == other_key:
        return True
    if key.partition(" ")[0] == other_key.partition(" ")[0] != "":
        return False
    return run.name == other.name if run.name and other.name else None


def missing(released: Run, ahead: Iterable[Run]) -> list[Run]:
    """Return the latest run of each release that a stage lacks, newest first.

    `released` is its last success, `ahead` are those of the stage before it, newest first. Empty
    if it has the same release as that one now, or never had one that is known to be of `ahead`.
    """
    releases: list[Run] = []
    for run in ahead:
        same = is_same(run, released)
        if same or same is None:  # which may be the same
            return releases if same else []
        if not any(is_same(run, release) for release in releases):
            releases.append(run)
    return []
