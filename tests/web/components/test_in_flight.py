"""Ended runs on the Now page: which of them failed, and which were aborted here."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.accounts import permissions
from dashboard.models import Run, Stage
from dashboard.models.abort_lifecycle import EventType
from dashboard.web.http.site_context import SiteContext
from dashboard.web.live.snapshot import Snapshot
from dashboard.web.pages.now import NowPage
from tests.support import factories
from tests.support.html import GetPage, select_one

NOW = timezone.now()
ENDED = NOW - timedelta(seconds=30)
BEFORE, AFTER = ENDED - timedelta(seconds=40), ENDED + timedelta(seconds=10)


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    """Set the clock to NOW: after some minutes an ended run needs no attention."""
    with time_machine.travel(NOW):
        yield


@pytest.fixture
def failed_run(stage: Stage) -> Run:
    """A run that ended as a failure half a minute ago."""
    return factories.run(stage, status="failure", concluded_at=ENDED, status_since=ENDED)


def create_abort(run: Run, user: User, state: str, *, at: Any = BEFORE, **fields: Any) -> None:
    is_answered = state in "concluded accepted aborted_again" and "responded_at" not in fields
    defaults = {
        "requested_at": at,
        "settled_at": ENDED,
        "response_status": 200 if is_answered else None,
    }
    factories.abort(run, user, state, **defaults | fields)


def snapshot(user: User) -> Snapshot:
    return Snapshot(permissions.for_user(user), 0, timezone.now(), SiteContext())


def failed_and_aborted_counts(user: User) -> tuple[int, int]:
    """The number of failed runs, and of those aborted from here."""
    counts = {section.name: section.count for section in NowPage(snapshot(user)).sections.all}
    return counts["failed"], counts["aborted"]


def title_shows_failure(user: User) -> bool:
    return snapshot(user).title_totals.has_recent_failure


@pytest.mark.parametrize(
    ("state", "fields"),
    [
        ("concluded", {"outcome": "failure"}),
        ("accepted", {"settled_at": None}),
        ("aborted_again", {}),
    ],
)
def test_failed_run_aborted_from_dashboard_counts_as_aborted(
    state: str, fields: dict[str, Any], failed_run: Run, manager: User
) -> None:
    create_abort(failed_run, manager, state, **fields)
    assert failed_and_aborted_counts(manager) == (0, 1)
    assert not title_shows_failure(manager)


@pytest.mark.parametrize("state", ["refused", "not_sent", "too_late", "unknown"])
def test_failed_run_with_unaccepted_abort_counts_as_failed(
    state: str, failed_run: Run, manager: User
) -> None:
    create_abort(failed_run, manager, state)
    assert failed_and_aborted_counts(manager) == (1, 0)
    assert title_shows_failure(manager)


def test_failed_run_aborting_after_unanswered_abort_counts_as_aborted(
    failed_run: Run, manager: User
) -> None:
    create_abort(failed_run, manager, "concluded", outcome="failure", responded_at=None)
    failed_run.aborts.get().add_event(EventType.ABORTING, BEFORE)
    assert failed_and_aborted_counts(manager) == (0, 1)


def test_failed_run_with_abort_after_end_counts_as_failed(failed_run: Run, manager: User) -> None:
    create_abort(failed_run, manager, "concluded", at=AFTER, outcome="failure")
    assert failed_and_aborted_counts(manager) == (1, 0)


@pytest.mark.parametrize("status", ["success", "aborted"])
@pytest.mark.parametrize("state", ["refused", "not_sent", "too_late"])
def test_run_with_abort_without_effect_does_not_count_as_aborted(
    state: str, status: str, stage: Stage, manager: User
) -> None:
    run = factories.run(stage, status=status, concluded_at=ENDED)
    create_abort(run, manager, state, outcome=status if state == "too_late" else "")
    assert failed_and_aborted_counts(manager) == (0, 0)


@pytest.mark.parametrize(("status", "count"), [("success", 0), ("aborted", 1)])
def test_run_with_unconfirmed_abort_counts_as_aborted_only_if_it_was(
    status: str, count: int, stage: Stage, manager: User
) -> None:
    run = factories.run(stage, status=status, concluded_at=ENDED)
    create_abort(run, manager, "unknown")
    assert failed_and_aborted_counts(manager) == (0, count)


def test_run_that_succeeds_after_accepted_abort_stays_listed(stage: Stage, manager: User) -> None:
    run = factories.run(stage, status="success", concluded_at=ENDED)
    create_abort(run, manager, "concluded", outcome="success")
    assert failed_and_aborted_counts(manager) == (0, 1)


def test_failed_run_aborted_from_dashboard_is_listed_once_as_aborted(
    get_page: GetPage, failed_run: Run, manager: User
) -> None:
    create_abort(failed_run, manager, "concluded", outcome="failure")
    html = get_page("/")
    section = select_one(html, 'section[aria-labelledby="aborted"]')
    assert select_one(section, "[data-run]").attributes["data-run"] == failed_run.run_id
    assert len(html.css("[data-run]")) == 1
