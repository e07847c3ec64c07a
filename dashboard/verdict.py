"""The one line that says how a run stands. Pure."""

from dashboard import statuses, steps
from dashboard.models import Run
from dashboard.northflank import Node


def of(run: Run, root: Node | None) -> str:
    """Say in plain words how `run` stands and, where its steps are known, at which it is."""
    if run.gone_at is not None:
        return "Northflank no longer knows this run. This is what it said before."
    look = statuses.of_run(run.status)
    if run.concluded:
        # A run can succeed, or be aborted, in spite of a step that failed.
        return _ending(look.sentence, root) if run.status == "failure" else look.sentence
    at = steps.current(root) if root is not None else None
    return f"{look.sentence} It is at “{steps.describe(at)}”." if at else look.sentence


def _ending(sentence: str, root: Node | None) -> str:
    if root is None:
        return sentence
    failed = [node for _, node in steps.walk(root) if node.status in {"failure", "invalid"}]
    inner = [node for node in failed if not node.steps]
    if not inner:
        return sentence
    said = f": {inner[0].error_message}" if inner[0].error_message else ""
    return f"Step “{inner[0].label}” failed{said}"
