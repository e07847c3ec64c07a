"""What a run waits for, in words: on its page, in its hand-over and for programs."""

from typing import Any

import pytest

from dashboard.models import Run, Work
from dashboard.northflank import Node, WorkRef
from dashboard.runs import waiting_for
from dashboard.runs.waiting_for import WaitingFor
from tests.support import factories
from tests.support.factories import node
from tests.support.world import at

REF = WorkRef("job_run", "job", "migrate", "r1")
STEP = node("JobRun", label="db", status="waiting", started_at=at(0), work=REF)


def work(**fields: Any) -> Work:
    names = {"name": "migrate-5f", "owner_id": "migrate", "work_id": "r1", "status": "RUNNING"}
    return Work(kind="job_run", owner_kind="job", step_key="JobRun db", **names | fields)


@pytest.mark.parametrize(
    ("row", "concluded", "text"),
    [
        (work(), False, "Waits for job run migrate-5f"),
        (work(is_probable=True), False, "Probably waits for job run migrate-5f"),
        (None, False, "Waits for a job run of migrate"),
        (work(), True, "Failed in job run migrate-5f"),
        (work(is_probable=True), True, "Probably failed in job run migrate-5f"),
    ],
)
def test_job_run_is_named_as_far_as_it_is_known(
    row: Work | None, concluded: bool, text: str
) -> None:
    assert str(waiting_for.describe(Run(concluded=concluded), REF, row)) == text


@pytest.mark.parametrize(
    ("row", "lines"),
    [
        (None, ["Waits for a job run of migrate"]),
        (work(), ["Waits for job run migrate-5f: RUNNING"]),
        (
            work(started_at=at(1), last_line_at=at(60)),
            [
                "Waits for job run migrate-5f: RUNNING, started 2026-03-02 08:00:01 UTC",
                "Last line of its log: 2026-03-02 08:01:00 UTC",
            ],
        ),
    ],
)
def test_lines_of_a_hand_over_have_whole_times(row: Work | None, lines: list[str]) -> None:
    waiting = WaitingFor(STEP, REF, row)
    assert list(map(str, waiting_for.dated_lines(Run(concluded=False), waiting))) == lines


def test_run_that_waits_for_nothing_has_no_lines() -> None:
    assert list(waiting_for.dated_lines(Run(), None)) == []


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("step", "names", "expected"),
    [
        (STEP, {"work_id": "r1"}, True),
        (STEP, {"work_id": "r2"}, False),  # of an earlier attempt
        (STEP, {"work_id": "r1", "kind": "build"}, False),
    ],
)
def test_work_that_the_step_names_is_loaded_as_last_read(
    step: Node, names: dict[str, str], expected: bool
) -> None:
    assert (load(step, **names) is not None) == expected


UNNAMED = WorkRef("job_run", "job", "migrate", None)


@pytest.mark.django_db
@pytest.mark.parametrize(("started", "expected"), [(3, True), (-300, False)])
def test_probable_work_is_loaded_while_the_step_is_at_the_same_attempt(
    started: float, expected: bool
) -> None:
    step = node("JobRun", label="db", status="waiting", started_at=at(0), work=UNNAMED)
    row = load(step, work_id="r7", is_probable=True, started_at=at(started))
    assert (row is not None) == expected


def load(step: Node, **fields: Any) -> Work | None:
    run = factories.run(factories.stage())
    row = work(run=run, synced_at=at(9), concluded=False)
    for name, value in fields.items():
        setattr(row, name, value)
    row.save()
    waiting = waiting_for.load(run, node("Workflow", steps=(step,)))
    assert waiting is not None
    return waiting.work
