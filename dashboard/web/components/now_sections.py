"""The sections of the Now page: needs attention, in flight, aborted here, failed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from dashboard.accounts.permissions import Permissions
from dashboard.db.prepared import NOW, PreparedQuery, Time
from dashboard.models import Run
from dashboard.models.runs import RunQuerySet
from dashboard.runs import failures
from dashboard.runs.attention import AttentionRun
from dashboard.texts.rich_text import Message, MessageTable, join_texts
from dashboard.web.components import in_flight
from dashboard.web.components.data_age import DataAge
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.lists import empty_states
from dashboard.web.components.lists.empty_states import EmptyState
from dashboard.web.components.runs import row_queries
from dashboard.web.components.runs.row_queries import RowKey
from dashboard.web.components.runs.run_section import RunsBelow, RunSection

# Rows per table; a longer page can no longer be read at a glance.
MAX_IN_FLIGHT = 200
MAX_CONCLUDED = 50
MAX_LINKS_BELOW = 20  # of one run
MAX_FAILED = 200
UNFOLDED_FAILURES = 10  # rows, of which each is all that failed in a row by one cause
_text = MessageTable(
    {
        "truncated": gettext_lazy("Showing %(n)d of %(total)d."),
        "unfold": gettext_lazy("All %(n)d"),  # of the failures
        # Behind the count.
        "stages": lambda n: ngettext("in %(n)d stage", "in %(n)d stages", n),
        "listed_above": gettext_lazy("(%(n)d listed above)"),
    }
)

type SelectRuns = Callable[[RunQuerySet, Time], RunQuerySet]


@dataclass
class NowSections:
    """The sections at one time; a run is listed only in the first to which it belongs.

    Counts are those of the listed rows, as long as all rows are listed. `attention_runs` are in the
    order of runs/attention.py.
    """

    permissions: Permissions
    now: datetime
    in_flight_by_stage: Mapping[int, InFlightTotals]
    attention_runs: Sequence[AttentionRun]
    data_age: DataAge

    @cached_property
    def all(self) -> list[RunSection]:
        """The sections in the order of the page."""
        return [self._attention, self._in_flight, self._aborted, self._failed]

    @property
    def _attention(self) -> RunSection:
        count = len(self.attention_runs)
        return RunSection(
            "attention",
            _("Needs attention"),
            _("Runs that need attention, Production first"),
            count,
            self._attention_rows,
            is_incomplete=self._is_incomplete,
            truncated_text=_truncated_text(self._attention_rows, count),
            empty=self._empty("attention"),
            is_hidden=not (self._attention_rows or self._other_list[0]),
            is_announced=True,
            below=self._waiting_runs() if self._attention_rows else {},
        )

    @property
    def _in_flight(self) -> RunSection:
        (rows, count), above_count = self._other_list, self._attention_in_flight
        stage_count = len(self.in_flight_by_stage)
        stages = _text("stages", n=stage_count) if stage_count else ""
        return RunSection(
            "in-flight",
            _("In flight"),
            _("Other runs in flight"),
            above_count + count,
            rows,
            note=join_texts(stages, _listed_above_text(above_count)),
            is_incomplete=self._is_incomplete,
            truncated_text=_truncated_text(rows, count),
            empty=self._empty("in-flight", above_count),
        )

    @property
    def _aborted(self) -> RunSection:
        rows, count = self._aborted_list
        return RunSection(
            "aborted",
            _("Aborted here in the last hour"),
            _("Runs that were aborted here in the last hour"),
            count,
            rows,
            truncated_text=_truncated_text(rows, count),
            is_hidden=not rows,
        )

    @property
    def _failed(self) -> RunSection:
        earlier_rows = self._attention_rows, self._other_list[0], self._aborted_list[0]
        keys, count = self._list(in_flight.failed_earlier, MAX_FAILED, *earlier_rows)
        causes = row_queries.load_causes(key.pk for key in keys) if keys else {}
        groups = failures.group((key, causes[key.pk]) for key in keys if key.pk in causes)
        recently_failed = len(self.attention_runs) - self._attention_in_flight
        return RunSection(
            "failed",
            _("Failed in the last day"),
            _("Runs that failed in the last day"),
            recently_failed + count,
            [group[0] for group in groups],
            note=_listed_above_text(recently_failed),
            is_incomplete=self._is_incomplete,
            below=_same_cause(groups),
            lists_ended=True,
            fold_after=UNFOLDED_FAILURES,
            fold_text=_truncated_text(keys, count) or _text("unfold", n=count),
            empty=self._empty("failed", recently_failed),
        )

    @property
    def _is_incomplete(self) -> bool:
        return bool(self.data_age.incomplete_text)

    def _empty(self, name: str, above_count: int = 0) -> EmptyState:
        return empty_states.section(name, self.permissions, self.data_age, above_count=above_count)

    @cached_property
    def _attention_rows(self) -> list[RowKey]:
        pks = [run.pk for run in self.attention_runs[:MAX_IN_FLIGHT]]
        keys = {key.pk: key for key in row_queries.load_keys(pks)}
        return [keys[pk] for pk in pks if pk in keys]

    @property
    def _attention_in_flight(self) -> int:
        return sum(run.is_in_flight for run in self.attention_runs)

    @cached_property
    def _other_list(self) -> tuple[list[RowKey], int]:
        return self._list(in_flight.others_in_flight, MAX_IN_FLIGHT, self._attention_rows)

    @cached_property
    def _aborted_list(self) -> tuple[list[RowKey], int]:
        earlier_rows = self._attention_rows, self._other_list[0]
        return self._list(in_flight.recently_aborted, MAX_CONCLUDED, *earlier_rows)

    def _list(
        self, select: SelectRuns, limit: int, *earlier_rows: list[RowKey]
    ) -> tuple[list[RowKey], int]:
        """Return the rows of the first `limit` runs without `earlier_rows`, and the total."""
        query = _prepare_keys(select, self.permissions, limit)
        keys = [RowKey(*values) for values in query.fetch(now=self.now)]
        # A run may have moved from one section to another between their queries.
        earlier_pks = {key.pk for rows in earlier_rows for key in rows}
        rows = [key for key in keys if key.pk not in earlier_pks]
        if len(keys) < limit:
            return rows, len(rows)
        return rows, select(in_flight.visible_runs(self.permissions), self.now).count()

    def _waiting_runs(self) -> Mapping[int, RunsBelow]:
        """Return the waiting runs by the key of the worst older run in flight of their stage."""
        in_flight_of_stage: dict[int, list[AttentionRun]] = {}
        for run in self.attention_runs:
            if run.is_in_flight:
                in_flight_of_stage.setdefault(run.stage, []).append(run)
        behind: dict[int, list[Run]] = {}
        for waiting_run in in_flight.load_blocked(self.permissions):
            for ahead in in_flight_of_stage.get(waiting_run.stage_id, ()):
                if ahead.since <= waiting_run.created_at:
                    behind.setdefault(ahead.pk, []).append(waiting_run)
                    break
        return {
            pk: RunsBelow("waiting", pk, len(runs), runs[:MAX_LINKS_BELOW])
            for pk, runs in behind.items()
        }


def _same_cause(groups: Iterable[Sequence[RowKey]]) -> Mapping[int, RunsBelow]:
    """Return the runs that failed before the first of each group, by its key."""
    others = {first.pk: [key.pk for key in rest] for first, *rest in groups if rest}
    shown = [pk for pks in others.values() for pk in pks[:MAX_LINKS_BELOW]]
    runs = {run.pk: run for run in row_queries.load_runs(shown)} if shown else {}
    return {
        first: RunsBelow(
            "same-cause",
            pks[-1],
            len(pks),
            [runs[pk] for pk in pks[:MAX_LINKS_BELOW] if pk in runs],
        )
        for first, pks in others.items()
    }


@lru_cache(maxsize=100)
def _prepare_keys(select: SelectRuns, permissions: Permissions, limit: int) -> PreparedQuery:
    runs = select(in_flight.visible_runs(permissions), NOW)
    return PreparedQuery(
        row_queries.row_key_values(runs[:limit]), plan_once=select is in_flight.others_in_flight
    )


def _listed_above_text(count: int) -> Message | str:
    # The count of a section includes the runs that are listed under “Needs attention”.
    return _text("listed_above", n=count) if count else ""


def _truncated_text(rows: list[RowKey], total: int) -> Message | str:
    return _text("truncated", n=len(rows), total=total) if len(rows) < total else ""
