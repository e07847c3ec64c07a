"""Many runs aborted by one press, in a real browser: selected, asked about, and followed."""

import re

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Locator, Page, expect
from pytest_django import Settings

from dashboard.models import AbortBatch, Run
from dashboard.sandbox import parse_fault
from tests.support import factories
from tests.support.browser import Open, is_marked, mark
from tests.support.live import Live

pytestmark = pytest.mark.browser


def idle() -> int:
    """How many runs in flight nobody is aborting."""
    return Run.objects.in_flight().exclude(status="aborting").count()


def box(page: Page, run: Run) -> Locator:
    return page.locator(f'[data-run="{run.run_id}"] .pick input')


def result(page: Page, run: Run) -> Locator:
    return page.locator(f'[data-run="{run.run_id}"] .result')


def selected(page: Page) -> Locator:
    return page.locator("[data-abort-selected]")


@pytest.mark.usefixtures("manager", "syncing")
def test_three_selected_runs_are_aborted_and_each_is_seen_to_end(
    flying: list[Run], sign_in: Open, world: Live
) -> None:
    page = sign_in("manager")
    expect(selected(page)).to_be_disabled()
    for run in flying:
        box(page, run).check()
    expect(selected(page)).to_have_text(re.compile(r"Abort selected \(3\)"))
    selected(page).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=1)).to_have_text("Abort 3 runs?")
    expect(dialog.get_by_role("button", name="Keep running")).to_be_focused()
    for run in flying:
        expect(dialog.locator(".list")).to_contain_text(run.title)
    dialog.get_by_placeholder("In your own words").fill("Bad release")
    dialog.get_by_role("button", name="Abort 3 runs").click()
    page.wait_for_url("**/aborts/many/*/")
    mark(page)
    for run in flying:
        expect(result(page, run)).to_have_text("Aborted", timeout=15_000)
    expect(page.locator(".summary .verdict")).to_have_text("3 asked for: 3 aborted.")
    expect(page).to_have_title(re.compile(r"^3 of 3"))
    assert is_marked(page)
    assert world.sandbox.abort_posts == {run.run_id: 1 for run in flying}


@pytest.mark.usefixtures("manager")
def test_a_live_update_keeps_the_selection(flying: list[Run], sign_in: Open) -> None:
    page = sign_in("manager")
    box(page, flying[0]).check()
    box(page, flying[1]).check()
    factories.change(flying[0], name="Another name")
    expect(page.locator(f'[data-run="{flying[0].run_id}"] a.title')).to_have_text("Another name")
    expect(box(page, flying[0])).to_be_checked()
    expect(selected(page)).to_have_text(re.compile(r"\(2\)"))


@pytest.mark.usefixtures("manager")
def test_the_pages_own_refresh_keeps_the_selection(flying: list[Run], sign_in: Open) -> None:
    page = sign_in("manager")
    box(page, flying[0]).check()
    with page.expect_response(lambda answer: answer.request.headers.get("hx-request") == "true"):
        factories.change(flying[1], name="Another name")
        page.evaluate("htmx.trigger('#live', 'refresh')")
    expect(page.locator(f'[data-run="{flying[1].run_id}"] a.title')).to_have_text("Another name")
    expect(box(page, flying[0])).to_be_checked()
    expect(selected(page)).to_be_enabled()


def test_a_run_that_somebody_else_aborts_drops_out_of_the_selection(
    flying: list[Run], sign_in: Open, manager: User
) -> None:
    page = sign_in("manager")
    box(page, flying[0]).check()
    box(page, flying[1]).check()
    factories.abort(flying[0], manager)
    factories.change(flying[0], status="aborting")
    expect(box(page, flying[0])).to_have_count(0)
    expect(selected(page)).to_have_text(re.compile(r"\(1\)"))


@pytest.mark.usefixtures("manager")
def test_how_many_are_in_flight_is_told_live(flying: list[Run], sign_in: Open) -> None:
    page = sign_in("manager")
    all_of_them = page.locator("[data-abort-all]")
    expect(all_of_them).to_have_text(f"Abort all {idle()} in flight here…")
    before = idle()
    factories.change(flying[0], status="aborting")
    assert idle() == before - 1
    expect(all_of_them).to_have_text(f"Abort all {idle()} that nobody is aborting…")
    all_of_them.click()
    expect(page.get_by_role("dialog")).to_contain_text(f"Abort {idle()} runs?")
    expect(page.get_by_role("dialog")).to_contain_text("also those that are not on the screen")


