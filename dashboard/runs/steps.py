"""A run's steps: which one it is at. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from dashboard.northflank import Node

IN_PROGRESS_STATUSES = {"waiting", "retrying", "async_wait", "approval_wait", "aborting"}
FINISHED_STATUSES = {"success", "failure", "invalid", "aborted", "skipped", "unknown"}
CONTAINER_KINDS = {"Workflow", "LoopWorkflow"}
APPROVAL = "Approval"  # the kind of what people have to do
EXTERNAL = "Outside"  # no kind of Northflank's: what is not in its hands


def walk(root: Node) -> Iterator[tuple[int, Node]]:
    """Yield each node below the root with its depth, in the order they are written."""
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
    """Return what a step is recognised by in other runs of the same release flow."""
    return node.ref or f"{node.kind} {node.label}"


def approval_time(root: Node, now: datetime | None = None) -> timedelta:
    """Return how long a run has waited for people; until `now` where it waits still."""
    waits = sorted(
        (node.started_at, end)
        for _, node in walk(root)
        if node.kind == APPROVAL
        and node.started_at is not None
        and (end := node.ended_at or now) is not None
        and end > node.started_at
    )
    total, counted_until = timedelta(), None
    for start, end in waits:  # those side by side count once
        counted_from = start if counted_until is None else max(start, counted_until)
        if end > counted_from:
            total += end - counted_from
            counted_until = end
    return total


def last_changed_at(root: Node) -> datetime | None:
    """Return when a step last started or ended."""
    times = [
        when
        for _, node in walk(root)
        for when in (node.started_at, node.ended_at)
        if when is not None
    ]
    return max(times, default=None)


def current(root: Node) -> Node | None:
    """Return the step the run is at: the first one under way that contains no other under way."""
    innermost: tuple[int, Node] | None = None
    for depth, node in walk(root):
        if innermost is not None and depth <= innermost[0]:
            break  # all that is inside it has been walked
        if is_in_progress(node):
            innermost = depth, node
    return innermost[1] if innermost else None


def is_in_progress(node: Node) -> bool:
    """Say whether a step is in progress: Northflank has no word for "running" on a step."""
    if node.status in IN_PROGRESS_STATUSES:
        return True
    # Without a status, and with one that is new, the times tell.
    return (
        node.status not in FINISHED_STATUSES
        and node.started_at is not None
        and node.ended_at is None
    )


def is_approval(node: Node) -> bool:
    """Say whether people are what a step waits for: they take their time, and it does no work."""
    return node.kind == APPROVAL or node.status == "approval_wait"


def awaited_kind(node: Node) -> str:
    """Return what a step under way waits on: a kind or OUTSIDE; empty where nobody can tell."""
    if node.status == "approval_wait":
        return APPROVAL
    if node.status == "async_wait":
        return EXTERNAL
    if node.status in {"retrying", "aborting"}:
        return ""
    return node.target_kind or node.kind


def describe(node: Node) -> str:
    """Return a step's name, with its attempt where it is not the first."""
    if not node.attempts or node.attempts <= 1:
        return node.label
    template = (
        _("%(step)s, attempt %(n)d of %(most)d")
        if (node.max_attempts or 0) >= node.attempts
        else _("%(step)s, attempt %(n)d")
    )
    return template % {"step": node.label, "n": node.attempts, "most": node.max_attempts}
