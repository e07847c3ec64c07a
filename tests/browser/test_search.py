"""The search page in a real browser: results follow what is typed."""

import threading

import pytest
from playwright.sync_api import expect

from dashboard.web.pages import search
from tests.support import factories
from tests.support.browser import OpenPage
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.mark.usefixtures("viewer")
def test_results_follow_what_is_typed_and_enter_opens_an_id(live: Live, sign_in: OpenPage) -> None:
    stage = factories.stage()
    runs = [factories.run(stage, f"r-{name}", name=name) for name in ("alpha", "beta")]
    factories.search_texts()
    page = sign_in("viewer")
    page.goto("/search/")
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url.removeprefix(live.base_url)))
    field = page.get_by_label("Run, pipeline or project")
    expect(field).to_be_focused()
    field.press_sequentially("alpha")
    expect(page.locator("[data-run]")).to_have_count(1)
    expect(page.locator("#announcements")).to_contain_text("1 run")
    expect(field).to_be_focused()
    expect(page).to_have_url(f"{live.base_url}/search/?q=alpha")
    assert "/search/?q=alpha" in requested
    field.fill("nothing")
    expect(page.locator("[data-empty]")).to_be_visible()
    field.fill("r-beta")  # typed, an id is a text like others
    expect(page.get_by_role("link", name="beta")).to_be_visible()
    field.press("Enter")
    expect(page).to_have_url(f"{live.base_url}{factories.address(runs[1])}")
    page.go_back()
    page.go_back()
    expect(page).not_to_have_url(f"{live.base_url}{factories.address(runs[1])}")


@pytest.mark.usefixtures("viewer")
def test_typing_faster_than_the_search_shows_no_error(live: Live, sign_in: OpenPage) -> None:
    factories.run(factories.stage(), name="alphabet")
    factories.search_texts()
    page = sign_in("viewer")
    page.goto("/search/")
    dropped: list[str] = []
    page.on("requestfailed", lambda request: dropped.append(request.url.partition("=")[2]))
    texts = ["alp", "alph", "alpha", "alphab", "alphabe"]
    released = threading.Event()
    search.queue.executor.submit(released.wait, 60)
    try:
        for text in texts:
            with page.expect_request(f"**/search/?q={text}"):
                page.get_by_label("Run, pipeline or project").fill(text)
    finally:
        released.set()
    expect(page.locator("[data-run]")).to_have_count(1)
    expect(page.locator("#notices")).to_be_empty()
    assert dropped == texts[:-1]
