"""Related runs: those that a run holds up, and others in flight."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Pipeline, Run, Stage, StageTiming
from dashboard.runs import concurrency
from tests.support.messages import keys, keys_and_params

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
_row_keys = count(1)


def stage(policy: str = "queue") -> Stage:
    return Stage(
        pk=next(_row_keys),
        name="Production",
        pipeline=Pipeline(name="shop"),
        concurrency_policy=policy,
    )


def run(stage: Stage, status: str, minutes: float, **fields: Any) -> Run:
    """A run created `minutes` ago; one that waits has not started."""
    created_at = NOW - timedelta(minutes=minutes)
    defaults = {
        "in_flight": True,
        "started_at": None if status in {"queued", "pending"} else created_at,
    }
    return Run(
        pk=next(_row_keys), stage=stage, status=status, created_at=created_at, **defaults | fields
    )


def test_later_waiting_runs_are_queued_behind_in_order() -> None:
    own_stage = stage()
    subject, second, third = (
        run(own_stage, "running", 9),
        run(own_stage, "queued", 5),
        run(own_stage, "pending", 2),
    )
    assert concurrency.related_runs(subject, [third, subject, second], None).blocks == (
        second,
        third,
    )


def test_allow_policy_queues_no_runs() -> None:
    own_stage = stage("allow")
    earlier, subject, later = (
        run(own_stage, "running", 9),
        run(own_stage, "pending", 5),
        run(own_stage, "pending", 2),
    )
    related = concurrency.related_runs(subject, [earlier, subject, later], None)
    assert (related.blocked_by, related.blocks, related.also_in_flight) == (
        (),
        (),
        (earlier, later),
    )


def test_later_started_run_is_also_in_flight() -> None:
    own_stage = stage("allow")
    subject, other = run(own_stage, "running", 9), run(own_stage, "running", 5)
    related = concurrency.related_runs(subject, [subject, other], None)
    assert (related.blocks, related.also_in_flight) == ((), (other,))


def test_earlier_waiting_run_is_not_queued_behind() -> None:
    own_stage = stage()
    subject, earlier = run(own_stage, "running", 5), run(own_stage, "queued", 9)
    related = concurrency.related_runs(subject, [subject, earlier], None)
    assert (related.blocks, related.also_in_flight) == ((), (earlier,))


def test_waiting_run_has_earlier_runs_queued_ahead() -> None:
    own_stage = stage()
    first, second, subject = (
        run(own_stage, "running", 9),
        run(own_stage, "queued", 5),
        run(own_stage, "queued", 2),
    )
    assert concurrency.related_runs(subject, [subject, second, first], None).blocked_by == (
        first,
        second,
    )


def test_running_run_has_no_runs_queued_ahead() -> None:
    own_stage = stage("allow")
    earlier, subject = run(own_stage, "running", 9), run(own_stage, "running", 5)
    assert concurrency.related_runs(subject, [subject, earlier], None).blocked_by == ()


def test_runs_of_other_stages_are_not_queued() -> None:
    subject, other = run(stage(), "queued", 9), run(stage(), "queued", 5)
    related = concurrency.related_runs(subject, [subject, other], None)
    assert (related.blocked_by, related.blocks, related.also_in_flight) == (
        (),
        (),
        (other,),
    )


def test_concluded_run_has_no_runs_queued_behind() -> None:
    own_stage = stage()
    subject, waiting = run(own_stage, "success", 9, in_flight=False), run(own_stage, "queued", 5)
    related = concurrency.related_runs(subject, [waiting], None)
    assert (related.blocks, related.also_in_flight, related.policy_text) == (
        (),
        (waiting,),
        "",
    )


def test_removed_run_holds_up_no_other() -> None:
    own_stage = stage()
    subject, waiting = run(own_stage, "running", 9, removed_at=NOW), run(own_stage, "queued", 5)
    related = concurrency.related_runs(subject, [subject, waiting], None)
    assert (related.blocks, related.also_in_flight, related.policy_text) == (
        (),
        (waiting,),
        "",
    )


def test_removed_run_waits_for_no_other() -> None:
    own_stage = stage()
    earlier, subject = run(own_stage, "running", 9), run(own_stage, "queued", 5, removed_at=NOW)
    related = concurrency.related_runs(subject, [subject, earlier], None)
    assert (related.blocked_by, related.also_in_flight) == ((), (earlier,))


@pytest.mark.parametrize(
    ("policy", "key"), [("queue", "queue"), ("something-new", "other_policy"), ("", "")]
)
def test_concurrency_policy_has_its_explanation(policy: str, key: str) -> None:
    subject = run(stage(policy), "running", 9)
    assert keys(concurrency.related_runs(subject, [subject], None).policy_text) == key


def test_last_success_is_latest_success_of_stage() -> None:
    own_stage = stage()
    success = run(own_stage, "success", 99, in_flight=False)
    assert (
        concurrency.related_runs(
            run(own_stage, "running", 9), [], StageTiming(last_success=success)
        ).last_success
        == success
    )


@pytest.mark.parametrize("policy", ["forbid", "replace"])
def test_forbid_or_replace_policy_queues_no_run(policy: str) -> None:
    own_stage = stage(policy)
    subject, queued = run(own_stage, "running", 9), run(own_stage, "queued", 2)
    related = concurrency.related_runs(subject, [subject, queued], None)
    assert (related.blocks, related.also_in_flight) == ((), (queued,))
    assert concurrency.related_runs(queued, [subject, queued], None).blocked_by == ()


@pytest.mark.parametrize("policy", ["queue", "latest", "something-new", ""])
def test_other_policies_queue_all_runs_not_started(policy: str) -> None:
    own_stage = stage(policy)
    subject, pending, queued = (
        run(own_stage, "running", 9),
        run(own_stage, "pending", 5),
        run(own_stage, "queued", 2),
    )
    assert concurrency.related_runs(subject, [subject, pending, queued], None).blocks == (
        pending,
        queued,
    )


@st.composite
def stage_histories(draw: st.DrawFn) -> list[Run]:
    """Arbitrary runs of one stage."""
    own_stage = stage(
        draw(st.sampled_from(["allow", "queue", "forbid", "latest", "replace", "new"]))
    )
    runs = []
    for _ in range(draw(st.integers(1, 8))):
        minutes = draw(st.integers(0, 20))
        if draw(st.booleans()):
            runs.append(
                run(own_stage, draw(st.sampled_from(["running", "queued", "pending"])), minutes)
            )
        else:
            status = draw(st.sampled_from(["success", "aborted", "skipped"]))
            runs.append(run(own_stage, status, minutes, in_flight=False))
    return runs


@given(stage_histories())
def test_a_run_in_flight_has_one_relation_to_each_other_one(runs: list[Run]) -> None:
    in_flight = [run for run in runs if run.in_flight]
    for subject in runs:
        related = concurrency.related_runs(subject, in_flight, None)
        groups = related.blocked_by, related.blocks, related.also_in_flight
        listed_keys = sorted(run.pk for group in groups for run in group)
        assert listed_keys == [run.pk for run in in_flight if run.pk != subject.pk]


@pytest.mark.parametrize(("in_flight", "key"), [(True, "skipped_since"), (False, "skipped_while")])
def test_runs_skipped_meanwhile_are_counted(in_flight: bool, key: str) -> None:
    own_stage = stage("forbid")
    subject = run(own_stage, "running", 30, in_flight=in_flight)
    skipped = [run(own_stage, "skipped", minutes, in_flight=False) for minutes in (20, 10)]
    related = concurrency.related_runs(subject, [], None, skipped)
    assert keys_and_params(related.skipped_text) == (key, {"n": 2})
