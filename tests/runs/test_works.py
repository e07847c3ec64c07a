"""What the steps of a run wait for: the job runs and builds that they name."""

from typing import Any

import pytest

from dashboard.models import Run
from dashboard.northflank import Node, WorkRef
from dashboard.runs import works
from tests.support.factories import node

MIGRATION = WorkRef("job_run", "job", "migrate", "r1")
UNNAMED = WorkRef("job_run", "job", "migrate", None)


def steps(*nodes: Node) -> Node:
    return node("Workflow", steps=nodes)


def awaited(root: Node | None, status: str, *, concluded: bool = False) -> WorkRef | None:
    found = works.awaited_work(Run(status=status, concluded=concluded), root)
    return found[1] if found else None


def test_each_named_work_is_listed_once_with_its_first_step() -> None:
    build = WorkRef("build", "service", "api", "b1", "main")
    root = steps(
        node(ref="image", work=build),
        node("Workflow", steps=(node("JobRun", label="migrate", work=MIGRATION),)),
        node("Condition", label="wait", work=MIGRATION),
        node("JobRun", label="seed", work=UNNAMED),
        node("Approval"),
    )
    assert works.named_works(root) == [("image", build), ("JobRun migrate", MIGRATION)]


def test_run_without_steps_names_no_work() -> None:
    assert works.named_works(None) == []


@pytest.mark.parametrize("work", [MIGRATION, UNNAMED, None])
def test_run_waits_for_the_work_of_its_current_step(work: WorkRef | None) -> None:
    root = steps(node(status="success", work=MIGRATION), node(status="waiting", work=work))
    assert awaited(root, "running") == work


@pytest.mark.parametrize(
    ("status", "expected"), [("failure", MIGRATION), ("success", None), ("aborted", MIGRATION)]
)
def test_ended_run_has_the_work_of_its_failed_step(status: str, expected: Any) -> None:
    root = steps(node(status="failure", work=MIGRATION), node(status="skipped", work=UNNAMED))
    assert awaited(root, status, concluded=True) == expected


@pytest.mark.parametrize("root", [None, steps(), steps(node(status="success", work=MIGRATION))])
def test_run_without_current_step_waits_for_no_work(root: Node | None) -> None:
    assert awaited(root, "running") is None
