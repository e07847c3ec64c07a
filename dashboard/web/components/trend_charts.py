"""The charts of trends as SVG paths, a slot for each week, and the table behind them. Pure."""

from collections.abc import Callable, Iterable, Sequence
from datetime import date, timedelta
from functools import lru_cache
from typing import Any

from django.utils.dateformat import format as format_date
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.runs import abort_reasons, statuses
from dashboard.runs.trends import OUTCOMES, Measure, Period, Typical
from dashboard.texts import durations

# In units of the view box, which is stretched to the width of the page.
SLOT_WIDTH, BAR_WIDTH, HEIGHT = 10.0, 7.0, 60.0
# A chart's full height is at least so much, so that a single failure is no peak.
MIN_RUNS, MIN_RATE, MIN_PEAK = 10, 0.25, timedelta(seconds=10)
# Its height is cut at this multiple of the longest median, so that an outlier flattens no other.
MAX_MEDIAN_FACTOR = 4

OUTCOME_LABELS: dict[str, str | Promise] = {
    outcome: statuses.RUN_STATUSES[outcome].label for outcome in OUTCOMES[:-1]
} | {OUTCOMES[-1]: gettext_lazy("Other")}
_TITLES: dict[str, str | Promise] = {
    "runs": gettext_lazy("Runs a week"),
    "failures": gettext_lazy("Failure rate"),
    "duration": gettext_lazy("Duration of successes"),
    "queueing": gettext_lazy("Queueing"),
    "recovery": gettext_lazy("From failure to next success"),
    "approval": gettext_lazy("Waiting for people"),
}
_NOTES: dict[str, str | Promise] = {
    "runs": "",
    "failures": gettext_lazy("Of the runs that succeeded or failed."),
    "duration": gettext_lazy("From start to end, waits for approval included."),
    "queueing": gettext_lazy("From creation to start."),
    "recovery": gettext_lazy("From the end of the first failure in a row, in the same stage."),
    "approval": gettext_lazy("In approvals, of the runs whose steps were read after their end."),
}


type Chart = dict[str, Any]  # see `_chart`


def draw(weeks: Sequence[Period], total: Period) -> list[Chart]:
    """Return the charts of weeks that follow each other; `total` are all of them."""
    charts = [_runs(weeks, total), _failures(weeks, total)]
    return charts + [_durations(measure, weeks, total) for measure in Measure]


def _name(measure: Measure) -> str:
    return measure.name.lower()


def _runs(weeks: Sequence[Period], total: Period) -> Chart:
    peak = max(MIN_RUNS, *(week.runs for week in weeks))
    paths = dict.fromkeys(OUTCOMES, "")
    for slot, week in enumerate(weeks):
        below = 0
        for outcome, n in week.outcomes.items():
            if n:
                paths[outcome] += _bar(slot, below / peak, n / peak)
                below += n
    return _chart("runs", weeks, total, paths, str(peak), _runs_text)


def _failures(weeks: Sequence[Period], total: Period) -> Chart:
    rates = [week.failure_rate or 0 for week in weeks]
    peak = max(MIN_RATE, *rates)
    path = "".join(_bar(slot, 0, rate / peak) for slot, rate in enumerate(rates) if rate)
    return _chart("failures", weeks, total, {"failure": path}, _percent(peak), _failures_text)


def _durations(measure: Measure, weeks: Sequence[Period], total: Period) -> Chart:
    """Bars up to the median, with a line on to the 95th percentile, which may leave the chart."""
    found = [(slot, week.typical(measure)) for slot, week in enumerate(weeks)]
    measured = [(slot, typical) for slot, typical in found if typical]
    highest = max((typical.p95 for _slot, typical in measured), default=MIN_PEAK)
    cut = MAX_MEDIAN_FACTOR * max((typical.median for _slot, typical in measured), default=MIN_PEAK)
    peak = max(MIN_PEAK, min(highest, cut))
    paths = {"median": "", "p95": ""}
    for slot, typical in measured:
        paths["median"] += _bar(slot, 0, typical.median / peak)
        x, y = slot * SLOT_WIDTH + SLOT_WIDTH / 2, HEIGHT * (1 - typical.p95 / peak)
        cap = f"M{x - 2:g} {y:.3g}h4m-2 0" if y >= 0 else f"M{x:g} 0"
        paths["p95"] += f"{cap}V{HEIGHT * (1 - typical.median / peak):.3g}"

    def text(period: Period) -> str:
        return typical_text(period.typical(measure))

    return _chart(_name(measure), weeks, total, paths, durations.format_rounded(peak), text)


