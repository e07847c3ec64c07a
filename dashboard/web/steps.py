"""A run's steps as its page shows them: flat, in order, with their depth."""

from dataclasses import dataclass
from datetime import datetime

import msgspec

from dashboard import durations, statuses, steps
from dashboard.models import Run
from dashboard.northflank import Node


@dataclass(frozen=True, slots=True)
class StepRow:
    """One step, ready for the template."""

    depth: int
    kind: str
    label: str
    word: str
    sentence: str
    tone: str
    glyph: str
    started_at: datetime | None
    took: str
    since: str  # when it started, ISO, while it is under way
    error: str
    attempts: str
    open: bool  # it is the one the run is at
    parallel: bool


def root_of(run: Run) -> Node | None:
    """Return the tree of a run's steps, or None where it was not read."""
    return msgspec.convert(run.steps, Node) if run.steps is not None else None


def rows(run: Run, root: Node | None) -> list[StepRow]:
    """Return the steps in the order they are written."""
    if root is None:
        return []
    at = steps.current(root) if run.in_flight else None
    return [_row(run, depth, node, node is at) for depth, node in steps.walk(root)]


def missing(run: Run, root: Node | None) -> str:
    """Say why no steps are shown."""
    if root is not None:
        return "Northflank lists no steps for this run."
    if run.gone_at is not None:
        return "Its steps were never read, and Northflank no longer knows it."
    if run.detail_seen_at is not None:
        return "Northflank did not say which steps this run has."
    return "Its steps are being read from Northflank."


def _row(run: Run, depth: int, node: Node, is_open: bool) -> StepRow:
    look = statuses.of_step(
        node.status,
        started=node.started_at is not None,
        ended=node.ended_at is not None,
        run_in_flight=run.in_flight,
    )
    going = steps.under_way(node) and run.in_flight
    span = node.ended_at - node.started_at if node.started_at and node.ended_at else None
    code = f" (code {node.error_code})" if node.error_code is not None else ""
    return StepRow(
        depth=min(depth, 8),
        kind=node.kind,
        label=node.label,
        word=look.word,
        sentence=look.sentence,
        tone=look.tone,
        glyph=look.glyph,
        started_at=node.started_at,
        took=durations.in_words(span) if span is not None else "",
        since=node.started_at.isoformat() if going and node.started_at else "",
        error=f"{node.error_message or 'Failed'}{code}" if node.error_message or code else "",
        attempts=_attempts(node),
        open=is_open,
        parallel=node.parallel,
    )


def _attempts(node: Node) -> str:
    if not node.attempts or node.attempts < 2:
        return ""
    return f"attempt {node.attempts} of {node.max_attempts}" if node.max_attempts else (
        f"attempt {node.attempts}"
    )  # fmt: skip
