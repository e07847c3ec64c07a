"""What the steps of a run wait for: the job runs and builds that they name. Pure."""

from dashboard.models import Run
from dashboard.northflank import Node, WorkRef
from dashboard.runs import steps, summary


def named_works(root: Node | None) -> list[tuple[str, WorkRef]]:
    """Return all job runs and builds that steps name by id, each once, with the step's key."""
    found: dict[tuple[str, str, str | None], tuple[str, WorkRef]] = {}
    for _depth, node in steps.walk(root) if root is not None else ():
        if (ref := node.work) is not None and ref.id is not None:
            found.setdefault((ref.kind, ref.owner_id, ref.id), (steps.key(node), ref))
    return list(found.values())


def awaited_work(run: Run, root: Node | None) -> tuple[Node, WorkRef] | None:
    """Return the step that a run waits on, or failed at, and what that step has started.

    None where there is no such step, or it starts neither a job run nor a build. The id of what it
    has started may be unknown.
    """
    if root is None:
        return None
    node = summary.failed_step(root) if run.concluded else steps.current(root, run.status)
    if node is None or node.work is None or (run.concluded and run.status == "success"):
        return None
    return node, node.work
