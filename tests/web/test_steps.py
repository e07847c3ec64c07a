"""A run's steps as its page shows them: in words, on one axis of time, folded where they may be."""

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
from dashboard.web.components import timeline
from dashboard.web.components.timeline import StepRow, Timeline
from tests.support import factories
from tests.support.html import See, one, words

T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
NOW = T0 + timedelta(minutes=10)


def at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def node(kind: str = "JobRun", *inner: Node, ref: str | None = "migrate", **said: Any) -> Node:
    label = said.pop("label", ref or kind)
    return factories.node(kind, ref=ref, label=label, steps=inner, **said)


def shown(*within: Node, timing: StageTiming | None = None, **of_run: Any) -> Timeline:
    """The steps of a run that began at T0, as they are at NOW."""
    usual = {"status": "running", "in_flight": True, "concluded": False, "started_at": T0}
    root = factories.node("Workflow", steps=within)
    return timeline.timeline(Run(**usual | of_run), root, timing, NOW)


def shown_one(of: Node, timing: StageTiming | None = None, **of_run: Any) -> StepRow:
    return shown(of, timing=timing, **of_run).steps[0]


def every(rows: tuple[StepRow, ...]) -> Iterator[StepRow]:
    for row in rows:
        yield row
        yield from every(row.steps)


OVER: dict[str, Any] = {"status": "success", "in_flight": False, "concluded": True}
OVER["concluded_at"] = NOW

