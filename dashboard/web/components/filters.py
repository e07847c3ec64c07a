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

from dashboard.models import Abort, BulkAbortItem, Stage
from dashboard.models.runs import STATUS_PREFIX_LENGTH, RunQuerySet, status_start
from dashboard.runs import statuses
from dashboard.web.components.cursor import Cursor

# Whatever is in flight, as a choice beside the statuses: people ask for that more often than for
# one of its eight statuses.
IN_FLIGHT = "in_flight"
# The address of all runs, also for somebody whose page opens with a view of their own.
ALL_RUNS_URL = "?all=1"
MAX_QUERY_LENGTH = 200  # characters of a text that is looked for
_MAX_UNKNOWN_STATUSES = 30  # statuses outside our table that are offered
_YEARS = range(1970, 9000)  # others fit no zone, or no database


@dataclass(frozen=True, slots=True)
class StatusChoice:
    """A status that can be asked for."""

    value: str
    label: str
    is_selected: bool


@dataclass(frozen=True, slots=True)
class Chip:
    """One thing that is asked for, and the address of the page without it."""

    label: str
    remove_url: str


@dataclass(frozen=True)
class RunFilter:
    """Which runs of a stage are asked for, from which place in the list on."""

    available_statuses: tuple[str, ...] = ()  # statuses that can be asked for
    statuses: tuple[str, ...] = ()  # any of these, in the order of `known`; none: all
    q: str = ""
    created_from: datetime | None = None
    created_before: datetime | None = None  # no run that was made then or later
    date_inputs: Mapping[str, str] = field(
        default_factory=dict
    )  # `from` and `to` as they were written
    overdue_only: bool = False
    run_keys: frozenset[int] | None = None  # only among the runs with these keys
    cursor: Cursor | None = None  # a page begins beyond this run
    is_ascending: bool = False  # ... and goes on towards the newest
    warnings: tuple[str, ...] = ()  # sentences

    @cached_property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """The filter as parameters of an address, without the place in the list."""
        pairs = [
            *(("status", status) for status in self.statuses),
            ("q", self.q),
            *((name, self.date_inputs.get(name, "")) for name in ("from", "to")),
            ("overdue", "1" if self.overdue_only else ""),
            ("by_me", "1" if self.aborted_by_me else ""),
        ]
        return tuple((name, value) for name, value in pairs if value)

    @property
    def aborted_by_me(self) -> bool:
        """Whether only runs that the person aborted are asked for."""
        return self.run_keys is not None

    @property
    def query_string(self) -> str:
        """The filter as part of an address; empty: all runs."""
        return urlencode(self.parameters)

    @property
    def url(self) -> str:
        """The address of the first page."""
        return f"?{self.query_string}" if self.parameters else ALL_RUNS_URL

    def page_url(self, cursor: Cursor, *, ascending: bool = False) -> str:
        """Return the address of the page that follows a run."""
        return "?" + urlencode(
            [*self.parameters, ("after" if ascending else "before", cursor.encoded_text)]
        )

    @property
    def status_choices(self) -> list[StatusChoice]:
        """The statuses that can be asked for."""
        return [
            StatusChoice(value, status_label(value), value in self.statuses)
            for value in self.available_statuses
        ]

    @property
    def status_summary(self) -> str:
        """The statuses asked for, short enough for a button."""
        if len(self.statuses) > 2:
            return ngettext("%(count)d status", "%(count)d statuses", len(self.statuses)) % {
                "count": len(self.statuses)
            }
        return ", ".join(status_label(status)[:40] for status in self.statuses) or _("Any status")

    @property
    def datetime_inputs(self) -> dict[str, str]:
        """`from` and `to` as a form takes them: a day from its first to its last minute."""
        ends = {"from": "T00:00", "to": "T23:59"}
        return {
            name: value if "T" in value else f"{value}{ends[name]}"
            for name, value in self.date_inputs.items()
        }

    @property
    def chips(self) -> list[Chip]:
        """What is asked for, each thing with the address of the page without it."""
        return [
            Chip(_chip_label(name, value), self._url_without(position))
            for position, (name, value) in enumerate(self.parameters)
        ]

    def _url_without(self, position: int) -> str:
        remaining = [pair for index, pair in enumerate(self.parameters) if index != position]
        return f"?{urlencode(remaining)}" if remaining else ALL_RUNS_URL

    @property
    def single_status(self) -> str | None:
        """The one status, or all of them (""), that the page is filtered by; None: otherwise."""
        if self.q or self.date_inputs or self.overdue_only or self.aborted_by_me:
            return None
        if set(self.statuses) <= {IN_FLIGHT}:
            return ""
        return self.statuses[0] if len(self.statuses) == 1 else None

    @property
    def client_filter(self) -> str:
        """Which new runs belong on the page, for app.js: all, none, or what their rows must say.

        Who aborted a run is not told to all who hear of it: where that is asked for, none is.
        """
        if self.cursor is not None or self.aborted_by_me:
            return "none"
        if not self.parameters:
            return "all"
        criteria = {
            "statuses": [status for status in self.statuses if status != IN_FLIGHT],
            "inFlight": IN_FLIGHT in self.statuses,
            "text": self.q.lower(),
            "overdue": self.overdue_only,
            "since": self.created_from and self.created_from.timestamp() * 1000,
            "until": self.created_before and self.created_before.timestamp() * 1000,
        }
        return json.dumps(criteria)

    def filter_by_date_and_key(self, runs: RunQuerySet) -> RunQuerySet:
        """Narrow runs down by all that is asked for but status and text."""
        if self.created_from is not None:
            runs = runs.filter(created_at__gte=self.created_from)
        if self.created_before is not None:
            runs = runs.filter(created_at__lt=self.created_before)
        if self.run_keys is not None:
            runs = runs.filter(pk__in=self.run_keys)
        return runs

    def filter_in_flight(self, runs: RunQuerySet) -> RunQuerySet:
        """Narrow runs in flight down by status and text; they are few."""
        if self.statuses and IN_FLIGHT not in self.statuses:
            runs = runs.filter(status__in=self.statuses)
        if self.overdue_only:
            runs = runs.filter(overdue_severity__gt=0)
        return runs.filter(self._text_condition())

    def filter_ended(self, runs: RunQuerySet) -> list[RunQuerySet]:
        """Narrow runs that have ended down by status and text, in parts that have no run in common.

        Each part can be read along an index in the order of the list.
        """
        if self.overdue_only:  # only what is in flight is
            return []
        ended_statuses = [status for status in self.statuses if status != IN_FLIGHT]
        if self.statuses and not ended_statuses:
            return []
        if self.q:
            # A bounded stretch of the list: its order is the index to read it by.
            runs = runs.filter(self._text_condition())
            return [runs.filter(status__in=ended_statuses) if ended_statuses else runs]
        return [runs.with_status(status) for status in ended_statuses] or [runs]

    def _text_condition(self) -> Q:
        if not self.q:
            return Q()
        fields = "name", "run_id", "description", "step"
        condition = Q()
        for field_name in fields:
            condition |= Q((f"{field_name}__icontains", self.q))
        return condition


