"""Steps on a run's page: as text, on one time axis, with groups folded where allowed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Run, StageTiming
from dashboard.northflank import Node
from dashboard.northflank.models import OMITTED
from dashboard.web.components.runs import timeline
from dashboard.web.components.runs.timeline import StepRow, Timeline
from tests.support import factories
from tests.support.html import GetPage, select_one, text_of

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
NOW = T0 + timedelta(minutes=10)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def node(kind: str = "JobRun", *children: Node, ref: str | None = "migrate", **fields: Any) -> Node:
    label = fields.pop("label", ref or kind)
    return factories.node(kind, ref=ref, label=label, steps=children, **fields)


def timeline_of(*steps: Node, timing: StageTiming | None = None, **run_fields: Any) -> Timeline:
    """The timeline at NOW of a run that started at T0."""
    defaults = {"status": "running", "in_flight": True, "concluded": False, "started_at": T0}
    root = factories.node("Workflow", steps=steps)
    return timeline.build_timeline(Run(**defaults | run_fields), root, timing, NOW)


def step_row(step: Node, timing: StageTiming | None = None, **run_fields: Any) -> StepRow:
    return timeline_of(step, timing=timing, **run_fields).steps[0]


def flatten(rows: tuple[StepRow, ...]) -> Iterator[StepRow]:
    for row in rows:
        yield row
        yield from flatten(row.steps)


ENDED_RUN: dict[str, Any] = {"status": "success", "in_flight": False, "concluded": True}
ENDED_RUN["concluded_at"] = NOW

STEP_DESCRIPTIONS = [
    (node(), "job, does not wait for its end"),
    (node(condition="success"), "job, waits until it succeeds"),
    (node("Release", condition="running"), "deployment, waits until it runs"),
    (node("Build", condition="sunny"), "build, waits until it is “sunny”"),
    (node("Build", ref=None, label="Build api", condition="success"), "waits until it succeeds"),
    (node("AddonBackup", condition="success"), "backup, waits until it succeeds"),
    (node("RunTemplate", condition="success"), "nested run, waits until it succeeds"),
    (
        node("Condition", target_kind="Service", condition="running"),
        "condition, waits until a service runs",
    ),
    (
        node("Condition", target_kind="Build", condition="success"),
        "condition, waits until a build succeeds",
    ),
    (node("Condition", condition="success"), "condition, waits until it succeeds"),
    (node("Condition"), "condition"),
    (node("Approval"), "approval"),
    (node("Approval", required_approvals=2), "approval, 2 approvals required"),
    (node("Message", skip=True), "message, set to skip"),
    (node("Teleport"), "Teleport"),
    (node("Workflow", node(), node()), "2 steps"),
    (node("Workflow", node(), node(), parallel=True), "2 steps, in parallel"),
    (node("Workflow", node()), "1 step"),
    (node("Workflow"), "no steps"),
    (node("LoopWorkflow", node(), iterations=3), "loop, 3 rounds, 1 step"),
    (node("LoopWorkflow", node(), iterations=1), "loop, 1 round, 1 step"),
    (node("LoopWorkflow", node()), "loop, 1 step"),
    (node("Teleport", node()), "Teleport, 1 step"),
    (node(OMITTED), ""),
]  # fmt: skip


@pytest.mark.parametrize(("step", "text"), STEP_DESCRIPTIONS)
def test_step_about_describes_kind_and_condition(step: Node, text: str) -> None:
    assert step_row(step).description == text


DONE = {"condition": "success"}  # the step waits until it is
WAIT_TEXTS = [
    (node("Build", **DONE, status="waiting"), "waiting for a build"),
    (node("JobRun", **DONE, status="waiting"), "waiting for a job"),
    (node("Release", condition="running", status="waiting"), "waiting for a deployment"),
    (node("AddonBackup", **DONE, status="waiting"), "waiting for a backup"),
    (node("RunTemplate", **DONE, status="waiting"), "waiting for another run"),
    (node("Release", status="waiting"), ""),  # without a condition it does not wait
    (node("Release", started_at=T0), ""),
    (node("Release", started_at=T0, timeout_seconds=900), "times out after 15 min"),
    (node("Release", status="approval_wait"), "waiting for approval"),
    (node("JobRun", status="async_wait"), "waiting for an external response"),
    (node("Approval", status="approval_wait"), "waiting for approval"),
    (node("Teleport", status="approval_wait"), "waiting for approval"),
    (node("Action", status="async_wait"), "waiting for an external response"),
    (node("Condition", target_kind="Service", status="waiting"), "waiting for a service"),
    (node("Condition", target_kind="JobRun", status="waiting"), "waiting for a job"),
    (node("Teleport", status="waiting"), ""),
    (node("Build", **DONE, started_at=T0), "waiting for a build"),
    (
        node("Build", **DONE, started_at=T0, timeout_seconds=900),
        "waiting for a build, times out after 15 min",
    ),
    (node("Teleport", status="waiting", timeout_seconds=1800), "times out after 30 min"),
    (node("Teleport", status="waiting", timeout_seconds=-1), ""),
    (node("Build", **DONE, status="retrying"), ""),
    (node("Build", **DONE, status="aborting"), ""),
    (node("Build", **DONE, status="success"), ""),
    (node("Build", **DONE), ""),
    (node("Workflow", node(), status="waiting"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("step", "text"), WAIT_TEXTS)
def test_step_wait_names_what_it_waits_on(step: Node, text: str) -> None:
    assert step_row(step).wait_text == text


WORDS_AND_TONES = [
    (node(status="success", started_at=T0, ended_at=at(1)), "Succeeded", "good"),
    (node(status="failure"), "Failed", "bad"),
    (node(status="invalid"), "Invalid", "bad"),
    (node(status="retrying"), "Retrying", "warning"),
    (node(status="skipped"), "Skipped", "neutral"),
    (node("Approval", status="approval_wait"), "Needs approval", "people"),
    (node(status="async_wait"), "Waiting (external)", "waiting"),
    (node(started_at=T0), "Running", "running"),
    (node(), "Not started", "neutral"),
    (node(status="dreaming"), "dreaming", "neutral"),
    (node(OMITTED, ref=None), "", "neutral"),
]


@pytest.mark.parametrize(("step", "word", "tone"), WORDS_AND_TONES)
def test_step_status_has_word_and_tone(step: Node, word: str, tone: str) -> None:
    row = step_row(step)
    assert (row.display.label, row.display.tone) == (word, tone)


ATTEMPT_TEXTS = [
    (node(status="retrying", attempts=2, max_attempts=3), "attempt 2 of 3"),
    (node(status="retrying", attempts=1, max_attempts=3), "attempt 1 of 3"),
    (node(status="success", attempts=1, max_attempts=3), ""),
    (node(status="failure", attempts=3, max_attempts=3), "attempt 3 of 3"),
    (node(status="failure", attempts=3), "attempt 3"),
    (node(status="failure", attempts=4, max_attempts=3), "attempt 4"),
    (node(status="failure", attempts=-3), ""),
    (node(status="retrying"), ""),
]


@pytest.mark.parametrize(("step", "text"), ATTEMPT_TEXTS)
def test_step_attempts_are_shown_from_second_or_while_retrying(step: Node, text: str) -> None:
    assert step_row(step).attempts_text == text


def test_retrying_step_shows_next_attempt_time() -> None:
    step = node(status="retrying", next_attempt_at=at(11))
    assert step_row(step).next_attempt_at == at(11)


ERROR_TEXTS = [
    (node(error_message="no\nroom", error_code=7), "no\nroom (code 7)"),
    (node(error_message="no room"), "no room"),
    (node(error_code=7), "Failed (code 7)"),
    (node(error_code=0), "Failed (code 0)"),
    (node(status="failure"), ""),
]


@pytest.mark.parametrize(("step", "text"), ERROR_TEXTS)
def test_step_error_shows_message_and_code(step: Node, text: str) -> None:
    assert step_row(step).error == text


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (node("Workflow", node(), ref=None), "Steps"),
        (node("Workflow", node(), ref=None, parallel=True), "Parallel steps"),
        (node("LoopWorkflow", node(), ref=None), "Loop"),
        (node("Workflow", node(), ref="regions"), "regions"),
        (node("Build", ref=None), "Build"),
    ],
)
def test_unnamed_step_group_gets_generic_name(step: Node, name: str) -> None:
    assert step_row(step).name == name


# --- typical durations -------------------------------------------------------------------------

# A migration usually takes two minutes, and hardly ever more than four.
TIMING = StageTiming(observed_steps={"migrate": [120, 240]})
DURATIONS = [
    (node(status="success", started_at=T0, ended_at=at(3)), "3 min 00 s", 0),
    (node(status="success", started_at=T0, ended_at=at(5)), "5 min 00 s", 1),
    (node(status="failure", started_at=T0, ended_at=at(7)), "7 min 00 s", 2),
    (node(status="waiting", started_at=at(7)), "", 0),
    (node(status="waiting", started_at=at(5)), "", 1),
    (node(status="waiting", started_at=at(1)), "", 2),
    (node(status="waiting", started_at=at(99)), "", 0),
    (node(status="success", started_at=at(5), ended_at=at(1)), "", 0),
    (node(status="success", started_at=T0), "", 0),
    (node(status="success", ended_at=T0), "", 0),
    (node(), "", 0),
]


@pytest.mark.parametrize(("step", "duration", "level"), DURATIONS)
def test_step_duration_is_compared_with_typical_duration(
    step: Node, duration: str, level: int
) -> None:
    row = step_row(step, TIMING)
    assert (row.duration, row.overdue_severity) == (duration, level)


@pytest.mark.parametrize("step", [node(), node(started_at=T0), node(status="success", ended_at=T0)])
def test_step_of_run_in_flight_shows_typical_duration(step: Node) -> None:
    assert step_row(step, TIMING).typical_text == "usually 2 to 4 min"


def test_unnamed_step_group_has_no_typical_duration() -> None:
    timing = StageTiming(observed_steps={"Workflow Workflow": [120, 240]})
    assert step_row(node("Workflow", node(), ref=None), timing).typical_text == ""


def test_of_steps_around_a_late_one_only_that_one_is_late() -> None:
    timing = StageTiming(observed_steps={"migrate": [120, 240], "release": [120, 240]})
    for fields in ({"status": "waiting"}, {"status": "success", "ended_at": at(7)}):
        late = node(started_at=T0, **fields)
        (group,) = timeline_of(
            node("Workflow", late, ref="release", started_at=T0, **fields), timing=timing
        ).steps
        assert [row.overdue_severity for row in flatten((group,))] == [0, 2]


# --- the axis ----------------------------------------------------------------------------------


def bar_positions(subject: Timeline) -> list[tuple[int, int]]:
    return [(row.bar.start, row.bar.length) for row in flatten(subject.steps) if row.bar]


def test_bars_of_parallel_steps_start_together() -> None:
    steps = (node(started_at=at(1), ended_at=at(4)), node(started_at=at(1), ended_at=at(2)))
    assert bar_positions(timeline_of(*steps)) == [(60, 180), (60, 60)]


def test_axis_of_run_in_flight_ends_now() -> None:
    assert getattr(timeline_of(node(started_at=at(1))).axis, "ends_at", None) == NOW


def test_steps_of_removed_run_do_not_go_on() -> None:
    removed = timeline_of(node(**DONE, started_at=at(1), status="waiting"), removed_at=NOW)
    (step,) = removed.steps
    assert (step.is_counting, step.duration, step.wait_text) == (False, "", "")
    assert not removed.has_growing_axis
    assert removed.axis is not None
    assert removed.axis.ends_at == at(1)


def test_axis_extends_to_typical_end_of_current_step() -> None:
    axis = timeline_of(node(status="waiting", started_at=at(9)), timing=TIMING).axis
    assert getattr(axis, "ends_at", None) == at(13)


def test_timeline_of_unstarted_run_has_no_axis_and_no_bars() -> None:
    queued = timeline_of(node(), started_at=None)
    assert (queued.axis, bar_positions(queued)) == (None, [])


# --- folding -----------------------------------------------------------------------------------


def successful_step(*children: Node, **fields: Any) -> Node:
    defaults = {"status": "success", "started_at": T0, "ended_at": at(1)}
    return node("Workflow" if children else "JobRun", *children, **defaults | fields)


def with_many_steps(*steps: Node) -> tuple[Node, ...]:
    return (*steps, *(successful_step(ref=f"step-{n}") for n in range(timeline.MAX_UNFOLDED)))


def test_step_group_in_short_run_is_unfolded() -> None:
    assert timeline_of(successful_step(successful_step())).steps[0].is_unfolded


def test_finished_step_group_in_long_run_is_folded() -> None:
    assert (
        not timeline_of(*with_many_steps(successful_step(successful_step()))).steps[0].is_unfolded
    )


@pytest.mark.parametrize(
    "child",
    [
        node(status="waiting"),
        node(status="failure"),
        node(status="invalid"),
        successful_step(node(status="failure")),
    ],
)
def test_step_group_with_failed_or_current_step_in_long_run_is_unfolded(child: Node) -> None:
    assert timeline_of(*with_many_steps(successful_step(child))).steps[0].is_unfolded


@pytest.mark.parametrize("fields", [{}, {"status": "waiting", "started_at": T0}])
def test_unfinished_step_group_in_long_run_is_unfolded(fields: dict[str, Any]) -> None:
    assert timeline_of(*with_many_steps(node("Workflow", node(), **fields))).steps[0].is_unfolded


def test_awaited_approval_beside_an_earlier_step_is_the_current_one() -> None:
    steps = (
        node(ref="load test", status="waiting", started_at=T0),
        node("Approval", ref="sign-off", status="approval_wait", started_at=at(5)),
    )
    rows = timeline_of(*steps, status="approval_wait").steps
    assert [row.name for row in rows if row.is_current] == ["sign-off"]


# --- any tree at all ---------------------------------------------------------------------------

moments = st.none() | st.datetimes(
    datetime(2000, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)  # noqa: DTZ001
) | st.integers(-900, 900).map(lambda seconds: T0 + timedelta(seconds=seconds))  # fmt: skip
numbers = st.none() | st.integers(-(2**31), 2**31 - 1)
node_fields = {
    "ref": st.none() | st.sampled_from(["migrate", "build"]),
    "status": st.none() | st.sampled_from(["waiting", "retrying", "success", "failure", "odd"]),
    "condition": st.none() | st.sampled_from(["success", "running", ""]),
    "started_at": moments,
    "ended_at": moments,
    "next_attempt_at": moments,
    "attempts": numbers,
    "max_attempts": numbers,
    "error_code": numbers,
    "timeout_seconds": numbers,
    "required_approvals": numbers,
    "iterations": numbers,
    "target_kind": st.none() | st.text(max_size=5),
    "parallel": st.booleans(),
    "skip": st.booleans(),
}
kinds = st.sampled_from(
    ["Workflow", "LoopWorkflow", "JobRun", "Approval", "Condition", "", "Odd", OMITTED]
)
trees = st.recursive(
    st.builds(node, kinds, **node_fields),
    lambda children: st.builds(
        lambda kind, steps, fields: node(kind, *steps, **fields),
        kinds,
        st.lists(children, max_size=5),
        st.fixed_dictionaries(node_fields),
    ),
    max_leaves=30,
)
runs = st.builds(
    Run,
    status=st.just("running"),
    in_flight=st.booleans(),
    started_at=moments,
    concluded_at=moments,
)


@pytest.mark.slow
@given(runs, trees, st.sampled_from([None, TIMING]))
def test_bars_of_any_step_tree_stay_on_axis(
    run: Run, root: Node, timing: StageTiming | None
) -> None:
    subject = timeline.build_timeline(run, root, timing, NOW)
    for row in flatten(subject.steps):
        if row.bar:
            assert subject.axis is not None
            assert 0 <= row.bar.start < row.bar.start + row.bar.length <= subject.axis.seconds
            assert 0 <= row.bar.typical_seconds <= subject.axis.seconds - row.bar.start


@pytest.mark.slow
@given(runs, trees)
def test_steps_of_any_tree_are_each_listed_once(run: Run, root: Node) -> None:
    def count(step: Node) -> int:
        return 1 + sum(count(child) for child in step.steps)

    wrapper = 1 if root.kind in {"Workflow", "LoopWorkflow"} else 0
    rows = list(flatten(timeline.build_timeline(run, root, None, NOW).steps))
    assert len(rows) == count(root) - wrapper


# --- the page ----------------------------------------------------------------------------------


@pytest.fixture
def get_run_page(get_page: GetPage, stage: Any) -> Any:
    """Open the page of a run with these steps."""

    def open_page(*steps: Node, **run_fields: Any) -> Any:
        root = factories.node("Workflow", steps=steps)
        run = factories.run(
            stage, steps=msgspec.to_builtins(root), detail_synced_at=NOW, **run_fields
        )
        return get_page(factories.address(run))

    return open_page


def test_step_groups_render_as_nested_lists(get_run_page: Any) -> None:
    html = get_run_page(node("Workflow", node(ref="inner"), ref="outer"))
    nested = select_one(html, "[data-steps] > li > details > ol > li")
    assert text_of(select_one(nested, "bdi")) == "inner"


def test_current_step_has_aria_current(get_run_page: Any) -> None:
    html = get_run_page(successful_step(), node(ref="here", status="waiting"))
    assert text_of(select_one(html, '[data-steps] li[aria-current="step"] bdi')) == "here"


def test_bars_are_hidden_from_screen_readers(get_run_page: Any) -> None:
    html = get_run_page(successful_step())
    assert [bar.attributes.get("aria-hidden") for bar in html.css(".steps .bar")] == ["true"]
