"""Complete tasks of a user: by keyboard alone, without JavaScript, by screen reader."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from dashboard.db import threads as db_threads
from dashboard.models import Acknowledgement, Run, SavedView
from dashboard.models.severity import Severity
from dashboard.sync import overdue_checker
from tests.support import factories, live_runs
from tests.support.browser import (
    CHECKS,
    OpenPage,
    advance_time,
    break_streams,
    check,
    install_clock,
    submit_sign_in,
    wait_for_viewers,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser


def tab_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Press Tab until `target` has the focus, which must be visible at every stop."""
    # To find an element by its role takes long among many; it is looked up again if it is replaced.
    state = "element.isConnected, element === document.activeElement"
    script = f"element => [{state}, {CHECKS.strip()}.focusVisibility()]"
    element = target.element_handle()
    _, is_focused, _ = element.evaluate(script)
    for _ in range(400):
        if is_focused:
            return
        page.keyboard.press(key)
        is_connected, is_focused, problem = element.evaluate(script)
        assert problem == []
        if not is_connected:
            element = target.element_handle()
            _, is_focused, _ = element.evaluate(script)
    raise AssertionError(f"{target} is out of reach")


def press_key_on(page: Page, target: Locator, key: str = "Enter") -> None:
    tab_to(page, target)
    page.keyboard.press(key)


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


@pytest.fixture
def overdue_run(stuck_run: Run, world: Live) -> Run:
    """An overdue run, as the subject of an alert."""
    run = live_runs.read(world, stuck_run)
    overdue_checker.check_runs(db_threads.now())
    return Run.objects.with_stage().get(pk=run.pk)


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "sync_worker")
def test_journey_from_alert_to_aborted_run_by_keyboard_alone(
    overdue_run: Run, open_browser: OpenPage, world: Live
) -> None:
    page = open_browser(viewport={"width": 390, "height": 800})
    page.goto(f"/runs/{overdue_run.run_id}/?from=alert")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("manager")
    page.keyboard.press("Tab")
    page.keyboard.type("manager")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(overdue_run.title)
    press_key_on(page, button(page, "Acknowledge"))
    expect(button(page, "Hand back")).to_be_focused()
    press_key_on(page, page.locator("summary", has_text="Incident summary"))
    expect(page.locator("#incident-summary-text")).to_be_visible()
    abort = page.locator("[data-abort]")
    tab_to(page, abort, "Shift+Tab")
    page.keyboard.press("Enter")
    question = page.locator("#confirm-title")
    expect(question).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(abort).to_be_focused()
    page.keyboard.press("Enter")
    expect(question).to_be_focused()
    press_key_on(page, button(page, "Abort run"))  # without a reason
    expect(page.get_by_role("radio").first).to_be_focused()
    tab_to(page, page.get_by_label("Reason in your own words"))
    page.keyboard.type("Hangs since three")
    press_key_on(page, button(page, "Abort run"))
    expect(page.get_by_role("dialog")).to_be_hidden()
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_be_focused()
    run = page.locator("[data-run]").first
    expect(run).to_have_attribute("data-concluded", "true")
    expect(page.locator(".headline [data-badge]")).to_have_text("Aborted")
    expect(heading).to_be_focused()
    assert world.sandbox.abort_request_counts[overdue_run.run_id] == 1
    assert Acknowledgement.objects.get().username == "manager"


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "sync_worker")
def test_journey_from_alert_to_aborted_run_without_javascript(
    overdue_run: Run, open_browser: OpenPage, world: Live
) -> None:
    page = open_browser(java_script_enabled=False)
    page.goto(f"/runs/{overdue_run.run_id}/?from=alert")
    submit_sign_in(page, "manager")
    expect(page.get_by_role("heading", level=1)).to_have_text(overdue_run.title)
    button(page, "Acknowledge").click()
    expect(button(page, "Hand back")).to_be_visible()
    page.locator("summary", has_text="Incident summary").click()
    expect(page.locator("#incident-summary-text")).to_be_visible()
    page.locator("[data-abort]").click()
    page.get_by_label("Reason in your own words").fill("Hangs since three")
    button(page, "Abort run").click()
    expect(page.locator("[data-abort-state]")).to_contain_text("Abort accepted")
    badge = page.locator(".headline [data-badge]")
    expect(badge).to_have_text("Aborted")
    assert world.sandbox.abort_request_counts[overdue_run.run_id] == 1


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "sync_worker")
def test_journey_from_stage_page_to_bulk_abort_by_keyboard_alone(
    runs_in_flight: list[Run], sign_in: OpenPage, world: Live
) -> None:
    two_days_ago = timezone.now() - timedelta(days=2)
    for number in range(101):
        factories.run(
            runs_in_flight[0].stage, status="success", name=f"Old {number}", created_at=two_days_ago
        )
    page = sign_in("manager", factories.address(runs_in_flight[0].stage))
    press_key_on(page, page.get_by_role("link", name="Older"))
    expect(page).to_have_url(re.compile("older|before|from|at="))
    press_key_on(page, page.get_by_role("link", name="Newest"))
    press_key_on(page, page.locator(".run-filter [popovertarget]"))
    press_key_on(page, page.get_by_role("checkbox", name="In flight", exact=True), "Space")
    press_key_on(page, button(page, "Apply"))
    expect(page).to_have_url(re.compile("status=in_flight"))
    press_key_on(page, page.locator(".saved-views [popovertarget]"))
    tab_to(page, page.get_by_label("Name"))
    page.keyboard.type("In flight")
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("“In flight” saved.")
    assert SavedView.objects.get().name == "In flight"
    for run in runs_in_flight:
        box = page.locator(f'[data-run="{run.run_id}"] .select input')
        press_key_on(page, box, "Space")
        expect(box).to_be_checked()
    abort_button = page.locator("[data-abort-selected]")
    press_key_on(page, abort_button)
    expect(page.locator("#confirm-title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(abort_button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#confirm-title")).to_be_focused()
    tab_to(page, page.get_by_label("Reason in your own words"))
    page.keyboard.type("Bad release")
    press_key_on(page, button(page, "Abort 3 runs"))
    page.wait_for_url("**/aborts/bulk/*/")
    expect(page.locator("#live [data-badge]")).to_have_text(["Aborted"] * 3)
    assert world.sandbox.abort_request_counts == {run.run_id: 1 for run in runs_in_flight}


