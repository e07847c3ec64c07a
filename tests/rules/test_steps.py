"""Which step a run is at, and what is said of it; for any tree at all."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import Node
from dashboard.runs import steps

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def node(label: str = "build", *inner: Node, kind: str = "Build", **fields: Any) -> Node:
    said: dict[str, Any] = dict.fromkeys(Node.__dataclass_fields__) | {
        "kind": "Workflow" if inner and kind == "Build" else kind,
        "label": label,
        "parallel": False,
        "skip": False,
        "steps": inner,
    }
    return Node(**said | fields)


def labels(root: Node) -> list[str]:
    return [each.label for _, each in steps.walk(root)]


def at(root: Node) -> str | None:
    found = steps.current(root)
    return found.label if found else None


def test_steps_come_in_the_order_they_are_written() -> None:
    root = node("root", node("a", node("b"), node("c")), node("d"))
    assert labels(root) == ["a", "b", "c", "d"]


def test_the_root_is_not_a_step() -> None:
    assert "root" not in labels(node("root", node("a")))


def test_a_root_that_is_a_step_itself_is_one() -> None:
    assert labels(node("only", kind="Build")) == ["only"]


def test_depth_counts_from_the_outermost_steps() -> None:
    root = node("root", node("a", node("b")))
    assert [depth for depth, _ in steps.walk(root)] == [0, 1]


def test_a_run_is_at_the_step_under_way() -> None:
    assert at(node("root", node("a", status="success"), node("b", status="waiting"))) == "b"


def test_a_run_is_at_the_innermost_step_under_way() -> None:
    root = node("root", node("group", node("inner", status="retrying"), status="waiting"))
    assert at(root) == "inner"


def test_a_group_of_a_kind_that_nobody_knows_is_looked_into_too() -> None:
    inner = node("inner", status="waiting")
    group = node("group", inner, node("after"), kind="Teleport", status="waiting")
    assert at(node("root", node("before", status="success"), group)) == "inner"


def test_what_is_deeper_in_another_group_is_not_inside_the_first_under_way() -> None:
    first = node("first", node("to come"), status="waiting")
    second = node("second", node("inner", status="waiting"), status="waiting")
    assert at(node("root", first, second)) == "first"


def test_of_a_status_that_nobody_knows_the_times_tell() -> None:
    assert at(node("root", node("a", status="odd", started_at=T0))) == "a"
    assert at(node("root", node("a", status="odd", started_at=T0, ended_at=T0))) is None
    assert at(node("root", node("a", status="odd"))) is None


def test_a_step_that_is_said_to_have_ended_is_not_under_way_without_a_time() -> None:
    assert at(node("root", node("a", status="success", started_at=T0))) is None


def test_of_parallel_steps_the_first_under_way_counts() -> None:
    root = node("root", node("a", status="waiting"), node("b", status="waiting"))
    assert at(root) == "a"


def test_a_started_step_without_status_is_under_way() -> None:
    assert at(node("root", node("a", started_at=T0))) == "a"


def test_an_ended_step_without_status_is_not_under_way() -> None:
    assert at(node("root", node("a", started_at=T0, ended_at=T0))) is None


def test_a_run_that_has_not_begun_is_at_no_step() -> None:
    assert at(node("root", node("a"), node("b"))) is None


def test_a_first_attempt_is_not_mentioned() -> None:
    assert steps.describe(node("migrate", attempts=1, max_attempts=3)) == "migrate"


def test_a_second_attempt_is_mentioned() -> None:
    assert steps.describe(node("migrate", attempts=2, max_attempts=3)) == (
        "migrate, attempt 2 of 3"
    )


def test_an_attempt_of_unknown_many_is_mentioned() -> None:
    assert steps.describe(node("migrate", attempts=2)) == "migrate, attempt 2"


def test_attempts_beyond_the_most_are_not_counted_against_it() -> None:
    assert steps.describe(node("migrate", attempts=4, max_attempts=3)) == "migrate, attempt 4"


leaves = st.builds(
    node,
    st.text(max_size=5),
    kind=st.sampled_from(["Build", "Teleport", "Omitted", "Workflow", ""]),
    status=st.none() | st.sampled_from(["waiting", "success", "failure", "aborting", "odd", ""]),
    started_at=st.none() | st.just(T0),
    ended_at=st.none() | st.just(T0),
    attempts=st.none() | st.integers(-5, 5),
    max_attempts=st.none() | st.integers(-5, 5),
    error_message=st.none() | st.text(max_size=5),
)


def grow(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        lambda inner, status, kind: node("group", *inner, kind=kind, status=status),
        st.lists(children, max_size=6),
        st.none() | st.sampled_from(["waiting", "success", "failure"]),
        st.sampled_from(["Workflow", "LoopWorkflow", "Odd"]),
    )


trees = st.recursive(leaves, grow, max_leaves=60)


@given(trees)
def test_the_current_step_of_any_tree_is_one_of_its_steps_under_way(root: Node) -> None:
    found = steps.current(root)
    under_way = [each for _, each in steps.walk(root) if steps.under_way(each)]
    assert found in under_way if under_way else found is None
    if found is not None:
        assert not any(steps.under_way(each) for step in found.steps for each in everything(step))


def everything(of: Node) -> list[Node]:
    return [of, *(each for inner in of.steps for each in everything(inner))]


@given(trees)
def test_every_step_of_any_tree_is_walked_once(root: Node) -> None:
    def count(of: Node) -> int:
        return 1 + sum(count(each) for each in of.steps)

    wrapper = 1 if root.kind in steps.CONTAINERS else 0
    assert len(labels(root)) == count(root) - wrapper


@given(trees)
def test_any_step_can_be_described(root: Node) -> None:
    assert all(isinstance(steps.describe(each), str) for _, each in steps.walk(root))


def test_five_hundred_steps_are_walked() -> None:
    assert len(labels(node("root", *(node(str(n)) for n in range(500))))) == 500


def test_a_deep_tree_is_walked() -> None:
    root = node("innermost", status="waiting")
    for depth in range(500):
        root = node(f"level {depth}", root)
    assert at(root) == "innermost"


@pytest.mark.parametrize(
    ("of", "on"),
    [
        (node(status="waiting"), "Build"),
        (node(kind="JobRun", status="waiting"), "JobRun"),
        (node(kind="Release", status="waiting"), "Release"),
        (node(kind="AddonBackup", status="waiting"), "AddonBackup"),
        (node(kind="RunTemplate", status="waiting"), "RunTemplate"),
        (node(kind="Approval", status="waiting"), steps.APPROVAL),
        (node(kind="Odd", status="approval_wait"), steps.APPROVAL),
        (node(kind="JobRun", status="async_wait"), steps.OUTSIDE),
        (node(kind="Condition", about="Addon", status="waiting"), "Addon"),
        (node(kind="Condition", about="Odd", status="waiting"), "Odd"),
        (node(kind="Odd", status="waiting"), "Odd"),
        (node(status="retrying"), ""),
        (node(status="aborting"), ""),
    ],
)
def test_waits_are_told_apart(of: Node, on: str) -> None:
    assert steps.waits_on(of) == on