@pytest.mark.usefixtures("manager", "syncing")
def test_leaving_the_page_stops_nothing(flying: list[Run], sign_in: Open, world: Live) -> None:
    world.sandbox.faults = [parse_fault("latency:0.7@/abort")]
    page = sign_in("manager")
    for run in flying:
        box(page, run).check()
    selected(page).click()
    page.get_by_role("dialog").get_by_text("Incident").click()
    page.get_by_role("button", name="Abort 3 runs").click()
    page.wait_for_url("**/aborts/many/*/")
    expect(page.locator(".summary")).to_contain_text("It goes on when you leave this page.")
    here = page.url
    page.goto("/status/")
    page.goto(here)
    for run in flying:
        expect(result(page, run)).to_have_text("Aborted", timeout=20_000)
    assert world.sandbox.abort_posts == {run.run_id: 1 for run in flying}


@pytest.mark.usefixtures("manager")
def test_leaving_the_dialog_sends_nothing_and_keeps_the_selection(
    flying: list[Run], sign_in: Open, world: Live
) -> None:
    page = sign_in("manager")
    box(page, flying[0]).check()
    for leave in ("Escape", "Enter", "click"):
        selected(page).click()
        keep = page.get_by_role("button", name="Keep running")
        expect(keep).to_be_focused()
        if leave == "click":
            keep.click()
        else:
            page.keyboard.press(leave)
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(selected(page)).to_be_focused()
        expect(box(page, flying[0])).to_be_checked()
    assert not AbortBatch.objects.exists()
    assert world.sandbox.abort_posts.total() == 0


@pytest.mark.usefixtures("manager")
def test_a_missing_reason_is_said_in_the_dialog_and_can_be_given(
    flying: list[Run], sign_in: Open, settings: Settings
) -> None:
    settings.ABORT_REASON_REQUIRED = [flying[0].stage.name]
    page = sign_in("manager")
    box(page, flying[0]).check()
    selected(page).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Abort 1 run").click()
    expect(dialog.get_by_role("alert")).to_contain_text("takes a reason")
    expect(dialog.get_by_role("radio").first).to_be_focused()
    dialog.get_by_text("Wrong version").click()
    dialog.get_by_role("button", name="Abort 1 run").click()
    page.wait_for_url("**/aborts/many/*/")
    assert AbortBatch.objects.get().reason == "Wrong version"


@pytest.mark.usefixtures("manager")
def test_the_keyboard_alone_selects_and_asks(
    flying: list[Run], sign_in: Open, settings: Settings
) -> None:
    page = sign_in("manager")
    settings.ABORT_REASON_REQUIRED = []
    box(page, flying[0]).focus()
    page.keyboard.press("Space")
    expect(box(page, flying[0])).to_be_checked()
    for _ in range(200):
        page.keyboard.press("Tab")
        if selected(page).evaluate("element => element === document.activeElement"):
            break
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("button", name="Keep running")).to_be_focused()
    page.keyboard.press("Tab")
    expect(dialog.get_by_role("button", name="Abort 1 run")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/aborts/many/*/")


@pytest.mark.usefixtures("manager", "syncing")
def test_without_javascript_the_same_by_pages_and_their_own_refresh(
    flying: list[Run], sign_in: Open, world: Live
) -> None:
    page = sign_in("manager", java_script_enabled=False)
    for run in flying[:2]:
        box(page, run).check()
    selected(page).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Abort 2 runs?")
    page.get_by_placeholder("In your own words").fill("Bad release")
    page.get_by_role("button", name="Abort 2 runs").click()
    page.wait_for_url("**/aborts/many/*/")
    for run in flying[:2]:
        expect(result(page, run)).to_have_text("Aborted", timeout=20_000)
    assert world.sandbox.abort_posts == {run.run_id: 1 for run in flying[:2]}
