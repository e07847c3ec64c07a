"""External links in a real browser: sign-in, a search for a run, and a proxy with a prefix."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import BrowserContext, Page, Response, expect

from dashboard.models import Run, Session
from tests.support import factories, live_runs, processes
from tests.support.browser import OpenPage, submit_sign_in
from tests.support.live import Live
from tests.support.live_runs import LEDGER
from tests.support.processes import run_manage
from tests.support.proxy import origin, proxy

pytestmark = pytest.mark.browser


@pytest.fixture
def nightly_run(live: Live) -> Run:
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.mark.usefixtures("viewer")
def test_url_fragment_survives_sign_in_and_redirect_to_run(
    nightly_run: Run, open_browser: OpenPage, live: Live
) -> None:
    page = open_browser()
    page.goto("/runs/r-1/?from=alert#steps-title")
    submit_sign_in(page, "viewer")
    expect(page).to_have_url(
        f"{live.base_url}{factories.address(nightly_run)}?from=alert#steps-title"
    )


@pytest.mark.slow
@pytest.mark.usefixtures("manager")
def test_abort_without_session_does_nothing_and_returns_after_sign_in(
    nightly_run: Run, sign_in: OpenPage, live: Live
) -> None:
    address = f"{factories.address(nightly_run)}?from=alert#steps-title"
    page = sign_in("manager", address)
    page.locator("[data-abort]").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Stuck").click()
    Session.objects.all().delete()
    dialog.get_by_role("button", name="Abort run").click()
    notice = page.locator("#notices")
    expect(notice).to_contain_text("You are signed out. Nothing was changed.")
    expect(dialog).to_have_count(0)
    notice.get_by_role("link", name="Sign in and return to this page").click()
    submit_sign_in(page, "manager")
    expect(page).to_have_url(f"{live.base_url}{address}")
    assert not nightly_run.aborts.exists()


@pytest.mark.usefixtures("viewer")
# Without scripts the page reloads without its hash; with a hash nothing would be loaded.
@pytest.mark.parametrize(("scripted", "fragment"), [(True, "#x"), (False, "")])
def test_run_search_page_redirects_when_run_is_found(
    live: Live, sign_in: OpenPage, scripted: bool, fragment: str
) -> None:
    factories.leader()  # else the page looks seldom
    live_runs.stage(LEDGER)
    run_id = live_runs.start_run(live, LEDGER)
    page = sign_in("viewer", f"/runs/{run_id}/?from=alert#x", java_script_enabled=scripted)
    expect(page.locator("[data-search]")).to_contain_text("0 of 1 stages searched, not found yet.")
    page.keyboard.press("/")  # this page has no search field
    address = re.compile(rf"/release-flows/.*/{run_id}/\?from=alert{fragment}$")
    with live.ticking():
        expect(page).to_have_url(address)
    expect(page.locator(f'[data-run="{run_id}"]')).to_be_visible()


@pytest.mark.slow
def test_dashboard_behind_proxy_with_path_prefix_works(
    tmp_path: Path, new_context: Callable[..., BrowserContext]
) -> None:
    """A dashboard in its own process: sign-in, the stream, and an abort that it streams."""
    answers: list[Response] = []
    scenario = ("--scenario", "stuck-production", "--choice", "abort-seconds=2")
    with proxy("/releases") as (home, target_urls):
        variables = {"BASE_URL": home, "DATABASE_URL": f"sqlite:///{tmp_path / 'd.sqlite3'}"}
        with run_manage(tmp_path, "serve", "--port", "0", *scenario, **variables) as dashboard:
            target_urls.append(dashboard.base_url)
            page = new_context().new_page()
            page.set_default_timeout(1000 * processes.WAIT_TIMEOUT)
            page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108
            page.goto(f"{home}/?from=alert#x")
            submit_sign_in(page, "manager")
            expect(page).to_have_url(f"{home}/?from=alert#x")
            _abort_one(page)
            page.context.close()
    failed_requests = [
        f"{answer.status} {answer.url}" for answer in answers if answer.status >= 400
    ]
    assert failed_requests == []
    paths = {urlsplit(answer.url).path for answer in answers}
    assert all(answer.url.startswith(f"{home}/") for answer in answers)
    assert all(answer.url.startswith(origin(home)) for answer in answers)
    assert {"/releases/live/", "/releases/static/live.js"} <= paths


def _abort_one(page: Page) -> None:
    # The first run of the page may end by itself, or be in a stage where aborts take minutes.
    page.locator("tr[data-run] a.title", has_text="Basket totals 4719").click()
    run = page.locator("section.run")
    expect(run).to_be_visible()
    page.evaluate("() => { window.unreloaded = true }")
    with page.expect_response(lambda answer: answer.request.method == "POST") as response:
        run.locator("[data-abort]").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Stuck").click()
        dialog.get_by_role("button", name="Abort run").click()
    assert response.value.ok
    expect(run).to_have_attribute("data-status", "aborted")  # from the stream
    assert page.evaluate("() => window.unreloaded") is True
    assert page.evaluate("() => isConnected") is True
