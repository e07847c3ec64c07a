"""Which release a run is, and by how many releases a stage is behind the one before it. Pure.

Northflank has no word for a release. Two runs are of the same one if their steps name the same
commits or builds (`Run.release_key`) or, where these cannot be compared, if their names are equal.
"""

from collections.abc import Sequence

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


def compare(released: Run, ahead: Sequence[Run]) -> tuple[str, list[Run]]:
    """Return how far a stage is behind the one before it, and the latest run of each missing
    release, newest first.

    How far: a number of releases, such as "6", or "5+" for at least five; "unknown" if they cannot
    be counted, or the stage before went back; empty if both have the same release. `released` is
    the stage's last success. `ahead` are those of the stage before, newest first, at least one.
    """
    same = [is_same(run, released) for run in ahead]
    if same[0]:
        return "", []
    if True in same:
        count = same.index(True)
    else:  # only what succeeded later is newer for certain
        count = sum(run.ended_at > released.ended_at for run in ahead)
    older = ahead[count:]
    missing: list[Run] = []
    for run, is_released in zip(ahead[:count], same, strict=False):
        is_known = any(is_same(run, other) for other in [*missing, *older])
        if is_released is not None and not is_known:
            missing.append(run)
    if not missing or any(is_same(ahead[0], run) for run in older):
        return "unknown", []
    if True in same and None not in same[:count]:
        return str(len(missing)), missing
    return f"{len(missing)}+", missing
