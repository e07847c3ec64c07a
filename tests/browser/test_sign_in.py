"""The sign-in page and its ways: emergency sign-in, and a proxy that signs in."""

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django import Settings

from tests.support import auth_proxy, factories
from tests.support.auth_proxy import HEADER
from tests.support.browser import OpenPage, wait_for_viewers
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


@pytest.mark.slow
@pytest.mark.parametrize("poll_interval", [0.05], ids=["brisk"])
def test_open_page_of_superuser_shows_emergency_sign_in_when_it_happens(
    open_browser: OpenPage, live: Live
) -> None:
    watching, emergency = open_browser(), open_browser()
    watching.set_extra_http_headers({HEADER: "ada"})
    watching.goto("/status/")
    User.objects.filter(username="ada").update(is_superuser=True)
    watching.goto("/status/")
    wait_for_viewers(live)
    expect(watching.locator("[data-break-glass]")).to_have_count(0)
    emergency.goto("/")
    sign_in_by_emergency_link(emergency, "seal")
    expect(watching.locator("[data-break-glass]")).to_be_visible()


@pytest.mark.slow
def test_page_behind_proxy_opens_for_its_user_until_it_names_another(
    open_browser: OpenPage, settings: Settings
) -> None:
    settings.AUTH_PROXY_SIGN_OUT_URL = "/oauth2/sign_out"
    page = open_browser()
    for name in ("ada", "bob"):
        page.set_extra_http_headers({HEADER: name})
        page.goto("/")
        expect(page.locator("header .name bdi")).to_have_text(name)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Signed out")).to_be_visible()
    expect(page.locator("header .name")).to_have_count(0)
    link = page.get_by_role("link", name="Sign out of the proxy")
    expect(link).to_have_attribute("href", "/oauth2/sign_out")
    page.set_extra_http_headers({})
    page.goto("/")
    expect(page.get_by_text("Not signed in: the proxy sent no user name.")).to_be_visible()
