"""Count runs for /metrics (models/counters.py), each when its end is read."""

from collections.abc import Sequence
from functools import cache

from django.db.models import BigIntegerField

from dashboard.db.prepared import Parameter, PreparedQuery
from dashboard.models import Run, Stage, counters
from dashboard.models.counters import CounterName
from dashboard.runs.trends import OUTCOMES


def count(runs: Sequence[Run]) -> None:
    """Count the ends of runs of one stage that were not counted before, unless they are history.

    History is what had ended when the stage was last read: the first reads of a stage would look
    like a hundred failures at once.
    """
    if not runs:
        return
    [(read_at,)] = _read_at_query().fetch(stage=runs[0].stage_id)
    rows = []
    for run in runs:
        ended_at = run.concluded_at or run.updated_at or run.created_at  # as Run.ended_at
        was_known = run.first_synced_at < run.synced_at
        if was_known or (read_at is not None and ended_at > read_at):
            # One that was never started has spent its time pending.
            state = "executing" if run.started_at else "pending"
            outcome = run.status if run.status in OUTCOMES else "other"
            seconds = (ended_at - (run.started_at or run.created_at)).total_seconds()
            rows += counters.observe(
                CounterName.RUN_DURATION, seconds, state, outcome,
                stage=run.stage_id, run_id=run.run_id,
            )  # fmt: skip
    counters.store(rows)


@cache
def _read_at_query() -> PreparedQuery:
    stage = Stage.objects.filter(pk=Parameter("stage", BigIntegerField()))
    return PreparedQuery(stage.values_list("synced_at"))
