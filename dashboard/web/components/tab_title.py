"""What a tab is called and which icon it has: both tell the worst of what the page shows.

In the name the worst comes first, since tabs cut the end.
"""

from dataclasses import dataclass
from enum import StrEnum

from django.utils.translation import gettext as _

from dashboard.aborts.severity import Level
from dashboard.models import Pipeline, Run, Stage
from dashboard.runs import overdue_messages, statuses
from dashboard.web.components.in_flight import Flights


class Icon(StrEnum):
    """A state that a tab's icon can show, by the name of its file in static/icons/."""

    CALM = "calm"
    IN_FLIGHT = "in-flight"
    OVERDUE = "overdue"
    BAD = "bad"  # it failed just now, or an abort does not end
    INCOMPLETE = "incomplete"  # not all was looked at yet
    BLIND = "blind"  # Northflank can't be read


@dataclass(frozen=True, slots=True)
class Title:
    """A tab's name and icon."""

    text: str
    icon: Icon

    def __str__(self) -> str:
        return self.text


def now(in_flight: int, flights: Flights, *, blind: bool, incomplete: bool) -> Title:
    """Name the page of everything in flight.

    `blind`: Northflank can't be read; `incomplete`: not all was looked at yet.
    """
    return _led_by(
        _("Now (%(count)d)") % {"count": in_flight}, flights, blind=blind, incomplete=incomplete
    )


def board(flights: Flights, *, blind: bool, incomplete: bool) -> Title:
    """Name the page of all pipelines."""
    return _led_by(_("Board"), flights, blind=blind, incomplete=incomplete)


def pipeline(of: Pipeline, flights: Flights, *, blind: bool, incomplete: bool) -> Title:
    """Name the page of a pipeline, some of whose runs are in flight."""
    return _led_by(str(of), flights, blind=blind, incomplete=incomplete)


def stage(of: Stage, flights: Flights, *, blind: bool, incomplete: bool) -> Title:
    """Name the page of a stage, some of whose runs are in flight."""
    return _led_by(f"{of.pipeline} / {of.name}", flights, blind=blind, incomplete=incomplete)


def run(of: Run, *, blind: bool) -> Title:
    """Name the page of one run; one that has ended stays as it is, whether we can see or not."""
    look = statuses.of_run(of.status, gone=of.is_gone)
    name = f"{look.word}: {of.title}"
    if not of.in_flight:
        return Title(name, Icon.BAD if look.tone == "bad" else Icon.CALM)
    flights = Flights(overdue=of.overdue, aborting=of.aborting_level)
    return _led_by(name, flights, blind=blind, in_flight=True)


def aborts(under_way: int, flights: Flights, *, blind: bool) -> Title:
    """Name the page of all aborts, some of which are under way, on runs in flight."""
    named = _("Aborts (%(count)d under way)") % {"count": under_way} if under_way else _("Aborts")
    return _led_by(named, flights, blind=blind, in_flight=under_way > 0)


def lists(under_way: int, *, blind: bool) -> Title:
    """Name the page of all lists that were aborted by one press, some of which are under way."""
    named = _("Lists (%(count)d under way)") % {"count": under_way} if under_way else _("Lists")
    return _led_by(named, Flights(), blind=blind, in_flight=under_way > 0)


def batch(over: int, of: int, flights: Flights, *, blind: bool) -> Title:
    """Name the page of a list of aborts, so many of which have come to their end."""
    named = _("%(over)d of %(all)d · Abort of many") % {"over": over, "all": of}
    return _led_by(named, flights, blind=blind and over < of, in_flight=over < of)


def status(*, blind: bool, incomplete: bool) -> Title:
    """Name the page of the mirror's state."""
    return _led_by(_("Status"), Flights(), blind=blind, incomplete=incomplete)


def _led_by(
    name: str, flights: Flights, *, blind: bool, in_flight: bool = False, incomplete: bool = False
) -> Title:
    if blind:
        return Title(_("Can’t see · %(page)s") % {"page": name}, Icon.BLIND)
    word, icon = _worst(flights)
    if icon is Icon.CALM and in_flight:
        icon = Icon.IN_FLIGHT
    words = [word]
    if incomplete:  # what is bad is known to be, and leads
        words.append(_("Incomplete"))
        icon = icon if icon in {Icon.BAD, Icon.OVERDUE} else Icon.INCOMPLETE
    return Title(" · ".join(filter(None, [*words, name])), icon)


def _worst(flights: Flights) -> tuple[str, Icon]:
    """Return the word and the icon of the worst, in the order of the page Now."""
    if flights.aborting >= Level.RED:
        return _("Abort overdue"), Icon.BAD
    if flights.overdue:
        return overdue_messages.word(flights.overdue), Icon.OVERDUE
    if flights.aborting > Level.CALM:
        return str(statuses.of_run("aborting").word), Icon.OVERDUE
    worst = statuses.most_urgent(flights.statuses)
    if worst and worst.tone == "bad":
        return worst.word, Icon.BAD
    return worst.word if worst else "", Icon.IN_FLIGHT if flights.statuses else Icon.CALM
