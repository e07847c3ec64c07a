"""Who looks at a run, as rows and its page show it, and what the person may say about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _

from dashboard.accounts.permissions import Rights
from dashboard.models import Looking, Run
from dashboard.runs import alerts
from dashboard.runs.summary import Name

MOST = 3  # people that are named


@dataclass(frozen=True, slots=True)
class Looker:
    """Somebody who looks, or has looked."""

    name: Name
    since: datetime
    until: datetime | None
    taken_over_by: Name


@dataclass(frozen=True, slots=True)
class Lookers:
    """Those who look now: the first of them by name."""

    named: list[Looker]
    more: int

    @property
    def names(self) -> str:
        """Who looks, on one line; empty: nobody."""
        named = ", ".join(one.name for one in self.named)
        if not self.more:
            return named
        return _("%(names)s and %(n)d more") % {"names": named, "n": self.more}


@dataclass(frozen=True, slots=True)
class Panel:
    """What a run's page says of it; the same for all who see the run."""

    id: str  # changes with what can be said about it
    url: str
    now: Lookers | None
    past: list[Looker]  # the latest first
    forgotten: int  # how many more have looked
    offered: bool  # there is something that people can say


@dataclass(frozen=True, slots=True)
class Choice:
    """What one person can say."""

    looks: bool
    label: str  # to say that one looks, too
    instead_of: list[int]  # the keys of the others
    take_over: str  # from whom; empty: nobody else looks


def of(lookings: Sequence[Looking]) -> Lookers | None:
    """Prepare those who look now; None where nobody does."""
    if not lookings:
        return None
    return Lookers([_looker(one) for one in lookings[:MOST]], max(len(lookings) - MOST, 0))


def panel(run: Run, url: str, lookings: Sequence[Looking], now: datetime) -> Panel | None:
    """Prepare all who look or have looked at a run; None where there is nothing to say."""
    going_on = _going_on(lookings)
    past = [_looker(one) for one in reversed(lookings) if one.until is not None]
    offered = bool(going_on) or alerts.is_wanted(run, now)
    if not offered and not past:
        return None
    # Another element where there is another choice: the stream brings it without one, since that is
    # each person's own, and the page then asks for it (run.html).
    state = "-".join(str(one.pk) for one in going_on) or "nobody"
    return Panel(
        id=f"looking-{state}",
        url=url,
        now=of(going_on),
        past=past[:MOST],
        forgotten=max(len(past) - MOST, 0),
        offered=offered,
    )


def choice(run: Run, person: int, rights: Rights, lookings: Sequence[Looking]) -> Choice | None:
    """Return what a person, by their key, can say about a run; None where they may say nothing."""
    if not rights.may_look(run.stage).allowed:
        return None
    going_on = _going_on(lookings)
    others = [one for one in going_on if one.user_id != person]
    return Choice(
        looks=len(others) < len(going_on),
        label=_("I’m looking too") if others else _("I’m looking"),
        instead_of=[one.pk for one in others],
        take_over=named.names if (named := of(others)) else "",
    )


def _going_on(lookings: Sequence[Looking]) -> list[Looking]:
    return [one for one in lookings if one.until is None]


def _looker(of: Looking) -> Looker:
    return Looker(Name(of.username), of.since, of.until, Name(of.taken_over_by))
