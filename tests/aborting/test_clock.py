"""Since when an abort goes on: it counts from the earliest that is known, and never anew."""

from datetime import datetime, timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User

from dashboard import aborts
from dashboard.aborts import Press, support_request
from dashboard.aborts import messages as abort_messages
from dashboard.accounts.permissions import Verdict
from dashboard.models import Abort, Run
from dashboard.northflank import decoding
from dashboard.runs import abort_clock
from dashboard.runs.abort_clock import Since
from dashboard.sync import mirror
from dashboard.web.components import abort_history, run_row
from tests.support import factories, payloads
from tests.support.world import T0, at

BEFORE = T0 - timedelta(minutes=11)


@pytest.fixture
def stage(db: None) -> int:
    return factories.stage("Staging").pk


def said(
    stage: int, status: str, asked_at: datetime, updated: datetime | None = None, **fields: Any
) -> Run:
    """Mirror what a list says of a run that was made an hour before T0."""
    sent = payloads.run(
        "r1", status=status, createdAt=(T0 - timedelta(hours=1)).isoformat(),
        updatedAt=updated.isoformat() if updated else ..., **fields,
    )  # fmt: skip
    told = decoding.run(sent)
    assert told is not None
    mirror.runs(stage, [told], asked_at=asked_at)
    return Run.objects.with_place().get(run_id="r1")


def test_one_that_was_begun_elsewhere_counts_from_northflanks_word(stage: int) -> None:
    run = said(stage, "aborting", T0, BEFORE)
    assert abort_clock.since(run, None) == Since(BEFORE)
    told = abort_messages.elsewhere(run).sentence
    assert told.startswith("Aborting since ")
    assert "at least" not in told


NOT_BELIEVED: dict[str, datetime | None] = {
    "none": None,
    "as old as the run": T0 - timedelta(hours=1),
    "older than the run": T0 - timedelta(hours=2),
    "of the future": T0 + timedelta(seconds=1),
}


@pytest.mark.parametrize("updated", NOT_BELIEVED.values(), ids=NOT_BELIEVED)
def test_what_cannot_be_when_it_began_is_not_believed(stage: int, updated: datetime | None) -> None:
    run = said(stage, "aborting", T0, updated)
    assert abort_clock.since(run, None) == Since(T0, at_least=True)
    assert "Aborting since at least " in abort_messages.elsewhere(run).sentence


def test_what_is_older_than_our_last_sight_without_it_is_not_believed(stage: int) -> None:
    said(stage, "running", T0, BEFORE)
    run = said(stage, "aborting", at(30), BEFORE)
    assert abort_clock.since(run, None) == Since(at(30), at_least=True)


def test_what_is_newer_than_our_last_sight_without_it_is_believed(stage: int) -> None:
    said(stage, "running", T0, BEFORE)
    run = said(stage, "aborting", at(30), at(10))
    assert abort_clock.since(run, None) == Since(at(10))


def test_an_answer_with_another_status_says_nothing_of_it(stage: int) -> None:
    run = said(stage, "running", T0, BEFORE)
    assert run.aborting_since is None


def test_it_never_begins_anew(stage: int) -> None:
    said(stage, "aborting", T0, BEFORE)
    run = said(stage, "aborting", at(30), at(20))
    assert abort_clock.since(run, None) == Since(BEFORE)


def test_an_earlier_word_that_comes_later_is_believed(stage: int) -> None:
    said(stage, "aborting", T0)
    run = said(stage, "aborting", at(30), BEFORE)
    assert abort_clock.since(run, None) == Since(BEFORE)


def test_an_earlier_word_that_comes_after_a_sight_without_it_is_not(stage: int) -> None:
    said(stage, "running", T0)
    said(stage, "aborting", at(30))
    run = said(stage, "aborting", at(60), at(10))
    assert abort_clock.since(run, None) == Since(at(30), at_least=True)


def test_one_that_goes_on_again_has_no_clock(stage: int) -> None:
    said(stage, "aborting", T0, BEFORE)
    run = said(stage, "running", at(30), at(20))
    assert abort_clock.since(run, None) is None
    run = said(stage, "aborting", at(60), at(50))
    assert abort_clock.since(run, None) == Since(at(50))


def test_an_act_of_ours_counts_from_the_press(stage: int, manager: User) -> None:
    run = said(stage, "running", T0, BEFORE)
    with time_machine.travel(at(10), tick=False):
        act = aborts.request(run, Press(manager)).abort
    assert abort_clock.since(run, act) == Since(at(10))
    run = said(stage, "aborting", at(30), at(20))
    assert abort_clock.since(run, act) == Since(at(10))
    assert abort_clock.since(run, None) == Since(at(10))  # and so say texts that know no act


def test_a_press_on_what_is_aborting_elsewhere_does_not_begin_it_anew(
    stage: int, manager: User
) -> None:
    run = said(stage, "aborting", T0, BEFORE)
    with time_machine.travel(at(10), tick=False):
        act = aborts.request(run, Press(manager)).abort
    assert (act.begun_at, act.requested_at) == (BEFORE, at(10))
    run = Run.objects.with_place().get()
    assert run.aborting_level == 2  # as late as it is
    assert abort_clock.since(run, act) == Since(BEFORE)
    row = run_row.row(run, Verdict(True), act)
    assert row.abort is not None
    assert row.abort.since == BEFORE
    assert abort_history.acts(run, [act])[0].since == BEFORE
    run = said(stage, "running", at(20))  # it was no abort after all
    assert abort_clock.since(run, act) == Since(BEFORE)


def test_one_figure_is_told_of_what_was_first_seen_when_it_was_under_way(
    stage: int, manager: User
) -> None:
    run = said(stage, "aborting", T0)
    row = run_row.row(run, Verdict(True), None)
    assert row.abort is not None
    assert (row.abort.since, row.abort.at_least) == (T0, True)
    assert "at least" in run_row.html(run, Verdict(True), None)
    assert "Aborting since, as first seen: 2026-03-02" in support_request.text(
        run, None, team="", now=T0
    )
    with time_machine.travel(at(10), tick=False):
        act = aborts.request(run, Press(manager)).abort
    act.state = "accepted"
    told = abort_messages.of(act, run)
    assert told.sentence.startswith("Abort accepted; aborting since at least ")
    line = run_row.row(run, Verdict(True), act).abort
    assert line is not None
    assert (line.since, line.at_least) == (T0, True)


def test_one_that_is_late_needs_attention_whoever_aborted_it(stage: int) -> None:
    run = said(stage, "aborting", T0, BEFORE)
    aborts.following._escalate(T0)
    assert Run.objects.get(pk=run.pk).aborting_level == 2
    assert not Abort.objects.exists()
