"""The main job in a real browser: abort a run and watch it end, however one's browser is set."""

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from dashboard.models import Run
from tests.browser.conftest import Open, is_marked, mark
from tests.live import Live
from tests.web import factories

pytestmark = pytest.mark.browser

PLACES = ["now", "stage", "run"]


def address_of(place: str, run: Run) -> str:
    return {"now": "/", "stage": factories.address(run.stage), "run": factories.address(run)}[place]


def badge(page: Page, run: Run) -> Locator:
    return page.locator(f'[data-run="{run.run_id}"] :is(.status, .headline) [data-badge]')


def ask(page: Page, run: Run) -> None:
    page.locator(f'[data-run="{run.run_id}"] [data-abort]').click()
    expect(page.get_by_role("dialog")).to_be_visible()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("manager", "syncing")
def test_a_run_is_aborted_and_seen_to_end_without_a_reload(
    place: str, stuck: Run, sign_in: Open, world: Live
) -> None:
    page = sign_in("manager", address_of(place, stuck))
    mark(page)
    ask(page, stuck)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_contain_text(stuck.title)
    dialog.get_by_label("Reason").fill("Stuck")
    dialog.get_by_role("button", name="Abort run").click()
    expect(badge(page, stuck)).to_have_text("Aborting")
    expect(dialog).to_be_hidden()
    expect(page.locator("#notices")).to_contain_text("accepted the abort")
    expect(badge(page, stuck)).to_have_text("Aborted", timeout=15_000)
    element = page.locator(f'[data-run="{stuck.run_id}"]')
    expect(element).to_have_attribute("data-concluded", "true")
    expect(element).to_contain_text("manager")
    expect(element.locator("[data-abort]")).to_have_count(0)
    assert is_marked(page)
    assert world.sandbox.abort_posts[stuck.run_id] == 1


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("manager", "syncing")
def test_without_javascript_the_same_by_pages_and_their_own_refresh(
    place: str, stuck: Run, sign_in: Open, world: Live
) -> None:
    page = sign_in("manager", address_of(place, stuck), java_script_enabled=False)
    page.locator(f'[data-run="{stuck.run_id}"] [data-abort]').click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(stuck.title)
    page.get_by_label("Reason").fill("Stuck")
    page.get_by_role("button", name="Abort run").click()
    page.wait_for_url(f"**{factories.address(stuck)}")
    expect(page.locator("#notices")).to_contain_text("accepted the abort")
    expect(badge(page, stuck)).to_have_text("Aborting")
    expect(badge(page, stuck)).to_have_text("Aborted", timeout=15_000)
    assert world.sandbox.abort_posts[stuck.run_id] == 1


@pytest.mark.usefixtures("manager")
def test_the_dialog_rests_on_keep_running_and_leaving_it_sends_nothing(
    stuck: Run, sign_in: Open, world: Live
) -> None:
    page = sign_in("manager")
    sent: list[Request] = []
    page.on("request", lambda request: sent.append(request) if request.method == "POST" else None)
    for leave in ("Escape", "Enter", "click"):
        ask(page, stuck)
        keep = page.get_by_role("button", name="Keep running")
        expect(keep).to_be_focused()
        if leave == "click":
            keep.click()
        else:
            page.keyboard.press(leave)
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator(f'[data-run="{stuck.run_id}"] [data-abort]')).to_be_focused()
    assert sent == []
    assert world.sandbox.abort_posts.total() == 0


@pytest.mark.usefixtures("manager", "syncing")
def test_the_keyboard_alone_is_enough(stuck: Run, sign_in: Open) -> None:
    page = sign_in("manager", factories.address(stuck))
    button = page.locator("[data-abort]")
    for _ in range(20):
        page.keyboard.press("Tab")
        if button.evaluate("element => element === document.activeElement"):
            break
    expect(button).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep running")).to_be_focused()
    page.keyboard.press("Shift+Tab")
    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.type("Stuck")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Abort run")).to_be_focused()
    page.keyboard.press("Enter")
    expect(badge(page, stuck)).to_have_text("Aborting")
    expect(page.get_by_role("heading", level=1)).to_be_focused()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("viewer")
def test_a_viewers_button_is_disabled_and_the_reason_is_in_sight(
    place: str, stuck: Run, sign_in: Open
) -> None:
    page = sign_in("viewer", address_of(place, stuck))
    expect(page.locator(f'[data-run="{stuck.run_id}"] [data-abort]')).to_be_disabled()
    reason = page.get_by_text("Only members of the group “Release managers” may abort runs.")
    expect(reason.first).to_be_visible()


@pytest.mark.parametrize("trouble", ["500", "no answer"])
@pytest.mark.usefixtures("manager")
def test_an_abort_that_our_server_fails_keeps_the_reason_and_can_be_sent_again(
    trouble: str, stuck: Run, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven += ["Failed to load resource", "htmx:error|fail: Object"]
    page = sign_in("manager")

    def fail(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
        elif trouble == "500":
            route.fulfill(status=500, body="<!doctype html><p data-why>It broke here.</p>")
        else:
            route.abort()

    page.route("**/abort/", fail)
    ask(page, stuck)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason").fill("Wrong version")
    dialog.get_by_role("button", name="Abort run").click()
    said = "It broke here." if trouble == "500" else "Pressing again is safe."
    expect(dialog.get_by_role("alert")).to_contain_text(said)
    expect(dialog.get_by_label("Reason")).to_have_value("Wrong version")
    page.unroute("**/abort/")
    dialog.get_by_role("button", name="Abort run").click()
    expect(badge(page, stuck)).to_have_text("Aborting")
    assert stuck.aborts.get().reason == "Wrong version"
