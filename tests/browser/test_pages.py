"""Pages in a real browser: sign-in, refresh during user input, small screens, themes."""

import pytest
from playwright.sync_api import expect

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import (
    OpenPage,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def nightly_run(live: Live) -> Run:
    """A run in flight, without a worker."""
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.mark.usefixtures("manager")
def test_dialog_shows_what_the_read_brings_that_it_has_asked_for(
    nightly_run: Run, sign_in: OpenPage
) -> None:
    page = sign_in("manager")
    page.locator("[data-abort]").click()
    dialog = page.get_by_role("dialog")
    reason = dialog.get_by_label("Reason")
    reason.fill("Half a sent")
    factories.change(nightly_run, step="migrate", step_number=3, step_count=7)
    expect(dialog.locator("#abort-facts")).to_contain_text("migrate (3 of 7)")
    expect(reason).to_have_value("Half a sent")
    expect(reason).to_be_focused()
    nightly_run.refresh_from_db()
    assert nightly_run.next_detail_sync_at is not None


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_theme_is_kept_across_pages(nightly_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer")
    root = page.locator("html")
    toggle = page.locator("[data-theme-toggle]")
    menu = page.get_by_role("button", name="Menu")
    for theme in ("light", "dark"):
        menu.click()
        toggle.click()
        expect(root).to_have_attribute("data-theme", theme)
        expect(toggle).to_have_accessible_name(f"Theme: {theme}")
        page.reload()
        expect(root).to_have_attribute("data-theme", theme)
    page.goto("/board/")
    expect(root).to_have_attribute("data-theme", "dark")
    menu.click()
    toggle.click()
    page.reload()
    expect(root).not_to_have_attribute("data-theme", "dark")
