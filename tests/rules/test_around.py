"""What a run holds up, and what else goes on around it."""

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Pipeline, Run, Stage, StageTiming
from dashboard.runs import concurrency
from dashboard.runs.concurrency import Past

NOW = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
_keys = count(1)


def stage(policy: str = "queue") -> Stage:
    return Stage(
        pk=next(_keys), name="Production", pipeline=Pipeline(name="shop"), concurrency_policy=policy
    )


def run(of: Stage, status: str, minutes: float, **more: Any) -> Run:
    """A run created so many minutes ago; one that waits has not started."""
    created = NOW - timedelta(minutes=minutes)
    usual = {"in_flight": True, "started_at": None if status in {"queued", "pending"} else created}
    return Run(pk=next(_keys), stage=of, status=status, created_at=created, **usual | more)


def test_later_runs_that_have_not_started_wait_behind_it_the_next_first() -> None:
    here = stage()
    it, next_, last = run(here, "running", 9), run(here, "queued", 5), run(here, "pending", 2)
    assert concurrency.of(it, [last, it, next_], None).behind == (next_, last)


def test_where_runs_go_on_side_by_side_nobody_waits_for_anybody() -> None:
    here = stage("allow")
    earlier, it, later = run(here, "running", 9), run(here, "pending", 5), run(here, "pending", 2)
    found = concurrency.of(it, [earlier, it, later], None)
    assert (found.before, found.behind, found.beside) == ((), (), (earlier, later))


def test_a_later_run_that_has_started_goes_on_beside_it() -> None:
    here = stage("allow")
    it, other = run(here, "running", 9), run(here, "running", 5)
    found = concurrency.of(it, [it, other], None)
    assert (found.behind, found.beside) == ((), (other,))


def test_an_earlier_run_that_waits_does_not_wait_for_it() -> None:
    here = stage()
    it, earlier = run(here, "running", 5), run(here, "queued", 9)
    found = concurrency.of(it, [it, earlier], None)
    assert (found.behind, found.beside) == ((), (earlier,))


def test_a_run_that_waits_has_the_earlier_ones_before_it() -> None:
    here = stage()
    first, second, it = run(here, "running", 9), run(here, "queued", 5), run(here, "queued", 2)
    assert concurrency.of(it, [it, second, first], None).before == (first, second)


def test_a_run_under_way_waits_for_nobody() -> None:
    here = stage("allow")
    earlier, it = run(here, "running", 9), run(here, "running", 5)
    assert concurrency.of(it, [it, earlier], None).before == ()


def test_of_two_created_at_once_the_one_heard_of_later_waits() -> None:
    here = stage()
    it, other = run(here, "queued", 5), run(here, "queued", 5)
    assert concurrency.of(it, [other, it], None).behind == (other,)
    assert concurrency.of(other, [other, it], None).before == (it,)


def test_other_stages_neither_wait_nor_are_waited_for() -> None:
    it, other = run(stage(), "queued", 9), run(stage(), "queued", 5)
    found = concurrency.of(it, [it, other], None)
    assert (found.before, found.behind, found.beside) == ((), (), (other,))


def test_nobody_waits_for_a_run_that_has_ended() -> None:
    here = stage()
    it, waiting = run(here, "success", 9, in_flight=False), run(here, "queued", 5)
    found = concurrency.of(it, [waiting], None)
    assert (found.behind, found.beside, found.policy) == ((), (waiting,), "")


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ("allow", "Nothing has to wait for it: runs of this stage may go on side by side."),
        ("queue", "Runs of this stage wait for each other."),
        ("forbid", "Requests for another run are ignored while this one is under way."),
        (
            "latest",
            (
                "Concurrency policy: latest. As far as known: a run that waits is dropped when a "
                "newer one comes; Northflank does not document it."
            ),
        ),
        (
            "replace",
            (
                "Concurrency policy: replace. As far as known: a newer run takes the place of this "
                "one, which is then aborted; Northflank does not document it."
            ),
        ),
        ("something-new", "Concurrency policy: something-new."),
        ("", ""),
    ],
)
def test_the_policy_says_what_it_means_for_others(policy: str, said: str) -> None:
    it = run(stage(policy), "running", 9)
    assert concurrency.of(it, [it], None).policy == said


def test_the_last_good_run_is_the_stages_latest_success() -> None:
    here = stage()
    good = run(here, "success", 99, in_flight=False)
    assert (
        concurrency.of(run(here, "running", 9), [], StageTiming(last_good=good)).last_good == good
    )


@pytest.mark.parametrize("policy", ["forbid", "replace"])
def test_where_nothing_is_meant_to_wait_only_what_is_queued_does(policy: str) -> None:
    here = stage(policy)
    it, pending, queued = run(here, "running", 9), run(here, "pending", 5), run(here, "queued", 2)
    found = concurrency.of(it, [it, pending, queued], None)
    assert (found.behind, found.beside) == ((queued,), (pending,))
    assert concurrency.of(pending, [it, pending, queued], None).before == ()


