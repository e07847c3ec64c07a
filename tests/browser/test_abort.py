"""Abort in a real browser: abort a run and follow it to its end, with any browser settings."""

import contextlib
import time

import pytest
from playwright.sync_api import APIResponse, Error, Locator, Page, Request, Route, expect

from dashboard.models import Abort, Run
from dashboard.web.components.runs import run_row
from dashboard.web.live import changes
from dashboard.web.live.page import LivePart
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    has_reload_mark,
    redirect_to_sign_in,
    set_reload_mark,
    wait_for_viewers,
    wait_until_painted,
)
from tests.support.live import WAIT_TIMEOUT, Live

pytestmark = pytest.mark.browser

PLACES = ["now", "stage", "run"]


def address_of(place: str, run: Run) -> str:
    return {"now": "/", "stage": factories.address(run.stage), "run": factories.address(run)}[place]


def badge(page: Page, run: Run) -> Locator:
    return page.locator(f'[data-run="{run.run_id}"] :is(.status, .headline) [data-badge]')


def answer_at(page: Page, place: str) -> Locator:
    """What tells how the abort stands: a notice or, on the run's page, its header."""
    return page.locator("[data-abort-state]" if place == "run" else "#notices")


def open_abort_dialog(page: Page, run: Run) -> None:
    page.locator(f'[data-run="{run.run_id}"] [data-abort]').click()
    expect(page.get_by_role("dialog")).to_be_visible()


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("manager", "sync_worker")
def test_abort_in_dialog_shows_aborting_then_aborted_without_reload(
    place: str, stuck_run: Run, sign_in: OpenPage, world: Live
) -> None:
    page = sign_in("manager", address_of(place, stuck_run))
    set_reload_mark(page)
    open_abort_dialog(page, stuck_run)
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_contain_text(stuck_run.title)
    dialog.get_by_label("Reason in your own words").fill("Stuck")
    dialog.get_by_role("button", name="Abort run").click()
    expect(badge(page, stuck_run)).to_have_text("Aborting")
    expect(dialog).to_be_hidden()
    expect(answer_at(page, place)).to_contain_text("Abort accepted")
    expect(badge(page, stuck_run)).to_have_text("Aborted")
    element = page.locator(f'[data-run="{stuck_run.run_id}"]')
    expect(element).to_have_attribute("data-concluded", "true")
    expect(element).to_contain_text("manager")
    expect(element.locator("[data-abort]")).to_have_count(0)
    assert has_reload_mark(page)
    assert world.sandbox.abort_request_counts[stuck_run.run_id] == 1


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("manager")
def test_stream_message_that_the_answer_to_an_abort_has_overtaken_changes_nothing(
    place: str, stuck_run: Run, sign_in: OpenPage, world: Live
) -> None:
    page = sign_in("manager", address_of(place, stuck_run))
    wait_for_viewers(world)
    [channel] = world.feed.hub.channels
    parts = changes.load_changes(stuck_run.version - 1).changed_parts(channel)
    assert run_row.dom_id(stuck_run.run_id) in {part.id for part in parts}
    page.evaluate("() => document.body.insertAdjacentHTML('beforeend', '<p id=late></p>')")
    late = LivePart("late", '<p id="late">The late message is shown.</p>')
    message = changes.encode_parts([*parts, late])
    open_abort_dialog(page, stuck_run)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason in your own words").fill("Stuck")
    dialog.get_by_role("button", name="Abort run").click()
    expect(answer_at(page, place)).to_contain_text("Abort accepted")
    expect(badge(page, stuck_run)).to_have_text("Aborting")

    async def publish() -> None:
        world.feed.hub.publish(channel, message)

    world.run(publish)
    expect(page.locator("#late")).to_have_text("The late message is shown.")
    assert badge(page, stuck_run).inner_text() == "Aborting"
    factories.change(stuck_run, status="aborted", concluded=True)  # a newer one is shown
    expect(badge(page, stuck_run)).to_have_text("Aborted")


