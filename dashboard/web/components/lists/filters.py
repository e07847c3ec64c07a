"""Parse and build the run list's query string: its filter, and the position where a page starts.

Invalid parameters are ignored with a warning. All links to the same page with another filter or
position are built here, so that none of them loses a parameter.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, Self
from urllib.parse import urlencode

from django.contrib.auth.models import User
from django.http import QueryDict
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.models import Abort, BulkAbortItem, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.runs import search, statuses
from dashboard.texts.rich_text import Message, MessageTable
from dashboard.web.components.lists import parameters as list_parameters

# All runs in flight, as a choice beside the statuses: it is used more often than any of the eight
# statuses in flight.
IN_FLIGHT = "in_flight"
# Query string for all runs; not empty, so that the user's default view is not applied.
ALL_RUNS_URL = "?all=1"
# Query of an open page to which no new run belongs (see `RunFilter.stream_query`).
NO_NEW_RUNS = "new=none"
KNOWN_STATUSES = (IN_FLIGHT, *statuses.RUN_STATUSES)
_text = MessageTable(
    {
        # Warnings.
        "invalid_value": gettext_lazy("Invalid value of “%(name)s” ignored; only 1 is allowed."),
        "invalid_position": gettext_lazy("Invalid position “%(place)s”; showing newest runs."),
        # Active filters, by their parameters.
        "q": gettext_lazy("“%(text)s”"),
        "from": gettext_lazy("from %(day)s"),
        "to": gettext_lazy("to %(day)s"),
        "overdue": gettext_lazy("Overdue"),
        "by_me": gettext_lazy("Aborted by me"),
    }
)


_CURSOR = re.compile(r"([01])_(\d{4}-\d\d-\d\dT[\d:.]{8,15}\+00:00)_(\d{1,18})", re.ASCII)


class Cursor(NamedTuple):
    """A run's position in the list (in flight first, then newest first)."""

    in_flight: bool
    created_at: datetime
    pk: int

    def __str__(self) -> str:
        return f"{self.in_flight:d}_{self.created_at.isoformat()}_{self.pk}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the cursor of such a text, or None if it is none.

        It is not authenticated: a forged cursor only selects another position in the list.
        """
        if (parts := _CURSOR.fullmatch(text)) is None:
            return None
        try:
            return cls(parts[1] == "1", datetime.fromisoformat(parts[2]), int(parts[3]))
        except ValueError:
            return None


@dataclass(frozen=True)
class RunFilter:
    """The filter for a stage's runs, and the position where the page starts."""

    statuses: tuple[str, ...] = ()  # selected, ordered as in `status_choices`; empty: all
    q: str = ""
    created_from: datetime | None = None  # inclusive
    created_before: datetime | None = None  # exclusive
    date_inputs: Mapping[str, str] = field(default_factory=dict)  # valid `from` and `to`, ISO 8601
    overdue_only: bool = False
    run_keys: frozenset[int] | None = None  # only runs with these keys; None: no restriction
    cursor: Cursor | None = None  # the page starts after this run
    warnings: tuple[Message, ...] = ()  # about ignored parameters, for the user

    @cached_property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """The filter as query parameters, without the position in the list."""
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
        """Whether the filter selects only runs that the user aborted."""
        return self.run_keys is not None

    @property
    def query_string(self) -> str:
        """The filter as a query string; empty for all runs."""
        return urlencode(self.parameters)

    @property
    def url(self) -> str:
        """The relative address of the first page."""
        return f"?{self.query_string}" if self.parameters else ALL_RUNS_URL

    def page_url(self, cursor: Cursor) -> str:
        """Return the relative address of the page of older runs that starts after a run."""
        return "?" + urlencode([*self.parameters, ("before", str(cursor))])

    @property
    def status_choices(self) -> list[tuple[str, str, bool]]:
        """The options of the status filter: value, label, and whether it is selected."""
        values = dict.fromkeys((*KNOWN_STATUSES, *self.statuses))
        return [(value, status_label(value), value in self.statuses) for value in values]

    @property
    def status_summary(self) -> str:
        """The selected statuses, short enough for a button."""
        if len(self.statuses) > 2:
            return ngettext("%(count)d status", "%(count)d statuses", len(self.statuses)) % {
                "count": len(self.statuses)
            }
        return ", ".join(status_label(status)[:40] for status in self.statuses) or _("Any status")

    @property
    def datetime_inputs(self) -> dict[str, str]:
        """`from` and `to` for datetime-local inputs; a date becomes its first or last minute."""
        ends = {"from": "T00:00", "to": "T23:59"}
        return {
            name: value if "T" in value else f"{value}{ends[name]}"
            for name, value in self.date_inputs.items()
        }

    @property
    def chips(self) -> list[tuple[Message | str, str]]:
        """The label of each active filter, and the address without it."""
        chips = []
        for position, (name, value) in enumerate(self.parameters):
            others = self.parameters[:position] + self.parameters[position + 1 :]
            url = f"?{urlencode(others)}" if others else ALL_RUNS_URL
            chips.append((_chip_label(name, value), url))
        return chips

    @property
    def single_status(self) -> str | None:
        """The status that is the only filter; "" for none or in flight; None for other filters."""
        if self.q or self.date_inputs or self.overdue_only or self.aborted_by_me:
            return None
        if set(self.statuses) <= {IN_FLIGHT}:
            return ""
        return self.statuses[0] if len(self.statuses) == 1 else None

    @property
    def stream_query(self) -> str:
        """The filter as a query string; NO_NEW_RUNS if new runs belong on another page.

        The stream is the same for all users, so a filter by the user's aborts lists no new runs.
        """
        if self.cursor is not None or self.aborted_by_me:
            return NO_NEW_RUNS
        return self.query_string

    def matching(self, runs: Collection[Run]) -> set[int]:
        """Return the keys of those of `runs` that match the filter."""
        keys = [run.pk for run in runs]
        if not self.parameters:
            return set(keys)
        candidates = Run.objects.filter(pk__in=keys)
        parts = (self.select(candidates, in_flight=in_flight) for in_flight in (True, False))
        return {pk for part in parts for pk in part.values_list("pk", flat=True)}

    def select(self, runs: RunQuerySet, *, in_flight: bool) -> RunQuerySet:
        """Return the runs that match, of those in flight or of all others."""
        runs = runs.with_in_flight(in_flight)
        if self.created_from is not None:
            runs = runs.filter(created_at__gte=self.created_from)
        if self.created_before is not None:
            runs = runs.filter(created_at__lt=self.created_before)
        if self.run_keys is not None:
            runs = runs.filter(pk__in=self.run_keys)
        if self.overdue_only:  # only runs in flight can be overdue
            runs = runs.filter(overdue_severity__gt=0) if in_flight else runs.none()
        if self.statuses and not (in_flight and IN_FLIGHT in self.statuses):
            wanted = [status for status in self.statuses if status != IN_FLIGHT]
            is_indexed = len(wanted) == 1 and not in_flight
            runs = runs.with_status(wanted[0]) if is_indexed else runs.filter(status__in=wanted)
        return runs.filter(search.of_their_own(self.q))


