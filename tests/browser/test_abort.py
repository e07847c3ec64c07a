"""The main job in a real browser: abort a run and watch it end, however one's browser is set."""

import contextlib
from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Error, Locator, Page, Request, Route, expect

from dashboard.models import Abort, Run
from tests.support import factories
from tests.support.browser import Open, is_marked, mark, painted
from tests.support.live import Live

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
    dialog.get_by_label("Reason in your own words").fill("Stuck")
    dialog.get_by_role("button", name="Abort run").click()
    expect(badge(page, stuck)).to_have_text("Aborting")
    expect(dialog).to_be_hidden()
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
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
    page.get_by_label("Reason in your own words").fill("Stuck")
    page.get_by_role("button", name="Abort run").click()
    page.wait_for_url(f"**{factories.address(stuck)}")
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
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
    expect(page.get_by_label("Reason in your own words")).to_be_focused()
    page.keyboard.type("Stuck")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Abort run")).to_be_focused()
    page.keyboard.press("Enter")
    expect(badge(page, stuck)).to_have_text("Aborting")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("heading", level=1)).to_be_focused()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("viewer")
def test_a_viewers_button_is_disabled_and_the_reason_is_in_sight(
    place: str, stuck: Run, sign_in: Open
) -> None:
    page = sign_in("viewer", address_of(place, stuck))
    expect(page.locator(f'[data-run="{stuck.run_id}"] [data-abort]')).to_be_disabled()
    reason = page.get_by_text("Only members of the group “Release managers” may abort runs here.")
    expect(reason.first).to_be_visible()


def hold(page: Page, method: str) -> list[Route]:
    """Keep back what a page asks of aborts from now on."""
    held: list[Route] = []

    def keep(route: Route) -> None:
        if route.request.method == method:
            held.append(route)
        else:
            route.continue_()

    page.route("**/abort/", keep)
    return held


def go_on(route: Route) -> None:
    with contextlib.suppress(Error):  # nobody waits for it any more
        route.continue_()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.usefixtures("manager")
def test_an_answer_that_comes_late_asks_about_no_other_run(
    first: int, flying: list[Run], sign_in: Open
) -> None:
    """Neither that of another row, nor that of an earlier press of the same."""
    page = sign_in("manager")
    held = hold(page, "GET")
    for run in (flying[first], flying[1]):
        with page.expect_request("**/abort/"):
            page.locator(f'[data-run="{run.run_id}"] [data-abort]').click()
    latest = held[-1]
    go_on(latest)
    dialog = page.get_by_role("dialog")
    reason = dialog.get_by_label("Reason in your own words")
    reason.fill("Half a sent")
    assert len(held) == 2
    go_on(held[0])
    answer = held[0].request.response()  # none, where the page waits for it no more
    if answer:
        answer.finished()
    painted(page)
    expect(dialog.get_by_role("heading")).to_contain_text(flying[1].title)
    expect(reason).to_have_value("Half a sent")
    expect(reason).to_be_focused()


