"""Links from elsewhere, in a real browser: through sign-in, a search, and a proxy under a path."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from playwright.sync_api import BrowserContext, Page, Response, expect

from dashboard.models import Run
from dashboard.sandbox import parse_fault
from dashboard.sync import run_lookup
from tests.support import factories, flights, processes
from tests.support.browser import Open, enter
from tests.support.flights import LEDGER
from tests.support.live import PATIENCE, Live
from tests.support.processes import running
from tests.support.proxy import origin, proxy

pytestmark = pytest.mark.browser


@pytest.fixture
def mirrored(live: Live) -> Run:
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.mark.usefixtures("viewer")
def test_what_follows_the_hash_survives_signing_in_and_the_way_to_the_run(
    mirrored: Run, open_browser: Open, live: Live
) -> None:
    page = open_browser()
    page.goto("/runs/r-1/?from=alert#steps-title")
    enter(page, "viewer")
    expect(page).to_have_url(f"{live.base_url}{factories.address(mirrored)}?from=alert#steps-title")


@pytest.mark.usefixtures("viewer")
def test_of_several_links_opened_signed_out_one_sign_in_serves_all(
    mirrored: Run, open_browser: Open, live: Live
) -> None:
    first = open_browser()
    second = first.context.new_page()
    second.set_default_timeout(1000 * PATIENCE)
    first.goto("/board/")
    second.goto(factories.address(mirrored))
    enter(first, "viewer")
    expect(first).to_have_url(f"{live.base_url}/board/")
    enter(second, "viewer")  # its form is out of date
    expect(second.get_by_role("heading", level=1)).to_have_text("Nightly")


@pytest.mark.usefixtures("manager")
def test_an_abort_without_a_session_does_nothing_and_leads_back(
    mirrored: Run, sign_in: Open, live: Live
) -> None:
    address = f"{factories.address(mirrored)}?from=alert#steps-title"
    page = sign_in("manager", address)
    page.locator("[data-abort]").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Stuck").click()
    Session.objects.all().delete()
    dialog.get_by_role("button", name="Abort run").click()
    notice = page.locator("#notices")
    expect(notice).to_contain_text("You are signed out. Nothing was done.")
    expect(dialog).to_have_count(0)
    notice.get_by_role("link", name="Sign in and come back here").click()
    enter(page, "manager")
    expect(page).to_have_url(f"{live.base_url}{address}")
    assert not mirrored.aborts.exists()


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("scripted", [False])
def test_without_javascript_too(mirrored: Run, sign_in: Open, live: Live, scripted: bool) -> None:
    page = sign_in("manager", factories.address(mirrored), java_script_enabled=scripted)
    page.locator("[data-abort]").click()
    page.get_by_text("Stuck").click()
    Session.objects.all().delete()
    page.get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("You are signed out. Nothing was done.")
    enter(page, "manager")
    expect(page).to_have_url(f"{live.base_url}{factories.address(mirrored)}")
    assert not mirrored.aborts.exists()


@pytest.mark.usefixtures("viewer")
# Without scripts the page loads itself anew without its hash; with it nothing would be loaded.
@pytest.mark.parametrize(("scripted", "kept"), [(True, "#x"), (False, "")])
def test_a_page_that_looks_for_a_run_goes_to_it(
    live: Live, sign_in: Open, scripted: bool, kept: str
) -> None:
    for number in range(8):
        factories.stage(of=factories.pipeline(f"p{number}"), active_at=timezone.now())
    flights.stage(LEDGER)  # the last to be asked
    run_id = flights.started(live, LEDGER)
    slow = run_lookup.STEP + 0.5  # seconds: longer than a page waits before it says how far it is
    live.sandbox.faults = [parse_fault(f"latency:{slow}@/runs/")]
    page = sign_in("viewer", f"/runs/{run_id}/?from=alert#x", java_script_enabled=scripted)
    expect(page.locator("[data-search]")).to_contain_text("of 9 stages asked, not found yet.")
    page.keyboard.press("/")  # there is no field for it to lead to
    address = re.compile(rf"/release-flows/.*/{run_id}/\?from=alert{kept}$")
    expect(page).to_have_url(address, timeout=60_000)
    expect(page.locator(f'[data-run="{run_id}"]')).to_be_visible()


def test_under_a_path_behind_a_proxy_it_works_as_ever(
    tmp_path: Path, new_context: Callable[..., BrowserContext]
) -> None:
    """A dashboard of its own process: signing in, the stream, and an abort that it tells of."""
    answers: list[Response] = []
    scenario = ("--scenario", "stuck-production", "--choice", "abort-seconds=2")
    with proxy("/releases") as (home, behind):
        given = {"BASE_URL": home, "DATABASE_URL": f"sqlite:///{tmp_path / 'd.sqlite3'}"}
        with running(tmp_path, "serve", "--port", "0", *scenario, **given) as dashboard:
            behind.append(dashboard.base_url)
            page = new_context().new_page()
            page.set_default_timeout(1000 * processes.PATIENCE)
            page.on("response", lambda answer: answers.append(answer))  # noqa: PLW0108
            page.goto(f"{home}/?from=alert#x")
            enter(page, "manager")
            expect(page).to_have_url(f"{home}/?from=alert#x")
            _abort_one(page)
            page.context.close()
    wrong = [f"{a.status} {a.url}" for a in answers if a.status >= 400]
    assert wrong == []
    paths = {urlsplit(answer.url).path for answer in answers}
    assert all(answer.url.startswith(f"{home}/") for answer in answers)
    assert all(answer.url.startswith(origin(home)) for answer in answers)
    assert {"/releases/live/", "/releases/static/app.js"} <= paths


def _abort_one(page: Page) -> None:
    # The first of the page may end by itself, or be of a stage where aborts take minutes.
    page.locator("tr[data-run] a.title", has_text="Basket totals 4719").click()
    run = page.locator("section.run")
    expect(run).to_be_visible()
    page.evaluate("() => { window.unreloaded = true }")
    with page.expect_response(lambda answer: answer.request.method == "POST") as sent:
        run.locator("[data-abort]").first.click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_text("Stuck").click()
        dialog.get_by_role("button", name="Abort run").click()
    assert sent.value.ok
    expect(run).to_have_attribute("data-status", "aborted")  # told by the stream
    assert page.evaluate("() => window.unreloaded") is True
    assert page.evaluate("() => connected") is True