def _bar(slot: int, bottom: float, height: float) -> str:
    x, h = slot * SLOT_WIDTH + (SLOT_WIDTH - BAR_WIDTH) / 2, max(HEIGHT * height, 0.5)
    return f"M{x:g} {HEIGHT * (1 - bottom):.4g}v-{h:.4g}h{BAR_WIDTH:g}v{h:.4g}z"


def _chart(
    name: str,
    weeks: Sequence[Period],
    total: Period,
    paths: dict[str, str],
    peak: str,
    text: Callable[[Period], str],
) -> Chart:
    return {
        "name": name,
        "title": _TITLES[name],
        "note": _NOTES[name],
        "figure": text(total),
        "peak": peak,  # what its full height is
        "paths": [(kind, path) for kind, path in paths.items() if path],
        "tips": [  # where the slot of each week begins, and its text
            (slot * SLOT_WIDTH, f"{week_text(week)}: {text(week)}")
            for slot, week in enumerate(weeks)
        ],
        "view_box": f"0 0 {len(weeks) * SLOT_WIDTH:g} {HEIGHT:g}",
    }


def _runs_text(period: Period) -> str:
    return ngettext("%(n)d run", "%(n)d runs", period.runs) % {"n": period.runs}


def _failures_text(period: Period) -> str:
    n = period.outcomes["failure"]
    failed = ngettext("%(n)d failure", "%(n)d failures", n) % {"n": n}
    return f"{_percent(period.failure_rate)}, {failed}" if n else failed


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}".replace("%", " %")


@lru_cache(maxsize=1_000)  # each is shown by its chart and by the table
def typical_text(typical: Typical | None) -> str:
    """Return what was typical, and of how many."""
    if typical is None:
        return "–"
    median, p95 = map(durations.format_rounded, (typical.median, typical.p95))
    return _("%(median)s, p95 %(p95)s (n = %(n)d)") % {"median": median, "p95": p95, "n": typical.n}


def week_text(week: Period) -> str:
    """Return the days of a week: “2–8 Nov”."""
    return _days_text(week.first, week.last)


@lru_cache(maxsize=100)  # each is shown by all charts, of all places
def _days_text(first: date, last: date) -> str:
    if first == last:
        return day_text(last)
    begin = str(first.day) if first.month == last.month else day_text(first)
    return f"{begin}–{day_text(last)}"


def day_text(day: date) -> str:
    """Return a day: “2 Nov”."""
    return format_date(day, "j M")


def table(periods: Iterable[Period]) -> list[tuple[str, list[str]]]:
    """Return a row for each period: its days and the cells, in the order of `headings`."""
    return [
        (
            week_text(period),
            [
                *(str(n) for n in (period.runs, *period.outcomes.values())),
                _percent(period.failure_rate),
                *(typical_text(period.typical(measure)) for measure in Measure),
            ],
        )
        for period in periods
    ]


def headings() -> list[str]:
    """Return the headings of the table, without that of the week."""
    measures = [str(_TITLES[name]) for name in ("failures", *map(_name, Measure))]
    return [_("Runs"), *map(str, OUTCOME_LABELS.values()), *measures]


def csv_row(period: Period) -> dict[str, Any]:
    """Return the figures of a period by the names of their columns; durations are in seconds."""
    row: dict[str, Any] = {"first_day": period.first, "last_day": period.last, "runs": period.runs}
    row |= period.outcomes
    rate = period.failure_rate
    row["failure_rate"] = None if rate is None else round(rate, 4)
    for measure in Measure:
        name = _name(measure)
        typical = period.typical(measure)
        row[f"{name}_n"] = typical.n if typical else 0
        row[f"{name}_median_seconds"] = typical and round(typical.median.total_seconds())
        row[f"{name}_p95_seconds"] = typical and round(typical.p95.total_seconds())
    for key in abort_reasons.LABELS:
        row[f"aborted_{key}"] = period.abort_reasons.get(key, 0)
    return row
