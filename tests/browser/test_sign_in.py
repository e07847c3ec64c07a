"""The sign-in page and its ways: emergency sign-in, and a proxy that signs in."""

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django import Settings

from tests.support import auth_proxy, factories
from tests.support.browser import OpenPage
from tests.support.live import Live

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("live")]

NOTICE = "Break-glass account “glass” signed in at"


@pytest.fixture(autouse=True)
def _no_passwords(settings: Settings, live: Live) -> None:
    auth_proxy.configure(settings, PASSWORD_SIGN_IN=False, BREAK_GLASS_ACCOUNT="glass")
    settings.AUTHENTICATION_BACKENDS = [
        "dashboard.accounts.authentication.break_glass.BreakGlassBackend",
        auth_proxy.BACKEND,
    ]
    User.objects.create_superuser("glass", password="seal")


def sign_in_by_emergency_link(page: Page, password: str) -> None:
    page.get_by_role("link", name="Emergency sign-in").click()
    expect(page.get_by_role("heading", name="Emergency sign-in")).to_be_visible()
    page.get_by_label("User name").fill("glass")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_emergency_sign_in_returns_to_page_with_notice(
    scripts: bool, open_browser: OpenPage, live: Live
) -> None:
    address = factories.address(factories.run(factories.stage()))
    page = open_browser(java_script_enabled=scripts)
    page.goto(address)
    expect(page.get_by_label("Password")).to_have_count(0)
    sign_in_by_emergency_link(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("Wrong user name or password.")
    page.get_by_label("Password").fill("seal")
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_url(live.base_url + address)
    expect(page.locator("[data-break-glass]", has_text=NOTICE)).to_be_visible()
    page.get_by_role("link", name="Access log").click()
    expect(page.locator("main").get_by_text("Break-glass sign-in").last).to_be_visible()