@pytest.mark.parametrize("policy", ["queue", "latest", "something-new", ""])
def test_elsewhere_what_has_not_started_waits(policy: str) -> None:
    here = stage(policy)
    it, pending, queued = run(here, "running", 9), run(here, "pending", 5), run(here, "queued", 2)
    assert concurrency.of(it, [it, pending, queued], None).behind == (pending, queued)


# --- what was dropped --------------------------------------------------------------------------


def ended(of: Stage, status: str, minutes: float, until: float, **more: Any) -> Run:
    """A run created and concluded so many minutes ago; one that was skipped never started."""
    usual = {"in_flight": False, "concluded": True, "concluded_at": NOW - timedelta(minutes=until)}
    usual |= {"started_at": None} if status == "skipped" else {}
    return run(of, status, minutes, **usual | more)


def past(*runs: Run, aborted_here: tuple[Run, ...] = ()) -> Past:
    runs = tuple(sorted(runs, key=lambda each: (each.created_at, each.pk), reverse=True))
    return Past(runs, frozenset(each.pk for each in aborted_here))


def test_what_was_skipped_since_it_was_created_was_kept_out_by_it_the_latest_first() -> None:
    here = stage("forbid")
    it = run(here, "running", 30)
    before, first, second = (ended(here, "skipped", ago, ago) for ago in (40, 20, 10))
    found = concurrency.of(it, [it], None, past(before, first, second))
    assert found.swallowed == (second, first)
    assert found.swallowed_in_words == "2 runs have been skipped since it was created."
    assert found.behind == ()


def test_a_run_that_has_ended_kept_out_what_was_skipped_in_its_time() -> None:
    here = stage("forbid")
    it = ended(here, "failure", 30, 15)
    before, during, after = (ended(here, "skipped", ago, ago) for ago in (40, 20, 10))
    found = concurrency.of(it, [], None, past(before, during, after))
    assert found.swallowed == (during,)
    assert found.swallowed_in_words == "1 run was skipped while it was in flight."


def test_of_a_run_that_is_gone_its_time_ends_when_it_was_last_heard_of() -> None:
    here = stage("forbid")
    heard = NOW - timedelta(minutes=15)
    it = run(here, "running", 30, in_flight=False, gone_at=NOW, seen_at=heard)
    during, after = ended(here, "skipped", 20, 20), ended(here, "skipped", 10, 10)
    assert concurrency.of(it, [], None, past(during, after)).swallowed == (during,)


def test_where_nobody_says_when_it_ended_nothing_is_said_to_be_dropped() -> None:
    here = stage("forbid")
    it = ended(here, "success", 30, 15, concluded_at=None)
    assert concurrency.of(it, [], None, past(ended(here, "skipped", 20, 20))).swallowed == ()


@pytest.mark.parametrize("policy", ["allow", "queue", "something-new", ""])
def test_where_no_run_is_known_to_be_dropped_a_skipped_one_has_its_own_reasons(policy: str) -> None:
    here = stage(policy)
    it, other = run(here, "running", 30), ended(here, "skipped", 20, 10)
    assert concurrency.of(it, [it], None, past(other)).swallowed == ()
    assert concurrency.of(other, [it], None, past()).dropped_for is None


@pytest.mark.parametrize("status", ["success", "failure", "aborted", "unknown"])
def test_where_others_are_kept_out_only_what_was_skipped_was(status: str) -> None:
    here = stage("forbid")
    it = run(here, "running", 30)
    assert concurrency.of(it, [it], None, past(ended(here, status, 20, 10))).swallowed == ()


def test_what_was_skipped_after_it_had_started_was_not_kept_out() -> None:
    here = stage("forbid")
    it, other = run(here, "running", 30), ended(here, "skipped", 20, 10, started_at=NOW)
    assert concurrency.of(it, [it], None, past(other)).swallowed == ()


def test_a_skipped_run_was_kept_out_by_the_one_that_was_there() -> None:
    here = stage("forbid")
    earlier, there = ended(here, "success", 50, 40), run(here, "running", 30)
    also, it = ended(here, "skipped", 20, 20), ended(here, "skipped", 10, 10)
    found = concurrency.of(it, [there], None, past(earlier, also))
    assert found.dropped_for == there
    assert found.dropped_for_in_words == "Another was in flight when it came."
    assert found.swallowed == ()


def test_it_may_have_ended_since() -> None:
    here = stage("forbid")
    there, it = ended(here, "success", 30, 5), ended(here, "skipped", 10, 10)
    assert concurrency.of(it, [], None, past(there)).dropped_for == there


def test_of_several_that_were_there_nobody_knows_which_it_was() -> None:
    here = stage("forbid")
    one, other, it = (
        run(here, "running", 40),
        run(here, "running", 30),
        ended(here, "skipped", 9, 9),
    )
    found = concurrency.of(it, [one, other], None, past())
    assert (found.dropped_for, found.dropped_for_in_words) == (None, "")