@pytest.mark.slow
@pytest.mark.parametrize("place", ["stage", "run"])
@pytest.mark.usefixtures("manager")
def test_answer_to_an_abort_that_stream_messages_have_overtaken_changes_nothing(
    place: str, stuck_run: Run, sign_in: OpenPage
) -> None:
    page = sign_in("manager", address_of(place, stuck_run))
    answers: list[tuple[Route, APIResponse]] = []

    def hold_answer(route: Route) -> None:
        if route.request.method == "POST":
            answers.append((route, route.fetch()))
        else:
            route.continue_()

    page.route("**/abort/", hold_answer)
    open_abort_dialog(page, stuck_run)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason in your own words").fill("Stuck")
    dialog.get_by_role("button", name="Abort run").click()
    expect(badge(page, stuck_run)).to_have_text("Aborting")
    factories.change(stuck_run, status="aborted", concluded=True)
    expect(badge(page, stuck_run)).to_have_text("Aborted")
    [(route, answer)] = answers
    route.fulfill(response=answer)
    expect(dialog).to_be_hidden()
    assert badge(page, stuck_run).inner_text() == "Aborted"


@pytest.mark.usefixtures("manager")
def test_abort_dialog_focuses_its_question_and_closing_sends_nothing(
    stuck_run: Run, sign_in: OpenPage, world: Live
) -> None:
    page = sign_in("manager")
    requests: list[Request] = []
    page.on(
        "request", lambda request: requests.append(request) if request.method == "POST" else None
    )
    for action in ("Escape", "click"):
        open_abort_dialog(page, stuck_run)
        expect(page.locator("#confirm-title")).to_be_focused()
        if action == "click":
            page.get_by_role("button", name="Keep running").click()
        else:
            page.keyboard.press(action)
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator(f'[data-run="{stuck_run.run_id}"] [data-abort]')).to_be_focused()
    assert requests == []
    assert world.sandbox.abort_request_counts.total() == 0


def hold_requests(page: Page, method: str) -> list[Route]:
    """Hold a page's later requests to abort addresses."""
    routes: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == method:
            routes.append(route)
        else:
            route.continue_()

    page.route("**/abort/", hold)
    return routes


def wait_for_held(page: Page, routes: list[Route], count: int) -> None:
    """Wait until `count` requests are held: they are so some time after the page has sent them."""
    deadline = time.monotonic() + WAIT_TIMEOUT
    while len(routes) < count:
        assert time.monotonic() < deadline, f"{len(routes)} requests"
        wait_until_painted(page)  # receives what the browser reports meanwhile


def continue_route(route: Route) -> None:
    with contextlib.suppress(Error):  # the page has cancelled it
        route.continue_()


@pytest.mark.usefixtures("manager")
def test_abort_that_a_proxy_redirects_to_its_sign_in_is_reported_as_signed_out(
    stuck_run: Run, sign_in: OpenPage, world: Live
) -> None:
    page = sign_in("manager")
    open_abort_dialog(page, stuck_run)
    redirect_to_sign_in(page, "**/abort/")
    page.get_by_role("dialog").get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    assert not world.sandbox.abort_request_counts[stuck_run.run_id]


@pytest.mark.usefixtures("manager")
def test_dialog_closes_by_its_button_in_browsers_without_command(
    stuck_run: Run, sign_in: OpenPage, world: Live
) -> None:
    page = sign_in("manager")
    open_abort_dialog(page, stuck_run)
    page.evaluate(
        "() => { for (const button of $$('[command]')) button.removeAttribute('command') }"
    )
    page.get_by_role("button", name="Keep running").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert not world.sandbox.abort_request_counts[stuck_run.run_id]
    assert not Abort.objects.exists()


