"""Sign-in through an OpenID provider in a real browser, without scripts where that differs."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.support import oidc
from tests.support.accessibility import find_complaints
from tests.support.browser import OpenPage
from tests.support.oidc import Dashboard, new_username

pytestmark = [pytest.mark.browser, pytest.mark.process]


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("oidc")
    with (
        oidc.run_provider(folder) as provider,
        oidc.run_dashboard(folder, provider) as dashboard,
    ):
        yield dashboard


@pytest.fixture
def open_dashboard(open_browser: OpenPage, dashboard: Dashboard) -> Callable[..., Page]:
    """Return a function that opens a path of the dashboard in a separate browser."""

    def open_path(path: str, **options: object) -> Page:
        page = open_browser(**options)
        page.goto(f"{dashboard.base_url}{path}")
        return page

    return open_path


def sign_in(page: Page, username: str) -> None:
    """Press the provider's button, and sign in and consent there."""
    page.get_by_role("button", name="Sign in with localhost").click()
    page.get_by_label("Name at the provider").fill(username)
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Authorize").click()


@pytest.mark.slow
@pytest.mark.parametrize("scripts", [True, False], ids=["with scripts", "without scripts"])
def test_deep_link_opens_after_sign_in_and_sign_out_ends_both_sessions(
    scripts: bool, open_dashboard: Callable[..., Page], dashboard: Dashboard
) -> None:
    page = open_dashboard("/board/?from=alert&q=a%2Fb", java_script_enabled=scripts)
    sign_in(page, new_username())
    expect(page).to_have_url(f"{dashboard.base_url}/board/?from=alert&q=a%2Fb")
    page.get_by_role("button", name="Menu").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("button", name="Logout").click()
    expect(page).to_have_url(f"{dashboard.base_url}/accounts/login/")
    page.goto(f"{dashboard.provider.base_url}/name/")
    expect(page.locator("body")).to_have_text("signed in: nobody")
    page.goto(f"{dashboard.base_url}/board/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


@pytest.mark.slow
def test_pages_of_sign_in_are_accessible(
    open_dashboard: Callable[..., Page], dashboard: Dashboard
) -> None:
    page = open_dashboard(
        "/accounts/login/", reduced_motion="reduce", device_scale_factor=2, color_scheme="light"
    )
    expect(page.get_by_role("button", name="Sign in with localhost")).to_be_visible()
    assert_accessible(page, 0)
    # No answer: the page that forwards stays.
    page.route(f"{dashboard.provider.base_url}/**", lambda route: route.fulfill(status=204))
    page.get_by_role("button", name="Sign in with localhost").click()
    expect(page.get_by_role("heading", name="Continue to localhost")).to_be_visible()
    assert_accessible(page, 1)
    page.goto(f"{dashboard.base_url}/accounts/oidc/callback/")
    expect(page.get_by_role("heading", name="Not signed in")).to_be_visible()
    assert_accessible(page, 2)


def assert_accessible(page: Page, number: int) -> None:
    complaints = list(find_complaints(page, number))
    assert [complaint for complaint in complaints if complaint[1]] == []