@pytest.mark.parametrize("answer", ["200", "500"])
@pytest.mark.usefixtures("manager", "syncing")
def test_what_came_of_an_abort_is_told_though_another_is_asked_about(
    answer: str, flying: list[Run], sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("the server responded with a status of 500")
    page = sign_in("manager")
    held = hold(page, "POST")
    ask(page, flying[0])
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason in your own words").fill("Stuck")
    dialog.get_by_role("button", name="Abort run").click()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    ask(page, flying[1])
    dialog.get_by_label("Reason in your own words").fill("Half a sent")
    (post,) = held
    if answer == "200":
        post.continue_()
    else:
        post.fulfill(status=500, body="<!doctype html><p data-why>It broke here.</p>")
    told = "Abort accepted" if answer == "200" else "It broke here."
    expect(page.locator("#notices")).to_contain_text(told)
    expect(dialog.get_by_role("heading")).to_contain_text(flying[1].title)
    expect(dialog.get_by_label("Reason in your own words")).to_have_value("Half a sent")
    expect(dialog.get_by_role("alert")).to_be_hidden()


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
    dialog.get_by_label("Reason in your own words").fill("Wrong version")
    dialog.get_by_role("button", name="Abort run").click()
    said = "It broke here." if trouble == "500" else "Pressing again is safe."
    expect(dialog.get_by_role("alert")).to_contain_text(said)
    expect(dialog.get_by_label("Reason in your own words")).to_have_value("Wrong version")
    page.unroute("**/abort/")
    dialog.get_by_role("button", name="Abort run").click()
    expect(badge(page, stuck)).to_have_text("Aborting")
    assert stuck.aborts.get().reason == "Wrong version"


@pytest.mark.usefixtures("manager", "syncing")
def test_a_reason_that_is_missing_is_asked_for_in_the_dialog_and_a_pick_is_enough(
    stuck: Run, sign_in: Open
) -> None:
    page = sign_in("manager", factories.address(stuck))
    ask(page, stuck)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Abort run").click()
    expect(dialog.get_by_role("alert")).to_contain_text("takes a reason")
    expect(dialog.get_by_role("radio").first).to_be_focused()
    assert not stuck.aborts.exists()
    dialog.get_by_text("Blocks another release").click()
    dialog.get_by_role("button", name="Abort run").click()
    expect(dialog).to_be_hidden()
    assert stuck.aborts.get().reason == "Blocks another release"


def overdue(run: Run, by: User) -> Abort:
    """An abort that Northflank accepted a quarter of an hour ago, and that does not end."""
    then = timezone.now() - timedelta(minutes=15)
    abort = factories.abort(run, by, requested_at=then, sent_at=then, answered_at=then)
    factories.change(run, status="aborting", aborting_level=2, status_since=then)
    return abort


def test_an_abort_that_does_not_end_is_tried_again(
    stuck: Run, sign_in: Open, world: Live, manager: User
) -> None:
    first = overdue(stuck, manager)
    page = sign_in("manager", factories.address(stuck), permissions=["clipboard-write"])
    expect(page.get_by_role("heading", name="What you can do")).to_be_visible()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    page.locator("[data-abort]").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Stuck", exact=True).click()
    dialog.get_by_role("button", name="Abort run").click()
    expect(dialog).to_be_hidden()
    expect(page.locator(".told", has_text="Nothing came of it for 15 min")).to_be_visible()
    # Its clock does not begin anew: it is as late as it was.
    expect(page.get_by_role("heading", name="What you can do")).to_be_visible()
    first.refresh_from_db()
    assert first.state == "tried_again"
    assert stuck.aborts.get(settled_at=None).retry_of == first
    assert world.sandbox.abort_posts[stuck.run_id] == 1
    methods = [method for method, path in world.sandbox.requests if stuck.run_id in path]
    assert methods[-2:] == ["GET", "POST"]


@pytest.mark.usefixtures("manager", "syncing")
def test_an_abort_and_its_end_move_nothing_under_the_hand(
    stuck: Run, sign_in: Open, world: Live
) -> None:
    for number in range(30):
        factories.run(stuck.stage, status="failure", name=f"Old {number}")
    page = sign_in(
        "manager", factories.address(stuck.stage), viewport={"width": 1280, "height": 700}
    )
    other, table = page.get_by_role("row", name="Old 29"), page.locator(".runs")
    top = (table.bounding_box() or {})["y"]  # its rows may say more of themselves
    ask(page, stuck)
    page.get_by_label("Reason in your own words").fill("Stuck")
    page.get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
    expect(page.locator("#notices .notice")).to_be_in_viewport()
    assert (table.bounding_box() or {})["y"] == top
    page.evaluate("() => scrollTo(0, 0)")  # back up, the hand on another row
    other.hover()
    top = (table.bounding_box() or {})["y"]
    expect(badge(page, stuck)).to_have_text("Aborted", timeout=15_000)
    expect(page.locator("#notices .notice")).to_be_hidden()
    assert (table.bounding_box() or {})["y"] == top