@pytest.mark.usefixtures("manager")
def test_abort_without_response_in_closed_dialog_says_that_it_may_have_been_sent(
    stuck_run: Run, sign_in: OpenPage, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors += ["net::ERR_FAILED", "Failed to fetch"]
    page = sign_in("manager")
    routes = hold_requests(page, "POST")
    open_abort_dialog(page, stuck_run)
    page.get_by_role("dialog").get_by_role("button", name="Abort run").click()
    wait_for_held(page, routes, 1)
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    routes[0].abort()
    expect(page.locator("#notices")).to_contain_text("may or may not have been sent")


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.usefixtures("manager")
def test_late_dialog_response_does_not_replace_newer_dialog(
    first: int, runs_in_flight: list[Run], sign_in: OpenPage
) -> None:
    """Neither that of another row, nor an earlier one of the same row."""
    page = sign_in("manager")
    routes = hold_requests(page, "GET")
    for number, run in enumerate((runs_in_flight[first], runs_in_flight[1]), start=1):
        page.locator(f'[data-run="{run.run_id}"] [data-abort]').click()
        wait_for_held(page, routes, number)
    latest = routes[-1]
    continue_route(latest)
    dialog = page.get_by_role("dialog")
    reason = dialog.get_by_label("Reason in your own words")
    reason.fill("Half a sent")
    assert len(routes) == 2
    continue_route(routes[0])
    answer = routes[0].request.response()  # none, if the page has cancelled it
    if answer:
        answer.finished()
    wait_until_painted(page)
    expect(dialog.get_by_role("heading")).to_contain_text(runs_in_flight[1].title)
    expect(reason).to_have_value("Half a sent")
    expect(reason).to_be_focused()


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["200", "500"])
@pytest.mark.usefixtures("manager", "sync_worker")
def test_abort_result_is_shown_while_other_dialog_is_open(
    answer: str, runs_in_flight: list[Run], sign_in: OpenPage, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors.append("the server responded with a status of 500")
    page = sign_in("manager")
    routes = hold_requests(page, "POST")
    open_abort_dialog(page, runs_in_flight[0])
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason in your own words").fill("Stuck")
    dialog.get_by_role("button", name="Abort run").click()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    open_abort_dialog(page, runs_in_flight[1])
    dialog.get_by_label("Reason in your own words").fill("Half a sent")
    wait_for_held(page, routes, 1)
    (route,) = routes
    if answer == "200":
        route.continue_()
    else:
        route.fulfill(status=500, body="<!doctype html><p data-reason>It broke here.</p>")
    text = "Abort accepted" if answer == "200" else "It broke here."
    expect(page.locator("#notices")).to_contain_text(text)
    expect(dialog.get_by_role("heading")).to_contain_text(runs_in_flight[1].title)
    expect(dialog.get_by_label("Reason in your own words")).to_have_value("Half a sent")
    expect(dialog.get_by_role("alert")).to_be_hidden()


@pytest.mark.parametrize("failure", ["500", "no answer"])
@pytest.mark.usefixtures("manager")
def test_failed_abort_request_keeps_reason_and_can_be_sent_again(
    failure: str, stuck_run: Run, sign_in: OpenPage, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors += ["Failed to load resource", "htmx:error|fail: Object"]
    page = sign_in("manager")

    def fail(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
        elif failure == "500":
            route.fulfill(status=500, body="<!doctype html><p data-reason>It broke here.</p>")
        else:
            route.abort()

    page.route("**/abort/", fail)
    open_abort_dialog(page, stuck_run)
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason in your own words").fill("Wrong version")
    dialog.get_by_role("button", name="Abort run").click()
    text = "It broke here." if failure == "500" else "It is safe to submit again."
    expect(dialog.get_by_role("alert")).to_contain_text(text)
    expect(dialog.get_by_label("Reason in your own words")).to_have_value("Wrong version")
    page.unroute("**/abort/")
    dialog.get_by_role("button", name="Abort run").click()
    expect(badge(page, stuck_run)).to_have_text("Aborting")
    assert stuck_run.aborts.get().reason == "Wrong version"


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "sync_worker")
def test_abort_dialog_requires_reason_and_accepts_quick_pick(
    stuck_run: Run, sign_in: OpenPage
) -> None:
    page = sign_in("manager", factories.address(stuck_run))
    open_abort_dialog(page, stuck_run)
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Abort run").click()
    expect(dialog.get_by_role("alert")).to_contain_text("A reason is required")
    expect(dialog.get_by_role("radio").first).to_be_focused()
    assert not stuck_run.aborts.exists()
    dialog.get_by_text("Blocks another release").click()
    dialog.get_by_role("button", name="Abort run").click()
    expect(dialog).to_be_hidden()
    assert stuck_run.aborts.get().reason == "Blocks another release"
