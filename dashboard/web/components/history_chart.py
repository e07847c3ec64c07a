"""The latest runs of a stage as a strip of bars: what is drawn, and the same in words. Pure.

A bar is as high as its run took long; how it ended shows in its shape and its colour.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from django.utils import dateformat, timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.runs import durations, statuses
from dashboard.web.http import timezones

MOST = 30
# A bar that is so many times the median is cut: one forgotten run must not flatten all others.
CAP = 3.0

# The drawing, in units of its view box: a slot a run, the oldest at the left.
SLOT, BAR = 8, 5
TOP, HEIGHT = 8, 32  # above the bars there is room for a failure's cross
BASE = TOP + HEIGHT
VIEW_BOX = f"0 0 {MOST * SLOT} {BASE}"

# What a run that ended otherwise than these is called, and counted as.
OTHER = "other"
# Of so many runs, and of one.
_COUNTED: dict[str, tuple[Promise, Promise]] = {
    "success": (gettext_lazy("%(n)d succeeded"), gettext_lazy("Last run: succeeded")),
    "failure": (gettext_lazy("%(n)d failed"), gettext_lazy("Last run: failed")),
    "aborted": (gettext_lazy("%(n)d aborted"), gettext_lazy("Last run: aborted")),
    "skipped": (gettext_lazy("%(n)d skipped"), gettext_lazy("Last run: skipped")),
    OTHER: (gettext_lazy("%(n)d ended otherwise"), gettext_lazy("Last run: ended otherwise")),
}


@dataclass(frozen=True, slots=True)
class Past:
    """A run that has concluded: how it ended, how long it took, and when it ended."""

    key: int
    status: str
    took: timedelta | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Bar:
    """A run's bar: its shape as an SVG path, and what it says."""

    run: Past
    kind: str  # a key of _COUNTED
    path: str
    mark: str = ""  # the path of what points at it, where the page is about this run

    @property
    def title(self) -> str:
        """How the run ended, how long it took and when it ended; a strip in brief asks for none."""
        return _title(self.run)


@dataclass(frozen=True, slots=True)
class Strip:
    """The runs of a strip, the oldest first, and the same in words."""

    bars: list[Bar]
    median: str  # the path of a line at the median of the successes; empty where there is none
    middle: str  # "median of 26 successes: 6 min 3 s, waits …"; empty where there is none
    counts: str  # "Last 30 runs: 26 succeeded, 3 failed, 1 aborted"
    failed_at: datetime | None  # when the last of its failures ended

    @property
    def by_kind(self) -> list[tuple[str, str]]:
        """One path for all bars of a kind: the same drawing, a tenth as long."""
        kinds = dict.fromkeys(bar.kind for bar in self.bars)
        return [
            (kind, "".join(bar.path for bar in self.bars if bar.kind == kind)) for kind in kinds
        ]


def of(runs: Sequence[Past], *, here: int = 0) -> Strip | None:
    """Draw the latest runs (the newest first); None where there are none.

    `here` is the key of a run to point at.
    """
    runs = runs[:MOST]
    if not runs:
        return None
    took = [
        run.took.total_seconds() for run in runs if run.status == "success" and run.took is not None
    ]
    middle = timedelta(seconds=median(took)) if took else None
    full = _full(runs, middle)
    bars = [
        _bar(run, len(runs) - 1 - place, full, marked=run.key == here)
        for place, run in enumerate(runs)
    ]
    failures = [run.ended_at for run in runs if run.status == "failure" and run.ended_at]
    return Strip(
        bars=bars[::-1],
        median=_line(len(runs), _height(middle, full)) if middle is not None else "",
        middle=_middle(middle, len(took)) if middle is not None else "",
        counts=_counts(runs),
        failed_at=max(failures, default=None),
    )


def _middle(took: timedelta, successes: int) -> str:
    # Not what is usual (models/typical_duration.py), which leaves waits for people out: a bar is
    # all of its run.
    said = ngettext(
        "the success took %(took)s, waits for people included",
        "median of %(successes)d successes: %(took)s, waits for people included",
        successes,
    )
    return said % {"took": durations.in_words(took), "successes": successes}


def _full(runs: Sequence[Past], middle: timedelta | None) -> timedelta:
    """How long a run takes whose bar has the full height."""
    longest = max((run.took for run in runs if run.took is not None), default=timedelta())
    return min(longest, CAP * middle) if middle else longest


def _height(took: timedelta | None, full: timedelta) -> int:
    share = min(took / full, 1) if took and full > timedelta() else 0
    return max(round(HEIGHT * share), 2)  # one that took no time at all is seen, too


def _line(runs: int, height: int) -> str:
    return f"M0 {BASE - height}h{runs * SLOT}"


def _bar(run: Past, slot: int, full: timedelta, *, marked: bool) -> Bar:
    kind = run.status if run.status in _COUNTED else OTHER
    left = slot * SLOT + (SLOT - BAR) / 2
    height = _height(run.took, full)
    path = f"M{left:g} {BASE}v-{height}h{BAR}v{height}z"
    if kind == "failure":
        path += f"M{left:g} {BASE - height - 7}l{BAR} {BAR}m0-{BAR}l-{BAR} {BAR}"
    if kind == "skipped":
        path = f"M{left + BAR / 2:g} {BASE - 2}h.01"
    mark = f"M{left + BAR / 2:g} {BASE + 2}l3.5 5h-7z" if marked else ""
    return Bar(run, kind, path, mark)


def _title(run: Past) -> str:
    word = statuses.of_run(run.status).word
    said = [word if len(word) <= 40 else f"{word[:40]}…"]
    if run.took is not None:
        said.append(durations.in_words(run.took))
    if run.ended_at is not None:
        local = timezone.localtime(run.ended_at)
        time = f"{dateformat.format(local, 'j M H:i')} {timezones.label(local)}"
        said.append(_("ended %(time)s") % {"time": time})
    return ", ".join(said)


def _counts(runs: Sequence[Past]) -> str:
    found = Counter(run.status if run.status in _COUNTED else OTHER for run in runs)
    if len(runs) == 1:
        return str(_COUNTED[next(iter(found))][1])
    told = [
        str(each) % {"n": found[kind]} for kind, (each, _one) in _COUNTED.items() if found[kind]
    ]
    return _("Last %(n)d runs: %(counts)s") % {"n": len(runs), "counts": ", ".join(told)}
