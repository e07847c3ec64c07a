"""Stage cells, for the board and for a pipeline's page."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
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
    """One stage with its latest runs, prepared for templates."""

    key: int
    stage: str
    url: str
    # "flow", "none" (no release flow) or "unknown" (its runs were not read yet). "flow" in any case
    # if a run is in flight or needs attention.
    state: str
    in_flight_count: int
    needs_attention: bool  # any of its runs does: see runs/attention.py
    overdue_message: OverdueMessage | None  # of `run` or its abort
    acknowledgements: ActiveAcknowledgements | None  # of any of its runs
    error: str
    rows: list[RunRow]
    history_chart: SafeString  # rendered; may be empty

    @property
    def overdue_severity(self) -> int:
        """The severity of the most overdue run or abort; 0 if none is overdue."""
        return self.overdue_message.severity if self.overdue_message else 0

    @property
    def run(self) -> RunRow | None:
        """The run that stands for the stage: the worst that needs attention, or the newest."""
        return self.rows[0] if self.rows else None


@dataclass(frozen=True, slots=True)
class CellFacts:
    """What decides the content of a stage's cell, besides its history chart."""

    stage: Stage
    in_flight_count: int
    needs_attention: bool
    runs: list[tuple[int, int]]  # (key, version) of the runs that it shows, in their order
    acknowledgements: ActiveAcknowledgements | None

    @property
    def state(self) -> str:
        """See `StageCell.state`."""
        return "flow" if self.runs or self.in_flight_count else _state(self.stage)


def load_cells(
    stages: Iterable[Stage],
    in_flight_by_stage: Mapping[int, InFlightTotals],
    attention_runs: Iterable[AttentionRun],
    *,
    runs_per_stage: int = 1,
    history_charts: Mapping[int, SafeString],
) -> list[StageCell]:
    """Return the cells of stages, Development first, each with up to `runs_per_stage` runs.

    Those that need attention come first, then the newest; of a stage without a release flow, or
    whose runs were not read yet, the newest in flight. `attention_runs` are in the order of
    runs/attention.py; `history_charts` are rendered charts by stage key.
    """
    facts = load_facts(stages, in_flight_by_stage, attention_runs, runs_per_stage=runs_per_stage)
    return build_cells(facts, history_charts=history_charts)


def load_facts(
    stages: Iterable[Stage],
    in_flight_by_stage: Mapping[int, InFlightTotals],
    attention_runs: Iterable[AttentionRun],
    *,
    runs_per_stage: int = 1,
) -> list[CellFacts]:
    """Return the facts of the cells that `load_cells` returns; arguments as there."""
    stages = sorted(stages, key=lambda stage: _ORDER.get(stage.name, 9))
    worst_runs: dict[int, list[int]] = {}
    for run in attention_runs:
        worst_runs.setdefault(run.stage, []).append(run.pk)
    newest_counts = {
        stage.pk: runs_per_stage
        if _state(stage) == "flow"
        else min(in_flight_by_stage.get(stage.pk, InFlightTotals()).count, runs_per_stage)
        for stage in stages
    }
    runs_by_stage = _find_runs(newest_counts, runs_per_stage, worst_runs)
    active_acknowledgements = acknowledgements.active_by_stage(
        {stage.pk for stage in stages}, now()
    )
    return [
        CellFacts(
            stage,
            in_flight_by_stage.get(stage.pk, InFlightTotals()).count,
            stage.pk in worst_runs,
            runs_by_stage.get(stage.pk, []),
            acknowledged_by.active(active_acknowledgements.get(stage.pk, ())),
        )
        for stage in stages
    ]


def build_cells(
    facts: Collection[CellFacts], *, history_charts: Mapping[int, SafeString]
) -> list[StageCell]:
    """Return the cells with these facts, with their runs loaded."""
    rows_by_key = _load_rows(facts)
    cells = []
    for cell_facts in facts:
        stage = cell_facts.stage
        rows = [rows_by_key[pk] for pk, _version in cell_facts.runs if pk in rows_by_key]
        cell = StageCell(
            key=stage.pk,
            stage=stage.name,
            url=links.stage_url(stage),
            state=cell_facts.state,
            in_flight_count=cell_facts.in_flight_count,
            needs_attention=cell_facts.needs_attention,
            overdue_message=_overdue_message(rows[0]) if rows else None,
            acknowledgements=cell_facts.acknowledgements,
            error=stage.error_message,
            rows=rows,
            history_chart=history_charts.get(stage.pk, SafeString()),
        )
        cells.append(cell)
    return cells


def _overdue_message(row: RunRow) -> OverdueMessage | None:
    return overdue_messages.worst(row.overdue_severity, row.run.abort_severity)


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


def _load_rows(facts: Iterable[CellFacts]) -> dict[int, RunRow]:
    """Return the rows of the runs to show, by run key."""
    stages = {cell_facts.stage.pk: cell_facts.stage for cell_facts in facts}
    run_keys = [pk for cell_facts in facts for pk, _version in cell_facts.runs]
    rows = {}
    for run in Run.objects.filter(pk__in=run_keys).without_detail():
        run.stage = stages[run.stage_id]
        rows[run.pk] = run_row.build_row(run, DENIED, None)
    return rows
