"""Filters of a stage's page in a real browser: with JavaScript, without it, and on a phone."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect

from dashboard.models import DefaultView, SavedView, Stage
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    advance_time,
    install_clock,
    record_requests,
    wait_for_viewers,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def stage(live: Live) -> Stage:
    """A stage with a run of each of these statuses, and a hundred successes."""
    stage = factories.stage()
    for status in ("running", "failure", "aborted", "success"):
        factories.run(stage, status, name=f"Nightly {status}", status=status)
    two_days_ago = timezone.now() - timedelta(days=2)
    for number in range(100):
        factories.run(stage, f"old-{number}", name="Old", status="success", created_at=two_days_ago)
    factories.search_texts()
    return stage


def listed_run_ids(page: Page) -> list[str | None]:
    return [row.get_attribute("data-run") for row in page.locator("tr[data-run]").all()]


def submit_filter(page: Page, *statuses: str, text: str = "") -> None:
    """Fill in the filter and submit it."""
    page.get_by_label("Search", exact=True).fill(text)
    page.locator(".run-filter [popovertarget]").click()
    for status in statuses:
        page.get_by_role("checkbox", name=status, exact=True).check()
    page.get_by_role("button", name="Apply", exact=True).click()


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
def test_filter_can_be_applied_saved_as_view_and_made_default(
    script: bool, stage: Stage, manager: User, sign_in: OpenPage
) -> None:
    address = factories.address(stage)
    page = sign_in("manager", address, java_script_enabled=script)
    submit_filter(page, "Failed", "Aborted", text="nightly")
    expect(page).to_have_url(re.compile(r"q=nightly"))
    assert listed_run_ids(page) == ["aborted", "failure"]

    page.get_by_role("link", name="Remove: Aborted").click()
    expect(page.locator(".filter-chips li")).to_have_count(3)
    assert listed_run_ids(page) == ["failure"]

    page.locator(".saved-views [popovertarget]").click()
    page.get_by_label("Name").fill("Failed at night")
    page.get_by_label("Use as default on every stage").check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.locator("#notices")).to_contain_text("“Failed at night” saved.")
    assert DefaultView.objects.get().view == SavedView.objects.get()

    page.goto(address)
    expect(page).to_have_url(re.compile(r"\?status=failure&q=nightly$"))
    current = page.get_by_role("navigation", name="Saved views").locator("[aria-current]")
    expect(current).to_have_text("Failed at night (default)")
    page.get_by_role("link", name="All runs").click()
    expect(page.locator("tr[data-run]")).to_have_count(100)

    page.get_by_role("link", name="Older").click()
    expect(page.locator("tr[data-run]")).to_have_count(4)
    page.get_by_role("link", name="Newest").click()
    expect(page.locator("tr[data-run]")).to_have_count(100)

    page.locator(".saved-views [popovertarget]").click()
    page.get_by_role("button", name="Delete Failed at night").click()
    expect(page.locator("#notices")).to_contain_text("“Failed at night” deleted.")
    assert not SavedView.objects.exists()


@pytest.mark.slow
@pytest.mark.usefixtures("manager")
def test_run_that_no_longer_matches_leaves_filtered_page_on_request(
    stage: Stage, sign_in: OpenPage, live: Live
) -> None:
    other = factories.run(stage, "other", name="Hourly")
    page = sign_in("manager", f"{factories.address(stage)}?status=in_flight")
    wait_for_viewers(live)
    page.get_by_label(
        "Search", exact=True
    ).focus()  # while the page is in use nothing is shown automatically
    page.locator("#live").hover()
    factories.change(other, status="waiting")
    expect(page.locator("#run-other [data-badge]")).to_have_text("Waiting")
    expect(page.locator("#new-runs")).to_be_hidden()
    run = stage.runs.get(run_id="running")
    factories.change(run, status="success", concluded=True, in_flight=False)
    expect(page.locator("#run-running [data-badge]")).to_have_text("Succeeded")
    expect(page.locator("#new-runs")).to_have_text("Show changes")
    page.locator("#new-runs").click()
    expect(page.locator("tr[data-run]")).to_have_count(1)
    assert listed_run_ids(page) == ["other"]
    expect(page.locator("#new-runs")).to_be_hidden()
    factories.change(run, step="")  # the page does not show it
    factories.change(other, status="running")
    expect(page.locator("#run-other [data-badge]")).to_have_text("Running")
    expect(page.locator("#new-runs")).to_be_hidden()


@pytest.mark.slow
@pytest.mark.usefixtures("manager")
def test_selected_run_that_no_longer_matches_stays_until_it_is_asked_for(
    stage: Stage, sign_in: OpenPage, live: Live
) -> None:
    page = sign_in("manager", f"{factories.address(stage)}?status=running")
    wait_for_viewers(live)
    install_clock(page)
    checkbox = page.locator("#run-running .select input")
    checkbox.check()
    checkbox.blur()
    page.mouse.move(0, 0)
    factories.change(stage.runs.get(run_id="running"), status="waiting")
    expect(page.locator("#new-runs")).to_have_text("Show changes")
    urls = record_requests(page)
    advance_time(page, 20)
    expect(checkbox).to_be_checked()
    assert urls == []
    checkbox.uncheck()
    checkbox.blur()
    page.mouse.move(0, 0)
    advance_time(page, 8)  # less than a refresh may take, by the page's clock
    expect(page.locator("#run-running")).to_have_count(0)
