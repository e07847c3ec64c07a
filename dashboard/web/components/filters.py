"""What the address of a stage's page asks for; nonsense in it is ignored, and said so.

The address is the filter: whatever leads to the same page with more, less or other runs is made
here, so that nothing that was asked for gets lost on the way.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import cached_property
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.core.cache import cache
from django.db.models import Q
from django.http import QueryDict
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.models import Abort, BatchItem, Stage
from dashboard.models.runs import STATUS_START, RunQuerySet, status_start
from dashboard.runs import statuses
from dashboard.web.components.cursor import Cursor

# Whatever is in flight, as a choice beside the statuses: people ask for that more often than for
# one of its eight statuses.
IN_FLIGHT = "in_flight"
# The address of all runs, also for somebody whose page opens with a view of their own.
ALL_RUNS = "?all=1"
LONGEST = 200  # characters of a text that is looked for
_STRANGE = 30  # statuses outside our table that are offered
_YEARS = range(1970, 9000)  # others fit no zone, or no database


@dataclass(frozen=True, slots=True)
class Choice:
    """A status that can be asked for."""

    value: str
    word: str
    chosen: bool


@dataclass(frozen=True, slots=True)
class Chip:
    """One thing that is asked for, and the address of the page without it."""

    text: str
    without_url: str


@dataclass(frozen=True)
class RunFilter:
    """Which runs of a stage are asked for, from which place in the list on."""

    known: tuple[str, ...] = ()  # statuses that can be asked for
    statuses: tuple[str, ...] = ()  # any of these, in the order of `known`; none: all
    text: str = ""
    since: datetime | None = None
    until: datetime | None = None  # no run that was made then or later
    dates: Mapping[str, str] = field(default_factory=dict)  # `from` and `to` as they were written
    overdue: bool = False
    mine: frozenset[int] | None = None  # only among the runs with these keys
    start: Cursor | None = None  # a page begins beyond this run
    newer: bool = False  # ... and goes on towards the newest
    ignored: tuple[str, ...] = ()  # sentences

    @cached_property
    def wanted(self) -> tuple[tuple[str, str], ...]:
        """The filter as parameters of an address, without the place in the list."""
        pairs = [
            *(("status", status) for status in self.statuses),
            ("q", self.text),
            *((name, self.dates.get(name, "")) for name in ("from", "to")),
            ("overdue", "1" if self.overdue else ""),
            ("mine", "1" if self.by_me else ""),
        ]
        return tuple((name, value) for name, value in pairs if value)

    @property
    def by_me(self) -> bool:
        """Whether only runs that the person aborted are asked for."""
        return self.mine is not None

    @property
    def query(self) -> str:
        """The filter as part of an address; empty: all runs."""
        return urlencode(self.wanted)

    @property
    def url(self) -> str:
        """The address of the first page."""
        return f"?{self.query}" if self.wanted else ALL_RUNS

    def beyond(self, place: Cursor, *, newer: bool = False) -> str:
        """Return the address of the page that follows a run."""
        return "?" + urlencode([*self.wanted, ("after" if newer else "before", place.written)])

    @property
    def choices(self) -> list[Choice]:
        """The statuses that can be asked for."""
        return [Choice(value, word_of(value), value in self.statuses) for value in self.known]

    @property
    def statuses_in_words(self) -> str:
        """The statuses asked for, short enough for a button."""
        if len(self.statuses) > 2:
            return ngettext("%(count)d status", "%(count)d statuses", len(self.statuses)) % {
                "count": len(self.statuses)
            }
        return ", ".join(word_of(status)[:40] for status in self.statuses) or _("Any status")

    @property
    def day_times(self) -> dict[str, str]:
        """`from` and `to` as a form takes them: a day from its first to its last minute."""
        ends = {"from": "T00:00", "to": "T23:59"}
        return {
            name: value if "T" in value else f"{value}{ends[name]}"
            for name, value in self.dates.items()
        }

    @property
    def chips(self) -> list[Chip]:
        """What is asked for, each thing with the address of the page without it."""
        return [
            Chip(_in_words(name, value), self._without(position))
            for position, (name, value) in enumerate(self.wanted)
        ]

    def _without(self, position: int) -> str:
        rest = [pair for at, pair in enumerate(self.wanted) if at != position]
        return f"?{urlencode(rest)}" if rest else ALL_RUNS

    @property
    def only_status(self) -> str | None:
        """The one status, or all of them (""), that the page is filtered by; None: otherwise."""
        if self.text or self.dates or self.overdue or self.by_me:
            return None
        if set(self.statuses) <= {IN_FLIGHT}:
            return ""
        return self.statuses[0] if len(self.statuses) == 1 else None

    @property
    def news(self) -> str:
        """Which new runs belong on the page, for app.js: all, none, or what their rows must say.

        Who aborted a run is not told to all who hear of it: where that is asked for, none is.
        """
        if self.start is not None or self.by_me:
            return "none"
        if not self.wanted:
            return "all"
        says = {
            "statuses": [status for status in self.statuses if status != IN_FLIGHT],
            "inFlight": IN_FLIGHT in self.statuses,
            "text": self.text.lower(),
            "overdue": self.overdue,
            "since": self.since and self.since.timestamp() * 1000,
            "until": self.until and self.until.timestamp() * 1000,
        }
        return json.dumps(says)

    def of(self, runs: RunQuerySet) -> RunQuerySet:
        """Narrow runs down by all that is asked for but status and text."""
        if self.since is not None:
            runs = runs.filter(created_at__gte=self.since)
        if self.until is not None:
            runs = runs.filter(created_at__lt=self.until)
        if self.mine is not None:
            runs = runs.filter(pk__in=self.mine)
        return runs

    def in_flight(self, runs: RunQuerySet) -> RunQuerySet:
        """Narrow runs in flight down by status and text; they are few."""
        if self.statuses and IN_FLIGHT not in self.statuses:
            runs = runs.filter(status__in=self.statuses)
        if self.overdue:
            runs = runs.filter(overdue__gt=0)
        return runs.filter(self._says())

    def ended(self, runs: RunQuerySet) -> list[RunQuerySet]:
        """Narrow runs that have ended down by status and text, in parts that have no run in common.

        Each part can be read along an index in the order of the list.
        """
        if self.overdue:  # only what is in flight is
            return []
        wanted = [status for status in self.statuses if status != IN_FLIGHT]
        if self.statuses and not wanted:
            return []
        if self.text:
            # A bounded stretch of the list: its order is the index to read it by.
            runs = runs.filter(self._says())
            return [runs.filter(status__in=wanted) if wanted else runs]
        return [runs.with_status(status) for status in wanted] or [runs]

    def _says(self) -> Q:
        if not self.text:
            return Q()
        fields = "name", "run_id", "description", "step"
        found = Q()
        for each in fields:
            found |= Q((f"{each}__icontains", self.text))
        return found


def word_of(status: str) -> str:
    """Return what a status that can be asked for is called."""
    return _("In flight") if status == IN_FLIGHT else statuses.of_run(status).word


def read(given: QueryDict, stage: Stage, person: User) -> RunFilter:
    """Read the filter of an address for a person; what nobody can follow in it is told."""
    ignored: list[str] = []
    known = (IN_FLIGHT, *statuses.RUN, *_strange(stage))
    asked = [status.replace("\0", "") for status in given.getlist("status")]
    ignored += [
        _("There is no status “%(status)s”: it is left out of account.") % {"status": status[:80]}
        for status in dict.fromkeys(asked)
        if status and status not in known
    ]
    text = given.get("q", "").replace("\0", "").strip()
    if len(text) > LONGEST:
        ignored.append(
            _("Only the first %(count)d characters of “%(text)s…” are looked for.")
            % {"count": LONGEST, "text": text[:40]}
        )
    dates, moments = {}, {}
    for name in ("from", "to"):
        value = given.get(name, "").strip()
        if not value:
            continue
        moment = _moment(value, past_it=name == "to")
        if moment is None:
            ignored.append(
                _("“%(day)s” is no day: write it as 2026-03-31 or 2026-03-31T14:30.")
                % {"day": value[:80]}
            )
        else:
            dates[name], moments[name] = value, moment
    for name in ("overdue", "mine"):
        if given.get(name, "") not in {"", "1"}:
            ignored.append(
                _("“%(name)s” takes no value but 1: it is left out of account.") % {"name": name}
            )
    if given.get("page", "1") != "1":
        ignored.append(_("Pages have no numbers any more: these are the newest runs."))
    start, newer = None, False
    for name in ("before", "after"):
        if written := given.get(name, ""):
            start, newer = Cursor.read(written), name == "after"
            if start is None:
                ignored.append(
                    _("“%(place)s” is no place in the list: these are the newest runs.")
                    % {"place": written[:80]}
                )
            break
    return RunFilter(
        known=known,
        statuses=tuple(status for status in known if status in asked),
        text=text[:LONGEST].strip(),
        since=moments.get("from"),
        until=moments.get("to"),
        dates=dates,
        overdue=given.get("overdue") == "1",
        mine=frozenset(_aborted_by(person, stage)) if given.get("mine") == "1" else None,
        start=start,
        newer=newer and start is not None,
        ignored=tuple(ignored),
    )


def _in_words(name: str, value: str) -> str:
    match name:
        case "status":
            return word_of(value)[:80]
        case "q":
            return _("“%(text)s”") % {"text": value}
        case "from":
            return _("from %(day)s") % {"day": value.replace("T", " ")}
        case "to":
            return _("to %(day)s") % {"day": value.replace("T", " ")}
        case "overdue":
            return _("Overdue")
        case _:
            return _("Aborted by me")


def _moment(written: str, *, past_it: bool) -> datetime | None:
    """Return the first moment of a day, minute or second as it is written, or the first past it."""
    if not written.isascii():
        return None
    try:
        if len(written) == len("2026-03-31"):
            moment, lasts = datetime.combine(date.fromisoformat(written), time.min), timedelta(1)
        elif len(written) in {len("2026-03-31T14:30"), len("2026-03-31T14:30:15")}:
            moment = datetime.fromisoformat(written)
            lasts = timedelta(minutes=1) if len(written) == 16 else timedelta(seconds=1)
        else:
            return None
    except ValueError:
        return None
    if moment.tzinfo is not None or moment.year not in _YEARS:
        return None
    # The wall clock's next day is not always 24 hours away.
    return timezone.make_aware(moment + lasts if past_it else moment)


def _aborted_by(person: User, stage: Stage) -> Iterator[int]:
    """The runs of a stage that a person aborted or asked to abort, alone or in a list."""
    acts = Abort.objects.filter(user=person, run__stage=stage)
    yield from acts.values_list("run__pk", flat=True)
    items = BatchItem.objects.filter(batch__user=person, run__stage=stage)
    yield from items.values_list("run__pk", flat=True)


def _strange(stage: Stage) -> list[str]:
    """The statuses of a stage's runs that are outside our table."""
    key = f"unknown-statuses:{stage.pk}"
    found: list[str] | None = cache.get(key)
    if found is None:
        found = [status for status in _present(stage) if status not in statuses.RUN]
        cache.set(key, found, timeout=60)
    return found


def _present(stage: Stage) -> Iterator[str]:
    """Each status that a stage's runs have: one look-up in the index each, not one a run."""
    runs = stage.runs.alias(start=status_start()).order_by("start")
    last = ""
    for _each in range(len(statuses.RUN) + _STRANGE):
        found = runs.filter(start__gt=last).values_list("status", flat=True).first()
        if found is None:
            return
        yield found
        last = found[:STATUS_START]
