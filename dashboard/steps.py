"""A run's steps: which one it is at. Pure."""

from collections.abc import Iterator

from dashboard.northflank import Node

IN_PROGRESS = {"waiting", "retrying", "async_wait", "approval_wait", "aborting"}
CONTAINERS = {"Workflow", "LoopWorkflow"}


def walk(root: Node) -> Iterator[tuple[int, Node]]:
    """Yield each node below the root with its depth, in the order they are written."""
    # The root Workflow only wraps the steps; a root that is a step itself is yielded.
    stack = [(0, step) for step in reversed(root.steps)] if root.kind in CONTAINERS else [(0, root)]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        stack.extend((depth + 1, step) for step in reversed(node.steps))


def current(root: Node) -> Node | None:
    """Return the step the run is at: the first one under way that contains no other under way."""
    found: tuple[int, Node] | None = None
    for depth, node in walk(root):
        if not under_way(node):
            continue
        if found is None or (depth > found[0] and found[1].kind in CONTAINERS):
            found = depth, node
    return found[1] if found else None


def under_way(node: Node) -> bool:
    """Say whether a step is in progress: Northflank has no word for "running" on a step."""
    if node.status is None:
        return node.started_at is not None and node.ended_at is None
    return node.status in IN_PROGRESS


def describe(node: Node) -> str:
    """Return a step's name, with its attempt where it is not the first."""
    if node.attempts and node.attempts > 1:
        of = f" of {node.max_attempts}" if node.max_attempts else ""
        return f"{node.label}, attempt {node.attempts}{of}"
    return node.label
