"""Why a removed run is no longer in flight, and a project no longer read."""

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Run
from dashboard.runs import dismissals, removals
from dashboard.sync import missing_runs
from tests.support import factories
from tests.support.messages import keys_and_params


@pytest.fixture
def run(db: None) -> Run:
    """In flight, and removed from Northflank."""
    created = factories.run(factories.stage(), removed_at=timezone.now())
    return Run.objects.with_stage().get(pk=created.pk)


@pytest.mark.parametrize(
    ("projects", "expected"),
    [
        ([], None),
        (["payments", "shop"], None),
        (["payments"], ("not_configured", {"project": "shop"})),
    ],
)
def test_project_is_not_read_if_the_setting_lists_only_others(
    projects: list[str], expected: object, settings: Settings, db: None
) -> None:
    settings.NORTHFLANK_PROJECTS = projects
    reason = removals.not_read_reason(factories.pipeline())
    assert (reason and keys_and_params(reason)) == expected


def test_dismissed_run_can_be_restored(run: Run, manager: User) -> None:
    dismissals.dismiss(run, manager)
    assert keys_and_params(removals.unknown_end_reason(run)) == ("dismissed", {})


def test_run_of_project_dropped_from_setting_is_not_read(
    run: Run, manager: User, settings: Settings
) -> None:
    dismissals.dismiss(run, manager)
    settings.NORTHFLANK_PROJECTS = ["payments"]
    reason = removals.unknown_end_reason(run)
    assert keys_and_params(reason) == ("not_configured", {"project": "shop"})


def test_removed_run_that_nobody_dismissed_cannot_be_restored(run: Run) -> None:
    # Its project was dropped from the setting, and is listed again without the run.
    missing_runs.stop_tracking(Run.objects.all(), timezone.now())
    assert keys_and_params(removals.unknown_end_reason(run)) == ("removed", {})
