"""What the steps of a run wait for: the job runs and builds that they name."""

from typing import Any

import pytest

from dashboard.models import Run
from dashboard.northflank import Node, WorkRef
from dashboard.northflank import Work as ApiWork
from dashboard.runs import works
from tests.support.factories import node
from tests.support.world import at

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


def listed(seconds: float, *, ended: float | None = None, **fields: Any) -> ApiWork:
    """A job run that started, and perhaps ended, so many seconds after the step."""
    defaults = {
        "id": "r1", "name": "r1", "status": "RUNNING", "concluded": ended is not None,
        "started_at": at(seconds), "ended_at": None if ended is None else at(ended),
    }  # fmt: skip
    return ApiWork(**defaults | fields)


@pytest.mark.parametrize("seconds", [-5, 0, 120])
def test_job_run_that_started_with_the_step_is_probably_its_own(seconds: float) -> None:
    step = node("JobRun", status="waiting", started_at=at(0))
    assert works.probable_works(step, UNNAMED, [listed(seconds)]) == [listed(seconds)]


@pytest.mark.parametrize(
    "work",
    [listed(-6), listed(121), listed(0, started_at=None), listed(-5, ended=-1), listed(0, ended=9)],
)
def test_job_run_of_another_time_is_not_that_of_a_step_in_progress(work: ApiWork) -> None:
    step = node("JobRun", status="waiting", started_at=at(0))
    assert works.probable_works(step, UNNAMED, [work]) == []


def test_failed_step_may_have_started_a_job_run_that_has_ended() -> None:
    step = node("JobRun", status="failure", started_at=at(0))
    assert works.probable_works(step, UNNAMED, [listed(3, ended=9)]) == [listed(3, ended=9)]


def test_retried_step_has_started_the_job_run_of_its_last_attempt() -> None:
    step = node("JobRun", status="waiting", started_at=at(0), attempt_started_at=at(300))
    assert works.probable_works(step, UNNAMED, [listed(1), listed(301)]) == [listed(301)]


def test_step_that_has_not_started_has_started_no_job_run() -> None:
    assert works.probable_works(node("JobRun"), UNNAMED, [listed(0)]) == []


@pytest.mark.parametrize(
    ("branch", "commit", "count"),
    [("main", "a", 1), (None, None, 1), ("dev", "a", 0), ("main", "b", 0)],
)
def test_build_of_another_branch_or_commit_is_not_that_of_the_step(
    branch: str | None, commit: str | None, count: int
) -> None:
    step = node(status="waiting", started_at=at(0))
    ref = WorkRef("build", "service", "api", None, branch, commit)
    builds = [listed(0, branch="main", commit="a")]
    assert len(works.probable_works(step, ref, builds)) == count
