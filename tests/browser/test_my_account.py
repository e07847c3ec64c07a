"""My account in two browsers: what one changes, the other says within moments."""

import pytest
from playwright.sync_api import Page, expect

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import OpenPage, submit_sign_in, wait_for_viewers
from tests.support.live import Live

pytestmark = pytest.mark.browser


NEW = "correct horse battery staple"


@pytest.fixture
def run(db: None) -> Run:
    """A run in flight."""
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.fixture
def poll_interval() -> float:
    """No poll during a test: only notifications end streams."""
    return 600.0


@pytest.fixture
def browsers(run: Run, viewer: object, open_browser: OpenPage, live: Live) -> tuple[Page, Page]:
    """Two browsers in which the viewer has signed in; the second has an open stream."""
    here, there = open_browser(), open_browser()
    for page in (here, there):
        page.goto("/")
        submit_sign_in(page, "viewer")
    here.get_by_role("link", name="My account").click()
    wait_for_viewers(live, viewers=1)
    return here, there


def fill_password_form(page: Page, old: str, new: str) -> None:
    page.get_by_label("Current password").fill(old)
    page.get_by_label("New password", exact=True).fill(new)
    page.get_by_label("New password, again").fill(new)
    page.get_by_role("button", name="Change password").click()


def expect_signed_out(page: Page, live: Live) -> None:
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    wait_for_viewers(live, viewers=0)


@pytest.mark.slow
def test_page_says_that_it_is_signed_out_when_password_changes_in_other_browser(
    browsers: tuple[Page, Page], live: Live
) -> None:
    here, there = browsers
    fill_password_form(here, "wrong", NEW)
    expect(here.get_by_role("alert")).to_have_text("Wrong password.")
    fill_password_form(here, "viewer", NEW)
    expect(here.locator("#notices")).to_contain_text("Password changed.")
    expect_signed_out(there, live)
    expect(here.locator("[data-session]")).to_have_count(1)
