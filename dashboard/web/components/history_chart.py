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

MAX_RUNS = 30
# A bar that is so many times the median is cut: one forgotten run must not flatten all others.
MAX_MEDIAN_FACTOR = 3.0

# The drawing, in units of its view box: a slot a run, the oldest at the left.
SLOT_WIDTH, BAR_WIDTH = 8, 5
TOP, HEIGHT = 8, 32  # above the bars there is room for a failure's cross
BASE = TOP + HEIGHT
VIEW_BOX = f"0 0 {MAX_RUNS * SLOT_WIDTH} {BASE}"

# What a run that ended otherwise than these is called, and counted as.
OTHER = "other"
# Of so many runs, and of one.
_COUNT_LABELS: dict[str, tuple[Promise, Promise]] = {
    "success": (gettext_lazy("%(n)d succeeded"), gettext_lazy("Last run: succeeded")),
    "failure": (gettext_lazy("%(n)d failed"), gettext_lazy("Last run: failed")),
    "aborted": (gettext_lazy("%(n)d aborted"), gettext_lazy("Last run: aborted")),
    "skipped": (gettext_lazy("%(n)d skipped"), gettext_lazy("Last run: skipped")),
    OTHER: (gettext_lazy("%(n)d ended otherwise"), gettext_lazy("Last run: ended otherwise")),
}


@dataclass(frozen=True, slots=True)
class ConcludedRun:
    """A run that has concluded: how it ended, how long it took, and when it ended."""

    key: int
    status: str
    duration: timedelta | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class RunBar:
    """A run's bar: its shape as an SVG path, and what it says."""

    run: ConcludedRun
    kind: str  # a key of _COUNTED
    path: str
    marker_path: str = ""  # the path of what points at it, where the page is about this run

    @property
    def title(self) -> str:
        """How the run ended, how long it took and when it ended; a strip in brief asks for none."""
        return _bar_title(self.run)


@dataclass(frozen=True, slots=True)
class HistoryChart:
    """The runs of a strip, the oldest first, and the same in words."""

    bars: list[RunBar]
    median_path: str  # the path of a line at the median of the successes; empty where there is none
    median_text: str  # "median of 26 successes: 6 min 3 s, waits …"; empty where there is none
    counts_text: str  # "Last 30 runs: 26 succeeded, 3 failed, 1 aborted"
    last_failed_at: datetime | None  # when the last of its failures ended

    @property
    def paths_by_kind(self) -> list[tuple[str, str]]:
        """One path for all bars of a kind: the same drawing, a tenth as long."""
        kinds = dict.fromkeys(bar.kind for bar in self.bars)
        return [
            (kind, "".join(bar.path for bar in self.bars if bar.kind == kind)) for kind in kinds
        ]


def draw(runs: Sequence[ConcludedRun], *, marked_run: int = 0) -> HistoryChart | None:
    """Draw the latest runs (the newest first); None where there are none.

    `here` is the key of a run to point at.
    """
    runs = runs[:MAX_RUNS]
    if not runs:
        return None
    success_seconds = [
        run.duration.total_seconds()
        for run in runs
        if run.status == "success" and run.duration is not None
    ]
    median_duration = timedelta(seconds=median(success_seconds)) if success_seconds else None
    full_height_duration = _full_height_duration(runs, median_duration)
    bars = [
        _bar(run, len(runs) - 1 - position, full_height_duration, is_marked=run.key == marked_run)
        for position, run in enumerate(runs)
    ]
    failures = [run.ended_at for run in runs if run.status == "failure" and run.ended_at]
    return HistoryChart(
        bars=bars[::-1],
        median_path=_median_path(len(runs), _height(median_duration, full_height_duration))
        if median_duration is not None
        else "",
        median_text=_median_text(median_duration, len(success_seconds))
        if median_duration is not None
        else "",
        counts_text=_counts_text(runs),
        last_failed_at=max(failures, default=None),
    )


def _median_text(duration: timedelta, successes: int) -> str:
    # Not what is usual (models/typical_duration.py), which leaves waits for people out: a bar is
    # all of its run.
    template = ngettext(
        "the success took %(took)s, waits for people included",
        "median of %(successes)d successes: %(took)s, waits for people included",
        successes,
    )
    return template % {"took": durations.format_duration(duration), "successes": successes}


def _full_height_duration(
    runs: Sequence[ConcludedRun], median_duration: timedelta | None
) -> timedelta:
    """How long a run takes whose bar has the full height."""
    longest = max((run.duration for run in runs if run.duration is not None), default=timedelta())
    return min(longest, MAX_MEDIAN_FACTOR * median_duration) if median_duration else longest


def _height(duration: timedelta | None, full_height_duration: timedelta) -> int:
    share = (
        min(duration / full_height_duration, 1)
        if duration and full_height_duration > timedelta()
        else 0
    )
    return max(round(HEIGHT * share), 2)  # one that took no time at all is seen, too


def _median_path(runs: int, height: int) -> str:
    return f"M0 {BASE - height}h{runs * SLOT_WIDTH}"


def _bar(
    run: ConcludedRun, slot: int, full_height_duration: timedelta, *, is_marked: bool
) -> RunBar:
    kind = run.status if run.status in _COUNT_LABELS else OTHER
    x = slot * SLOT_WIDTH + (SLOT_WIDTH - BAR_WIDTH) / 2
    height = _height(run.duration, full_height_duration)
    path = f"M{x:g} {BASE}v-{height}h{BAR_WIDTH}v{height}z"
    if kind == "failure":
        w = BAR_WIDTH
        path += f"M{x:g} {BASE - height - 7}l{w} {w}m0-{w}l-{w} {w}"
    if kind == "skipped":
        path = f"M{x + BAR_WIDTH / 2:g} {BASE - 2}h.01"
    marker_path = f"M{x + BAR_WIDTH / 2:g} {BASE + 2}l3.5 5h-7z" if is_marked else ""
    return RunBar(run, kind, path, marker_path)


def _bar_title(run: ConcludedRun) -> str:
    word = statuses.for_run(run.status).label
    parts = [word if len(word) <= 40 else f"{word[:40]}…"]
    if run.duration is not None:
        parts.append(durations.format_duration(run.duration))
    if run.ended_at is not None:
        local = timezone.localtime(run.ended_at)
        time = f"{dateformat.format(local, 'j M H:i')} {timezones.label(local)}"
        parts.append(_("ended %(time)s") % {"time": time})
    return ", ".join(parts)


def _counts_text(runs: Sequence[ConcludedRun]) -> str:
    counts = Counter(run.status if run.status in _COUNT_LABELS else OTHER for run in runs)
    if len(runs) == 1:
        return str(_COUNT_LABELS[next(iter(counts))][1])
    parts = [
        str(template) % {"n": counts[kind]}
        for kind, (template, _one) in _COUNT_LABELS.items()
        if counts[kind]
    ]
    return _("Last %(n)d runs: %(counts)s") % {"n": len(runs), "counts": ", ".join(parts)}
