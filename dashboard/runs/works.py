"""What the steps of a run wait for: job runs and builds, named by their id or found by time."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from dashboard.models import Run, Work
from dashboard.northflank import Node, WorkRef
from dashboard.northflank import Work as ApiWork
from dashboard.runs import steps, summary

# When a step's work starts, from the step's own start: times of steps are whole seconds, and a
# machine may be waited for.
EARLIEST_START, LATEST_START = timedelta(seconds=-5), timedelta(seconds=120)


type AwaitedWork = tuple[Node, WorkRef]  # a step, and what it has started


def named_works(root: Node | None) -> list[tuple[str, WorkRef]]:
    """Return all job runs and builds that steps name by id, each once, with the step's key."""
    found: dict[tuple[str, str, str | None], tuple[str, WorkRef]] = {}
    for _depth, node in steps.walk(root) if root is not None else ():
        if (ref := node.work) is not None and ref.id is not None:
            found.setdefault((ref.kind, ref.owner_id, ref.id), (steps.key(node), ref))
    return list(found.values())


def awaited_work(run: Run, root: Node | None) -> AwaitedWork | None:
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


def stored(run: Run, node: Node, ref: WorkRef) -> Work | None:
    """Return the row of a step's work, if it was read: what was only named has no status."""
    rows = Work.objects.filter(run=run, kind=ref.kind, owner_id=ref.owner_id).exclude(status="")
    if ref.id is not None:
        return rows.filter(work_id=ref.id).first()
    found_since = attempt_start(node)
    rows = rows.filter(step_key=steps.key(node), is_probable=True).order_by("-pk")
    row = rows.first()
    is_of_attempt = row is not None and found_since is not None and _is_of(row, found_since)
    return row if is_of_attempt else None


def attempt_start(node: Node) -> datetime | None:
    """Return when a step began its latest attempt, which starts a new job run or build."""
    return max(filter(None, (node.started_at, node.attempt_started_at)), default=None)


def probable_works(node: Node, ref: WorkRef, listed: Iterable[ApiWork]) -> list[ApiWork]:
    """Return which of the listed job runs or builds a step may have started, by their times.

    One is the probable one; of several nobody knows. Others start the same job, too.
    """
    start = attempt_start(node)
    if start is None:
        return []
    return [
        work
        for work in listed
        if _is_of(work, start)
        and (work.ended_at is None or work.ended_at >= start)
        and not (work.concluded and steps.is_in_progress(node))
        and (ref.branch is None or work.branch in {None, ref.branch})
        and (ref.commit is None or work.commit in {None, ref.commit})
    ]


def _is_of(work: ApiWork | Work, start: datetime) -> bool:
    started_at = work.started_at
    return started_at is not None and EARLIEST_START <= started_at - start <= LATEST_START
