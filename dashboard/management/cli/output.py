"""Output of the commands: tables, runs and their aborts, as text and as JSON."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.models import Abort, Run
from dashboard.runs import activity, failures, overdue_messages, statuses, steps, waiting_for
from dashboard.sync.log_reader import LogView
from dashboard.sync.reports import sync_state
from dashboard.texts import local_time
from dashboard.texts.rich_text import to_text
from dashboard.web.api import queries, serializers
from dashboard.web.http import links

MAX_LINE_LENGTH = 1000  # characters of a line of a log
MAX_SENTENCE_LENGTH = 2000  # characters; the text may quote Northflank or a user


def to_json(value: Any) -> str:
    """Return `value` as JSON encoded as in the API, but indented."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def printable(text: str, max_length: int = 60) -> str:
    """Return `text` cut to `max_length` characters, without terminal control characters."""
    text_shown = "".join(c if c.isprintable() else "�" for c in text[: max_length + 1])
    return text_shown if len(text_shown) <= max_length else text_shown[: max_length - 1] + "…"


def format_time(when: datetime | None) -> str:
    """Return a time in the dashboard's time zone; "–" for None."""
    return local_time.format_full(when) if when else "–"


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return headings and rows as text with aligned columns."""
    lines = [list(headings), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def overdue_text(run: Run) -> str:
    """Return how overdue a run is, and which part of it; empty if it is not overdue."""
    overdue = serializers.overdue(run)
    if overdue is None:
        return ""
    label = overdue_messages.severity_label(run.overdue_severity)
    return f"{label}: {overdue['reason'].replace('_', ' ')}"


def run_text(run: Run) -> str:
    """Return the state of a run as text."""
    status = statuses.for_run(run.status, removed=run.has_unknown_end)
    removed_note = (
        f" Removed from Northflank by {format_time(run.removed_at)}." if run.removed_at else ""
    )
    waiting = waiting_for.load(run, steps.decode(run.steps))
    overdue = overdue_text(run)
    ended = f" Concluded {format_time(run.concluded_at)}." if run.concluded_at else ""
    lines = [
        f"{printable(run.name, 200)} ({run.run_id})" if run.name else run.run_id,
        str(queries.run_place(run)),
        f"{status.label}: {status.description}{removed_note} As of {format_time(run.synced_at)}.",
        printable(to_text(failures.describe(run)), MAX_SENTENCE_LENGTH),
        *(printable(f"{to_text(line)}.", 300) for line in waiting_for.dated_lines(run, waiting)),
        f"Step: {step_text(run)}" if run.in_flight and run.step else "",
        f"{overdue}." if overdue else "",
        f"Created {format_time(run.created_at)}; started {format_time(run.started_at)}.{ended}",
        links.absolute_url(links.run_url(run)),
    ]
    return "\n".join(filter(None, lines))


def step_text(run: Run) -> str:
    """Return the current step with its place; empty if unknown."""
    return printable(to_text(activity.step_with_place(run)), 200)


def log_text(view: LogView) -> str:
    """Return the lines of a log with their times, the newest last; and what stands in the way."""
    lines = [
        f"{format_time(at)}  {printable(line.text, MAX_LINE_LENGTH)}"
        for at, line in view.lines or ()
    ]
    return "\n".join(filter(None, ["", *lines, to_text(view.problem)]))


def abort_text(abort: Abort, run: Run) -> str:
    """Return an abort's message and timeline as text."""
    timeline = abort_timeline.entries(abort, abort.events.all())
    return "\n".join(
        [
            printable(abort_messages.describe(abort, run).plain_text, MAX_SENTENCE_LENGTH),
            *(
                f"  {format_time(line.at)}  {printable(line.text, MAX_SENTENCE_LENGTH)}"
                for line in timeline
            ),
        ]
    )


def sync_problem(now: datetime) -> str:
    """Return a message if no sync worker is alive, else an empty string."""
    sync = sync_state.load(now)
    if sync.is_running:
        return ""
    last_heartbeat = sync.last_heartbeat_at
    heartbeat = f" (last heartbeat {format_time(last_heartbeat)})" if last_heartbeat else ""
    return f"No sync worker is running{heartbeat}. Start `serve` or `sync` with this database."
