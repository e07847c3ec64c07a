"""Tab titles and icons: both show the worst state on the page.

The state comes first in the title, because tabs cut off the end.
"""

from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext as _

from dashboard.models import Run
from dashboard.models.severity import Severity
from dashboard.runs import overdue_messages, statuses
from dashboard.web.components import headings
from dashboard.web.components.in_flight import InFlightTotals

NO_TOTALS = InFlightTotals()


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


def run(run: Run, *, upstream_down: bool) -> TabTitle:
    """Return the tab title of a run; an outage does not change that of a run that has ended."""
    display = statuses.for_run(run.status, removed=run.has_unknown_end)
    name = f"{headings.cut(display.label)}: {headings.cut(run.title)}"
    if not run.in_flight:
        return TabTitle(name, Icon.BAD if display.tone == "bad" else Icon.OK)
    totals = InFlightTotals(
        overdue_severity=run.overdue_severity, abort_severity=run.abort_severity
    )
    return build(name, totals, upstream_down=upstream_down, in_flight=True)


def under_way(
    name: str, count: int, totals: InFlightTotals = NO_TOTALS, *, upstream_down: bool
) -> TabTitle:
    """Return the tab title of a list of aborts, of which `count` are under way."""
    if count:
        name = _("%(list)s (%(count)d under way)") % {"list": name, "count": count}
    return build(name, totals, upstream_down=upstream_down, in_flight=count > 0)


def build(
    name: str,
    totals: InFlightTotals = NO_TOTALS,
    *,
    upstream_down: bool,
    in_flight: bool = False,
    incomplete: bool = False,
) -> TabTitle:
    """Return the tab title of a page; `totals` are those of the runs that it shows.

    `upstream_down`: Northflank can't be read; `in_flight`: the page shows a run or an abort that
    goes on; `incomplete`: some stages have not been read yet.
    """
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
