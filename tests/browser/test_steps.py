"""Steps of a run in flight: bars grow, and groups stay open or closed as the user left them."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    advance_time,
    has_reload_mark,
    install_clock,
    record_requests,
    set_reload_mark,
    wait_for_viewers,
)
from tests.support.live import Live
from tests.support.long_run import create_long_run, minutes

pytestmark = pytest.mark.browser


@pytest.fixture
def run(live: Live) -> Run:
    return create_long_run(migrate_duration=minutes(18))


def step(page: Page, name: str) -> Locator:
    label = page.locator("bdi", has_text=re.compile(f"^{name}$"))
    return page.locator("[data-steps] .step", has=label)


def group_of(page: Page, name: str) -> Locator:
    return step(page, name).locator("xpath=ancestor::details[1]")


def spent_width(page: Page) -> float:
    return float(step(page, "migrate").locator(".elapsed").get_attribute("width") or 0)


def scroll_top(page: Page) -> float:
    return float(page.locator(".timeline").evaluate("panel => panel.scrollTop"))


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_current_step_bar_grows_without_requests(run: Run, sign_in: OpenPage, live: Live) -> None:
    page = sign_in("viewer", factories.address(run))
    wait_for_viewers(live)
    install_clock(page)
    urls = record_requests(page)
    before = spent_width(page)
    advance_time(page, 20)
    assert spent_width(page) >= before + 19
    assert urls == []


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_timeline_axis_extends_with_time(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", factories.address(run))
    # The run started 38 minutes ago; as if the page had been rendered in its first minute.
    page.locator("[data-steps] .bar").evaluate_all(
        "bars => bars.forEach(bar => bar.setAttribute('viewBox', '0 0 60 4'))"
    )
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-steps] .bar')]"
        ".every(bar => bar.viewBox.baseVal.width >= 38 * 60)"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_step_groups_keep_open_state_focus_and_scroll_on_update(
    run: Run, sign_in: OpenPage, live: Live
) -> None:
    page = sign_in("viewer", factories.address(run))
    wait_for_viewers(live)
    set_reload_mark(page)
    opened, closed = group_of(page, "region-us-east"), group_of(page, "Parallel steps")
    opened.locator("> summary").click()
    closed.locator("> summary").click()
    opened.locator("> summary").focus()
    page.locator(".timeline").evaluate("panel => { panel.scrollTop = 70 }")
    tree = run.steps
    tree["steps"][-3]["status"] = "failure"
    factories.change(run, steps=tree, status="failure")
    expect(step(page, "migrate").locator("[data-badge]")).to_have_text("Failed")
    expect(opened).to_have_attribute("open", "")
    expect(closed).not_to_have_attribute("open", re.compile(".*"))
    expect(opened.locator("> summary")).to_be_focused()
    assert scroll_top(page) == 70
    assert has_reload_mark(page)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("height", [400, 800])
def test_step_list_scrolls_to_current_step_on_load(
    height: int, run: Run, sign_in: OpenPage
) -> None:
    page = sign_in("viewer", factories.address(run), viewport={"width": 1280, "height": height})
    panel = page.locator(".timeline").bounding_box()
    step_box = step(page, "migrate").bounding_box()
    assert panel is not None
    assert step_box is not None
    assert (
        panel["y"]
        <= step_box["y"]
        < step_box["y"] + step_box["height"]
        <= panel["y"] + panel["height"]
    )
    assert page.evaluate("scrollY") == 0
    assert page.evaluate("document.activeElement === document.body")


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_step_list_loaded_later_scrolls_to_current_step(
    run: Run, sign_in: OpenPage, live: Live
) -> None:
    steps, read_at = run.steps, run.detail_synced_at
    factories.change(run, steps=None, detail_synced_at=None)
    page = sign_in("viewer", factories.address(run), viewport={"width": 1280, "height": 720})
    wait_for_viewers(live)
    expect(step(page, "migrate")).to_have_count(0)
    factories.change(run, steps=steps, detail_synced_at=read_at)
    expect(step(page, "migrate")).to_be_in_viewport()
    assert scroll_top(page) > 0
    # After the user has scrolled it stays.
    page.locator(".timeline").evaluate("panel => { panel.scrollTop = 0; }")
    factories.change(run, status="retrying", description="Something else")
    expect(page.get_by_text("Something else")).to_be_visible()
    assert scroll_top(page) == 0
