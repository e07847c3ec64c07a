"""What is in a run: the branches, commits and builds that its steps name. Pure."""

from dataclasses import dataclass

from dashboard.northflank import Node
from dashboard.runs import steps


@dataclass(frozen=True, slots=True)
class Content:
    """What one step has built or deployed, beside what it had in another run."""

    node: Node
    before: Node | None  # the same step of the other run, if that one names anything

    @property
    def is_same(self) -> bool:
        """Whether both runs have the same commit or, where one names none, the same build."""
        if self.before is None:
            return False
        if self.node.commit and self.before.commit:
            return self.node.commit == self.before.commit
        return self.node.build is not None and self.node.build == self.before.build


def contents(root: Node | None, other: Node | None) -> list[Content]:
    """Return what the steps of a run name, in their order, compared with another run."""
    before = {steps.key(node): node for node in _named(other)}
    return [Content(node, before.get(steps.key(node))) for node in _named(root)]


def _named(root: Node | None) -> list[Node]:
    if root is None:
        return []
    return [node for _, node in steps.walk(root) if node.branch or node.commit or node.build]
