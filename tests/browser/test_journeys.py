"""What a person comes for, from first to last: by keyboard alone, without scripts, by ear."""

import re
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from dashboard.db import threads as db_threads
from dashboard.models import Looking, Run, SavedView
from dashboard.models.typical_duration import Overdue
from dashboard.sync import overdue_checker
from tests.support import factories, flights
from tests.support.browser import (
    CHECKS,
    Open,
    break_streams,
    check,
    enter,
    listens,
    pass_time,
    take_clock,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser
PATIENCE = 30_000  # milliseconds


def go_to(page: Page, target: Locator, key: str = "Tab") -> None:
    """Press Tab until it has the focus; wherever that is on the way is seen."""
    # To find an element by its role takes long among many; it is looked up again if it is replaced.
    look = f"each => [each.isConnected, each === document.activeElement, {CHECKS.strip()}.focus()]"
    element = target.element_handle()
    _, there, _ = element.evaluate(look)
    for _ in range(400):
        if there:
            return
        page.keyboard.press(key)
        here, there, wrong = element.evaluate(look)
        assert wrong == []
        if not here:
            element = target.element_handle()
            _, there, _ = element.evaluate(look)
    raise AssertionError(f"{target} is out of reach")


def press(page: Page, target: Locator, key: str = "Enter") -> None:
    go_to(page, target)
    page.keyboard.press(key)


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


@pytest.fixture
def alerted(stuck: Run, world: Live) -> Run:
    """A run that an alert is about: it takes too long."""
    run = flights.read(world, stuck)
    overdue_checker.mark(db_threads.now())
    return Run.objects.with_place().get(pk=run.pk)


@pytest.mark.usefixtures("manager", "syncing")
@pytest.mark.parametrize("width", [1280, 390])
def test_by_keyboard_alone_from_an_alert_to_the_end_of_its_run(
    width: int, alerted: Run, open_browser: Open, world: Live
) -> None:
    page = open_browser(viewport={"width": width, "height": 800})
    page.goto(f"/runs/{alerted.run_id}/?from=alert")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("manager")
    page.keyboard.press("Tab")
    page.keyboard.type("manager")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text(alerted.title)
    press(page, button(page, "I’m looking"))
    expect(button(page, "Stop looking")).to_be_focused(timeout=PATIENCE)
    press(page, page.locator("summary", has_text="Text to hand over"))
    expect(page.locator("#hand-over-text")).to_be_visible()
    abort = page.locator("[data-abort]")
    go_to(page, abort, "Shift+Tab")
    page.keyboard.press("Enter")
    keep = button(page, "Keep running")
    expect(keep).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(abort).to_be_focused()
    page.keyboard.press("Enter")
    expect(keep).to_be_focused()
    press(page, button(page, "Abort run"))  # without a reason
    expect(page.get_by_role("radio").first).to_be_focused()
    go_to(page, page.get_by_label("Reason in your own words"))
    page.keyboard.type("Hangs since three")
    press(page, button(page, "Abort run"))
    expect(page.get_by_role("dialog")).to_be_hidden()
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_be_focused()
    run = page.locator("[data-run]").first
    expect(run).to_have_attribute("data-concluded", "true", timeout=PATIENCE)
    expect(page.locator(".headline [data-badge]")).to_have_text("Aborted")
    expect(heading).to_be_focused()
    assert world.sandbox.abort_posts[alerted.run_id] == 1
    assert Looking.objects.get().username == "manager"


@pytest.mark.usefixtures("manager", "syncing")
def test_without_javascript_from_an_alert_to_the_end_of_its_run(
    alerted: Run, open_browser: Open, world: Live
) -> None:
    page = open_browser(java_script_enabled=False)
    page.goto(f"/runs/{alerted.run_id}/?from=alert")
    enter(page, "manager")
    expect(page.get_by_role("heading", level=1)).to_have_text(alerted.title)
    button(page, "I’m looking").click()
    expect(button(page, "Stop looking")).to_be_visible()
    page.locator("summary", has_text="Text to hand over").click()
    expect(page.locator("#hand-over-text")).to_be_visible()
    page.locator("[data-abort]").click()
    page.get_by_label("Reason in your own words").fill("Hangs since three")
    button(page, "Abort run").click()
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
    badge = page.locator(".headline [data-badge]")
    expect(badge).to_have_text("Aborted", timeout=PATIENCE)
    assert world.sandbox.abort_posts[alerted.run_id] == 1


@pytest.mark.usefixtures("manager", "syncing")
def test_by_keyboard_alone_through_a_stage_to_the_end_of_three_runs(
    flying: list[Run], sign_in: Open, world: Live
) -> None:
    old = timezone.now() - timedelta(days=2)
    for number in range(101):
        factories.run(flying[0].stage, status="success", name=f"Old {number}", created_at=old)
    page = sign_in("manager", factories.address(flying[0].stage))
    press(page, page.get_by_role("link", name="Older"))
    expect(page).to_have_url(re.compile("older|before|from|at="))
    press(page, page.get_by_role("link", name="Newest"))
    press(page, page.locator(".run-filter .menu summary"))
    press(page, page.get_by_role("checkbox", name="In flight", exact=True), "Space")
    press(page, button(page, "Show"))
    expect(page).to_have_url(re.compile("status=in_flight"))
    press(page, page.locator(".views .menu summary"))
    go_to(page, page.get_by_label("Name"))
    page.keyboard.type("In flight")
    page.keyboard.press("Enter")
    expect(page.locator("#notices")).to_contain_text("“In flight” is saved.")
    assert SavedView.objects.get().name == "In flight"
    for run in flying:
        box = page.locator(f'[data-run="{run.run_id}"] .pick input')
        press(page, box, "Space")
        expect(box).to_be_checked()
    chosen = page.locator("[data-abort-selected]")
    press(page, chosen)
    expect(button(page, "Keep running")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(chosen).to_be_focused()
    page.keyboard.press("Enter")
    expect(button(page, "Keep running")).to_be_focused()
    go_to(page, page.get_by_label("Reason in your own words"), "Shift+Tab")
    page.keyboard.type("Bad release")
    press(page, button(page, "Abort 3 runs"))
    page.wait_for_url("**/aborts/many/*/")
    for run in flying:
        result = page.locator(f'[data-run="{run.run_id}"] .result')
        expect(result).to_have_text("Aborted", timeout=PATIENCE)
    assert world.sandbox.abort_posts == {run.run_id: 1 for run in flying}


@pytest.mark.usefixtures("viewer", "live")
def test_by_keyboard_alone_to_another_zone_theme_and_the_help(sign_in: Open) -> None:
    factories.run(factories.stage())
    page = sign_in("viewer", timezone_id="Europe/Berlin")
    theme = page.locator("[data-theme-toggle]")
    press(page, theme)
    expect(theme).to_have_accessible_name("Theme: light")
    expect(theme).to_be_focused()
    keys = button(page, "Keyboard")
    press(page, keys)
    close = button(page, "Close")
    expect(close).to_be_focused()
    for _ in range(3):  # round and round, and nowhere behind it
        page.keyboard.press("Tab")
        assert page.evaluate("() => !document.activeElement.closest('main, header, footer')")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(keys).to_be_focused()
    zone = page.locator("[data-own-zone]")
    go_to(page, zone, "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".foot > span")).to_have_text("Times are in Europe/Berlin.")


# --- What is read out: each change once, and nothing else ---------------------------------------


def heard(page: Page) -> list[str]:
    return page.evaluate("() => window.heard")


def hears(page: Page, live: Live, *said: str) -> None:
    """Wait for what is said; it is not said again as time passes, nor when all is told anew."""
    page.wait_for_function("n => window.heard.length >= n", arg=len(said), timeout=PATIENCE)
    pass_time(page, 9)
    page.evaluate(
        """() => {
          const stream = document.querySelector("#stream");
          const then = (name, act) =>
            stream.addEventListener(`htmx:sse:after:${name}`, act, { once: true });
          window.anew = false;
          then("connection", () => then("message", () => { anew = true }));
        }"""
    )
    break_streams(live)
    page.wait_for_function("() => anew", timeout=PATIENCE)
    pass_time(page, 9)
    told = heard(page)
    assert len(told) == len(said), told
    for one, expected in zip(told, said, strict=True):
        assert re.fullmatch(expected, one), told


@pytest.mark.usefixtures("viewer")
def test_who_looks_and_what_has_come_to_need_attention_is_said_once(
    sign_in: Open, manager: User, live: Live
) -> None:
    run = factories.run(factories.stage(), "r-1", name="Nightly")
    page = sign_in("viewer")
    other = sign_in("manager", factories.address(run))
    listens(live, viewers=2)
    take_clock(page)
    check(page, "listen")
    page.locator('[data-run="r-1"]').hover()  # a hand over the table: the page is not loaded anew
    factories.change(run, overdue=Overdue.YES, overdue_why="run")
    hears(page, live, "Nightly: .*[Oo]verdue.*", "This page has changed")
    page.evaluate("() => { window.heard = [] }")
    other.reload()
    button(other, "I’m looking").click()
    hears(page, live, "manager is looking, since .*")


@pytest.mark.usefixtures("viewer")
def test_the_page_about_reading_says_when_it_fails_and_reads_out_nothing_else(
    sign_in: Open, live: Live
) -> None:
    stage = factories.stage()
    factories.worker()
    page = sign_in("viewer", "/status/")
    listens(live)
    take_clock(page)
    check(page, "listen")
    stage.error, stage.error_message = "x", "No access."
    stage.error_since, stage.failures = timezone.now(), 2
    stage.save()
    expect(page.locator("[data-stage] .said")).to_have_text("No access.", timeout=PATIENCE)
    assert heard(page) == []
    factories.trouble("It fell over.")
    hears(page, live, "It fell over.")
