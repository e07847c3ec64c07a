"""Steps of a run: decode and walk them, find the current one, measure approval time. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
from django.utils.translation import gettext as _

from dashboard.northflank import Node

IN_PROGRESS_STATUSES = {"waiting", "retrying", "async_wait", "approval_wait", "aborting"}
FINISHED_STATUSES = {"success", "failure", "invalid", "aborted", "skipped", "unknown"}
CONTAINER_KINDS = {"Workflow", "LoopWorkflow"}
APPROVAL = "Approval"  # kind of a step that waits for people
EXTERNAL = "Outside"  # not a kind of Northflank's: work outside Northflank


def decode(tree: Any) -> Node | None:
    """Return the root of the steps of a run (`Run.steps`); None if the steps were not read."""
    return msgspec.convert(tree, Node) if tree is not None else None


def walk(root: Node) -> Iterator[tuple[int, Node]]:
    """Yield each node below the root with its depth, in the order of the release flow."""
    # The root Workflow only wraps the steps; a root that is a step itself is yielded.
    stack = (
        [(0, step) for step in reversed(root.steps)]
        if root.kind in CONTAINER_KINDS
        else [(0, root)]
    )
    while stack:
        depth, node = stack.pop()
        yield depth, node
        stack.extend((depth + 1, step) for step in reversed(node.steps))


def key(node: Node) -> str:
    """Return the key that identifies a step in all runs of the same release flow."""
    return node.ref or f"{node.kind} {node.label}"


def approval_time(root: Node, now: datetime | None = None) -> timedelta:
    """Return how long a run has waited for approvals; a wait not over counts until `now`."""
    waits = sorted(
        (node.started_at, end)
        for _, node in walk(root)
        if node.kind == APPROVAL
        and node.started_at is not None
        and (end := node.ended_at or now) is not None
        and end > node.started_at
    )
    total, counted_until = timedelta(), None
    for start, end in waits:  # overlapping waits count once
        counted_from = start if counted_until is None else max(start, counted_until)
        if end > counted_from:
            total += end - counted_from
            counted_until = end
    return total


def last_changed_at(root: Node) -> datetime | None:
    """Return when a step last started or ended, or None."""
    times = [
        when
        for _, node in walk(root)
        for when in (node.started_at, node.ended_at)
        if when is not None
    ]
    return max(times, default=None)


def current(root: Node, run_status: str) -> Node | None:
    """Return the step that a run with this status is at, or None if none is known.

    It is the first in progress that contains no other in progress; if the run waits for approval,
    it is the first approval in progress, also beside an earlier step.
    """
    step = _first_in_progress(root)
    if run_status != "approval_wait":
        return step
    approvals = (
        node
        for _, node in walk(root)
        if is_approval(node)
        and is_in_progress(node)
        and node.kind not in CONTAINER_KINDS  # which waits because of a step inside it
    )
    return next(approvals, step if step is not None and is_approval(step) else None)


def place(root: Node, step: Node) -> tuple[int, int] | None:
    """Return the place of a step among all of its run, from 1, and their number.

    Groups of steps do not count; None for one that is a group.
    """
    single = [node for _, node in walk(root) if not node.steps]
    places = (number for number, node in enumerate(single, 1) if node is step)
    return next(((number, len(single)) for number in places), None)


def _first_in_progress(root: Node) -> Node | None:
    innermost: tuple[int, Node] | None = None
    for depth, node in walk(root):
        if innermost is not None and depth <= innermost[0]:
            break  # all steps inside it have been visited
        if is_in_progress(node):
            innermost = depth, node
    return innermost[1] if innermost else None


def is_in_progress(node: Node) -> bool:
    """Return whether a step is in progress; Northflank has no step status for "running"."""
    if node.status in IN_PROGRESS_STATUSES:
        return True
    # Without a status, or with an unknown one, the times decide.
    return (
        node.status not in FINISHED_STATUSES
        and node.started_at is not None
        and node.ended_at is None
    )


def is_approval(node: Node) -> bool:
    """Return whether a step waits for people: its time does not count as work."""
    return node.kind == APPROVAL or node.status == "approval_wait"


def awaited_kind(node: Node) -> str:
    """Return the kind of what a step in progress waits for, or EXTERNAL; empty if unknown."""
    if node.status == "approval_wait":
        return APPROVAL
    if node.status == "async_wait":
        return EXTERNAL
    if node.status in {"retrying", "aborting"}:
        return ""
    return node.target_kind or node.kind


def attempt_text(node: Node) -> str:
    """Return a step's attempt, from the second on or while it is retried; else nothing."""
    count = node.attempts or 0
    if count < (1 if node.status == "retrying" else 2):
        return ""
    template = (
        _("attempt %(n)d of %(most)d") if (node.max_attempts or 0) >= count else _("attempt %(n)d")
    )
    return template % {"n": count, "most": node.max_attempts}


def describe(node: Node) -> str:
    """Return a step's name, with its attempt from the second on."""
    return f"{node.label}, {attempt_text(node)}" if (node.attempts or 0) > 1 else node.label
