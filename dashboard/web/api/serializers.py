"""Runs and aborts as JSON, for the API and the commands. Times are UTC, in texts too."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import cast

from django.db.models import Q
from django.utils import timezone

from dashboard.aborts import left_running as left_running_rules
from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.accounts.permissions import Permissions
from dashboard.db import threads as db_threads
from dashboard.models import Abort, Run, Stage, Work
from dashboard.models.severity import Severity
from dashboard.runs import acknowledgements, attention, steps
from dashboard.runs import waiting_for as waiting_rules
from dashboard.runs.overdue import OverdueReason
from dashboard.sync.log_reader import LogView
from dashboard.sync.reports.report import Report
from dashboard.texts.rich_text import to_text
from dashboard.web.api import schemas
from dashboard.web.components.runs import row_queries, stage_cell
from dashboard.web.http import links


def runs(runs: Collection[Run], permissions: Permissions | None = None) -> list[schemas.Run]:
    """Return runs with their latest aborts; with `permissions`, also what the caller may do."""
    latest_aborts = row_queries.latest_aborts(runs)
    attention_severities = attention.severities(runs, db_threads.now())
    found = []
    for run in runs:
        latest_abort, pipeline = latest_aborts.get(run.pk), run.stage.pipeline
        fields = _fields(
            schemas.Run,
            run,
            project=pipeline.project.slug,
            pipeline=pipeline.slug,
            stage=run.stage.name,
            step=run.step if run.in_flight else "",
            step_number=run.step_number if run.in_flight else None,
            step_count=run.step_count if run.in_flight else None,
            failure=run.failed_step_error,
            overdue=overdue(run),
            needs_attention=run.pk in attention_severities,
            url=links.absolute_url(links.run_url(run)),
            abort=abort(latest_abort, run) if latest_abort is not None else None,
        )
        if permissions is not None:
            may_abort = permissions.abort_permission(run.stage).allowed
            fields["may_abort"] = run.in_flight and may_abort
        found.append(fields)
    return found


def run(run: Run, permissions: Permissions | None = None) -> schemas.Run:
    """Return a run, like `runs`."""
    return runs([run], permissions)[0]


def run_with_history(
    run_row: Run, permissions: Permissions | None = None, log: schemas.Log | None = None
) -> schemas.RunWithHistory:
    """Return a run with its steps, like `runs`, and all that happened to it."""
    return {
        **run(run_row, permissions),
        "behind": behind(run_row.stage, permissions),
        "waiting_for": waiting_for(run_row),
        "aborts": aborts(run_row),
        "left_running": left_running(run_row),
        "acknowledgements": [
            _fields(schemas.Acknowledgement, row) for row in acknowledgements.history(run_row)
        ],
        "dismissals": [_fields(schemas.Dismissal, row) for row in run_row.dismissals.all()],
        "log": log,
    }


def _fields[T](schema: type[T], row: object, **others: object) -> T:
    """Return the fields of a schema: `others`, and those that `row` has by the same names."""
    fields = {
        name: others[name] if name in others else getattr(row, name)
        for name in schema.__annotations__
        if name in others or name in schema.__required_keys__  # type: ignore[attr-defined]
    }
    return cast(
        "T", {name: _utc(v) if isinstance(v, datetime) else v for name, v in fields.items()}
    )


def behind(stage: Stage, permissions: Permissions | None = None) -> schemas.Behind | None:
    """Return how far a stage is behind the one before it; None if it is not."""
    visible = permissions.stage_filter() if permissions is not None else Q()
    stages = Stage.objects.filter(visible, pipeline=stage.pipeline_id)
    cells = stage_cell.find_cells(stages.select_related("pipeline__project"), {}, ())
    [cell] = [cell for cell in cells if cell.stage == stage]
    stage_cell.load_rows([cell])
    if cell.before is None or not cell.behind:
        return None
    return {
        "stage": cell.before.stage.name,
        "releases": len(cell.missing) or None,
        "or_more": cell.behind.endswith("+"),
    }


def overdue(run: Run) -> schemas.Overdue | None:
    """Return how overdue a run is, and which part of it; None if it is not overdue."""
    if not run.overdue_severity:
        return None
    reason = OverdueReason(run.overdue_reason or OverdueReason.RUN)
    return {
        "severity": Severity(run.overdue_severity).name.lower(),
        "reason": reason.name.lower(),
    }


def abort(abort: Abort, run: Run) -> schemas.Abort:
    """Return an abort in its current state."""
    with timezone.override(UTC):
        message = abort_messages.describe(abort, run).dated_text
    return _fields(schemas.Abort, abort, message=message, token=abort.token_name)


def aborts(run: Run) -> list[schemas.AbortWithTimeline]:
    """Return all aborts of a run itself, newest first, each with its timeline."""
    return _with_timelines(run, run.aborts.order_by("-pk").prefetch_related("events"))


def left_running(run: Run) -> list[schemas.LeftRunning]:
    """Return what the abort of a run has left running, as last read, each with its aborts."""
    found = left_running_rules.load(run, steps.decode(run.steps))
    return [
        _fields(
            schemas.LeftRunning,
            left.work,
            id=left.work.work_id,
            running=left.work.in_flight,
            aborts=_with_timelines(run, left.aborts),
        )
        for left in (found.works if found is not None else ())
    ]


def _with_timelines(run: Run, abort_rows: Iterable[Abort]) -> list[schemas.AbortWithTimeline]:
    return [
        {
            **abort(abort_row, run),
            "timeline": [
                _fields(schemas.TimedText, line)
                for line in abort_timeline.entries(abort_row, abort_row.events.all())
            ],
        }
        for abort_row in abort_rows
    ]


def waiting_for(run: Run) -> schemas.WaitingFor | None:
    """Return what a run waits for, or failed in, as last read; None if no job run or build is.

    `run` with its steps.
    """
    waiting = waiting_rules.load(run, steps.decode(run.steps))
    if waiting is None:
        return None
    _node, ref, work = waiting
    work_id = work.work_id if work is not None else ref.id
    work = work or Work(kind=ref.kind)
    return _fields(
        schemas.WaitingFor,
        work,
        id=work_id,
        silent_since=None if work.concluded else work.last_line_at,
        probable=work.is_probable,
    )


def log(view: LogView) -> schemas.Log:
    """Return a look at a log, with its newest lines, the newest last."""
    lines = [{"at": _utc(at), "text": line.text} for at, line in view.lines or ()]
    return _fields(schemas.Log, view, lines=lines, problem=to_text(view.problem))


def run_list(
    runs: list[schemas.Run], report: Report, next_url: str | None = None
) -> schemas.RunList:
    """Return runs, with whether the listed stages have all been read, and how many have not."""
    return {
        "runs": runs,
        "next": next_url,
        "complete": report.is_complete,
        "coverage": _fields(
            schemas.Coverage,
            report,
            failing=report.total("unread_failing"),
            message=report.incomplete_text,
        ),
    }


def _utc(time: datetime | None) -> datetime | None:
    return time.astimezone(UTC) if time else None
