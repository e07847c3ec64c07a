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

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
_keys = count(1)


def stage(policy: str = "queue") -> Stage:
    return Stage(
        pk=next(_keys), name="Production", pipeline=Pipeline(name="shop"), concurrency_policy=policy
    )


def run(of: Stage, status: str, minutes: float, **more: Any) -> Run:
    """A run created so many minutes ago; one that waits has not started."""
    created = NOW - timedelta(minutes=minutes)
    defaults = {
        "in_flight": True,
        "started_at": None if status in {"queued", "pending"} else created,
    }
    return Run(pk=next(_keys), stage=of, status=status, created_at=created, **defaults | more)


def test_later_waiting_runs_are_queued_behind_in_order() -> None:
    here = stage()
    subject, next_, last = run(here, "running", 9), run(here, "queued", 5), run(here, "pending", 2)
    assert concurrency.related_runs(subject, [last, subject, next_], None).queued_behind == (
        next_,
        last,
    )


def test_allow_policy_queues_no_runs() -> None:
    here = stage("allow")
    earlier, subject, later = (
        run(here, "running", 9),
        run(here, "pending", 5),
        run(here, "pending", 2),
    )
    found = concurrency.related_runs(subject, [earlier, subject, later], None)
    assert (found.queued_ahead, found.queued_behind, found.also_in_flight) == (
        (),
        (),
        (earlier, later),
    )


def test_later_started_run_is_also_in_flight() -> None:
    here = stage("allow")
    subject, other = run(here, "running", 9), run(here, "running", 5)
    found = concurrency.related_runs(subject, [subject, other], None)
    assert (found.queued_behind, found.also_in_flight) == ((), (other,))


def test_earlier_waiting_run_is_not_queued_behind() -> None:
    here = stage()
    subject, earlier = run(here, "running", 5), run(here, "queued", 9)
    found = concurrency.related_runs(subject, [subject, earlier], None)
    assert (found.queued_behind, found.also_in_flight) == ((), (earlier,))


def test_waiting_run_has_earlier_runs_queued_ahead() -> None:
    here = stage()
    first, second, subject = run(here, "running", 9), run(here, "queued", 5), run(here, "queued", 2)
    assert concurrency.related_runs(subject, [subject, second, first], None).queued_ahead == (
        first,
        second,
    )


def test_running_run_has_no_runs_queued_ahead() -> None:
    here = stage("allow")
    earlier, subject = run(here, "running", 9), run(here, "running", 5)
    assert concurrency.related_runs(subject, [subject, earlier], None).queued_ahead == ()


def test_runs_created_at_same_time_are_queued_by_id() -> None:
    here = stage()
    subject, other = run(here, "queued", 5), run(here, "queued", 5)
    assert concurrency.related_runs(subject, [other, subject], None).queued_behind == (other,)
    assert concurrency.related_runs(other, [other, subject], None).queued_ahead == (subject,)


def test_runs_of_other_stages_are_not_queued() -> None:
    subject, other = run(stage(), "queued", 9), run(stage(), "queued", 5)
    found = concurrency.related_runs(subject, [subject, other], None)
    assert (found.queued_ahead, found.queued_behind, found.also_in_flight) == ((), (), (other,))


def test_concluded_run_has_no_runs_queued_behind() -> None:
    here = stage()
    subject, waiting = run(here, "success", 9, in_flight=False), run(here, "queued", 5)
    found = concurrency.related_runs(subject, [waiting], None)
    assert (found.queued_behind, found.also_in_flight, found.policy_text) == ((), (waiting,), "")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("allow", "No run waits for this one: runs of this stage may run at the same time."),
        ("queue", "Runs of this stage run one after another."),
        ("forbid", "Requests for another run are ignored while this one is in flight."),
        (
            "latest",
            (
                "Concurrency policy: latest. Presumably a waiting run is dropped when a newer "
                "one is created; Northflank does not document it."
            ),
        ),
        (
            "replace",
            (
                "Concurrency policy: replace. Presumably a newer run aborts and replaces this "
                "one; Northflank does not document it."
            ),
        ),
        ("something-new", "Concurrency policy: something-new."),
        ("", ""),
    ],
)
def test_concurrency_policy_has_its_explanation(policy: str, said: str) -> None:
    subject = run(stage(policy), "running", 9)
    assert concurrency.related_runs(subject, [subject], None).policy_text == said


