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
from tests.support.html import GetPage, one, words

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
NOW = T0 + timedelta(minutes=10)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def node(kind: str = "JobRun", *inner: Node, ref: str | None = "migrate", **said: Any) -> Node:
    label = said.pop("label", ref or kind)
    return factories.node(kind, ref=ref, label=label, steps=inner, **said)


def timeline_of(*within: Node, timing: StageTiming | None = None, **of_run: Any) -> Timeline:
    """The steps of a run that began at T0, as they are at NOW."""
    usual = {"status": "running", "in_flight": True, "concluded": False, "started_at": T0}
    root = factories.node("Workflow", steps=within)
    return timeline.build_timeline(Run(**usual | of_run), root, timing, NOW)


def step_row(of: Node, timing: StageTiming | None = None, **of_run: Any) -> StepRow:
    return timeline_of(of, timing=timing, **of_run).steps[0]


def flatten(rows: tuple[StepRow, ...]) -> Iterator[StepRow]:
    for row in rows:
        yield row
        yield from flatten(row.steps)


ENDED_RUN: dict[str, Any] = {"status": "success", "in_flight": False, "concluded": True}
ENDED_RUN["concluded_at"] = NOW

STEP_DESCRIPTIONS = [
    (node(), "job, does not wait for completion"),
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


@pytest.mark.parametrize(("of", "said"), STEP_DESCRIPTIONS)
def test_step_about_describes_kind_and_condition(of: Node, said: str) -> None:
    assert step_row(of).description == said


WAIT_TEXTS = [
    (node("Build", status="waiting"), "waiting for a build"),
    (node("JobRun", status="waiting"), "waiting for a job"),
    (node("Release", status="waiting"), "waiting for a deployment"),
    (node("AddonBackup", status="waiting"), "waiting for a backup"),
    (node("RunTemplate", status="waiting"), "waiting for another run"),
    (node("Approval", status="approval_wait"), "waiting for approval"),
    (node("Teleport", status="approval_wait"), "waiting for approval"),
    (node("Action", status="async_wait"), "waiting for an external response"),
    (node("Condition", target_kind="Service", status="waiting"), "waiting for a service"),
    (node("Condition", target_kind="JobRun", status="waiting"), "waiting for a job"),
    (node("Teleport", status="waiting"), ""),
    (node("Build", started_at=T0), "waiting for a build"),
    (
        node("Build", started_at=T0, timeout_seconds=900),
        "waiting for a build, times out after 15 min",
    ),
    (node("Teleport", status="waiting", timeout_seconds=1800), "times out after 30 min"),
    (node("Teleport", status="waiting", timeout_seconds=-1), ""),
    (node("Build", status="retrying"), ""),
    (node("Build", status="aborting"), ""),
    (node("Build", status="success"), ""),
    (node("Build"), ""),
    (node("Workflow", node(), status="waiting"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("of", "said"), WAIT_TEXTS)
def test_step_wait_names_what_it_waits_on(of: Node, said: str) -> None:
    assert step_row(of).wait_text == said


def test_step_wait_of_ended_run_is_empty() -> None:
    assert step_row(node("Build", status="waiting"), **ENDED_RUN).wait_text == ""


WORDS_AND_TONES = [
    (node(status="success", started_at=T0, ended_at=at(1)), "Success", "good"),
    (node(status="failure"), "Failed", "bad"),
    (node(status="invalid"), "Invalid", "bad"),
    (node(status="retrying"), "Retrying", "warning"),
    (node(status="skipped"), "Skipped", "neutral"),
    (node("Approval", status="approval_wait"), "Needs approval", "people"),
    (node(status="async_wait"), "External wait", "waiting"),
    (node(started_at=T0), "Running", "running"),
    (node(), "Not started", "neutral"),
    (node(status="dreaming"), "dreaming", "neutral"),
    (node(OMITTED, ref=None), "", "neutral"),
]


@pytest.mark.parametrize(("of", "word", "tone"), WORDS_AND_TONES)
def test_step_status_has_word_and_tone(of: Node, word: str, tone: str) -> None:
    row = step_row(of)
    assert (row.label, row.tone) == (word, tone)


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


@pytest.mark.parametrize(("of", "said"), ATTEMPT_TEXTS)
def test_step_attempts_are_shown_from_second_or_while_retrying(of: Node, said: str) -> None:
    assert step_row(of).attempts_text == said


def test_retrying_step_shows_next_attempt_time() -> None:
    again = node(status="retrying", next_attempt_at=at(11))
    assert step_row(again).next_attempt_at == at(11)


def test_finished_step_shows_no_next_attempt_time() -> None:
    assert step_row(node(status="success", next_attempt_at=at(1))).next_attempt_at is None


ERROR_TEXTS = [
    (node(error_message="no\nroom", error_code=7), "no\nroom (code 7)"),
    (node(error_message="no room"), "no room"),
    (node(error_code=7), "Failed (code 7)"),
    (node(error_code=0), "Failed (code 0)"),
    (node(status="failure"), ""),
]


@pytest.mark.parametrize(("of", "said"), ERROR_TEXTS)
def test_step_error_shows_message_and_code(of: Node, said: str) -> None:
    assert step_row(of).error == said


@pytest.mark.parametrize(
    ("of", "name"),
    [
        (node("Workflow", node(), ref=None), "Steps"),
        (node("Workflow", node(), ref=None, parallel=True), "Parallel steps"),
        (node("LoopWorkflow", node(), ref=None), "Loop"),
        (node("Workflow", node(), ref="regions"), "regions"),
        (node("Build", ref=None), "Build"),
    ],
)
def test_unnamed_step_group_gets_generic_name(of: Node, name: str) -> None:
    assert step_row(of).name == name


# --- against the usual -------------------------------------------------------------------------

# A migration usually takes two minutes, and hardly ever more than four.
TIMING = StageTiming(observed_steps={"migrate": [120, 240]})
DURATIONS = [
    (node(status="success", started_at=T0, ended_at=at(3)), "3 min 0 s", 0),
    (node(status="success", started_at=T0, ended_at=at(5)), "5 min 0 s", 1),
    (node(status="failure", started_at=T0, ended_at=at(7)), "7 min 0 s", 2),
    (node(status="waiting", started_at=at(7)), "", 0),
    (node(status="waiting", started_at=at(5)), "", 1),
    (node(status="waiting", started_at=at(1)), "", 2),
    (node(status="waiting", started_at=at(99)), "", 0),
    (node(status="success", started_at=at(5), ended_at=at(1)), "", 0),
    (node(status="success", started_at=T0), "", 0),
    (node(status="success", ended_at=T0), "", 0),
    (node(), "", 0),
]


@pytest.mark.parametrize(("of", "took", "late"), DURATIONS)
def test_step_duration_is_compared_with_typical_duration(of: Node, took: str, late: int) -> None:
    row = step_row(of, TIMING)
    assert (row.duration, row.overdue_severity) == (took, late)


@pytest.mark.parametrize("of", [node(), node(started_at=T0), node(status="success", ended_at=T0)])
def test_step_of_run_in_flight_shows_typical_duration(of: Node) -> None:
    assert step_row(of, TIMING).typical_text == "usually 2 to 4 min"


def test_unstarted_step_of_ended_run_shows_no_typical_duration() -> None:
    assert step_row(node(), TIMING, **ENDED_RUN).typical_text == ""


def test_unnamed_step_group_has_no_typical_duration() -> None:
    timing = StageTiming(observed_steps={"Workflow Workflow": [120, 240]})
    assert step_row(node("Workflow", node(), ref=None), timing).typical_text == ""


def test_named_step_group_shows_typical_duration() -> None:
    timing = StageTiming(observed_steps={"regions": [120, 240]})
    assert (
        step_row(node("Workflow", node(), ref="regions"), timing).typical_text
        == "usually 2 to 4 min"
    )


# --- the axis ----------------------------------------------------------------------------------


def bar_positions(of: Timeline) -> list[tuple[int, int]]:
    return [(row.bar.start, row.bar.length) for row in flatten(of.steps) if row.bar]


def test_bars_of_parallel_steps_start_together() -> None:
    two = (node(started_at=at(1), ended_at=at(4)), node(started_at=at(1), ended_at=at(2)))
    assert bar_positions(timeline_of(*two)) == [(60, 180), (60, 60)]


def test_axis_of_run_in_flight_ends_now() -> None:
    assert getattr(timeline_of(node(started_at=at(1))).axis, "ends_at", None) == NOW


def test_axis_of_ended_run_ends_at_its_end() -> None:
    over = timeline_of(node(started_at=at(1)), **ENDED_RUN | {"concluded_at": at(3)})
    assert getattr(over.axis, "ends_at", None) == at(3)


def test_axis_extends_to_typical_end_of_current_step() -> None:
    axis = timeline_of(node(status="waiting", started_at=at(9)), timing=TIMING).axis
    assert getattr(axis, "ends_at", None) == at(13)


def test_axis_is_not_extended_by_pending_approval() -> None:
    asked = node("Approval", status="approval_wait", started_at=at(9))
    assert getattr(timeline_of(asked, timing=TIMING).axis, "ends_at", None) == NOW


def test_timeline_of_unstarted_run_has_no_axis_and_no_bars() -> None:
    queued = timeline_of(node(), started_at=None)
    assert (queued.axis, bar_positions(queued)) == (None, [])


def test_axis_without_run_start_begins_with_first_step() -> None:
    axis = timeline_of(node(started_at=at(2)), node(started_at=at(1)), started_at=None).axis
    assert getattr(axis, "started_at", None) == at(1)


def test_bar_of_step_started_before_run_begins_with_run() -> None:
    assert bar_positions(timeline_of(node(started_at=at(-5), ended_at=at(1)))) == [(0, 60)]


def test_bar_of_step_started_in_future_lies_at_axis_end() -> None:
    assert bar_positions(timeline_of(node(started_at=at(99)))) == [(599, 1)]


def test_axis_of_run_ended_before_start_is_valid() -> None:
    odd = timeline_of(node(started_at=T0, ended_at=at(1)), **ENDED_RUN | {"concluded_at": at(-1)})
    assert bar_positions(odd) == [(0, 60)]


def test_bar_has_overdue_and_critical_limits() -> None:
    bar = step_row(node(status="waiting", started_at=at(1)), TIMING).bar
    assert bar is not None
    assert (bar.overdue_at, bar.critical_at) == (60 + 240, 60 + 360)


# --- folding -----------------------------------------------------------------------------------


def successful_step(*inner: Node, **said: Any) -> Node:
    usual = {"status": "success", "started_at": T0, "ended_at": at(1)}
    return node("Workflow" if inner else "JobRun", *inner, **usual | said)


def with_many_steps(*more: Node) -> tuple[Node, ...]:
    return (*more, *(successful_step(ref=f"step-{n}") for n in range(timeline.MAX_UNFOLDED)))


def test_step_group_in_short_run_is_unfolded() -> None:
    assert timeline_of(successful_step(successful_step())).steps[0].is_unfolded


def test_finished_step_group_in_long_run_is_folded() -> None:
    assert (
        not timeline_of(*with_many_steps(successful_step(successful_step()))).steps[0].is_unfolded
    )


@pytest.mark.parametrize(
    "inner",
    [
        node(status="waiting"),
        node(status="failure"),
        node(status="invalid"),
        successful_step(node(status="failure")),
    ],
)
def test_step_group_with_failed_or_current_step_in_long_run_is_unfolded(inner: Node) -> None:
    assert timeline_of(*with_many_steps(successful_step(inner))).steps[0].is_unfolded


@pytest.mark.parametrize("said", [{}, {"status": "waiting", "started_at": T0}])
def test_unfinished_step_group_in_long_run_is_unfolded(said: dict[str, Any]) -> None:
    assert timeline_of(*with_many_steps(node("Workflow", node(), **said))).steps[0].is_unfolded


def test_skipped_step_group_in_long_run_is_folded() -> None:
    assert (
        not timeline_of(*with_many_steps(node("Workflow", node(), status="skipped")))
        .steps[0]
        .is_unfolded
    )


def test_unstarted_step_group_in_long_ended_run_is_folded() -> None:
    assert (
        not timeline_of(*with_many_steps(node("Workflow", node())), **ENDED_RUN)
        .steps[0]
        .is_unfolded
    )


def test_current_step_is_marked_open() -> None:
    rows = timeline_of(
        successful_step(), node("Workflow", node(status="waiting", ref="here"))
    ).steps
    assert [row.name for row in flatten(rows) if row.is_current] == ["here"]


def test_deeply_nested_steps_follow_their_group() -> None:
    deep = node(ref="innermost")
    for level in range(500):
        deep = node("Workflow", deep, ref=f"level {level}")
    names = [row.name for row in flatten(timeline_of(deep).steps)]
    assert names == [*(f"level {level}" for level in reversed(range(500))), "innermost"]


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
    lambda inner: st.builds(
        lambda kind, within, said: node(kind, *within, **said),
        kinds,
        st.lists(inner, max_size=5),
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


@given(runs, trees, st.sampled_from([None, TIMING]))
def test_bars_of_any_step_tree_stay_on_axis(
    run: Run, root: Node, timing: StageTiming | None
) -> None:
    of = timeline.build_timeline(run, root, timing, NOW)
    for row in flatten(of.steps):
        if row.bar:
            assert of.axis is not None
            assert 0 <= row.bar.start < row.bar.start + row.bar.length <= of.axis.seconds
            assert 0 <= row.bar.typical_seconds <= of.axis.seconds - row.bar.start


@given(runs, trees)
def test_steps_of_any_tree_are_each_listed_once(run: Run, root: Node) -> None:
    def number(of: Node) -> int:
        return 1 + sum(number(each) for each in of.steps)

    wrapper = 1 if root.kind in {"Workflow", "LoopWorkflow"} else 0
    rows = list(flatten(timeline.build_timeline(run, root, None, NOW).steps))
    assert len(rows) == number(root) - wrapper


# --- the page ----------------------------------------------------------------------------------


@pytest.fixture
def get_run_page(get_page: GetPage, stage: Any) -> Any:
    """Open the page of a run with these steps."""

    def open_page(*within: Node, **of_run: Any) -> Any:
        root = factories.node("Workflow", steps=within)
        run = factories.run(stage, steps=msgspec.to_builtins(root), detail_synced_at=NOW, **of_run)
        return get_page(factories.address(run))

    return open_page


def test_step_groups_render_as_nested_lists(get_run_page: Any) -> None:
    html = get_run_page(node("Workflow", node(ref="inner"), ref="outer"))
    inner = one(html, "[data-steps] > li > details > ol > li")
    assert words(one(inner, "bdi")) == "inner"


def test_parallel_step_group_is_marked(get_run_page: Any) -> None:
    html = get_run_page(node("Workflow", node(), node(), ref="regions", parallel=True))
    assert "2 steps, in parallel" in words(one(html, "[data-steps] summary"))
    assert len(html.css("[data-steps] ol[data-parallel]")) == 1


def test_current_step_has_aria_current(get_run_page: Any) -> None:
    html = get_run_page(successful_step(), node(ref="here", status="waiting"))
    assert words(one(html, '[data-steps] li[aria-current="step"] bdi')) == "here"


def test_bars_are_hidden_from_screen_readers(get_run_page: Any) -> None:
    html = get_run_page(successful_step())
    assert [bar.attributes.get("aria-hidden") for bar in html.css(".steps .bar")] == ["true"]


def test_step_duration_text_matches_bar(get_run_page: Any, stage: Any) -> None:
    StageTiming.objects.create(stage=stage, observed_steps={"migrate": [120, 240]})
    html = get_run_page(successful_step(ref="migrate", ended_at=at(7)))
    said = one(html, "[data-steps] .duration")
    hidden = one(said, "[hidden]")
    told = words(said).replace(words(hidden), "")
    assert told == "7 min 0 s, usually 2 to 4 min, far longer than usual"


def test_run_page_has_no_inline_styles(get_run_page: Any) -> None:
    assert (
        get_run_page(successful_step(successful_step(), node(status="waiting", started_at=T0))).css(
            "[style]"
        )
        == []
    )


def test_long_step_error_is_shown_completely_and_focusable(get_run_page: Any) -> None:
    html = get_run_page(node(status="failure", error_message="line\n" * 200, error_code=3))
    error = one(html, "[data-steps] pre")
    assert error.text() == "line\n" * 200 + " (code 3)"
    assert error.attributes["tabindex"] == "0"


def test_steps_saved_by_earlier_release_are_rendered(get_page: GetPage, stage: Any) -> None:
    root = msgspec.to_builtins(factories.node("Workflow", steps=(node(ref="build"),)))
    for each in (root, *root["steps"]):
        for added in ("target_kind", "required_approvals", "iterations"):
            del each[added]
    run = factories.run(stage, steps=root, detail_synced_at=NOW)
    assert words(one(get_page(factories.address(run)), "[data-steps] bdi")) == "build"
