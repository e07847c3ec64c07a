"""Two people woken by one alert, each in a browser of their own."""

import pytest
from playwright.sync_api import Page, Route, expect

from dashboard.models import Looking, Run
from dashboard.models.typical_duration import Overdue
from tests.support import factories
from tests.support.browser import Open, is_marked, mark
from tests.support.live import Live

pytestmark = pytest.mark.browser

SOON = 30_000  # milliseconds


@pytest.fixture
def run(live: Live) -> Run:
    """A run that is overdue."""
    return factories.run(
        factories.stage(), "r-1", name="Nightly", overdue=Overdue.YES, overdue_why="run"
    )


def lookers(page: Page) -> list[str]:
    return [text.strip() for text in page.locator(".looker bdi").all_inner_texts()]


@pytest.mark.usefixtures("manager", "viewer")
def test_what_one_says_the_other_sees_and_takes_over(run: Run, sign_in: Open) -> None:
    address = factories.address(run)
    ana, ben = sign_in("manager", address), sign_in("viewer", address)
    now = sign_in("viewer")
    for page in (ana, ben, now):
        mark(page)
    ana.get_by_role("button", name="I’m looking").click()
    expect(ana.get_by_role("button", name="Stop looking")).to_be_visible(timeout=SOON)
    for page in (ben, now):
        expect(page.locator(".looker").first).to_contain_text("manager is looking", timeout=SOON)
    expect(ben.locator("#said")).to_contain_text("manager is looking, since")
    ben.get_by_role("button", name="Take over from manager").click(timeout=SOON)
    expect(ben.get_by_role("button", name="Stop looking")).to_be_visible(timeout=SOON)
    expect(ana.locator(".looker")).to_contain_text("viewer is looking", timeout=SOON)
    expect(ana.locator("[data-looking] ul")).to_contain_text("viewer took over")
    # And so it can go on: what can be said follows what was said.
    ana.get_by_role("button", name="I’m looking too").click(timeout=SOON)
    expect(ben.locator(".looker")).to_have_count(2, timeout=SOON)
    assert lookers(ben) == ["viewer", "manager"]
    ben.get_by_role("button", name="Stop looking").click()
    expect(ana.locator(".looker")).to_have_count(1, timeout=SOON)
    expect(now.locator(".looker")).to_contain_text("manager is looking", timeout=SOON)
    for page in (ana, ben, now):
        assert is_marked(page)


@pytest.mark.usefixtures("manager", "viewer")
def test_a_change_of_the_run_leaves_the_buttons_alone(run: Run, sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(run))
    page.locator("[data-looking] button").focus()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    factories.change(run, status="retrying")
    expect(page.locator("[data-badge]").first).to_have_text("Retrying", timeout=SOON)
    expect(page.locator("[data-looking] button")).to_be_focused()
    assert [url for url in asked if "looking" in url] == []


@pytest.mark.usefixtures("manager", "viewer")
def test_buttons_whose_own_request_fails_are_asked_for_again(
    run: Run, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("the server responded with a status of 500")
    address = factories.address(run)
    ana, ben = sign_in("manager", address), sign_in("viewer", address)
    ben.mouse.move(0, 0)
    failed: list[Route] = []

    def fail(route: Route) -> None:
        if failed:
            route.continue_()
        else:
            failed.append(route)
            route.fulfill(status=500, body="")

    ben.route("**/looking/", fail)
    ana.get_by_role("button", name="I’m looking").click()
    expect(ben.get_by_role("button", name="Take over from manager")).to_be_visible(timeout=SOON)
    assert failed
    expect(ben.locator("#notices .notice")).to_have_count(0)  # nobody has pressed anything


@pytest.mark.usefixtures("viewer")
def test_it_works_without_javascript(run: Run, sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(run), java_script_enabled=False)
    page.get_by_role("button", name="I’m looking").click()
    expect(page.locator(".looker")).to_contain_text("viewer is looking, since")
    page.get_by_role("button", name="Stop looking").click()
    expect(page.locator(".looker")).to_have_count(0)
    assert Looking.objects.open().count() == 0
