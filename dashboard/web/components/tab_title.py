"""Tab titles and icons: both show the worst state on the page.

The state comes first in the title, because tabs cut off the end.
"""

from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext as _

from dashboard.models import Pipeline, Run, Stage
from dashboard.models.severity import Severity
from dashboard.runs import overdue_messages, statuses
from dashboard.web.components import headings
from dashboard.web.components.in_flight import InFlightTotals


class Icon(StrEnum):
    """The icon of a tab; the value is the name of its file in static/icons/."""

    OK = "ok"
    IN_FLIGHT = "in-flight"
    OVERDUE = "overdue"
    BAD = "bad"  # a recent failure, or an abort that is far overdue
    INCOMPLETE = "incomplete"  # some stages have not been read yet
    UPSTREAM_DOWN = "upstream-down"  # outage: Northflank can't be read


@dataclass(frozen=True, slots=True)
class TabTitle:
    """The title and icon of a tab."""

    text: str
    icon: Icon

    def __str__(self) -> str:
        return self.text


def now(
    in_flight: int, totals: InFlightTotals, *, upstream_down: bool, incomplete: bool
) -> TabTitle:
    """Return the tab title of the Now page.

    `upstream_down`: Northflank can't be read; `incomplete`: some stages have not been read yet.
    """
    return _build(
        _("Now (%(count)d)") % {"count": in_flight},
        totals,
        upstream_down=upstream_down,
        incomplete=incomplete,
    )


def board(totals: InFlightTotals, *, upstream_down: bool, incomplete: bool) -> TabTitle:
    """Return the tab title of the board."""
    return _build(_("Board"), totals, upstream_down=upstream_down, incomplete=incomplete)


def pipeline(
    pipeline: Pipeline, totals: InFlightTotals, *, upstream_down: bool, incomplete: bool
) -> TabTitle:
    """Return the tab title of a pipeline; `totals` are those of its runs (Snapshot.totals_of)."""
    name = headings.cut(str(pipeline))
    return _build(name, totals, upstream_down=upstream_down, incomplete=incomplete)


def stage(
    stage: Stage, totals: InFlightTotals, *, upstream_down: bool, incomplete: bool
) -> TabTitle:
    """Return the tab title of a stage; `totals` are those of its runs (Snapshot.totals_of)."""
    return _build(
        f"{headings.cut(str(stage.pipeline))} / {stage.name}",
        totals,
        upstream_down=upstream_down,
        incomplete=incomplete,
    )


def run(run: Run, *, upstream_down: bool) -> TabTitle:
    """Return the tab title of a run; an outage does not change that of a run that has ended."""
    display = statuses.for_run(run.status, removed=run.has_unknown_end)
    name = f"{headings.cut(display.label)}: {headings.cut(run.title)}"
    if not run.in_flight:
        return TabTitle(name, Icon.BAD if display.tone == "bad" else Icon.OK)
    totals = InFlightTotals(
        overdue_severity=run.overdue_severity, abort_severity=run.abort_severity
    )
    return _build(name, totals, upstream_down=upstream_down, in_flight=True)


def aborts(under_way_count: int, totals: InFlightTotals, *, upstream_down: bool) -> TabTitle:
    """Return the tab title of the abort log; `totals` are of the runs with aborts under way."""
    name = (
        _("Aborts (%(count)d under way)") % {"count": under_way_count}
        if under_way_count
        else _("Aborts")
    )
    return _build(name, totals, upstream_down=upstream_down, in_flight=under_way_count > 0)


def bulk_aborts(under_way_count: int, *, upstream_down: bool) -> TabTitle:
    """Return the tab title of the list of bulk aborts."""
    name = (
        _("Bulk aborts (%(count)d under way)") % {"count": under_way_count}
        if under_way_count
        else _("Bulk aborts")
    )
    return _build(
        name, InFlightTotals(), upstream_down=upstream_down, in_flight=under_way_count > 0
    )


def bulk_abort(
    finished: int, total: int, totals: InFlightTotals, *, upstream_down: bool
) -> TabTitle:
    """Return the tab title of a bulk abort: finished / total."""
    name = _("%(over)d of %(all)d · Bulk abort") % {"over": finished, "all": total}
    return _build(
        name, totals, upstream_down=upstream_down and finished < total, in_flight=finished < total
    )


def status(*, upstream_down: bool, incomplete: bool) -> TabTitle:
    """Return the tab title of the status page."""
    return _build(_("Status"), InFlightTotals(), upstream_down=upstream_down, incomplete=incomplete)


def _build(
    name: str,
    totals: InFlightTotals,
    *,
    upstream_down: bool,
    in_flight: bool = False,
    incomplete: bool = False,
) -> TabTitle:
    if upstream_down:
        return TabTitle(_("Not updating · %(page)s") % {"page": name}, Icon.UPSTREAM_DOWN)
    state_label, icon = _worst_state(totals)
    if icon is Icon.OK and in_flight:
        icon = Icon.IN_FLIGHT
    prefixes = [state_label]
    if incomplete:  # a bad state is certain even then, so its label and icon come first
        prefixes.append(_("Incomplete"))
        icon = icon if icon in {Icon.BAD, Icon.OVERDUE} else Icon.INCOMPLETE
    return TabTitle(" · ".join(filter(None, [*prefixes, name])), icon)


def _worst_state(totals: InFlightTotals) -> tuple[str, Icon]:
    """Return label and icon of the worst state: critical ones first, as runs/attention.py ranks."""
    if totals.abort_severity >= Severity.CRITICAL:
        return _("Abort overdue"), Icon.BAD
    if totals.overdue_severity >= Severity.CRITICAL:
        return overdue_messages.severity_label(totals.overdue_severity), Icon.OVERDUE
    if totals.has_recent_failure:  # which is critical, too
        return statuses.for_run("failure").label, Icon.BAD
    # Of a run in flight, which goes on. Of the final statuses, only this one is urgent.
    worst = statuses.most_urgent(totals.statuses - {"failure"})
    if totals.overdue_severity:
        return overdue_messages.severity_label(totals.overdue_severity), Icon.OVERDUE
    if totals.abort_severity > Severity.OK:
        return str(statuses.for_run("aborting").label), Icon.OVERDUE
    if worst and totals.attention_count:
        return worst.label, Icon.OVERDUE
    return worst.label if worst else "", Icon.IN_FLIGHT if totals.statuses else Icon.OK