def status_label(status: str) -> str:
    """Return the label of a status filter option."""
    return _("In flight") if status == IN_FLIGHT else statuses.for_run(status).label


def parse(parameters: QueryDict, stage: Stage, user: User | None) -> RunFilter:
    """Return the filter in `parameters`; ignore invalid ones and add warnings.

    `user` is the user for the filter "aborted by me"; without one it is not applied.
    """
    warnings: list[Message] = []
    requested = {status.replace("\0", "") for status in parameters.getlist("status")} - {""}
    others = sorted(requested.difference(KNOWN_STATUSES))
    moments, date_inputs = list_parameters.read_dates(parameters, warnings)
    warnings += [
        _text("invalid_value", name=name)
        for name in ("overdue", "by_me")
        if parameters.get(name, "") not in {"", "1"}
    ]
    position = parameters.get("before", "")
    cursor = Cursor.parse(position)
    if position and cursor is None:
        warnings.append(_text("invalid_position", place=position[:80]))
    return RunFilter(
        statuses=tuple(status for status in (*KNOWN_STATUSES, *others) if status in requested),
        q=list_parameters.cut_text(parameters.get("q", ""), warnings),
        created_from=moments.get("from"),
        created_before=moments.get("to"),
        date_inputs=date_inputs,
        overdue_only=parameters.get("overdue") == "1",
        run_keys=frozenset(_runs_aborted_by(user, stage))
        if user is not None and parameters.get("by_me") == "1"
        else None,
        cursor=cursor,
        warnings=tuple(warnings),
    )


def _chip_label(name: str, value: str) -> Message | str:
    match name:
        case "status":
            return status_label(value)[:80]
        case "q":
            return _text("q", text=value)
        case "from" | "to":
            return _text(name, day=value.replace("T", " "))
        case _:
            return _text(name)


def _runs_aborted_by(user: User, stage: Stage) -> Iterator[int]:
    """Yield the keys of a stage's runs that the user aborted, singly or in a bulk abort."""
    aborts = Abort.objects.filter(user=user, run__stage=stage)
    yield from aborts.values_list("run__pk", flat=True)
    items = BulkAbortItem.objects.filter(bulk_abort__user=user, run__stage=stage)
    yield from items.values_list("run__pk", flat=True)
