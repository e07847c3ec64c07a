"""Stage cells, for the board and for a pipeline's page."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

from django.db.models import OuterRef, Subquery

from dashboard.accounts.permissions import Permission
from dashboard.db.prepared import Keys, PreparedQuery
from dashboard.db.threads import now
from dashboard.models import Run, Stage
from dashboard.models.catalog import StageName
from dashboard.models.runs import RunQuerySet
from dashboard.runs import acknowledgements, overdue_messages, releases
from dashboard.runs.attention import AttentionRun
from dashboard.runs.overdue_messages import OverdueMessage
from dashboard.web.components.in_flight import InFlightTotals
from dashboard.web.components.runs import acknowledged_by, run_row
from dashboard.web.components.runs.run_row import RunRow
from dashboard.web.http import links

_ORDER = {name: position for position, name in enumerate(StageName.values)}
DENIED = Permission(False)  # for rows on pages without an abort button


@dataclass(slots=True)
class StageCell:
    """One stage with the runs that its cell shows, and what else decides the cell's content."""

    stage: Stage
    in_flight_count: int
    runs: list[tuple[int, int]]  # (key, version) of the runs that it shows, in their order
    acknowledged_names: str  # of who has acknowledged any of its runs
    success: int | None  # the key of the run that last succeeded
    before: "StageCell | None"  # that of the stage before it, if something has succeeded there
    rows: list[RunRow] = field(default_factory=list)  # of `runs`, once they are loaded
    released: RunRow | None = None  # that of `success`, once it is loaded
    behind: str = ""  # by how many releases it is behind `before`: see releases.compare
    missing: list[Run] = field(default_factory=list)  # the latest run of each of these releases
    is_same_release: bool | None = None  # as `before` has; None: not known

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
    def latest(self) -> RunRow | None:
        """`run`, unless it is what is released."""
        return self.run if self.run and self.run.run.pk != self.success else None

    @property
    def more_in_flight(self) -> int:
        """The number of runs in flight beside `run`."""
        return self.in_flight_count - (self.run is not None and self.run.run.in_flight)

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
    runs_by_stage, successes = _find_runs(newest_counts, runs_per_stage, worst_runs)
    active = acknowledgements.active_by_stage({stage.pk for stage in stages}, now())
    cells: list[StageCell] = []
    latest_by_pipeline: dict[int, StageCell] = {}  # with a success, of the stages so far
    for stage in stages:
        cell = StageCell(
            stage,
            counts[stage.pk],
            runs_by_stage.get(stage.pk, []),
            acknowledged_by.names(active.get(stage.pk, ())),
            successes.get(stage.pk) if _state(stage) == "flow" else None,
            latest_by_pipeline.get(stage.pipeline_id),
        )
        cells.append(cell)
        if cell.success is not None:
            latest_by_pipeline[stage.pipeline_id] = cell
    return cells


def load_rows(cells: Iterable[StageCell]) -> None:
    """Load the rows of the runs of cells, and compare what is released."""
    stages = {cell.stage.pk: cell.stage for cell in cells}
    compared = {
        cell.before.stage.pk: cell.before.stage
        for cell in cells
        if cell.before is not None and cell.success is not None
    }
    ahead = _load_successes(stages | compared, compared)
    shown = {pk for cell in cells for pk in (*(pk for pk, _ in cell.runs), cell.success) if pk}
    rows = {run.pk: run_row.build_row(run, DENIED, None) for run in _load_runs(stages, shown)}
    for cell in cells:
        cell.rows = [rows[pk] for pk, _version in cell.runs if pk in rows]
        cell.released = rows.get(cell.success or 0)
        before = ahead[cell.before.stage.pk] if cell.released and cell.before else []
        if cell.released and before:
            cell.behind, cell.missing = releases.compare(cell.released.run, before)
            cell.is_same_release = releases.is_same(cell.released.run, before[0])


def _state(stage: Stage) -> str:
    if stage.has_flow is False:
        return "none"
    return "unknown" if stage.synced_at is None else "flow"


def _find_runs(
    newest_counts: Mapping[int, int], runs_per_stage: int, worst_runs: Mapping[int, list[int]]
) -> tuple[dict[int, list[tuple[int, int]]], dict[int, int]]:
    """Return key and version of the runs to show, and the last success, each by stage key.

    `newest_counts` are how many of the newest are shown beside those of `worst_runs`.
    """
    stage_keys = [stage for stage, count in newest_counts.items() if count]
    newest_by_stage, successes = {}, {}
    for stage, success, *newest_pks in _newest_runs_query(runs_per_stage).fetch(stages=stage_keys):
        newest_by_stage[stage] = filter(None, newest_pks[: newest_counts[stage]])
        successes[stage] = success
    pks_by_stage = {
        # Each run once, in this order.
        stage: list(dict.fromkeys([*worst_runs.get(stage, ()), *newest_by_stage.get(stage, ())]))[
            :runs_per_stage
        ]
        for stage in newest_counts
    }
    run_keys = [pk for pks in pks_by_stage.values() for pk in pks]
    versions = dict(_versions_query().fetch(runs=run_keys))
    runs_by_stage = {
        stage: [(pk, versions[pk]) for pk in pks if pk in versions]
        for stage, pks in pks_by_stage.items()
    }
    return runs_by_stage, successes


@cache
def _newest_runs_query(runs_per_stage: int) -> PreparedQuery:
    of_stage = Run.objects.filter(stage=OuterRef("pk"))
    newest = _first_keys(of_stage.newest_first(), runs_per_stage)
    return _stages_query(*_first_keys(of_stage.successes(), 1), *newest)


def _load_successes(stages: Mapping[int, Stage], keys: Collection[int]) -> dict[int, list[Run]]:
    """Return the latest successes of the stages with these keys, newest first, by stage key."""
    if not keys:
        return {}
    pks_by_stage = {stage: pks for stage, *pks in _successes_query().fetch(stages=keys)}
    pks = {pk for pks in pks_by_stage.values() for pk in pks if pk}
    runs = {run.pk: run for run in _load_runs(stages, pks)}
    return {stage: [runs[pk] for pk in pks if pk in runs] for stage, pks in pks_by_stage.items()}


@cache
def _successes_query() -> PreparedQuery:
    successes = Run.objects.filter(stage=OuterRef("pk")).successes()
    return _stages_query(*_first_keys(successes, releases.MAX_COMPARED))


def _first_keys(runs: RunQuerySet, count: int) -> list[Subquery]:
    # A window function would read all runs; this does `count` index lookups per stage.
    return [Subquery(runs.values("pk")[n : n + 1]) for n in range(count)]


def _stages_query(*columns: Subquery) -> PreparedQuery:
    stages = Stage.objects.filter(pk__in=Keys("stages")).order_by()
    return PreparedQuery(stages.values_list("pk", *columns))


@cache
def _versions_query() -> PreparedQuery:
    return PreparedQuery(Run.objects.filter(pk__in=Keys("runs")).values_list("pk", "version"))


def _load_runs(stages: Mapping[int, Stage], keys: Collection[int]) -> list[Run]:
    """Return runs of these stages."""
    runs = list(Run.objects.filter(pk__in=keys).without_detail())
    for run in runs:
        run.stage = stages[run.stage_id]
    return runs
