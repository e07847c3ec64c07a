"""An administrator grants a right by the pages alone, and the user has it at once."""

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Locator, Page, expect

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import OpenPage, session_cookie
from tests.support.live import Live

pytestmark = pytest.mark.browser
NAME, PASSWORD = "ben-of-the-night-shift", "correct horse battery staple"


@pytest.fixture
def runs(live: Live) -> dict[tuple[str, str], Run]:
    """A run in flight in two stages of two projects."""
    return {
        (project, stage): factories.run(
            factories.stage(stage, parent=factories.pipeline(parent=factories.project(project)))
        )
        for project in ("shop", "payments")
        for stage in ("Staging", "Production")
    }


def button(page: Page, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_administrator_adds_group_grant_and_account(
    scripts: bool, runs: dict[tuple[str, str], Run], live: Live, open_browser: OpenPage
) -> None:
    User.objects.create_superuser("root")
    page = open_browser(java_script_enabled=scripts)
    page.context.add_cookies([session_cookie("root", live.base_url)])
    page.goto("/status/")
    page.get_by_role("link", name="People and rights").click()
    page.get_by_role("link", name="Groups and grants").click()
    page.get_by_label("Name").fill("On-call")
    button(page, "Add group").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("On-call")
    page.get_by_label("May", exact=True).select_option("abort")
    page.get_by_label("Stage").select_option("Staging")
    page.get_by_label("Project").select_option("shop")
    button(page, "Add grant…").click()
    expect(page.locator("[data-effect]")).to_contain_text("no active account")
    button(page, "Add grant").click()
    expect(page.locator("[data-grant]")).to_contain_text("abort in Staging of project “Shop”")

    page.get_by_role("link", name="Accounts").click()
    page.get_by_role("link", name="Add account").click()
    page.get_by_label("User name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("On-call").check()
    button(page, "Add account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text(NAME)
    expect(page.locator("[data-right=abort]")).to_have_count(1)
    expect(page.locator("[data-right=view]")).to_have_count(5)

    user_page = open_browser()
    user_page.goto("/")
    user_page.get_by_label("Name").fill(NAME)
    user_page.get_by_label("Password").fill(PASSWORD)
    button(user_page, "Sign in").click()
    expect(user_page.get_by_role("heading", level=1)).to_be_visible()
    for place, run in runs.items():
        user_page.goto(factories.address(run))
        abort = user_page.locator("[data-abort]")
        if place == ("shop", "Staging"):
            expect(abort).to_be_enabled()
        else:
            expect(abort).to_be_disabled()

    page.get_by_role("link", name="Changes", exact=True).click()
    rows = page.locator("[data-rights-change]")
    expect(rows).to_have_count(3)
    expect(rows.nth(0)).to_contain_text(f"Account {NAME}")
    expect(rows.nth(0)).to_contain_text("group “On-call”")
    expect(rows.nth(1)).to_contain_text("abort in Staging of project “shop”")
    expect(rows.nth(2)).to_contain_text("Added.")
    for row in rows.all():
        expect(row).to_contain_text("root")