@pytest.mark.slow
@pytest.mark.usefixtures("viewer", "live")
def test_journey_through_timezone_theme_and_help_by_keyboard_alone(sign_in: OpenPage) -> None:
    factories.run(factories.stage())
    page = sign_in("viewer", timezone_id="Europe/Berlin")
    theme = page.locator("[data-theme-toggle]")
    press_key_on(page, button(page, "Menu"))
    press_key_on(page, theme)
    expect(theme).to_have_accessible_name("Theme: light")
    expect(theme).to_be_focused()
    keys = button(page, "Keyboard")
    press_key_on(page, keys)
    close = button(page, "Close")
    expect(close).to_be_focused()
    for _ in range(3):  # the focus stays inside
        page.keyboard.press("Tab")
        assert page.evaluate("() => !document.activeElement.closest('main, header, footer')")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(keys).to_be_focused()
    zone = page.locator("[data-zone-choice=browser]")
    tab_to(page, zone, "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".footer > span")).to_have_text("Times are in Europe/Berlin.")


# --- Announcements: each change once, and nothing else ------------------------------------------


def announcements(page: Page) -> list[str]:
    return page.evaluate("() => window.recordedAnnouncements")


def expect_announced_once(page: Page, live: Live, *texts: str) -> None:
    """Wait for announcements; none is repeated as time passes, or after a reconnect."""
    page.wait_for_function("n => window.recordedAnnouncements.length >= n", arg=len(texts))
    advance_time(page, 9)
    page.evaluate(
        """() => {
          const stream = document.querySelector("#stream");
          const once = (event, action) =>
            stream.addEventListener(`htmx:sse:after:${event}`, action, { once: true });
          window.hasReconnected = false;
          once("connection", () => once("message", () => { hasReconnected = true }));
        }"""
    )
    break_streams(live)
    page.wait_for_function("() => hasReconnected")
    advance_time(page, 9)
    announced = announcements(page)
    assert len(announced) == len(texts), announced
    for text, expected in zip(announced, texts, strict=True):
        assert re.fullmatch(expected, text), announced


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_alert_and_acknowledgement_are_announced_once(
    sign_in: OpenPage, manager: User, live: Live
) -> None:
    run = factories.run(factories.stage(), "r-1", name="Nightly")
    page = sign_in("viewer")
    other = sign_in("manager", factories.address(run))
    wait_for_viewers(live, viewers=2)
    install_clock(page)
    check(page, "recordAnnouncements")
    page.locator(
        '[data-run="r-1"]'
    ).hover()  # the pointer is over the table: the page does not reload
    factories.change(run, overdue_severity=Severity.WARNING, overdue_reason="run")
    expect_announced_once(page, live, "Needs attention: Nightly: Overdue")
    page.evaluate("() => { window.recordedAnnouncements = [] }")
    other.reload()
    button(other, "Acknowledge").click()
    expect_announced_once(page, live, "Acknowledged by manager since .*")


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_end_of_run_that_leaves_the_page_is_announced_once(sign_in: OpenPage, live: Live) -> None:
    stage = factories.stage()
    run = factories.run(stage, "r-1", name="Nightly")
    other = factories.run(stage, "r-2", name="Hourly")
    page = sign_in("viewer")
    wait_for_viewers(live)
    install_clock(page)
    check(page, "recordAnnouncements")
    factories.change(
        run, status="success", concluded=True, in_flight=False, concluded_at=timezone.now()
    )
    expect_announced_once(page, live, "Nightly: Succeeded")
    page.evaluate("() => { window.recordedAnnouncements = [] }")
    other.delete()  # it leaves as it was
    expect(page.locator("#run-r-2")).to_have_count(0)
    assert announcements(page) == []


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_health_page_announces_only_upstream_outage(sign_in: OpenPage, live: Live) -> None:
    stage = factories.stage()
    factories.leader()
    page = sign_in("viewer", "/health/")
    wait_for_viewers(live)
    install_clock(page)
    check(page, "recordAnnouncements")
    stage.error, stage.error_message = "x", "No access."
    stage.error_since, stage.failures = timezone.now(), 2
    stage.save()
    expect(page.locator("[data-stage] .upstream-text")).to_have_text("No access.")
    assert announcements(page) == []
    factories.upstream_error("It fell over.")
    expect_announced_once(page, live, "It fell over.")
