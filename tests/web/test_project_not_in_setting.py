"""A project that NORTHFLANK_PROJECTS leaves out: its pages give that reason, not a removal."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from dashboard.accounts import permissions
from dashboard.models import Project, Run
from dashboard.runs import dismissals
from dashboard.sync import missing_runs
from dashboard.web.components.aborts import abort_all
from tests.support import factories
from tests.support.html import GetPage, select_one, text_of

REASON = "This dashboard no longer follows project “shop” (NORTHFLANK_PROJECTS)."


@pytest.fixture
def run(run: Run, manager: User, settings: Settings) -> Run:
    """It was in flight when the setting was changed; its steps were never read."""
    settings.NORTHFLANK_PROJECTS = ["payments"]
    now = timezone.now()
    Project.objects.update(removed_at=now)
    missing_runs.stop_tracking(Run.objects.all(), now)
    return Run.objects.with_stage().get()


def test_each_page_of_the_project_says_that_it_is_not_read(run: Run, get_page: GetPage) -> None:
    pages = (run, run.stage, run.stage.pipeline)
    for address in map(factories.address, pages):
        notice = select_one(get_page(address), "[data-removed]")
        assert text_of(notice).startswith(f"{REASON} Detected "), address


def test_bulk_abort_excludes_run_as_not_read(run: Run, manager: User) -> None:
    confirmation = abort_all.prepare_confirmation([run.pk], permissions.for_user(manager))
    assert [str(reason) for _row, reason in confirmation.excluded] == [REASON]


@pytest.mark.parametrize("projects", [[], ["shop"]])
def test_project_that_northflank_no_longer_lists_is_said_to_be_removed(
    projects: list[str], run: Run, get_page: GetPage, settings: Settings
) -> None:
    settings.NORTHFLANK_PROJECTS = projects
    page = get_page(factories.address(run))
    assert text_of(select_one(page, "[data-removed]")).startswith(
        "Project “Shop” was removed from Northflank."
    )


@pytest.fixture
def dismissed_run(run: Run, manager: User) -> Run:
    factories.change(run, in_flight=True)
    dismissals.dismiss(run, manager)
    return Run.objects.with_stage().get()


def test_dismissed_run_cannot_be_restored(
    dismissed_run: Run, manager: User, get_page: GetPage, operator_client: Client
) -> None:
    assert "Restore" not in text_of(select_one(get_page(factories.address(dismissed_run)), "main"))
    address = factories.address(dismissed_run, "dismiss")
    page = get_page(address)
    assert text_of(select_one(page, "[data-reason]")) == REASON
    answer = operator_client.post(address, {"undo": "1"})
    assert answer.status_code == 403
    assert REASON in answer.content.decode()
    assert not Run.objects.get().in_flight
