"""What the rows of runs are read from: the runs, the keys of rows, and the latest aborts."""

from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

from django.db.models import QuerySet

from dashboard.db.prepared import Keys, PreparedModels, PreparedQuery
from dashboard.models import Abort, Run, Stage
from dashboard.models.runs import RunQuerySet
from dashboard.runs.failures import Cause
from dashboard.web.components.runs.run_row import dom_id

_STAGE: Any = Run._meta.get_field("stage")


class RowKey(NamedTuple):
    """What decides which row of a run is rendered for whom."""

    pk: int
    version: int
    run_id: str
    project: int  # key
    stage: str  # name
    project_name: str
    pipeline_name: str

    @property
    def dom_id(self) -> str:
        """The id of the row's element."""
        return dom_id(self.run_id)


def latest_aborts(runs: Iterable[Run]) -> dict[int, Abort]:
    """Return the latest abort of each run that has one, by the run's key."""
    aborts = _aborts_query().fetch(runs=[run.pk for run in runs])
    return {abort.run_id: abort for abort in aborts}


@cache
def _aborts_query() -> PreparedModels[Abort]:
    return PreparedModels(Abort.objects.filter(run__in=Keys("runs")).order_by("pk"))


def load_runs(pks: Iterable[int]) -> list[Run]:
    """Return runs with what their rows show; those of one stage share its object."""
    runs = _rows_query().fetch(runs=pks)
    stage_keys = {run.stage_id for run in runs}
    stages = {stage.pk: stage for stage in _stages_query().fetch(stages=stage_keys)}
    runs = [run for run in runs if run.stage_id in stages]  # it may have been deleted meanwhile
    for run in runs:
        _STAGE.set_cached_value(run, stages[run.stage_id])
    return runs


@cache
def _rows_query() -> PreparedModels[Run]:
    return PreparedModels(Run.objects.filter(pk__in=Keys("runs")).without_detail())


@cache
def _stages_query() -> PreparedModels[Stage]:
    stages = Stage.objects.filter(pk__in=Keys("stages"))
    return PreparedModels(stages.select_related("pipeline__project"))


def load_causes(runs: Iterable[int]) -> dict[int, Cause]:
    """Return why runs failed, by their keys."""
    return {pk: Cause(*values) for pk, *values in _causes_query().fetch(runs=runs)}


@cache
def _causes_query() -> PreparedQuery:
    runs = Run.objects.filter(pk__in=Keys("runs")).order_by()
    return PreparedQuery(runs.values_list("pk", "stage_id", "failed_step", "failed_step_error"))


def key_of(run: Run) -> RowKey:
    """Return the key of a run's row; `run` is loaded with its stage."""
    stage, pipeline = run.stage, run.stage.pipeline
    names = pipeline.project.name, pipeline.name
    return RowKey(run.pk, run.version, run.run_id, pipeline.project_id, stage.name, *names)


def load_keys(runs: Iterable[int]) -> list[RowKey]:
    """Return the keys of the rows of runs, given by key; newest run first."""
    return [RowKey(*values) for values in _row_keys_query().fetch(runs=runs)]


@cache
def _row_keys_query() -> PreparedQuery:
    runs = Run.objects.filter(pk__in=Keys("runs")).newest_first()
    return PreparedQuery(row_key_values(runs))


def row_key_values(runs: RunQuerySet) -> QuerySet[Any, Any]:
    """Return a query for the values of the row keys of `runs`."""
    project, pipeline = "stage__pipeline__project", "stage__pipeline"
    names = f"{project}__name", f"{pipeline}__name"
    return runs.values_list("pk", "version", "run_id", project, "stage__name", *names)
