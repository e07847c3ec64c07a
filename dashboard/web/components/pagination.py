"""A stage's runs page by page, each found by its place in the list: none costs more than the first.

A page is what lies beyond a place, not what has a number: while runs come and end, going on shows
none twice and misses none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from heapq import merge
from itertools import islice, starmap

from django.db.models import Q
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.models.runs import RunQuerySet
from dashboard.web.components.cursor import Cursor
from dashboard.web.components.filters import RunFilter

PER_PAGE = 100
COUNTED = 1_000  # runs are counted up to here; beyond, nobody needs the number
LOOKED_AT = 10_000  # runs that one page looks at for a text


@dataclass(frozen=True, slots=True)
class Page:
    """One page of runs, and what lies around it."""

    keys: list[int]  # in the order of the list
    of: int | None = None  # how many match in all, as far as they are counted; None: they are not
    newest_url: str = ""
    newer_url: str = ""
    older_url: str = ""
    looked_at: int = 0  # how many runs were looked at for a text, if not all

    @property
    def text(self) -> str:
        """How much of all that matches the page shows."""
        shown = len(self.keys)
        if self.looked_at:
            text = _("%(shown)d found among the %(looked_at)s runs looked at here")
            return text % {"shown": shown, "looked_at": f"{self.looked_at:,}"}
        if self.of is None:
            return ngettext("%(shown)d run", "%(shown)d runs", shown) % {"shown": shown}
        if self.of > COUNTED:
            text = _("%(shown)d of more than %(counted)s runs")
            return text % {"shown": shown, "counted": f"{COUNTED:,}"}
        text = ngettext("%(shown)d of %(of)d run", "%(shown)d of %(of)d runs", self.of)
        return text % {"shown": shown, "of": self.of}


def page(
    runs: RunQuerySet, asked: RunFilter, *, per_page: int = PER_PAGE, looked_at: int = LOOKED_AT
) -> Page:
    """Find the runs of one page among those of a stage; so many are `looked_at` for a text."""
    found, edge = _beyond(runs, asked, per_page + 1, looked_at)
    more = len(found) > per_page
    shown = found[:per_page]
    # Beyond the last run that is shown or, where there was no other to show, that was looked at.
    onward = shown[-1] if more else edge
    back = (shown[0] if shown else None) if asked.start else None
    newer, older = (onward, back) if asked.newer else (back, onward)
    of = None
    if not asked.text:
        of = len(shown) if not asked.start and not more else _count(runs, asked)
    return Page(
        keys=[place.pk for place in (reversed(shown) if asked.newer else shown)],
        of=of,
        newest_url=asked.url if asked.start else "",
        newer_url=asked.beyond(newer, newer=True) if newer else "",
        older_url=asked.beyond(older) if older else "",
        looked_at=looked_at if edge and not more else 0,
    )


def _beyond(
    runs: RunQuerySet, asked: RunFilter, most: int, looked_at: int
) -> tuple[list[Cursor], Cursor | None]:
    """Return the first matching runs beyond a place, and the last one looked at if not all were."""
    found: list[Cursor] = []
    edge = None
    for flying in (False, True) if asked.newer else (True, False):
        part = _in_order(asked.of(runs.whose_flight_is(flying)), asked.newer)
        if asked.start is not None:
            if flying == asked.start.in_flight:
                part = part.filter(_past(asked.start, asked.newer))
            elif (flying > asked.start.in_flight) != asked.newer:
                continue
        if flying:
            parts = [asked.in_flight(part)]
        else:
            if asked.text and asked.ended(part):
                edge = _last_of(part, looked_at)
                if edge is not None:
                    part = part.filter(_up_to(edge, asked.newer))
            parts = asked.ended(part)
        found += islice(_merged(parts, asked.newer, most - len(found)), most - len(found))
        if len(found) >= most or edge is not None:
            break
    return found, edge


def _in_order(runs: RunQuerySet, newer: bool) -> RunQuerySet:
    return runs.order_by("created_at", "pk") if newer else runs.order_by("-created_at", "-pk")


def _past(place: Cursor, newer: bool) -> Q:
    """What of the runs as much in flight as that at a place lies beyond it."""
    # The first bound is what an index is entered by; the second tells runs of one moment apart.
    if newer:
        later = Q(created_at__gt=place.created_at) | Q(pk__gt=place.pk)
        return Q(created_at__gte=place.created_at) & later
    earlier = Q(created_at__lt=place.created_at) | Q(pk__lt=place.pk)
    return Q(created_at__lte=place.created_at) & earlier


def _up_to(place: Cursor, newer: bool) -> Q:
    """What of them does not: the run at the place, and those before it."""
    if newer:
        return Q(created_at__lte=place.created_at) & (
            Q(created_at__lt=place.created_at) | Q(pk__lte=place.pk)
        )
    return Q(created_at__gte=place.created_at) & (
        Q(created_at__gt=place.created_at) | Q(pk__gte=place.pk)
    )


def _merged(parts: Iterable[RunQuerySet], newer: bool, most: int) -> Iterable[Cursor]:
    each = [starmap(Cursor, part.values_list(*_PLACE)[:most]) for part in parts]
    return merge(*each, reverse=not newer)


def _last_of(runs: RunQuerySet, count: int) -> Cursor | None:
    """Return the place of the last of the first `count` runs, if there are more."""
    around = list(runs.values_list(*_PLACE)[count - 1 : count + 1])
    return Cursor(*around[0]) if len(around) > 1 else None


def _count(runs: RunQuerySet, asked: RunFilter) -> int:
    """Count all that match; what is more than COUNTED is counted as one more."""
    # In order: that is how a database comes to stop at the limit, whatever it expects to find.
    flying, ended = (
        _in_order(asked.of(runs.whose_flight_is(which)), newer=False) for which in (True, False)
    )
    counted = 0
    for part in (asked.in_flight(flying), *asked.ended(ended)):
        counted += part[: COUNTED + 1 - counted].count()
        if counted > COUNTED:
            break
    return counted


_PLACE = "in_flight", "created_at", "pk"