def test_last_success_is_latest_success_of_stage() -> None:
    here = stage()
    good = run(here, "success", 99, in_flight=False)
    assert (
        concurrency.related_runs(
            run(here, "running", 9), [], StageTiming(last_success=good)
        ).last_success
        == good
    )


@pytest.mark.parametrize("policy", ["forbid", "replace"])
def test_forbid_or_replace_policy_queues_only_queued_runs(policy: str) -> None:
    here = stage(policy)
    subject, pending, queued = (
        run(here, "running", 9),
        run(here, "pending", 5),
        run(here, "queued", 2),
    )
    found = concurrency.related_runs(subject, [subject, pending, queued], None)
    assert (found.queued_behind, found.also_in_flight) == ((queued,), (pending,))
    assert concurrency.related_runs(pending, [subject, pending, queued], None).queued_ahead == ()


@pytest.mark.parametrize("policy", ["queue", "latest", "something-new", ""])
def test_other_policies_queue_all_runs_not_started(policy: str) -> None:
    here = stage(policy)
    subject, pending, queued = (
        run(here, "running", 9),
        run(here, "pending", 5),
        run(here, "queued", 2),
    )
    assert concurrency.related_runs(subject, [subject, pending, queued], None).queued_behind == (
        pending,
        queued,
    )


# --- what was dropped --------------------------------------------------------------------------


def ended(of: Stage, status: str, minutes: float, until: float, **more: Any) -> Run:
    """A run created and concluded so many minutes ago; one that was skipped never started."""
    defaults = {
        "in_flight": False,
        "concluded": True,
        "concluded_at": NOW - timedelta(minutes=until),
    }
    defaults |= {"started_at": None} if status == "skipped" else {}
    return run(of, status, minutes, **defaults | more)


def finished_runs(*runs: Run, aborted_here: tuple[Run, ...] = ()) -> FinishedRuns:
    runs = tuple(sorted(runs, key=lambda each: (each.created_at, each.pk), reverse=True))
    return FinishedRuns(runs, frozenset(each.pk for each in aborted_here))


def test_forbid_policy_lists_runs_skipped_meanwhile_latest_first() -> None:
    here = stage("forbid")
    subject = run(here, "running", 30)
    before, first, second = (ended(here, "skipped", ago, ago) for ago in (40, 20, 10))
    found = concurrency.related_runs(subject, [subject], None, finished_runs(before, first, second))
    assert found.skipped_meanwhile == (second, first)
    assert found.skipped_text == "2 runs skipped since this run was created."
    assert found.queued_behind == ()


def test_forbid_policy_lists_runs_skipped_during_concluded_run() -> None:
    here = stage("forbid")
    subject = ended(here, "failure", 30, 15)
    before, during, after = (ended(here, "skipped", ago, ago) for ago in (40, 20, 10))
    found = concurrency.related_runs(subject, [], None, finished_runs(before, during, after))
    assert found.skipped_meanwhile == (during,)
    assert found.skipped_text == "1 run skipped while this run was in flight."


def test_removed_run_lists_runs_skipped_until_last_read() -> None:
    here = stage("forbid")
    heard = NOW - timedelta(minutes=15)
    subject = run(here, "running", 30, in_flight=False, removed_at=NOW, synced_at=heard)
    during, after = ended(here, "skipped", 20, 20), ended(here, "skipped", 10, 10)
    assert concurrency.related_runs(
        subject, [], None, finished_runs(during, after)
    ).skipped_meanwhile == (during,)


def test_run_without_end_time_lists_no_skipped_runs() -> None:
    here = stage("forbid")
    subject = ended(here, "success", 30, 15, concluded_at=None)
    assert (
        concurrency.related_runs(
            subject, [], None, finished_runs(ended(here, "skipped", 20, 20))
        ).skipped_meanwhile
        == ()
    )


@pytest.mark.parametrize("policy", ["allow", "queue", "something-new", ""])
def test_policy_without_skipping_lists_no_skipped_runs(policy: str) -> None:
    here = stage(policy)
    subject, other = run(here, "running", 30), ended(here, "skipped", 20, 10)
    assert (
        concurrency.related_runs(subject, [subject], None, finished_runs(other)).skipped_meanwhile
        == ()
    )
    assert concurrency.related_runs(other, [subject], None, finished_runs()).superseded_by is None


