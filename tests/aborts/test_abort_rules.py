"""What can be requested for a run, by its status and its latest abort."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User

from dashboard.aborts import abort_rules
from dashboard.models import Abort, Run
from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.severity import Severity
from tests.support import factories

NOON = datetime(2026, 3, 31, 12, 0, tzinfo=UTC)
OPEN_STATES = ["requested", "accepted", "unknown"]
SETTLED_STATES = sorted({*AbortState} - {"requested", "accepted"})


def run(status: str = "running", **fields: Any) -> Run:
    return Run(**{"status": status, "in_flight": True} | fields)


def open_abort(state: str) -> Abort:
    return Abort(state=state)


def settled_abort(state: str) -> Abort:
    return Abort(state=state, settled_at=NOON)


def allowed(shown: Run, abort: Abort | None) -> set[str]:
    """What can be requested for a run."""
    rules = {
        "abort": abort_rules.is_abortable,
        "selection": abort_rules.is_selectable,
        "again": abort_rules.is_abort_again_offered,
    }
    return {name for name, rule in rules.items() if rule(shown, abort)}


def test_run_without_abort_can_be_aborted_alone_and_with_others() -> None:
    assert allowed(run(), None) == {"abort", "selection"}


@pytest.mark.parametrize("severity", [Severity.OK, Severity.CRITICAL])
@pytest.mark.parametrize("state", SETTLED_STATES)
def test_run_can_be_aborted_again_after_its_abort_has_settled(
    state: str, severity: Severity
) -> None:
    shown = run(abort_severity=severity)
    assert allowed(shown, settled_abort(state)) == {"abort", "selection"}


@pytest.mark.parametrize("severity", [Severity.OK, Severity.WARNING])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("requested", set()), ("accepted", set()), ("unknown", {"abort"})],
)
def test_open_abort_can_be_requested_again_only_if_it_may_not_have_arrived(
    state: str, expected: set[str], severity: Severity
) -> None:
    assert allowed(run(abort_severity=severity), open_abort(state)) == expected


@pytest.mark.parametrize("status", ["running", "aborting"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("requested", set()), ("accepted", {"abort", "again"}), ("unknown", {"abort", "again"})],
)
def test_run_can_be_aborted_again_if_its_abort_was_sent_and_is_critical(
    state: str, expected: set[str], status: str
) -> None:
    shown = run(status, abort_severity=Severity.CRITICAL)
    assert allowed(shown, open_abort(state)) == expected


@pytest.mark.parametrize("state", OPEN_STATES)
@pytest.mark.parametrize("severity", [Severity.OK, Severity.WARNING])
def test_aborting_run_can_not_be_aborted(state: str, severity: Severity) -> None:
    shown = run("aborting", abort_severity=severity)
    for abort in (None, open_abort(state), settled_abort("refused")):
        assert allowed(shown, abort) == set()


def test_run_aborted_elsewhere_can_be_aborted_again_once_that_is_critical() -> None:
    shown = run("aborting", abort_severity=Severity.CRITICAL)
    for abort in (None, settled_abort("refused")):
        assert allowed(shown, abort) == {"abort", "again"}


@pytest.mark.parametrize("status", ["success", "aborting", "running"])
def test_nothing_can_be_requested_for_a_run_that_is_not_in_flight(status: str) -> None:
    shown = run(status, in_flight=False, abort_severity=Severity.CRITICAL)
    for abort in (None, *map(open_abort, OPEN_STATES), settled_abort("concluded")):
        assert allowed(shown, abort) == set()


def test_condition_of_the_database_agrees_with_the_rule(manager: User) -> None:
    stage = factories.stage()
    latest: dict[int, Abort | None] = {}
    for status in ("running", "aborting"):
        latest[factories.run(stage, status=status).pk] = None
        for state in AbortState:
            for settled_at in {None, NOON} if state in OPEN_STATES else {NOON}:
                shown = factories.run(stage, status=status)
                abort = factories.abort(shown, manager, state, settled_at=settled_at)
                latest[shown.pk] = abort
    not_aborting = set(
        Run.objects.filter(abort_rules.not_aborting_condition()).values_list("pk", flat=True)
    )
    assert not_aborting == {
        shown.pk
        for shown in Run.objects.all()
        if not abort_rules.is_aborting(shown, latest[shown.pk])
    }
    assert 0 < len(not_aborting) < len(latest)
