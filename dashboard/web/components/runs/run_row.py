"""A run as a row of a table, or as the head of its own page: what templates show of it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b

from dashboard.aborts import abort_rules
from dashboard.accounts.permissions import Permission
from dashboard.models import Abort, Acknowledgement, Run
from dashboard.runs import activity, failures, overdue_messages, statuses
from dashboard.runs.overdue import NOT_STARTED_STATUSES, Timer
from dashboard.runs.overdue_messages import OverdueMessage
from dashboard.runs.statuses import StatusDisplay
from dashboard.texts import durations
from dashboard.texts.rich_text import ExternalText, RichText
from dashboard.web.components.runs import abort_line, acknowledged_by, progress_bar
from dashboard.web.components.runs.abort_line import AbortLine
from dashboard.web.components.runs.progress_bar import Progress
from dashboard.web.http import links
from dashboard.web.http.links import RunUrls, StageUrls

_PLAIN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run and what follows from it; templates do not apply rules of their own."""

    run: Run
    permission: Permission  # to abort it
    display: StatusDisplay
    urls: RunUrls
    stage_urls: StageUrls
    progress: Progress | None  # None: not in flight, or no typical duration
    overdue: OverdueMessage | None  # None: not overdue
    # The current step, its elapsed time and its typical duration; or why the run failed.
    short_summary: RichText
    abort_line: AbortLine | None
    acknowledgements: Sequence[Acknowledgement]  # the active ones
    is_abortable: bool
    is_selectable: bool  # for a bulk abort: in flight, and no abort under way
    is_abort_again_offered: bool  # the abort under way is so overdue that another can be requested

    @property
    def dom_id(self) -> str:
        """The id of its element."""
        return dom_id(self.run.run_id)

    @property
    def overdue_severity(self) -> int:
        """The run's overdue severity; 0 if it is not overdue."""
        return self.overdue.severity if self.overdue else 0

    @property
    def acknowledged_names(self) -> str:
        """Who has acknowledged it; empty: nobody."""
        return acknowledged_by.names(self.acknowledgements)

    @property
    def duration(self) -> str:
        """How long it took; empty: not known, or the run goes on."""
        run = self.run
        started_at = run.started_at or run.created_at
        return durations.format_duration(run.concluded_at - started_at) if run.concluded_at else ""

    @property
    def step(self) -> RichText:
        """The current step with its place; empty if it is unknown."""
        return activity.step_with_place(self.run)

    @property
    def has_not_started(self) -> bool:
        """Whether the run has not started by its status; Northflank may omit a start time."""
        run = self.run
        return run.status in NOT_STARTED_STATUSES | {"skipped"} and not run.has_unknown_end

    @property
    def elapsed_since(self) -> datetime | None:
        """When the run started, or was created if it has not started.

        None: it has concluded, or was removed and may have ended at any time.
        """
        run = self.run
        is_over = run.concluded or run.removed_at is not None
        return None if is_over else run.started_at or run.created_at


def dom_id(run_id: str) -> str:
    """Return `run-<id>`; a run id that is unsafe in an id attribute or a selector is hashed."""
    if _PLAIN_ID.fullmatch(run_id):
        return f"run-{run_id}"
    return f"run-x-{blake2b(run_id.encode(), digest_size=12).hexdigest()}"


def build_row(
    run: Run,
    permission: Permission,
    abort: Abort | None,
    timers: Sequence[Timer] = (),
    active_acknowledgements: Sequence[Acknowledgement] = (),
) -> RunRow:
    """Return the row of a run.

    `abort` is the run's latest abort; `timers` are its timers (see runs/overdue.py).
    """
    stage_urls = links.stage_urls(run.stage)
    return RunRow(
        run,
        permission,
        display=statuses.for_run(run.status, removed=run.has_unknown_end),
        urls=stage_urls.of_run(run.run_id),
        stage_urls=stage_urls,
        progress=progress_bar.for_run(run, timers),
        overdue=overdue_messages.describe(run.overdue_severity, run.overdue_reason, timers)
        if run.in_flight
        else None,
        short_summary=_short_summary(run, timers),
        abort_line=abort_line.latest(run, abort),
        acknowledgements=active_acknowledgements,
        is_abortable=abort_rules.is_abortable(run, abort),
        is_selectable=abort_rules.is_selectable(run, abort),
        is_abort_again_offered=abort_rules.is_abort_again_offered(run, abort),
    )


def _short_summary(run: Run, timers: Sequence[Timer]) -> RichText:
    """Return the summary of the current step; of a removed run its last known step alone.

    Of a failed run its cause.
    """
    if run.has_failed:
        return failures.describe(run)
    if not run.has_unknown_end:
        return activity.row_text(run, timers)
    return ExternalText(run.step) if run.in_flight and run.step else ""