@pytest.mark.parametrize("status", ["success", "failure", "aborted", "unknown"])
def test_forbid_policy_lists_only_runs_with_status_skipped(status: str) -> None:
    here = stage("forbid")
    subject = run(here, "running", 30)
    assert (
        concurrency.related_runs(
            subject, [subject], None, finished_runs(ended(here, status, 20, 10))
        ).skipped_meanwhile
        == ()
    )


def test_run_skipped_after_start_is_not_listed_as_skipped_meanwhile() -> None:
    here = stage("forbid")
    subject, other = run(here, "running", 30), ended(here, "skipped", 20, 10, started_at=NOW)
    assert (
        concurrency.related_runs(subject, [subject], None, finished_runs(other)).skipped_meanwhile
        == ()
    )


def test_skipped_run_is_superseded_by_run_in_flight_then() -> None:
    here = stage("forbid")
    earlier, there = ended(here, "success", 50, 40), run(here, "running", 30)
    also, subject = ended(here, "skipped", 20, 20), ended(here, "skipped", 10, 10)
    found = concurrency.related_runs(subject, [there], None, finished_runs(earlier, also))
    assert found.superseded_by == there
    assert found.superseded_text == "Another run was in flight when it was created."
    assert found.skipped_meanwhile == ()


def test_skipped_run_is_superseded_by_run_concluded_since() -> None:
    here = stage("forbid")
    there, subject = ended(here, "success", 30, 5), ended(here, "skipped", 10, 10)
    assert concurrency.related_runs(subject, [], None, finished_runs(there)).superseded_by == there


def test_skipped_run_with_several_runs_in_flight_has_no_superseding_run() -> None:
    here = stage("forbid")
    one, other, subject = (
        run(here, "running", 40),
        run(here, "running", 30),
        ended(here, "skipped", 9, 9),
    )
    found = concurrency.related_runs(subject, [one, other], None, finished_runs())
    assert (found.superseded_by, found.superseded_text) == (None, "")


def test_skipped_run_with_no_run_in_flight_has_no_superseding_run() -> None:
    here = stage("forbid")
    subject = ended(here, "skipped", 10, 10)
    later = run(here, "running", 5)
    assert (
        concurrency.related_runs(
            subject, [later], None, finished_runs(ended(here, "success", 30, 20))
        ).superseded_by
        is None
    )


def test_latest_policy_supersedes_waiting_runs_by_newer_ones() -> None:
    here = stage("latest")
    front, newest = run(here, "running", 30), run(here, "queued", 5)
    first, second = ended(here, "skipped", 20, 10), ended(here, "skipped", 10, 5)
    in_flight_runs = [front, newest]
    found = concurrency.related_runs(front, in_flight_runs, None, finished_runs(first, second))
    assert (found.queued_behind, found.skipped_meanwhile) == ((newest,), (second, first))
    assert found.skipped_text == (
        "2 runs probably superseded by a newer one since this run was created."
    )
    assert concurrency.related_runs(
        newest, in_flight_runs, None, finished_runs(first, second)
    ).skipped_meanwhile == (second,)
    found = concurrency.related_runs(first, in_flight_runs, None, finished_runs(second))
    assert (found.superseded_by, found.skipped_meanwhile) == (second, ())
    assert found.superseded_text == "Probably superseded by a newer run."
    found = concurrency.related_runs(second, in_flight_runs, None, finished_runs(first))
    assert (found.superseded_by, found.skipped_meanwhile) == (newest, ())


def test_replace_policy_supersedes_running_run() -> None:
    here = stage("replace")
    replaced, subject = ended(here, "aborted", 30, 9), run(here, "running", 10)
    assert concurrency.related_runs(
        subject, [subject], None, finished_runs(replaced)
    ).skipped_meanwhile == (replaced,)
    assert (
        concurrency.related_runs(replaced, [subject], None, finished_runs()).superseded_by
        == subject
    )


def test_replace_policy_ignores_run_aborted_long_after_newer_one() -> None:
    here = stage("replace")
    aborted, subject = ended(here, "aborted", 30, 5), run(here, "running", 10)
    assert (
        concurrency.related_runs(subject, [subject], None, finished_runs(aborted)).skipped_meanwhile
        == ()
    )
    assert concurrency.related_runs(aborted, [subject], None, finished_runs()).superseded_by is None


