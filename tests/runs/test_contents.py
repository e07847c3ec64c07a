"""What is in a run, beside the last success."""

from dashboard.northflank import Node
from dashboard.runs import contents
from tests.support import factories

A, B = "a" * 40, "b" * 40


def test_contents_are_compared_step_by_step_by_commit_else_by_build() -> None:
    def tree(api: str, worker: str | None) -> Node:
        steps = (
            factories.node("Build", ref="api", branch="main", commit=api),
            factories.node("Release", ref="worker", build=worker),
            factories.node("JobRun", ref="migrate"),
        )
        return factories.node("Workflow", steps=steps)

    found = contents.contents(tree(A, "two"), tree(A, "one"))
    assert [(item.node.ref, item.is_same) for item in found] == [("api", True), ("worker", False)]
    found = contents.contents(tree(B, "one"), tree(A, None))
    assert [(item.is_same, item.before is None) for item in found] == [
        (False, False),
        (False, True),
    ]
    assert contents.contents(None, tree(A, "one")) == []