def test_where_nobody_was_there_it_was_skipped_for_its_own_reasons() -> None:
    here = stage("forbid")
    it = ended(here, "skipped", 10, 10)
    later = run(here, "running", 5)
    assert (
        concurrency.of(it, [later], None, past(ended(here, "success", 30, 20))).dropped_for is None
    )


def test_of_those_that_waited_the_older_were_dropped_for_the_newer() -> None:
    here = stage("latest")
    front, newest = run(here, "running", 30), run(here, "queued", 5)
    first, second = ended(here, "skipped", 20, 10), ended(here, "skipped", 10, 5)
    flying = [front, newest]
    found = concurrency.of(front, flying, None, past(first, second))
    assert (found.behind, found.swallowed) == ((newest,), (second, first))
    assert found.swallowed_in_words == (
        "2 runs seem to have been dropped for a newer one since it was created."
    )
    assert concurrency.of(newest, flying, None, past(first, second)).swallowed == (second,)
    found = concurrency.of(first, flying, None, past(second))
    assert (found.dropped_for, found.swallowed) == (second, ())
    assert found.dropped_for_in_words == "It seems to have been dropped for a newer one."
    found = concurrency.of(second, flying, None, past(first))
    assert (found.dropped_for, found.swallowed) == (newest, ())


def test_a_run_that_was_under_way_can_be_replaced() -> None:
    here = stage("replace")
    replaced, it = ended(here, "aborted", 30, 9), run(here, "running", 10)
    assert concurrency.of(it, [it], None, past(replaced)).swallowed == (replaced,)
    assert concurrency.of(replaced, [it], None, past()).dropped_for == it


def test_one_that_was_aborted_long_after_the_newer_one_came_was_not_aborted_for_it() -> None:
    here = stage("replace")
    aborted, it = ended(here, "aborted", 30, 5), run(here, "running", 10)
    assert concurrency.of(it, [it], None, past(aborted)).swallowed == ()
    assert concurrency.of(aborted, [it], None, past()).dropped_for is None


def test_one_that_was_aborted_from_here_was_dropped_for_nobody() -> None:
    here = stage("replace")
    aborted, it = ended(here, "aborted", 30, 9), run(here, "running", 10)
    asked = past(aborted, aborted_here=(aborted,))
    assert concurrency.of(it, [it], None, asked).swallowed == ()
    assert concurrency.of(aborted, [it], None, past(aborted_here=(aborted,))).dropped_for is None


@pytest.mark.parametrize("policy", ["latest", "replace"])
def test_without_a_newer_one_it_ended_for_its_own_reasons(policy: str) -> None:
    here = stage(policy)
    front, other, later = (
        run(here, "running", 30), ended(here, "skipped", 20, 10), run(here, "queued", 5)
    )  # fmt: skip
    assert concurrency.of(front, [front, later], None, past(other)).swallowed == ()
    assert concurrency.of(other, [front, later], None, past()).dropped_for is None


def test_a_run_that_ended_before_it_was_created_was_dropped_for_no_older_one() -> None:
    here = stage("latest")
    older, it = run(here, "running", 30), ended(here, "skipped", 10, 20)
    assert concurrency.of(it, [older], None, past()).dropped_for is None


def test_where_not_all_was_looked_at_the_count_is_a_least() -> None:
    here = stage("forbid")
    it, other = run(here, "running", 30), ended(here, "skipped", 20, 20)
    found = concurrency.of(it, [it], None, Past((other,), complete=False))
    assert found.swallowed_in_words == "At least 1 run has been skipped since it was created."


def test_whether_it_was_dropped_is_said_before_what_was_in_its_time() -> None:
    here = stage("replace")
    first, it, last = (
        ended(here, "aborted", 30, 20), ended(here, "aborted", 20, 10), run(here, "running", 10)
    )  # fmt: skip
    assert concurrency.of(it, [last], None, past(first)).dropped_in_words == (
        "It seems to have been dropped for a newer one. "
        "1 run seems to have been dropped for a newer one while it was in flight."
    )


@st.composite
def stories(draw: st.DrawFn) -> list[Run]:
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


@given(stories())
def test_what_is_said_of_two_runs_agrees(runs: list[Run]) -> None:
    def seen_from(it: Run) -> concurrency.Around:
        others = past(*(each for each in runs if not each.in_flight and each.pk != it.pk))
        return concurrency.of(it, [each for each in runs if each.in_flight], None, others)

    for it in runs:
        found = seen_from(it)
        groups = found.before, found.behind, found.beside, found.swallowed
        named = [each.pk for group in groups for each in group]
        assert it.pk not in named
        assert len(named) == len(set(named))
        assert bool(found.swallowed) == bool(found.swallowed_in_words)
        assert (found.dropped_for is None) == (not found.dropped_for_in_words)
        for each in found.swallowed:
            assert each.status in {"skipped", "aborted"}
        to = found.dropped_for
        if to is not None and to.status != "skipped" and it.concluded_at is not None:
            lasted = to.in_flight or (to.concluded_at or NOW) >= it.concluded_at
            forbids = it.stage.concurrency_policy == "forbid"
            assert (it in seen_from(to).swallowed) or not (lasted or forbids)