def test_replace_policy_ignores_run_aborted_from_dashboard() -> None:
    here = stage("replace")
    aborted, subject = ended(here, "aborted", 30, 9), run(here, "running", 10)
    asked = finished_runs(aborted, aborted_here=(aborted,))
    assert concurrency.related_runs(subject, [subject], None, asked).skipped_meanwhile == ()
    assert (
        concurrency.related_runs(
            aborted, [subject], None, finished_runs(aborted_here=(aborted,))
        ).superseded_by
        is None
    )


@pytest.mark.parametrize("policy", ["latest", "replace"])
def test_latest_or_replace_policy_without_newer_run_has_no_superseding_run(policy: str) -> None:
    here = stage(policy)
    front, other, later = (
        run(here, "running", 30), ended(here, "skipped", 20, 10), run(here, "queued", 5)
    )  # fmt: skip
    assert (
        concurrency.related_runs(
            front, [front, later], None, finished_runs(other)
        ).skipped_meanwhile
        == ()
    )
    assert (
        concurrency.related_runs(other, [front, later], None, finished_runs()).superseded_by is None
    )


def test_run_concluded_before_creation_has_no_superseding_run() -> None:
    here = stage("latest")
    older, subject = run(here, "running", 30), ended(here, "skipped", 10, 20)
    assert concurrency.related_runs(subject, [older], None, finished_runs()).superseded_by is None


def test_skipped_count_of_incomplete_history_is_at_least() -> None:
    here = stage("forbid")
    subject, other = run(here, "running", 30), ended(here, "skipped", 20, 20)
    found = concurrency.related_runs(
        subject, [subject], None, FinishedRuns((other,), is_complete=False)
    )
    assert found.skipped_text == "At least 1 run skipped since this run was created."


def test_superseded_text_comes_before_skipped_text() -> None:
    here = stage("replace")
    first, subject, last = (
        ended(here, "aborted", 30, 20), ended(here, "aborted", 20, 10), run(here, "running", 10)
    )  # fmt: skip
    assert concurrency.related_runs(subject, [last], None, finished_runs(first)).skip_summary == (
        "Probably superseded by a newer run. 1 run probably superseded by a newer one "
        "while this run was in flight."
    )


@st.composite
def stage_histories(draw: st.DrawFn) -> list[Run]:
    """What has gone on in a stage."""
    here = stage(draw(st.sampled_from(["allow", "queue", "forbid", "latest", "replace", "new"])))
    runs = []
    for _ in range(draw(st.integers(1, 8))):
        minutes = draw(st.integers(0, 20))
        if draw(st.booleans()):
            runs.append(run(here, draw(st.sampled_from(["running", "queued", "pending"])), minutes))
        else:
            status = draw(st.sampled_from(["success", "aborted", "skipped"]))
            until = draw(st.integers(-1, 21))  # clocks may be off
            runs.append(ended(here, status, minutes, until))
    return runs


@given(stage_histories())
def test_related_runs_of_two_runs_are_consistent(runs: list[Run]) -> None:
    def related_to(subject: Run) -> concurrency.RelatedRuns:
        others = finished_runs(
            *(each for each in runs if not each.in_flight and each.pk != subject.pk)
        )
        return concurrency.related_runs(
            subject, [each for each in runs if each.in_flight], None, others
        )

    for subject in runs:
        found = related_to(subject)
        groups = (
            found.queued_ahead,
            found.queued_behind,
            found.also_in_flight,
            found.skipped_meanwhile,
        )
        named = [each.pk for group in groups for each in group]
        assert subject.pk not in named
        assert len(named) == len(set(named))
        assert bool(found.skipped_meanwhile) == bool(found.skipped_text)
        assert (found.superseded_by is None) == (not found.superseded_text)
        for each in found.skipped_meanwhile:
            assert each.status in {"skipped", "aborted"}
        to = found.superseded_by
        if to is not None and to.status != "skipped" and subject.concluded_at is not None:
            lasted = to.in_flight or (to.concluded_at or NOW) >= subject.concluded_at
            forbids = subject.stage.concurrency_policy == "forbid"
            assert (subject in related_to(to).skipped_meanwhile) or not (lasted or forbids)