def status_label(status: str) -> str:
    """Return what a status that can be asked for is called."""
    return _("In flight") if status == IN_FLIGHT else statuses.for_run(status).label


def parse(parameters: QueryDict, stage: Stage, user: User) -> RunFilter:
    """Read the filter of an address for a person; what nobody can follow in it is told."""
    warnings: list[str] = []
    available_statuses = (IN_FLIGHT, *statuses.RUN_STATUSES, *_unknown_statuses(stage))
    requested_statuses = [status.replace("\0", "") for status in parameters.getlist("status")]
    warnings += [
        _("There is no status “%(status)s”: it is left out of account.") % {"status": status[:80]}
        for status in dict.fromkeys(requested_statuses)
        if status and status not in available_statuses
    ]
    q = parameters.get("q", "").replace("\0", "").strip()
    if len(q) > MAX_QUERY_LENGTH:
        warnings.append(
            _("Only the first %(count)d characters of “%(text)s…” are looked for.")
            % {"count": MAX_QUERY_LENGTH, "text": q[:40]}
        )
    date_inputs, moments = {}, {}
    for name in ("from", "to"):
        value = parameters.get(name, "").strip()
        if not value:
            continue
        moment = _parse_datetime(value, is_end=name == "to")
        if moment is None:
            warnings.append(
                _("“%(day)s” is no day: write it as 2026-03-31 or 2026-03-31T14:30.")
                % {"day": value[:80]}
            )
        else:
            date_inputs[name], moments[name] = value, moment
    for name in ("overdue", "by_me"):
        if parameters.get(name, "") not in {"", "1"}:
            warnings.append(
                _("“%(name)s” takes no value but 1: it is left out of account.") % {"name": name}
            )
    if parameters.get("page", "1") != "1":
        warnings.append(_("Pages have no numbers any more: these are the newest runs."))
    cursor, is_ascending = None, False
    for name in ("before", "after"):
        if encoded_cursor := parameters.get(name, ""):
            cursor, is_ascending = Cursor.decode(encoded_cursor), name == "after"
            if cursor is None:
                warnings.append(
                    _("“%(place)s” is no place in the list: these are the newest runs.")
                    % {"place": encoded_cursor[:80]}
                )
            break
    return RunFilter(
        available_statuses=available_statuses,
        statuses=tuple(status for status in available_statuses if status in requested_statuses),
        q=q[:MAX_QUERY_LENGTH].strip(),
        created_from=moments.get("from"),
        created_before=moments.get("to"),
        date_inputs=date_inputs,
        overdue_only=parameters.get("overdue") == "1",
        run_keys=frozenset(_runs_aborted_by(user, stage))
        if parameters.get("by_me") == "1"
        else None,
        cursor=cursor,
        is_ascending=is_ascending and cursor is not None,
        warnings=tuple(warnings),
    )


