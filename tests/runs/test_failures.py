"""Why a run failed: the step, the first line of its error, and failures of one cause."""

from itertools import pairwise
from typing import Any

import pytest
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Run
from dashboard.northflank.values import clean
from dashboard.runs import failures
from dashboard.runs.failures import MAX_LENGTH, Cause
from tests.support.factories import node
from tests.support.messages import keys


def test_step_is_the_innermost_failed_one() -> None:
    migrate = node(label="migrate", status="failure", error_message="exit code 1")
    group = node("Workflow", label="databases", status="failure", steps=(node(), migrate))
    root = node("Workflow", status="failure", steps=(node(status="success"), group))
    assert failures.find_step(root) == ("migrate", "exit code 1")


@pytest.mark.parametrize("root", [None, node(), node("Workflow", steps=(node(status="success"),))])
def test_without_a_failed_step_both_are_empty(root: Any) -> None:
    assert failures.find_step(root) == ("", "")


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"error_message": "first\nsecond"}, "first"),
        ({"error_message": "\n  \n\tfirst   line \r\n second"}, "first line"),
        ({"error_message": clean("\x1b[1;31mNo\x1b[0m space", multiline=True)}, "No space"),
        ({"error_message": "x" * 1000}, "x" * (MAX_LENGTH - 1) + "…"),
        ({"error_code": 137}, "code 137"),
        ({"error_message": " \n", "error_code": 137}, "code 137"),
        ({"error_message": "out of memory", "error_code": 137}, "out of memory"),
        ({}, ""),
    ],
)  # fmt: skip
def test_error_is_its_first_line(fields: dict[str, Any], error: str) -> None:
    assert failures.find_step(node(status="failure", **fields)) == ("build", error)


def failed_run(**fields: Any) -> Run:
    return Run(**{"status": "failure", "concluded": True} | fields)


@pytest.mark.parametrize(
    ("run", "expected"),
    [
        (failed_run(failed_step="migrate", failed_step_error="exit 1"), "step_error"),
        (failed_run(failed_step="migrate", failed_step_error=""), "step"),
        (failed_run(failed_step="", failed_step_error=""), "no_step"),
        (failed_run(), "unread"),
        (failed_run(removed_at=timezone.now()), ""),  # it cannot be read any more
        (failed_run(steps_removed_at=timezone.now()), ""),
        (failed_run(concluded=False), ""),
        (failed_run(status="success"), ""),
    ],
)
def test_row_says_why_the_run_failed(run: Run, expected: str) -> None:
    assert keys(failures.describe(run)) == expected


# --- failures of one cause -----------------------------------------------------------------------


def groups(*causes: tuple[int, str | None, str | None]) -> list[list[int]]:
    return failures.group((number, Cause(*cause)) for number, cause in enumerate(causes))


def test_numbers_do_not_tell_causes_apart() -> None:
    assert groups((1, "job", "exit code 1"), (1, "job", "exit code 137")) == [[0, 1]]


def test_ids_do_not_tell_causes_apart() -> None:
    first = "pod shop-7f9c4-x2 of 0c9f3b1e-aa41-4be2-9b1d-70e1f3d9b216 was evicted"
    second = "pod shop-5d8-k1 of 9718c451-ec9e-566e-9d0b-533cd77d4c6a was evicted"
    assert groups((1, "job", first), (1, "job", second)) == [[0, 1]]


@pytest.mark.parametrize(
    "other", [(2, "job", "full"), (1, "build", "full"), (1, "job", "empty"), (1, "job", "")]
)
def test_other_stages_steps_and_errors_are_other_causes(other: tuple[int, str, str]) -> None:
    assert groups((1, "job", "full"), other) == [[0], [1]]


@pytest.mark.parametrize("step", ["", None])
def test_failures_without_a_known_step_stay_alone(step: str | None) -> None:
    assert groups((1, step, step), (1, step, step)) == [[0], [1]]


def test_another_failure_of_the_stage_between_them_ends_a_group() -> None:
    full, empty, elsewhere = (1, "job", "full"), (1, "job", "empty"), (2, "job", "full")
    assert groups(full, elsewhere, full, empty, full, elsewhere) == [[0, 2], [1, 5], [3], [4]]


CAUSES = st.tuples(
    st.integers(1, 3), st.sampled_from(["", "a", "b", None]), st.sampled_from(["x", "y 1", "y 2"])
)


@given(st.lists(CAUSES, max_size=30))
def test_each_failure_is_in_one_group_and_groups_keep_the_order(
    causes: list[tuple[int, str | None, str]],
) -> None:
    found = groups(*causes)
    assert sorted(number for group in found for number in group) == list(range(len(causes)))
    assert all(first < second for group in found for first, second in pairwise(group))
    assert all(first[0] < second[0] for first, second in pairwise(found))
