"""Related runs: those that a run holds up, and others in flight."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Pipeline, Run, Stage, StageTiming
from dashboard.runs import concurrency
from dashboard.runs.concurrency import FinishedRuns
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
    assert concurrency.related_runs(subject, [third, subject, second], None).queued_behind == (
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
    assert (related.queued_ahead, related.queued_behind, related.also_in_flight) == (
        (),
        (),
        (earlier, later),
    )


def test_later_started_run_is_also_in_flight() -> None:
    own_stage = stage("allow")
    subject, other = run(own_stage, "running", 9), run(own_stage, "running", 5)
    related = concurrency.related_runs(subject, [subject, other], None)
    assert (related.queued_behind, related.also_in_flight) == ((), (other,))


def test_earlier_waiting_run_is_not_queued_behind() -> None:
    own_stage = stage()
    subject, earlier = run(own_stage, "running", 5), run(own_stage, "queued", 9)
    related = concurrency.related_runs(subject, [subject, earlier], None)
    assert (related.queued_behind, related.also_in_flight) == ((), (earlier,))


def test_waiting_run_has_earlier_runs_queued_ahead() -> None:
    own_stage = stage()
    first, second, subject = (
        run(own_stage, "running", 9),
        run(own_stage, "queued", 5),
        run(own_stage, "queued", 2),
    )
    assert concurrency.related_runs(subject, [subject, second, first], None).queued_ahead == (
        first,
        second,
    )


def test_running_run_has_no_runs_queued_ahead() -> None:
    own_stage = stage("allow")
    earlier, subject = run(own_stage, "running", 9), run(own_stage, "running", 5)
    assert concurrency.related_runs(subject, [subject, earlier], None).queued_ahead == ()


def test_runs_of_other_stages_are_not_queued() -> None:
    subject, other = run(stage(), "queued", 9), run(stage(), "queued", 5)
    related = concurrency.related_runs(subject, [subject, other], None)
    assert (related.queued_ahead, related.queued_behind, related.also_in_flight) == (
        (),
        (),
        (other,),
    )


def test_concluded_run_has_no_runs_queued_behind() -> None:
    own_stage = stage()
    subject, waiting = run(own_stage, "success", 9, in_flight=False), run(own_stage, "queued", 5)
    related = concurrency.related_runs(subject, [waiting], None)
    assert (related.queued_behind, related.also_in_flight, related.policy_text) == (
        (),
        (waiting,),
        "",
    )


def test_removed_run_holds_up_no_other() -> None:
    own_stage = stage()
    subject, waiting = run(own_stage, "running", 9, removed_at=NOW), run(own_stage, "queued", 5)
    related = concurrency.related_runs(subject, [subject, waiting], None)
    assert (related.queued_behind, related.also_in_flight, related.policy_text) == (
        (),
        (waiting,),
        "",
    )


def test_removed_run_waits_for_no_other() -> None:
    own_stage = stage()
    earlier, subject = run(own_stage, "running", 9), run(own_stage, "queued", 5, removed_at=NOW)
    related = concurrency.related_runs(subject, [subject, earlier], None)
    assert (related.queued_ahead, related.also_in_flight) == ((), (earlier,))


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
def test_forbid_or_replace_policy_queues_only_queued_runs(policy: str) -> None:
    own_stage = stage(policy)
    subject, pending, queued = (
        run(own_stage, "running", 9),
        run(own_stage, "pending", 5),
        run(own_stage, "queued", 2),
    )
    related = concurrency.related_runs(subject, [subject, pending, queued], None)
    assert (related.queued_behind, related.also_in_flight) == ((queued,), (pending,))
    assert concurrency.related_runs(pending, [subject, pending, queued], None).queued_ahead == ()


@pytest.mark.parametrize("policy", ["queue", "latest", "something-new", ""])
def test_other_policies_queue_all_runs_not_started(policy: str) -> None:
    own_stage = stage(policy)
    subject, pending, queued = (
        run(own_stage, "running", 9),
        run(own_stage, "pending", 5),
        run(own_stage, "queued", 2),
    )
    assert concurrency.related_runs(subject, [subject, pending, queued], None).queued_behind == (
        pending,
        queued,
    )


# --- skipped and superseded runs ---------------------------------------------------------------


def ended_run(
    stage: Stage, status: str, minutes: float, ended_minutes_ago: float, **fields: Any
) -> Run:
    """A run created and concluded the given minutes ago; a skipped one never started."""
    defaults = {
        "in_flight": False,
        "concluded": True,
        "concluded_at": NOW - timedelta(minutes=ended_minutes_ago),
    }
    defaults |= {"started_at": None} if status == "skipped" else {}
    return run(stage, status, minutes, **defaults | fields)


def finished_runs(*runs: Run, aborted_here: tuple[Run, ...] = ()) -> FinishedRuns:
    runs = tuple(sorted(runs, key=lambda run: (run.created_at, run.pk), reverse=True))
    return FinishedRuns(runs, frozenset(run.pk for run in aborted_here))


def test_forbid_policy_lists_runs_skipped_meanwhile_latest_first() -> None:
    own_stage = stage("forbid")
    subject = run(own_stage, "running", 30)
    before, first, second = (
        ended_run(own_stage, "skipped", minutes, minutes) for minutes in (40, 20, 10)
    )
    related = concurrency.related_runs(
        subject, [subject], None, finished_runs(before, first, second)
    )
    assert related.skipped_meanwhile == (second, first)
    assert keys_and_params(related.skipped_text) == ("skipped_since", {"n": 2, "count": 2})
    assert related.queued_behind == ()


def test_forbid_policy_lists_runs_skipped_during_concluded_run() -> None:
    own_stage = stage("forbid")
    subject = ended_run(own_stage, "failure", 30, 15)
    before, during, after = (
        ended_run(own_stage, "skipped", minutes, minutes) for minutes in (40, 20, 10)
    )
    related = concurrency.related_runs(subject, [], None, finished_runs(before, during, after))
    assert related.skipped_meanwhile == (during,)
    assert keys_and_params(related.skipped_text) == ("skipped_while", {"n": 1, "count": 1})


@pytest.mark.parametrize("in_flight", [True, False], ids=["removed", "dismissed"])
def test_removed_run_lists_runs_skipped_until_last_read(in_flight: bool) -> None:
    own_stage = stage("forbid")
    last_read = NOW - timedelta(minutes=15)
    times = {"removed_at": NOW, "synced_at": last_read}
    subject = run(own_stage, "running", 30, in_flight=in_flight, **times)
    during, after = ended_run(own_stage, "skipped", 20, 20), ended_run(own_stage, "skipped", 10, 10)
    related = concurrency.related_runs(subject, [], None, finished_runs(during, after))
    assert related.skipped_meanwhile == (during,)
    assert keys(related.skipped_text) == "skipped_while"


def test_run_without_end_time_lists_no_skipped_runs() -> None:
    own_stage = stage("forbid")
    subject = ended_run(own_stage, "success", 30, 15, concluded_at=None)
    assert (
        concurrency.related_runs(
            subject, [], None, finished_runs(ended_run(own_stage, "skipped", 20, 20))
        ).skipped_meanwhile
        == ()
    )


@pytest.mark.parametrize("status", ["success", "failure", "aborted", "unknown"])
def test_forbid_policy_lists_only_runs_with_status_skipped(status: str) -> None:
    own_stage = stage("forbid")
    subject = run(own_stage, "running", 30)
    assert (
        concurrency.related_runs(
            subject, [subject], None, finished_runs(ended_run(own_stage, status, 20, 10))
        ).skipped_meanwhile
        == ()
    )


def test_skipped_run_is_superseded_by_run_in_flight_then() -> None:
    own_stage = stage("forbid")
    earlier, in_flight = ended_run(own_stage, "success", 50, 40), run(own_stage, "running", 30)
    other_skipped, subject = (
        ended_run(own_stage, "skipped", 20, 20),
        ended_run(own_stage, "skipped", 10, 10),
    )
    related = concurrency.related_runs(
        subject, [in_flight], None, finished_runs(earlier, other_skipped)
    )
    assert related.superseded_by == in_flight
    assert keys(related.superseded_text) == "skipped"
    assert related.skipped_meanwhile == ()


def test_skipped_run_is_superseded_by_run_concluded_since() -> None:
    own_stage = stage("forbid")
    concluded, subject = (
        ended_run(own_stage, "success", 30, 5),
        ended_run(own_stage, "skipped", 10, 10),
    )
    assert (
        concurrency.related_runs(subject, [], None, finished_runs(concluded)).superseded_by
        == concluded
    )


def test_skipped_run_with_several_runs_in_flight_has_no_superseding_run() -> None:
    own_stage = stage("forbid")
    first, second, subject = (
        run(own_stage, "running", 40),
        run(own_stage, "running", 30),
        ended_run(own_stage, "skipped", 9, 9),
    )
    related = concurrency.related_runs(subject, [first, second], None, finished_runs())
    assert (related.superseded_by, related.superseded_text) == (None, "")


def test_latest_policy_supersedes_waiting_runs_by_newer_ones() -> None:
    own_stage = stage("latest")
    front, newest = run(own_stage, "running", 30), run(own_stage, "queued", 5)
    first, second = ended_run(own_stage, "skipped", 20, 10), ended_run(own_stage, "skipped", 10, 5)
    in_flight_runs = [front, newest]
    related = concurrency.related_runs(front, in_flight_runs, None, finished_runs(first, second))
    assert (related.queued_behind, related.skipped_meanwhile) == ((newest,), (second, first))
    assert keys_and_params(related.skipped_text) == ("superseded_since", {"n": 2, "count": 2})
    assert concurrency.related_runs(
        newest, in_flight_runs, None, finished_runs(first, second)
    ).skipped_meanwhile == (second,)
    related = concurrency.related_runs(first, in_flight_runs, None, finished_runs(second))
    assert (related.superseded_by, related.skipped_meanwhile) == (second, ())
    assert keys(related.superseded_text) == "superseded"
    related = concurrency.related_runs(second, in_flight_runs, None, finished_runs(first))
    assert (related.superseded_by, related.skipped_meanwhile) == (newest, ())


def test_replace_policy_supersedes_running_run() -> None:
    own_stage = stage("replace")
    replaced, subject = ended_run(own_stage, "aborted", 30, 9), run(own_stage, "running", 10)
    assert concurrency.related_runs(
        subject, [subject], None, finished_runs(replaced)
    ).skipped_meanwhile == (replaced,)
    assert (
        concurrency.related_runs(replaced, [subject], None, finished_runs()).superseded_by
        == subject
    )


def test_replace_policy_ignores_run_aborted_from_dashboard() -> None:
    own_stage = stage("replace")
    aborted, subject = ended_run(own_stage, "aborted", 30, 9), run(own_stage, "running", 10)
    finished = finished_runs(aborted, aborted_here=(aborted,))
    assert concurrency.related_runs(subject, [subject], None, finished).skipped_meanwhile == ()
    assert (
        concurrency.related_runs(
            aborted, [subject], None, finished_runs(aborted_here=(aborted,))
        ).superseded_by
        is None
    )


@pytest.mark.parametrize("policy", ["latest", "replace"])
def test_latest_or_replace_policy_without_newer_run_has_no_superseding_run(policy: str) -> None:
    own_stage = stage(policy)
    front, other, later = (
        run(own_stage, "running", 30),
        ended_run(own_stage, "skipped", 20, 10),
        run(own_stage, "queued", 5),
    )
    assert (
        concurrency.related_runs(
            front, [front, later], None, finished_runs(other)
        ).skipped_meanwhile
        == ()
    )
    assert (
        concurrency.related_runs(other, [front, later], None, finished_runs()).superseded_by is None
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
            ended_minutes_ago = draw(st.integers(-1, 21))  # clocks may differ
            runs.append(ended_run(own_stage, status, minutes, ended_minutes_ago))
    return runs


@given(stage_histories())
def test_related_runs_of_two_runs_are_consistent(runs: list[Run]) -> None:
    def related_to(subject: Run) -> concurrency.RelatedRuns:
        others = finished_runs(*(run for run in runs if not run.in_flight and run.pk != subject.pk))
        return concurrency.related_runs(
            subject, [run for run in runs if run.in_flight], None, others
        )

    for subject in runs:
        related = related_to(subject)
        groups = (
            related.queued_ahead,
            related.queued_behind,
            related.also_in_flight,
            related.skipped_meanwhile,
        )
        listed_keys = [run.pk for group in groups for run in group]
        assert subject.pk not in listed_keys
        assert len(listed_keys) == len(set(listed_keys))
        assert bool(related.skipped_meanwhile) == bool(related.skipped_text)
        assert (related.superseded_by is None) == (not related.superseded_text)
        for run in related.skipped_meanwhile:
            assert run.status in {"skipped", "aborted"}
        superseding = related.superseded_by
        if (
            superseding is not None
            and superseding.status != "skipped"
            and subject.concluded_at is not None
        ):
            was_in_flight = (
                superseding.in_flight or (superseding.concluded_at or NOW) >= subject.concluded_at
            )
            forbids = subject.stage.concurrency_policy == "forbid"
            assert (subject in related_to(superseding).skipped_meanwhile) or not (
                was_in_flight or forbids
            )