ABOUT = [
    (node(), "job, does not wait for its end"),
    (node(condition="success"), "job, waits until it succeeds"),
    (node("Release", condition="running"), "deployment, waits until it runs"),
    (node("Build", condition="sunny"), "build, waits until it is “sunny”"),
    (node("Build", ref=None, label="Build api", condition="success"), "waits until it succeeds"),
    (node("AddonBackup", condition="success"), "backup, waits until it succeeds"),
    (node("RunTemplate", condition="success"), "nested run, waits until it succeeds"),
    (
        node("Condition", about="Service", condition="running"),
        "condition, waits until a service runs",
    ),
    (
        node("Condition", about="Build", condition="success"),
        "condition, waits until a build succeeds",
    ),
    (node("Condition", condition="success"), "condition, waits until it succeeds"),
    (node("Condition"), "condition"),
    (node("Approval"), "approval"),
    (node("Approval", approvals=2), "approval, by 2 people"),
    (node("Message", skip=True), "message, told not to run"),
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


@pytest.mark.parametrize(("of", "said"), ABOUT)
def test_a_step_says_what_it_is_and_when_the_run_goes_on(of: Node, said: str) -> None:
    assert shown_one(of).about == said


WAITS = [
    (node("Build", status="waiting"), "waits on a build"),
    (node("JobRun", status="waiting"), "waits on a job"),
    (node("Release", status="waiting"), "waits on a deployment"),
    (node("AddonBackup", status="waiting"), "waits on a backup"),
    (node("RunTemplate", status="waiting"), "waits on another run"),
    (node("Approval", status="approval_wait"), "waits on people"),
    (node("Teleport", status="approval_wait"), "waits on people"),
    (node("Action", status="async_wait"), "waits on an external answer"),
    (node("Condition", about="Service", status="waiting"), "waits on a service"),
    (node("Condition", about="JobRun", status="waiting"), "waits on a job"),
    (node("Teleport", status="waiting"), ""),
    (node("Build", started_at=T0), "waits on a build"),
    (node("Build", started_at=T0, timeout_seconds=900), "waits on a build, gives up after 15 min"),
    (node("Teleport", status="waiting", timeout_seconds=1800), "gives up after 30 min"),
    (node("Teleport", status="waiting", timeout_seconds=-1), ""),
    (node("Build", status="retrying"), ""),
    (node("Build", status="aborting"), ""),
    (node("Build", status="success"), ""),
    (node("Build"), ""),
    (node("Workflow", node(), status="waiting"), ""),
]  # fmt: skip


@pytest.mark.parametrize(("of", "said"), WAITS)
def test_what_a_step_waits_on_is_told_apart(of: Node, said: str) -> None:
    assert shown_one(of).wait == said


def test_nothing_is_waited_on_in_a_run_that_is_over() -> None:
    assert shown_one(node("Build", status="waiting"), **OVER).wait == ""


LOOKS = [
    (node(status="success", started_at=T0, ended_at=at(1)), "Success", "good"),
    (node(status="failure"), "Failed", "bad"),
    (node(status="invalid"), "Invalid", "bad"),
    (node(status="retrying"), "Retrying", "warning"),
    (node(status="skipped"), "Skipped", "neutral"),
    (node("Approval", status="approval_wait"), "Needs approval", "people"),
    (node(status="async_wait"), "Waiting outside", "waiting"),
    (node(started_at=T0), "Running", "running"),
    (node(), "Not started", "neutral"),
    (node(status="dreaming"), "dreaming", "neutral"),
    (node(OMITTED, ref=None), "", "neutral"),
]


@pytest.mark.parametrize(("of", "word", "tone"), LOOKS)
def test_a_step_has_a_word_and_a_tone(of: Node, word: str, tone: str) -> None:
    row = shown_one(of)
    assert (row.word, row.tone) == (word, tone)


ATTEMPTS = [
    (node(status="retrying", attempts=2, max_attempts=3), "attempt 2 of 3"),
    (node(status="retrying", attempts=1, max_attempts=3), "attempt 1 of 3"),
    (node(status="success", attempts=1, max_attempts=3), ""),
    (node(status="failure", attempts=3, max_attempts=3), "attempt 3 of 3"),
    (node(status="failure", attempts=3), "attempt 3"),
    (node(status="failure", attempts=4, max_attempts=3), "attempt 4"),
    (node(status="failure", attempts=-3), ""),
    (node(status="retrying"), ""),
]


@pytest.mark.parametrize(("of", "said"), ATTEMPTS)
def test_attempts_are_told_from_the_second_on_or_while_another_comes(of: Node, said: str) -> None:
    assert shown_one(of).attempts == said


def test_a_step_that_is_tried_again_says_when() -> None:
    again = node(status="retrying", next_attempt_at=at(11))
    assert shown_one(again).next_at == at(11)


def test_an_attempt_of_the_past_is_no_next_one() -> None:
    assert shown_one(node(status="success", next_attempt_at=at(1))).next_at is None


ERRORS = [
    (node(error_message="no\nroom", error_code=7), "no\nroom (code 7)"),
    (node(error_message="no room"), "no room"),
    (node(error_code=7), "Failed (code 7)"),
    (node(error_code=0), "Failed (code 0)"),
    (node(status="failure"), ""),
]


@pytest.mark.parametrize(("of", "said"), ERRORS)
def test_an_error_is_told_in_full(of: Node, said: str) -> None:
    assert shown_one(of).error == said


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
def test_a_group_without_a_name_gets_one(of: Node, name: str) -> None:
    assert shown_one(of).name == name


# --- against the usual -------------------------------------------------------------------------

# A migration usually takes two minutes, and hardly ever more than four.
USUAL = StageTiming(steps={"migrate": [120, 240]})
TOOK = [
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


@pytest.mark.parametrize(("of", "took", "late"), TOOK)
def test_a_step_is_held_against_its_usual(of: Node, took: str, late: int) -> None:
    row = shown_one(of, USUAL)
    assert (row.took, row.late) == (took, late)


@pytest.mark.parametrize("of", [node(), node(started_at=T0), node(status="success", ended_at=T0)])
def test_what_is_usual_is_said_while_the_run_goes_on(of: Node) -> None:
    assert shown_one(of, USUAL).usual == "usually 2 to 4 min"


def test_what_is_usual_of_a_step_that_never_ran_is_not_said_of_a_run_that_is_over() -> None:
    assert shown_one(node(), USUAL, **OVER).usual == ""


def test_nothing_is_usual_of_a_group_without_a_name() -> None:
    timing = StageTiming(steps={"Workflow Workflow": [120, 240]})
    assert shown_one(node("Workflow", node(), ref=None), timing).usual == ""


def test_a_named_group_has_its_usual() -> None:
    timing = StageTiming(steps={"regions": [120, 240]})
    assert shown_one(node("Workflow", node(), ref="regions"), timing).usual == "usually 2 to 4 min"


# --- the axis ----------------------------------------------------------------------------------


def places(of: Timeline) -> list[tuple[int, int]]:
    return [(row.bar.start, row.bar.length) for row in every(of.steps) if row.bar]


def test_steps_in_parallel_lie_beside_each_other() -> None:
    two = (node(started_at=at(1), ended_at=at(4)), node(started_at=at(1), ended_at=at(2)))
    assert places(shown(*two)) == [(60, 180), (60, 60)]


def test_the_axis_of_a_run_under_way_ends_now() -> None:
    assert getattr(shown(node(started_at=at(1))).axis, "ends", None) == NOW


def test_the_axis_of_a_run_that_is_over_ends_with_it() -> None:
    over = shown(node(started_at=at(1)), **OVER | {"concluded_at": at(3)})
    assert getattr(over.axis, "ends", None) == at(3)


def test_the_axis_goes_as_far_as_the_step_under_way_usually_takes() -> None:
    axis = shown(node(status="waiting", started_at=at(9)), timing=USUAL).axis
    assert getattr(axis, "ends", None) == at(13)


def test_people_do_not_stretch_the_axis() -> None:
    asked = node("Approval", status="approval_wait", started_at=at(9))
    assert getattr(shown(asked, timing=USUAL).axis, "ends", None) == NOW


def test_nothing_has_a_bar_before_anything_has_begun() -> None:
    queued = shown(node(), started_at=None)
    assert (queued.axis, places(queued)) == (None, [])


def test_a_run_that_does_not_say_when_it_started_began_with_its_first_step() -> None:
    axis = shown(node(started_at=at(2)), node(started_at=at(1)), started_at=None).axis
    assert getattr(axis, "began", None) == at(1)


def test_the_bar_of_a_step_that_began_before_its_run_begins_with_the_run() -> None:
    assert places(shown(node(started_at=at(-5), ended_at=at(1)))) == [(0, 60)]


def test_the_bar_of_a_step_of_the_future_lies_at_the_end() -> None:
    assert places(shown(node(started_at=at(99)))) == [(599, 1)]


def test_a_run_that_ended_before_it_started_still_has_an_axis() -> None:
    odd = shown(node(started_at=T0, ended_at=at(1)), **OVER | {"concluded_at": at(-1)})
    assert places(odd) == [(0, 60)]


def test_a_bar_knows_when_it_is_late() -> None:
    bar = shown_one(node(status="waiting", started_at=at(1)), USUAL).bar
    assert bar is not None
    assert (bar.late_at, bar.very_late_at) == (60 + 240, 60 + 360)


# --- folding -----------------------------------------------------------------------------------


def done(*inner: Node, **said: Any) -> Node:
    usual = {"status": "success", "started_at": T0, "ended_at": at(1)}
    return node("Workflow" if inner else "JobRun", *inner, **usual | said)


def many(*more: Node) -> tuple[Node, ...]:
    return (*more, *(done(ref=f"step-{n}") for n in range(timeline.FEW)))


def test_few_steps_are_all_unfolded() -> None:
    assert shown(done(done())).steps[0].unfolded


def test_of_many_steps_a_group_that_is_over_is_folded() -> None:
    assert not shown(*many(done(done()))).steps[0].unfolded


@pytest.mark.parametrize(
    "inner",
    [
        node(status="waiting"),
        node(status="failure"),
        node(status="invalid"),
        done(node(status="failure")),
    ],
)
def test_of_many_steps_a_group_with_the_one_that_matters_is_unfolded(inner: Node) -> None:
    assert shown(*many(done(inner))).steps[0].unfolded


@pytest.mark.parametrize("said", [{}, {"status": "waiting", "started_at": T0}])
def test_of_many_steps_a_group_that_is_not_over_is_unfolded(said: dict[str, Any]) -> None:
    assert shown(*many(node("Workflow", node(), **said))).steps[0].unfolded


def test_of_many_steps_a_group_that_was_skipped_is_folded() -> None:
    assert not shown(*many(node("Workflow", node(), status="skipped"))).steps[0].unfolded


def test_of_many_steps_a_group_that_never_ran_is_folded_once_the_run_is_over() -> None:
    assert not shown(*many(node("Workflow", node())), **OVER).steps[0].unfolded


def test_the_step_the_run_is_at_is_marked() -> None:
    rows = shown(done(), node("Workflow", node(status="waiting", ref="here"))).steps
    assert [row.name for row in every(rows) if row.open] == ["here"]


def test_what_lies_too_deep_follows_its_group() -> None:
    deep = node(ref="innermost")
    for level in range(500):
        deep = node("Workflow", deep, ref=f"level {level}")
    names = [row.name for row in every(shown(deep).steps)]
    assert names == [*(f"level {level}" for level in reversed(range(500))), "innermost"]


# --- any tree at all ---------------------------------------------------------------------------

moments = st.none() | st.datetimes(
    datetime(2000, 1, 1), datetime(2199, 1, 1), timezones=st.just(UTC)  # noqa: DTZ001
) | st.integers(-900, 900).map(lambda seconds: T0 + timedelta(seconds=seconds))  # fmt: skip
numbers = st.none() | st.integers(-(2**31), 2**31 - 1)
said_of_any = {
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
    "approvals": numbers,
    "iterations": numbers,
    "about": st.none() | st.text(max_size=5),
    "parallel": st.booleans(),
    "skip": st.booleans(),
}
kinds = st.sampled_from(
    ["Workflow", "LoopWorkflow", "JobRun", "Approval", "Condition", "", "Odd", OMITTED]
)
trees = st.recursive(
    st.builds(node, kinds, **said_of_any),
    lambda inner: st.builds(
        lambda kind, within, said: node(kind, *within, **said),
        kinds,
        st.lists(inner, max_size=5),
        st.fixed_dictionaries(said_of_any),
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


@given(runs, trees, st.sampled_from([None, USUAL]))
def test_the_bars_of_any_tree_stay_on_their_axis(
    run: Run, root: Node, timing: StageTiming | None
) -> None:
    of = timeline.timeline(run, root, timing, NOW)
    for row in every(of.steps):
        if row.bar:
            assert of.axis is not None
            assert 0 <= row.bar.start < row.bar.start + row.bar.length <= of.axis.seconds
            assert 0 <= row.bar.usual <= of.axis.seconds - row.bar.start


@given(runs, trees)
def test_every_step_of_any_tree_is_shown_once(run: Run, root: Node) -> None:
    def number(of: Node) -> int:
        return 1 + sum(number(each) for each in of.steps)

    wrapper = 1 if root.kind in {"Workflow", "LoopWorkflow"} else 0
    rows = list(every(timeline.timeline(run, root, None, NOW).steps))
    assert len(rows) == number(root) - wrapper


# --- the page ----------------------------------------------------------------------------------


@pytest.fixture
def page_of(see: See, stage: Any) -> Any:
    """Open the page of a run with these steps."""

    def open_page(*within: Node, **of_run: Any) -> Any:
        root = factories.node("Workflow", steps=within)
        run = factories.run(stage, steps=msgspec.to_builtins(root), detail_seen_at=NOW, **of_run)
        return see(factories.address(run))

    return open_page


def test_groups_are_lists_in_lists(page_of: Any) -> None:
    html = page_of(node("Workflow", node(ref="inner"), ref="outer"))
    inner = one(html, "[data-steps] > li > details > ol > li")
    assert words(one(inner, "bdi")) == "inner"


def test_a_parallel_group_is_marked_as_such(page_of: Any) -> None:
    html = page_of(node("Workflow", node(), node(), ref="regions", parallel=True))
    assert "2 steps, in parallel" in words(one(html, "[data-steps] summary"))
    assert len(html.css("[data-steps] ol[data-parallel]")) == 1


def test_the_current_step_is_told_to_those_who_see_no_colour(page_of: Any) -> None:
    html = page_of(done(), node(ref="here", status="waiting"))
    assert words(one(html, '[data-steps] li[aria-current="step"] bdi')) == "here"


def test_bars_are_for_the_eyes_alone(page_of: Any) -> None:
    html = page_of(done())
    assert [bar.attributes.get("aria-hidden") for bar in html.css(".steps .bar")] == ["true"]


def test_words_tell_what_the_bar_shows(page_of: Any, stage: Any) -> None:
    StageTiming.objects.create(stage=stage, steps={"migrate": [120, 240]})
    html = page_of(done(ref="migrate", ended_at=at(7)))
    said = one(html, "[data-steps] .took")
    hidden = one(said, "[hidden]")
    told = words(said).replace(words(hidden), "")
    assert told == "7 min 0 s, usually 2 to 4 min, far longer than usual"


def test_no_style_is_written_into_the_page(page_of: Any) -> None:
    assert page_of(done(done(), node(status="waiting", started_at=T0))).css("[style]") == []


def test_an_error_can_be_read_in_full(page_of: Any) -> None:
    html = page_of(node(status="failure", error_message="line\n" * 200, error_code=3))
    error = one(html, "[data-steps] pre")
    assert error.text() == "line\n" * 200 + " (code 3)"
    assert error.attributes["tabindex"] == "0"


def test_steps_kept_by_an_earlier_release_are_shown(see: See, stage: Any) -> None:
    root = msgspec.to_builtins(factories.node("Workflow", steps=(node(ref="build"),)))
    for each in (root, *root["steps"]):
        for added in ("about", "approvals", "iterations"):
            del each[added]
    run = factories.run(stage, steps=root, detail_seen_at=NOW)
    assert words(one(see(factories.address(run)), "[data-steps] bdi")) == "build"