def _chip_label(name: str, value: str) -> str:
    match name:
        case "status":
            return status_label(value)[:80]
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


def _parse_datetime(text: str, *, is_end: bool) -> datetime | None:
    """Return the first moment of a day, minute or second as it is written, or the first past it."""
    if not text.isascii():
        return None
    try:
        if len(text) == len("2026-03-31"):
            moment, precision = datetime.combine(date.fromisoformat(text), time.min), timedelta(1)
        elif len(text) in {len("2026-03-31T14:30"), len("2026-03-31T14:30:15")}:
            moment = datetime.fromisoformat(text)
            precision = timedelta(minutes=1) if len(text) == 16 else timedelta(seconds=1)
        else:
            return None
    except ValueError:
        return None
    if moment.tzinfo is not None or moment.year not in _YEARS:
        return None
    # The wall clock's next day is not always 24 hours away.
    return timezone.make_aware(moment + precision if is_end else moment)


def _runs_aborted_by(user: User, stage: Stage) -> Iterator[int]:
    """The runs of a stage that a person aborted or asked to abort, alone or in a list."""
    aborts = Abort.objects.filter(user=user, run__stage=stage)
    yield from aborts.values_list("run__pk", flat=True)
    items = BulkAbortItem.objects.filter(bulk_abort__user=user, run__stage=stage)
    yield from items.values_list("run__pk", flat=True)


def _unknown_statuses(stage: Stage) -> list[str]:
    """The statuses of a stage's runs that are outside our table."""
    key = f"unknown-statuses:{stage.pk}"
    unknown_statuses: list[str] | None = cache.get(key)
    if unknown_statuses is None:
        unknown_statuses = [
            status for status in _distinct_statuses(stage) if status not in statuses.RUN_STATUSES
        ]
        cache.set(key, unknown_statuses, timeout=60)
    return unknown_statuses


def _distinct_statuses(stage: Stage) -> Iterator[str]:
    """Each status that a stage's runs have: one look-up in the index each, not one a run."""
    runs = stage.runs.alias(start=status_start()).order_by("start")
    last_prefix = ""
    for _attempt in range(len(statuses.RUN_STATUSES) + _MAX_UNKNOWN_STATUSES):
        status = runs.filter(start__gt=last_prefix).values_list("status", flat=True).first()
        if status is None:
            return
        yield status
        last_prefix = status[:STATUS_PREFIX_LENGTH]
