"""Each abort belongs to one category: the same for the database as for an abort in memory."""

from datetime import datetime

import pytest
from django.contrib.auth.models import User

from dashboard.aborts import categories
from dashboard.models import Abort
from dashboard.models.abort_lifecycle import AbortState
from tests.support import factories
from tests.support.abort_kinds import FIELDS_BY_KIND, NOON, settled_fields


def conditions_met(abort: Abort) -> list[str]:
    """The categories whose conditions select an abort."""
    return [
        name
        for name, category in categories.CATEGORIES.items()
        if Abort.every.filter(category.condition, pk=abort.pk).exists()
    ]


@pytest.mark.parametrize("kind", FIELDS_BY_KIND)
def test_abort_of_each_kind_has_its_category(kind: str, manager: User) -> None:
    abort = factories.abort_of_new_run(manager, **FIELDS_BY_KIND[kind])
    assert categories.category(abort, abort.run) == kind
    assert conditions_met(abort) == [kind]


@pytest.mark.parametrize("state", ["requested", "accepted", "unknown"])
def test_open_abort_is_under_way(state: str, manager: User) -> None:
    abort = factories.abort_of_new_run(manager, state=state, run_status="running")
    assert categories.category(abort, abort.run) == "under_way"
    assert conditions_met(abort) == ["under_way"]


@pytest.mark.parametrize("status", ["aborted", "success", "running"])
@pytest.mark.parametrize("removed_at", [None, NOON])
def test_settled_abort_meets_the_condition_of_its_category_only(
    removed_at: datetime | None, status: str, manager: User
) -> None:
    for state in set(AbortState) - {AbortState.REQUESTED, AbortState.ACCEPTED}:
        for outcome in ("", "aborted", "success"):
            abort = factories.abort_of_new_run(
                manager,
                **settled_fields(state, outcome=outcome),
                run_status=status,
                run_removed_at=removed_at,
            )
            assert conditions_met(abort) == [categories.category(abort, abort.run)]
