"""What counts as a failure on Now: not what we had aborted ourselves."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.models import Run, Stage
from dashboard.models.aborts import What
from dashboard.web.components import in_flight
from tests.support import factories
from tests.support.html import See, one

NOW = timezone.now()
ENDED = NOW - timedelta(seconds=30)
BEFORE, AFTER = ENDED - timedelta(seconds=40), ENDED + timedelta(seconds=10)


@pytest.fixture
def failure(stage: Stage) -> Run:
    """A run that ended as a failure half a minute ago."""
    return factories.run(stage, status="failure", concluded_at=ENDED, status_since=ENDED)


def aborted(run: Run, by: User, state: str, *, at: Any = BEFORE, **fields: Any) -> None:
    taken_on = state in {"concluded", "accepted", "tried_again"} and "answered_at" not in fields
    usual = {"requested_at": at, "settled_at": ENDED, "answer_status": 200 if taken_on else None}
    factories.abort(run, by, state, **usual | fields)


def counted(by: User) -> tuple[int, int]:
    """How many runs count as failed, and as aborted here."""
    counts = in_flight.counts(permissions.rights(by), timezone.now(), {})
    return counts.failed, counts.aborted


def news(by: User) -> set[str]:
    return set(in_flight.news(permissions.rights(by), timezone.now(), {}).statuses)


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ("concluded", {"outcome": "failure"}),
        ("accepted", {"settled_at": None}),
        ("tried_again", {}),
    ],
)
def test_a_run_that_we_had_aborted_is_no_failure(
    state: str, fields: dict[str, Any], failure: Run, manager: User
) -> None:
    aborted(failure, manager, state, **fields)
    assert counted(manager) == (0, 1)
    assert news(manager) == set()


@pytest.mark.parametrize("state", ["refused", "not_sent", "too_late", "unknown"])
def test_an_abort_that_did_not_go_through_excuses_nothing(
    state: str, failure: Run, manager: User
) -> None:
    aborted(failure, manager, state)
    assert counted(manager) == (1, 0)
    assert news(manager) == {"failure"}


def test_an_abort_that_nobody_knows_to_have_arrived_excuses_nothing(
    failure: Run, manager: User
) -> None:
    aborted(failure, manager, "concluded", outcome="failure", answered_at=None)
    assert counted(manager) == (1, 0)


def test_one_without_an_answer_after_which_the_run_was_aborting_excuses_it(
    failure: Run, manager: User
) -> None:
    aborted(failure, manager, "concluded", outcome="failure", answered_at=None)
    failure.aborts.get().note(What.ABORTING, BEFORE)
    assert counted(manager) == (0, 1)


def test_an_abort_after_the_end_excuses_nothing(failure: Run, manager: User) -> None:
    aborted(failure, manager, "concluded", at=AFTER, outcome="failure")
    assert counted(manager) == (1, 0)


def test_where_northflank_does_not_say_when_it_ended_its_status_tells(
    stage: Stage, manager: User
) -> None:
    run = factories.run(stage, status="failure", concluded_at=None, status_since=ENDED)
    aborted(run, manager, "concluded", outcome="failure")
    assert counted(manager) == (0, 1)


def test_a_failure_of_another_run_stays_one(failure: Run, manager: User) -> None:
    other = factories.run(failure.stage, status="failure")
    aborted(other, manager, "concluded", outcome="failure")
    assert counted(manager) == (1, 1)


def test_one_of_two_aborts_that_went_through_is_enough(failure: Run, manager: User) -> None:
    aborted(failure, manager, "refused")
    aborted(failure, manager, "concluded", outcome="failure")
    assert counted(manager) == (0, 1)


def test_it_stands_among_the_aborted_ones_and_nowhere_else(
    see: See, failure: Run, manager: User
) -> None:
    aborted(failure, manager, "concluded", outcome="failure")
    html = see("/")
    section = one(html, 'section[aria-labelledby="aborted"]')
    assert one(section, "[data-run]").attributes["data-run"] == failure.run_id
    assert len(html.css("[data-run]")) == 1
