"""Which runs are of the same release, and what a stage lacks of the one before it."""

import pytest

from dashboard.models import Run
from dashboard.runs import releases

COMMIT, OTHER_COMMIT = f"commit {'a' * 40}", f"commit {'b' * 40}"


@pytest.mark.parametrize(
    ("run", "other", "expected"),
    [
        (("1.4", COMMIT), ("Nightly", COMMIT), True),
        (("1.4", COMMIT), ("1.4", OTHER_COMMIT), False),  # all runs may have the same name
        (("1.4", COMMIT), ("1.4", "build joyous-view-6290"), True),
        (("1.4", COMMIT), ("1.5", "build joyous-view-6290"), False),
        (("1.4", COMMIT), ("1.4", None), True),
        (("1.4", None), ("1.5", None), False),
        (("", None), ("", None), None),
        (("1.4", COMMIT), ("", None), None),
    ],
)
def test_runs_are_of_the_same_release_by_commit_or_build_else_by_name(
    run: tuple[str, str | None], other: tuple[str, str | None], expected: bool | None
) -> None:
    first, second = (Run(name=name, release_key=key) for name, key in (run, other))
    assert releases.is_same(first, second) is expected
    assert releases.is_same(second, first) is expected


@pytest.mark.parametrize(
    ("released", "ahead", "expected"),
    [
        ("1.4", "1.4 1.3", ""),
        ("1.4", "1.5 1.4", "1: 1.5"),
        ("1.4", "1.7 1.6 1.5 1.4 1.3", "3: 1.7 1.6 1.5"),
        ("1.4", "1.6 1.5 1.6 1.5 1.4", "2: 1.6 1.5"),  # released again and again
        ("1.4", "1.6 ? 1.4", "1+: 1.6"),  # one may be another release
        ("1.4", "? 1.5 1.4", "1+: 1.5"),
        ("1.4", "? 1.4", "unknown: "),  # which may be the same
        ("?", "1.6 1.5", "unknown: "),
        # The stage before went back to what it had before.
        ("1.4", "1.3 1.4 1.3", "unknown: "),
        ("1.4", "1.3 1.5 1.4 1.3", "unknown: "),
        ("1.4", "1.5 1.3 1.4 1.3", "1: 1.5"),
        # The stage before never had it, or too long ago: | is when it succeeded.
        ("1.4", "1.6 1.5 | 1.3 1.2", "2+: 1.6 1.5"),
        ("1.4", "1.6 ? 1.5 | 1.5 1.3", "1+: 1.6"),
        ("1.4", "| 1.6 1.5", "unknown: "),
        ("1.4", "1.3 | 1.3", "unknown: "),
    ],
)
def test_a_stage_is_behind_by_the_releases_that_succeeded_later_in_the_stage_before(
    released: str, ahead: str, expected: str
) -> None:
    moments = range(ahead.count(" ") + 1, 0, -1)
    run = Run(name=released.strip("?"))
    run.ended_at = 0
    before = []
    for name, moment in zip(ahead.split(), moments, strict=True):
        if name == "|":
            run.ended_at = moment
        else:
            before.append(Run(name=name.strip("?")))
            before[-1].ended_at = moment
    lag, missing = releases.compare(run, before)
    text = f"{lag}: {' '.join(lacking.name for lacking in missing)}"
    assert text.strip(": ") == expected.strip(": ")
