"""Stage cells, for the board and for a pipeline's page."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from django.db.models import OuterRef, Subquery
from django.utils.safestring import SafeString

from dashboard.accounts.permissions import Permission
from dashboard.db.prepared import Keys, PreparedQuery
from dashboard.db.threads import now
from dashboard.models import Run, Stage
from dashboard.models.catalog import StageName
from dashboard.runs import acknowledgements, overdue_messages
from dashboard.runs.attention import AttentionRun
from dashboard.runs.overdue_messages import OverdueMessage
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.runs import acknowledged_by, run_row
from dashboard.web.components.runs.acknowledged_by import ActiveAcknowledgements
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import links

_ORDER = {name: position for position, name in enumerate(StageName.values)}
DENIED = Permission(False)  # for rows on pages without an abort button


@dataclass(frozen=True, slots=True)
class StageCell:
    """One stage with the runs that its cell shows, and what else decides the cell's content."""

    stage: Stage
    in_flight_count: int
    runs: list[tuple[int, int]]  # (key, version) of the runs that it shows, in their order
    acknowledgements: ActiveAcknowledgements | None  # of any of its runs
    rows: list[RunRow] = field(default_factory=list)  # of `runs`, once they are loaded
    history_chart: str = ""  # rendered; may be empty

    @property
    def state(self) -> str:
        """ "flow", "none" (no release flow) or "unknown" (its runs were not read yet).

        "flow" in any case if a run is in flight or needs attention.
        """
        return "flow" if self.runs or self.in_flight_count else _state(self.stage)

    @property
    def url(self) -> str:
        """The address of the stage's page."""
        return links.stage_url(self.stage)

    @property
    def run(self) -> RunRow | None:
        """The run that stands for the stage: the worst that needs attention, or the newest."""
        return self.rows[0] if self.rows else None

    @property
    def overdue(self) -> OverdueMessage | None:
        """How overdue `run` or its abort is; None: neither is."""
        row = self.run
        if row is None:
            return None
        return overdue_messages.worst(row.overdue_severity, row.run.abort_severity)


def find_cells(
    stages: Iterable[Stage],
    in_flight_by_stage: Mapping[int, InFlightTotals],
    attention_runs: Iterable[AttentionRun],
    *,
    runs_per_stage: int = 1,
) -> list[StageCell]:
    """Return the cells of stages, Development first, each with up to `runs_per_stage` runs.

    Those that need attention come first, then the newest; of a stage without a release flow, or
    whose runs were not read yet, the newest in flight. `attention_runs` are in the order of
    runs/attention.py. The rows of the runs are not loaded yet.
    """
    stages = sorted(stages, key=lambda stage: _ORDER.get(stage.name, 9))
    worst_runs: dict[int, list[int]] = {}
    for run in attention_runs:
        worst_runs.setdefault(run.stage, []).append(run.pk)
    counts = {
        stage.pk: in_flight_by_stage.get(stage.pk, InFlightTotals()).count for stage in stages
    }
    newest_counts = {
        stage.pk: runs_per_stage
        if _state(stage) == "flow"
        else min(counts[stage.pk], runs_per_stage)
        for stage in stages
    }
    runs_by_stage = _find_runs(newest_counts, runs_per_stage, worst_runs)
    active = acknowledgements.active_by_stage({stage.pk for stage in stages}, now())
    return [
        StageCell(
            stage,
            counts[stage.pk],
            runs_by_stage.get(stage.pk, []),
            acknowledged_by.active(active.get(stage.pk, ())),
        )
        for stage in stages
    ]


def load_rows(
    cells: Collection[StageCell], *, history_charts: Mapping[int, SafeString]
) -> list[StageCell]:
    """Return the cells with the rows of their runs; `history_charts` are by stage key."""
    rows_by_key = _load_rows(cells)
    return [
        replace(
            cell,
            rows=[rows_by_key[pk] for pk, _version in cell.runs if pk in rows_by_key],
            history_chart=history_charts.get(cell.stage.pk, ""),
        )
        for cell in cells
    ]


def _state(stage: Stage) -> str:
    if stage.has_flow is False:
        return "none"
    return "unknown" if stage.synced_at is None else "flow"


def _find_runs(
    newest_counts: Mapping[int, int], runs_per_stage: int, worst_runs: Mapping[int, list[int]]
) -> dict[int, list[tuple[int, int]]]:
    """Return key and version of the runs to show, by stage key.

    `newest_counts` are how many of the newest are shown beside those of `worst_runs`.
    """
    stage_keys = [stage for stage, count in newest_counts.items() if count]
    newest_by_stage = {
        stage: filter(None, newest_pks[: newest_counts[stage]])  # those in flight first
        for stage, *newest_pks in _newest_runs_query(runs_per_stage).fetch(stages=stage_keys)
    }
    pks_by_stage = {
        # Each run once, in this order.
        stage: list(dict.fromkeys([*worst_runs.get(stage, ()), *newest_by_stage.get(stage, ())]))[
            :runs_per_stage
        ]
        for stage in newest_counts
    }
    run_keys = [pk for pks in pks_by_stage.values() for pk in pks]
    versions = dict(_versions_query().fetch(runs=run_keys))
    return {
        stage: [(pk, versions[pk]) for pk in pks if pk in versions]
        for stage, pks in pks_by_stage.items()
    }


@cache
def _newest_runs_query(runs_per_stage: int) -> PreparedQuery:
    # A window function would read all runs; this does `runs_per_stage` index lookups per stage.
    newest = Run.objects.filter(stage=OuterRef("pk")).newest_first().values("pk")
    subqueries = [Subquery(newest[n : n + 1]) for n in range(runs_per_stage)]
    stages = Stage.objects.filter(pk__in=Keys("stages")).order_by()
    return PreparedQuery(stages.values_list("pk", *subqueries))


@cache
def _versions_query() -> PreparedQuery:
    return PreparedQuery(Run.objects.filter(pk__in=Keys("runs")).values_list("pk", "version"))


def _load_rows(cells: Iterable[StageCell]) -> dict[int, RunRow]:
    """Return the rows of the runs to show, by run key."""
    stages = {cell.stage.pk: cell.stage for cell in cells}
    run_keys = [pk for cell in cells for pk, _version in cell.runs]
    rows = {}
    for run in Run.objects.filter(pk__in=run_keys).without_detail():
        run.stage = stages[run.stage_id]
        rows[run.pk] = run_row.build_row(run, DENIED, None)
    return rows
