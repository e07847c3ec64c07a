"""A run's current step and its description, for arbitrary trees."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.northflank import Node
from dashboard.runs import steps

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


def node(label: str = "build", *children: Node, kind: str = "Build", **fields: Any) -> Node:
    defaults: dict[str, Any] = dict.fromkeys(Node.__dataclass_fields__) | {
        "kind": "Workflow" if children and kind == "Build" else kind,
        "label": label,
        "parallel": False,
        "skip": False,
        "steps": children,
        "argument_names": (),
    }
    return Node(**defaults | fields)


def labels(root: Node) -> list[str]:
    return [step.label for _, step in steps.walk(root)]


def current_label(root: Node, run_status: str = "running") -> str | None:
    current = steps.current(root, run_status)
    return current.label if current else None


def test_stored_steps_are_decoded_as_they_were_read() -> None:
    root = node("root", node("a", started_at=T0), node("b"))
    assert steps.decode(msgspec.to_builtins(root)) == root


def test_steps_that_were_not_read_are_none() -> None:
    assert steps.decode(None) is None


def test_steps_are_walked_in_definition_order() -> None:
    root = node("root", node("a", node("b"), node("c")), node("d"))
    assert labels(root) == ["a", "b", "c", "d"]


def test_root_group_is_not_walked() -> None:
    assert "root" not in labels(node("root", node("a")))


def test_root_step_is_walked() -> None:
    assert labels(node("only", kind="Build")) == ["only"]


def test_step_depth_starts_at_zero_below_root() -> None:
    root = node("root", node("a", node("b")))
    assert [depth for depth, _ in steps.walk(root)] == [0, 1]


def test_current_step_is_the_running_one() -> None:
    assert (
        current_label(node("root", node("a", status="success"), node("b", status="waiting"))) == "b"
    )


def test_current_step_is_the_innermost_running_one() -> None:
    root = node("root", node("group", node("inner", status="retrying"), status="waiting"))
    assert current_label(root) == "inner"


def test_current_step_is_found_in_group_of_unknown_kind() -> None:
    inner = node("inner", status="waiting")
    group = node("group", inner, node("after"), kind="Teleport", status="waiting")
    assert current_label(node("root", node("before", status="success"), group)) == "inner"


def test_current_step_is_not_taken_from_second_group() -> None:
    first = node("first", node("to come"), status="waiting")
    second = node("second", node("inner", status="waiting"), status="waiting")
    assert current_label(node("root", first, second)) == "first"


def test_step_of_unknown_status_is_current_by_its_times() -> None:
    assert current_label(node("root", node("a", status="odd", started_at=T0))) == "a"
    assert current_label(node("root", node("a", status="odd", started_at=T0, ended_at=T0))) is None
    assert current_label(node("root", node("a", status="odd"))) is None


def test_step_of_final_status_without_end_time_is_not_current() -> None:
    assert current_label(node("root", node("a", status="success", started_at=T0))) is None


def test_place_of_a_step_counts_no_groups() -> None:
    inner = node("inner", status="waiting")
    group = node("group", inner, node("after"), status="waiting")
    root = node("root", node("before", status="success"), group, node("last"))
    assert steps.place(root, inner) == (2, 4)
    assert steps.place(root, group) is None
    assert steps.place(inner, inner) == (1, 1)


def test_current_step_of_parallel_ones_is_the_first() -> None:
    root = node("root", node("a", status="waiting"), node("b", status="waiting"))
    assert current_label(root) == "a"


APPROVALS: dict[str, tuple[Node, str | None]] = {
    "beside an earlier step": (
        node(
            "root",
            node("load test", status="waiting"),
            node("sign-off", kind="Approval", status="approval_wait"),
        ),
        "sign-off",
    ),
    "in a group": (
        node(
            "root",
            node("load test", status="waiting"),
            node("group", node("sign-off", status="approval_wait"), status="approval_wait"),
        ),
        "sign-off",
    ),
    "of a group, not among its steps": (
        node("root", node("group", kind="Workflow", status="approval_wait")),
        "group",
    ),
    "not among the steps": (node("root", node("load test", status="waiting")), None),
    "without steps": (node("root", kind="Workflow"), None),
}


@pytest.mark.parametrize(("root", "label"), APPROVALS.values(), ids=APPROVALS)
def test_current_step_of_run_that_waits_for_approval_is_the_approval(
    root: Node, label: str | None
) -> None:
    assert current_label(root, "approval_wait") == label


def test_current_step_of_run_with_another_status_is_not_its_later_approval() -> None:
    root = node(
        "root", node("load test", status="waiting"), node("sign-off", status="approval_wait")
    )
    assert current_label(root, "running") == "load test"


def test_started_step_without_status_is_current() -> None:
    assert current_label(node("root", node("a", started_at=T0))) == "a"


def test_ended_step_without_status_is_not_current() -> None:
    assert current_label(node("root", node("a", started_at=T0, ended_at=T0))) is None


def test_run_not_started_has_no_current_step() -> None:
    assert current_label(node("root", node("a"), node("b"))) is None


def test_step_description_leaves_out_first_attempt() -> None:
    assert steps.describe(node("migrate", attempts=1, max_attempts=3)) == "migrate"


def test_step_description_shows_second_attempt() -> None:
    assert steps.describe(node("migrate", attempts=2, max_attempts=3)) == (
        "migrate, attempt 2 of 3"
    )


def test_step_description_with_unknown_maximum_shows_attempt_only() -> None:
    assert steps.describe(node("migrate", attempts=2)) == "migrate, attempt 2"


def test_step_description_beyond_maximum_shows_attempt_only() -> None:
    assert steps.describe(node("migrate", attempts=4, max_attempts=3)) == "migrate, attempt 4"


STATUSES = ["waiting", "approval_wait", "success", "failure", "aborting", "odd", ""]
leaves = st.builds(
    node,
    st.text(max_size=5),
    kind=st.sampled_from(["Build", "Teleport", "Omitted", "Workflow", ""]),
    status=st.none() | st.sampled_from(STATUSES),
    started_at=st.none() | st.just(T0),
    ended_at=st.none() | st.just(T0),
    attempts=st.none() | st.integers(-5, 5),
    max_attempts=st.none() | st.integers(-5, 5),
    error_message=st.none() | st.text(max_size=5),
)


def grow(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        lambda children, status, kind: node("group", *children, kind=kind, status=status),
        st.lists(children, max_size=6),
        st.none() | st.sampled_from(["waiting", "success", "failure"]),
        st.sampled_from(["Workflow", "LoopWorkflow", "Odd"]),
    )


trees = st.recursive(leaves, grow, max_leaves=60)


@pytest.mark.slow
@given(trees)
def test_current_step_of_any_tree_is_a_running_one(root: Node) -> None:
    current = steps.current(root, "running")
    in_progress = [child for _, child in steps.walk(root) if steps.is_in_progress(child)]
    assert current in in_progress if in_progress else current is None
    if current is not None:
        assert not any(
            steps.is_in_progress(child) for step in current.steps for child in descendants(step)
        )


def descendants(node: Node) -> list[Node]:
    return [node, *(child for step in node.steps for child in descendants(step))]


@pytest.mark.slow
@given(trees)
def test_current_step_of_any_tree_that_waits_for_approval_is_an_approval(root: Node) -> None:
    current = steps.current(root, "approval_wait")
    assert current is None or (steps.is_approval(current) and steps.is_in_progress(current))


@pytest.mark.slow
@given(trees)
def test_steps_of_any_tree_are_walked_once(root: Node) -> None:
    def count(node: Node) -> int:
        return 1 + sum(count(child) for child in node.steps)

    wrapper = 1 if root.kind in steps.CONTAINER_KINDS else 0
    assert len(labels(root)) == count(root) - wrapper


@pytest.mark.slow
@given(trees)
def test_step_description_of_any_step_is_text(root: Node) -> None:
    assert all(isinstance(steps.describe(step), str) for _, step in steps.walk(root))


def test_steps_of_wide_tree_are_all_walked() -> None:
    assert len(labels(node("root", *(node(str(n)) for n in range(500))))) == 500


def test_steps_of_deep_tree_are_walked() -> None:
    root = node("innermost", status="waiting")
    for depth in range(500):
        root = node(f"level {depth}", root)
    assert current_label(root) == "innermost"


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (node(status="waiting"), "Build"),
        (node(kind="JobRun", status="waiting"), "JobRun"),
        (node(kind="Release", status="waiting"), "Release"),
        (node(kind="AddonBackup", status="waiting"), "AddonBackup"),
        (node(kind="RunTemplate", status="waiting"), "RunTemplate"),
        (node(kind="Approval", status="waiting"), steps.APPROVAL),
        (node(kind="Odd", status="approval_wait"), steps.APPROVAL),
        (node(kind="JobRun", status="async_wait"), steps.EXTERNAL),
        (node(kind="Condition", target_kind="Addon", status="waiting"), "Addon"),
        (node(kind="Condition", target_kind="Odd", status="waiting"), "Odd"),
        (node(kind="Odd", status="waiting"), "Odd"),
        (node(status="retrying"), ""),
        (node(status="aborting"), ""),
    ],
)
def test_waiting_reason_depends_on_step_kind_and_status(step: Node, reason: str) -> None:
    assert steps.awaited_kind(step) == reason
