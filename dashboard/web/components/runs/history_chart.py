"""The history chart of a stage: its latest runs as SVG bars, and as text. Pure.

A bar's height is its run's duration; its shape and colour show how the run ended.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from django.utils.translation import gettext_lazy, ngettext

from dashboard.runs import statuses
from dashboard.texts import durations
from dashboard.texts.rich_text import ExternalText, Message, MessageTable, join_texts

MAX_RUNS = 30
# Longer bars are cut at this multiple of the median, so that one outlier can't flatten the others.
MAX_MEDIAN_FACTOR = 3.0

# In units of the SVG view box: one slot per run, the oldest at the left.
SLOT_WIDTH, BAR_WIDTH = 8, 5
TOP, HEIGHT = 8, 32  # TOP leaves space for a failure's cross above its bar
BASE = TOP + HEIGHT
VIEW_BOX = f"0 0 {MAX_RUNS * SLOT_WIDTH} {BASE}"

OTHER = "other"  # the kind of a run that ended with any other status
KINDS = ("success", "failure", "aborted", "skipped", OTHER)
_text = MessageTable(
    {
        # By kind.
        "success": gettext_lazy("%(n)d succeeded"),
        "failure": gettext_lazy("%(n)d failed"),
        "aborted": gettext_lazy("%(n)d aborted"),
        "skipped": gettext_lazy("%(n)d skipped"),
        "other": gettext_lazy("%(n)d other"),
        "counts": lambda n: ngettext("Last run: %(counts)s", "Last %(n)d runs: %(counts)s", n),
        "median": lambda n: ngettext(
            "the success took %(took)s, incl. approvals",
            "median of %(successes)d successes: %(took)s, incl. approvals",
            n,
        ),
    }
)


@dataclass(frozen=True, slots=True)
class ConcludedRun:
    """A concluded run, as far as its bar needs it.

    `duration` includes waits for approval; None: unknown. `ended_at` is as in `Run.ended_at`.
    """

    key: int
    status: str
    duration: timedelta | None
    ended_at: datetime
    failed_step: str | None = None


@dataclass(frozen=True, slots=True)
class RunBar:
    """A run's bar: its SVG path and its tooltip, to which the template adds when the run ended."""

    run: ConcludedRun
    kind: str  # one of KINDS
    path: str
    marker_path: str = ""  # the marker below the bar of the page's own run; empty: no marker

    @property
    def title(self) -> str:
        """How the run ended, at which step, how long it took; not used by compact charts."""
        word = statuses.for_run(self.run.status).label
        parts = [word if len(word) <= 40 else f"{word[:40]}…"]
        if self.run.failed_step:
            parts.append(ExternalText(self.run.failed_step, 40))
        if self.run.duration is not None:
            parts.append(durations.format_duration(self.run.duration))
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class HistoryChart:
    """A history chart: its bars, oldest first, and its text."""

    bars: list[RunBar]
    median_path: str  # a line at the median of the successes; empty: no success
    median_text: Message | str  # "median of 26 successes: 6 min 03 s, waits …"; empty: no success
    counts_text: Message  # "Last 30 runs: 26 succeeded, 3 failed, 1 aborted"
    last_failed_at: datetime | None  # when the latest failure ended


def draw(runs: Sequence[ConcludedRun], *, marked_run: int = 0) -> HistoryChart | None:
    """Return the chart of up to MAX_RUNS runs, given newest first, or None if there are none.

    `marked_run` is the key of the run to mark; 0 for none.
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
    median_path = ""
    median_text: Message | str = ""
    if median_duration is not None:
        height = _height(median_duration, full_height_duration)
        median_path = f"M0 {BASE - height}h{len(runs) * SLOT_WIDTH}"
        # Not the typical duration (models/typical_duration.py), which excludes waits for approval:
        # a bar covers the whole run.
        n, took = len(success_seconds), durations.format_duration(median_duration)
        median_text = _text("median", n=n, successes=n, took=took)
    return HistoryChart(
        bars[::-1],
        median_path,
        median_text,
        counts_text=_counts_text(runs),
        last_failed_at=max((run.ended_at for run in runs if run.status == "failure"), default=None),
    )


def _full_height_duration(
    runs: Sequence[ConcludedRun], median_duration: timedelta | None
) -> timedelta:
    """Return the duration that a bar of full height represents."""
    longest = max((run.duration for run in runs if run.duration is not None), default=timedelta())
    return min(longest, MAX_MEDIAN_FACTOR * median_duration) if median_duration else longest


def _height(duration: timedelta | None, full_height_duration: timedelta) -> int:
    share = (
        min(duration / full_height_duration, 1)
        if duration and full_height_duration > timedelta()
        else 0
    )
    return max(round(HEIGHT * share), 2)  # a run without a duration stays visible


def _bar(
    run: ConcludedRun, slot: int, full_height_duration: timedelta, *, is_marked: bool
) -> RunBar:
    kind = run.status if run.status in KINDS else OTHER
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


def _counts_text(runs: Sequence[ConcludedRun]) -> Message:
    counts = Counter(run.status if run.status in KINDS else OTHER for run in runs)
    texts = [_text(kind, n=counts[kind]) for kind in KINDS if counts[kind]]
    return _text("counts", n=len(runs), counts=join_texts(*texts, separator=", "))
