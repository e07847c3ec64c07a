"""Live pages in a real browser: changes appear at once, and do not disturb user input."""

import re
import time
from collections.abc import Callable
from datetime import timedelta
from email.utils import format_datetime

import pytest
from django.contrib.auth.models import Group, User
from django.db import connection, transaction
from django.utils import timezone
from playwright.sync_api import Locator, Page, Route, expect

from dashboard.models import Grant, Run, Session, Stage, Upstream
from dashboard.web.live import changes
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    advance_time,
    break_streams,
    check,
    has_reload_mark,
    install_clock,
    record_requests,
    redirect_to_sign_in,
    set_hidden,
    set_reload_mark,
    submit_sign_in,
    wait_for_viewers,
)
from tests.support.databases import sqlite_folder_renamed
from tests.support.live import WAIT_TIMEOUT, Live
from tests.support.stream import fast_polling

pytestmark = pytest.mark.browser

# In seconds of the page's clock, and less than its timeout for an answer:
IDLE_REFRESH_SECONDS = 9  # after which an idle page shows new runs, at the latest
POLLING_FALLBACK_SECONDS = 6  # after which a page without a stream polls


@pytest.fixture
def run(live: Live) -> Run:
    """A run in flight, without a worker."""
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.fixture
def open_live_page(sign_in: OpenPage, live: Live) -> OpenPage:
    """Open a page as a user, and wait until its stream is open."""

    def open_and_wait(name: str, address: str = "/", **options: object) -> Page:
        page = sign_in(name, address, **options)
        wait_for_viewers(live)
        set_reload_mark(page)
        page.evaluate(
            """() => {
              window.refreshes = 0;
              document.addEventListener("refresh", () => { refreshes += 1 }, true);
            }"""
        )
        return page

    return open_and_wait


def expect_streamed_text(locator: Locator, text: str | list[str] | re.Pattern[str]) -> None:
    """Wait until the stream has changed a text: the page has not refreshed."""
    expect(locator).to_have_text(text)
    assert locator.page.evaluate("() => refreshes") == 0


def badge(page: Page, run_id: str = "r-1") -> str:
    return f'[data-run="{run_id}"] [data-badge]'


def fail(stage: Stage, minutes_ago: int, **fields: object) -> Run:
    ended_at = timezone.now() - timedelta(minutes=minutes_ago)
    return factories.run(stage, status="failure", concluded_at=ended_at, **fields)


@pytest.mark.usefixtures("viewer")
def test_unfolded_failures_stay_unfolded_when_another_joins_them(
    run: Run, open_live_page: OpenPage
) -> None:
    cause = {"failed_step": "migrate", "failed_step_error": "exit code 1"}
    others = [factories.stage(parent=factories.pipeline(f"p-{number}")) for number in range(11)]
    for other in others:
        fail(other, 40, name="Elsewhere")
    for minutes in (30, 50):
        fail(run.stage, minutes, **cause)
    unread = fail(run.stage, 20, name="Unread")
    page = open_live_page("viewer")
    same_cause, folded = page.locator("[id^=same-cause] details"), page.locator("details.folded")
    expect(page.locator("details.folded tr[data-run]")).to_have_count(3)
    for details in (same_cause, folded):
        details.locator("> summary").click()
    factories.change(unread, **cause)
    expect_streamed_text(same_cause.locator("summary"), "2 more with this cause")
    expect(page.locator(f'[data-run="{unread.run_id}"]')).to_have_count(1)
    expect(page.locator("details.folded tr[data-run]")).to_have_count(2)
    expect(same_cause).to_have_attribute("open", "")
    expect(folded).to_have_attribute("open", "")
    expect(page.locator("[data-former-run]")).to_have_count(1)


@pytest.mark.usefixtures("viewer")
def test_changed_run_is_shown_live_and_announced_once(run: Run, open_live_page: OpenPage) -> None:
    page = open_live_page("viewer")
    factories.change(run, status="approval_wait")
    expect_streamed_text(page.locator(badge(page)), "Needs approval")
    expect(page.locator("#announcements")).to_have_text("Nightly: Needs approval")
    expect(page).to_have_title("Needs approval · Now · Release flows")
    assert page.evaluate("() => history.state") is None  # going back is the browser's
    assert has_reload_mark(page)
    page.evaluate("() => { document.querySelector('#announcements').textContent = '' }")
    factories.change(run, step="migrate")  # no change of status: no announcement
    expect_streamed_text(page.locator('[data-run="r-1"] .step'), "migrate")
    expect(page.locator("#announcements")).to_have_text("")


@pytest.mark.slow
@pytest.mark.usefixtures("manager")
def test_stream_update_keeps_focus_selection_scroll_and_dialog(
    run: Run, open_live_page: OpenPage
) -> None:
    for number in range(60):
        factories.run(run.stage, status="success", name=f"Old {number}")
    page = open_live_page("manager", factories.address(run.stage))
    page.locator("[data-abort]").click()
    reason = page.get_by_role("dialog").get_by_label("Reason")
    reason.fill("Half a sent")
    factories.change(run, status="retrying")
    expect_streamed_text(page.locator(badge(page)), "Retrying")
    expect(reason).to_have_value("Half a sent")
    expect(reason).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Old 40").focus()
    page.evaluate("() => getSelection().selectAllChildren(document.activeElement)")
    place = page.get_by_role("link", name="Old 40").bounding_box()
    factories.change(run, status="approval_wait")
    expect_streamed_text(page.locator(badge(page)), "Needs approval")
    expect(page.get_by_role("link", name="Old 40")).to_be_focused()
    assert page.evaluate("() => String(getSelection()).trim()") == "Old 40"
    assert page.get_by_role("link", name="Old 40").bounding_box() == pytest.approx(place, abs=1)
    assert page.evaluate("() => scrollY") > 0


@pytest.mark.usefixtures("viewer")
def test_announcements_in_quick_succession_are_all_kept(run: Run, open_live_page: OpenPage) -> None:
    other = factories.run(run.stage, "r-2", name="Hourly")
    page = open_live_page("viewer")
    for number, changed in enumerate((run, other), start=1):
        factories.change(changed, status="retrying")
        expect(page.locator("#announcements p")).to_have_count(number)
    expect_streamed_text(
        page.locator("#announcements p"), ["Nightly: Retrying", "Hourly: Retrying"]
    )


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_upstream_outage_start_and_end_are_announced(run: Run, open_live_page: OpenPage) -> None:
    page = open_live_page("viewer")
    factories.upstream_error("It fell over.")
    expect(page.locator("#announcements")).to_have_text("It fell over.")
    expect(page).to_have_title("Not updating · Now · Release flows")
    Upstream.objects.update(error="", error_since=None)
    expect(page.locator("#announcements")).to_contain_text("have resumed")


@pytest.mark.usefixtures("viewer")
def test_run_that_changed_after_too_many_others_is_shown_while_the_page_is_in_use(
    run: Run, open_live_page: OpenPage
) -> None:
    page = open_live_page("viewer", factories.address(run))
    page.locator("h1").hover()
    others = [factories.run(run.stage) for _ in range(changes.MAX_RUNS + 1)]
    with transaction.atomic():  # so that one message is about all of them
        for other in others:
            factories.change(other, status="success")
        factories.change(run, status="waiting")
    expect(page.locator(".headline [data-badge]")).to_have_text("Waiting")
    assert page.locator("#live:hover").count()
    assert has_reload_mark(page)


@pytest.mark.usefixtures("viewer")
def test_stream_that_a_proxy_redirects_ends_with_signed_out_notice(
    run: Run, sign_in: OpenPage
) -> None:
    page = sign_in("viewer", "/board/")
    redirect_to_sign_in(page, "**/live/**")
    page.reload()
    expect(page.locator("#notices")).to_contain_text("You are signed out")


@pytest.mark.usefixtures("viewer")
def test_refresh_that_a_proxy_redirects_keeps_the_page(
    run: Run, sign_in: OpenPage, live: Live, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors.append("the server responded with a status of 503")
    live.end_streams()
    page = sign_in("viewer")
    redirect_to_sign_in(page, "**/")
    page.evaluate("() => refresh()")
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    expect(page.get_by_role("link", name="Nightly").first).to_be_visible()


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_page_of_deleted_run_shows_message(
    run: Run, open_live_page: OpenPage, live: Live, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors.append("SSE reconnect failed with status 404")
    page = open_live_page("viewer", factories.address(run))
    install_clock(page)
    check(page, "recordAnnouncements")
    page.mouse.move(1, 1)
    run.delete()
    expect(page.locator("#data-age")).to_contain_text("No longer available")
    expect(page.locator("#data-age")).to_have_attribute("data-stale", "true")
    for _ in range(10):  # for longer than the pauses before the first refreshes
        advance_time(page, IDLE_REFRESH_SECONDS)
        page.wait_for_function("() => !$('#live.htmx-request')")
    assert page.evaluate("failures") >= 3
    expect(page.locator("#notices")).to_contain_text("Run “r-1” not found")
    offer, notice = page.evaluate("recordedAnnouncements")  # nothing again, or untrue
    assert offer == "Show changes"
    assert "not found" in notice


def refresh_overtaken_by(page: Page, change: Callable[[], None]) -> Callable[[], None]:
    """Refresh the page, with an answer from before a change that the stream has shown meanwhile.

    Later refreshes wait for a call of the function that is returned.
    """
    held: list[Route] = []
    is_released = False

    def hold(route: Route) -> None:
        if is_released:
            route.continue_()
        else:
            held.append(route)

    def release() -> None:
        nonlocal is_released
        is_released = True
        for route in held[1:]:
            route.continue_()

    page.route(page.url, hold)
    page.wait_for_function("() => !$('.htmx-request:not(#stream)')")
    page.evaluate("refresh()")
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not held:
        assert time.monotonic() < deadline, "the page was not refreshed"
        page.wait_for_timeout(20)
    answer = held[0].fetch()
    change()
    with page.expect_request_finished(lambda request: request.url == page.url):
        held[0].fulfill(response=answer)
    return release


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_refresh_that_the_stream_overtakes_does_not_leave_an_older_run(
    run: Run, open_live_page: OpenPage
) -> None:
    page = open_live_page("viewer", factories.address(run.stage))
    badge = page.locator("#run-r-1 [data-badge]")
    badge.hover()  # which postpones refreshes for new runs
    factories.change(run, status="retrying")
    expect(badge).to_have_text("Retrying")

    def change() -> None:
        factories.change(run, status="waiting")
        expect(badge).to_have_text("Waiting")

    release = refresh_overtaken_by(page, change)
    expect(badge).to_have_text("Retrying")
    release()
    expect(badge).to_have_text("Waiting")
    assert page.evaluate("$('#live:hover') !== null")


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "sync_worker")
def test_abort_notice_disappears_when_run_concludes(stuck_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("manager", factories.address(stuck_run.stage))
    install_clock(page)
    run = page.locator(f'[data-run="{stuck_run.run_id}"]')
    run.locator("[data-abort]").click()
    page.get_by_role("dialog").get_by_text("Stuck", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
    expect(run).to_have_attribute("data-concluded", "true")
    expect(
        page.locator("#notices .notice")
    ).to_be_hidden()  # its space remains while the page is in use
    page.mouse.move(0, 0)
    advance_time(page, IDLE_REFRESH_SECONDS)
    expect(page.locator("#notices .notice")).to_have_count(0)


@pytest.mark.usefixtures("viewer")
def test_new_runs_notice_shows_runs_on_click(run: Run, open_live_page: OpenPage) -> None:
    page = open_live_page("viewer", factories.address(run.stage))
    page.get_by_role(
        "link", name="Nightly"
    ).hover()  # the pointer is over the table: nothing may move
    factories.run(run.stage, "r-2", name="Second")
    button = page.get_by_role("button", name="1 new run", exact=True)
    expect(button).to_be_visible()
    factories.run(run.stage, "r-3", name="Third")
    button = page.get_by_role("button", name="2 new runs", exact=True)
    expect(button).to_be_visible()
    expect(page.locator("[data-run]")).to_have_count(1)
    button.click()
    expect(page.locator("[data-run]")).to_have_count(3)
    expect(page.locator("#new-runs")).to_be_hidden()
    assert has_reload_mark(page)


@pytest.mark.usefixtures("viewer")
def test_idle_page_shows_new_runs_automatically(run: Run, open_live_page: OpenPage) -> None:
    page = open_live_page("viewer", factories.address(run.stage))
    install_clock(page)
    set_reload_mark(page)
    page.mouse.move(1, 1)
    factories.run(run.stage, "r-2", name="Second")
    page.wait_for_function("() => newRunIds.size")
    advance_time(page, IDLE_REFRESH_SECONDS)
    expect(page.get_by_role("link", name="Second")).to_be_visible()
    expect(page.locator("#new-runs")).to_be_hidden()
    assert has_reload_mark(page)


@pytest.mark.usefixtures("viewer")
def test_filtered_page_announces_only_matching_new_runs(run: Run, open_live_page: OpenPage) -> None:
    factories.run(run.stage, "r-2", status="failure")
    page = open_live_page("viewer", f"{factories.address(run.stage)}?status=failure")
    page.locator('[data-run="r-2"]').hover()
    factories.run(run.stage, "r-3", status="retrying")
    factories.run(run.stage, "r-4", status="failure")
    expect_streamed_text(page.locator("#new-runs"), "1 new run")
    expect(page).to_have_url(re.compile(r"status=failure$"))


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("address", ["/", "/health/"])
def test_page_with_open_stream_sends_no_requests(
    address: str, run: Run, open_live_page: OpenPage
) -> None:
    page = open_live_page("viewer", address)
    install_clock(page)
    urls = record_requests(page)
    advance_time(page, 20)  # the server's heartbeat comes before the page gives up the stream
    assert urls == []


@pytest.mark.usefixtures("viewer")
def test_broken_stream_reconnects_and_replays_changes(
    run: Run, open_live_page: OpenPage, live: Live
) -> None:
    page = open_live_page("viewer")
    install_clock(page)
    urls = record_requests(page)
    # Before the page polls; the clock runs on until the next call.
    page.clock.pause_at(page.evaluate("() => Date.now() / 1_000 + 3"))
    break_streams(live)
    page.wait_for_function("() => !isConnected")
    factories.change(run, status="retrying")
    advance_time(page, 3)
    page.wait_for_function("() => isConnected")
    page.clock.resume()
    expect(page.locator(badge(page))).to_have_text("Retrying")
    wait_for_viewers(live)
    assert [url for url in urls if "/live/" not in url] == []


@pytest.mark.parametrize("is_granted", [True, False])
def test_right_that_changed_while_the_page_was_in_the_background_is_shown(
    is_granted: bool, run: Run, open_live_page: OpenPage, live: Live, viewer: User
) -> None:
    shop = Group.objects.create(name="shop")
    Grant.objects.create(group=shop, action="abort")
    if not is_granted:
        viewer.groups.add(shop)
    page = open_live_page("viewer", factories.address(run))
    page.locator("h1").hover()  # in use: nothing is shown automatically
    set_hidden(page, True)
    wait_for_viewers(live, viewers=0)
    viewer.groups.set([shop] if is_granted else [])
    set_hidden(page, False)
    expect(page.locator("[data-abort]")).to_be_enabled(enabled=is_granted)
    wait_for_viewers(live)
    assert has_reload_mark(page)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("status", [429, 503])
def test_page_without_stream_falls_back_to_polling(
    run: Run, live: Live, sign_in: OpenPage, ignored_console_errors: list[str], status: int
) -> None:
    ignored_console_errors.append(f"the server responded with a status of {status}")
    if status == 429:
        live.feed.hub.max_streams_per_account = 0
    else:
        live.end_streams()
    page = sign_in("viewer")
    install_clock(page, condition="isHtmxStarted")
    set_reload_mark(page)
    factories.change(run, status="retrying")
    advance_time(page, POLLING_FALLBACK_SECONDS)
    expect(page.locator(badge(page))).to_have_text("Retrying")
    expect(page.locator("#notices .notice")).to_have_count(0)
    assert has_reload_mark(page)


def hold_streams(page: Page) -> list[Route]:
    """Leave a page's later streams without an answer."""
    routes: list[Route] = []

    def hold(route: Route) -> None:
        routes.append(route)

    page.route("**/live/**", hold)
    return routes


@pytest.mark.usefixtures("viewer")
def test_page_with_unanswered_stream_falls_back_to_polling(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer")
    routes = hold_streams(page)
    install_clock(page, condition="isHtmxStarted")
    set_reload_mark(page)
    factories.change(run, status="retrying")
    advance_time(page, POLLING_FALLBACK_SECONDS)
    expect(page.locator(badge(page))).to_have_text("Retrying")
    assert routes
    assert has_reload_mark(page)


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_unresponsive_dashboard_is_reported_unreachable(
    run: Run, sign_in: OpenPage, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors.append("htmx:error")
    page = sign_in("viewer")
    hold_streams(page)
    install_clock(page, condition="isHtmxStarted")

    def never_respond(_route: Route) -> None:
        """Neither an answer nor an error."""

    page.route(lambda url: "/live/" not in url and "/static/" not in url, never_respond)
    advance_time(page, POLLING_FALLBACK_SECONDS)
    expect(page.locator("[data-unreachable]")).to_be_hidden()
    advance_time(page, 10)  # its timeout for an answer
    expect(page.locator("[data-unreachable]")).to_be_visible()
    expect(page.locator("#announcements")).to_contain_text("Dashboard unreachable. Retrying.")
    check(page, "recordAnnouncements")
    page.unroute_all()
    advance_time(page, 60)
    page.wait_for_function("() => recordedAnnouncements.includes('This page is updated again.')")
    expect(page.locator("[data-unreachable]")).to_be_hidden()


@pytest.mark.usefixtures("viewer")
def test_load_balancer_without_dashboard_is_reported_unreachable(
    run: Run, live: Live, sign_in: OpenPage, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors.append("the server responded with a status of 503")
    live.end_streams()
    page = sign_in("viewer")
    page.route(lambda url: "/static/" not in url, answer_as_a_load_balancer)
    page.evaluate("() => refresh()")
    expect(page.locator("[data-unreachable]")).to_be_visible()
    expect(page.locator("#notices .notice")).to_have_count(0)


def answer_as_a_load_balancer(route: Route) -> None:
    route.fulfill(status=404, body="404 page not found", content_type="text/plain")


@fast_polling
@pytest.mark.usefixtures("viewer")
@pytest.mark.skipif(connection.vendor != "sqlite", reason="a file is moved away")
def test_database_outage_is_reported_and_rows_stay(run: Run, open_live_page: OpenPage) -> None:
    page = open_live_page("viewer")
    line = page.locator("[data-unreachable]")
    with sqlite_folder_renamed():
        expect(line).to_contain_text("The database has not responded since")
        expect(line).to_be_visible()
        expect(page.locator("[data-run]")).to_have_count(1)
    expect(line).to_be_hidden()


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("poll_interval", [60.0], ids=["slow"])
def test_quick_reconnect_sends_no_page_requests(
    run: Run, open_live_page: OpenPage, live: Live
) -> None:
    page = open_live_page("viewer")
    install_clock(page)
    # No message came for longer than a page waits without a stream.
    page.clock.pause_at(page.evaluate("() => Date.now() / 1_000 + 20"))
    routes, urls = hold_streams(page), record_requests(page)
    break_streams(live)
    page.wait_for_function("() => !isConnected")
    advance_time(page, 4)
    assert [url for url in urls if "/live/" not in url] == []
    assert len(routes) == 1
    for route in routes:
        route.continue_()


@pytest.mark.usefixtures("viewer")
def test_wrong_browser_clock_is_corrected_by_stream(run: Run, open_browser: OpenPage) -> None:
    page = open_browser()
    page.add_init_script("const own = Date.now; Date.now = () => own() + 300_000")
    page.goto("/")
    submit_sign_in(page, "viewer")
    expect(page.locator("[data-run] [data-since]").first).to_have_text(re.compile("^1 min"))


def elapsed_time(page: Page) -> Locator:
    return page.locator("[data-run] [data-since]").first


@pytest.mark.usefixtures("viewer")
def test_time_in_which_the_computer_slept_has_elapsed(run: Run, open_live_page: OpenPage) -> None:
    page = open_live_page("viewer")
    install_clock(page)
    wake_time = timezone.now() + timedelta(hours=1)
    routes: list[Route] = []

    def answer_an_hour_later(route: Route) -> None:
        routes.append(route)
        response = route.fetch()
        route.fulfill(
            response=response, headers=response.headers | {"date": format_datetime(wake_time, True)}
        )

    page.route(page.url, answer_an_hour_later)
    # In most browsers performance.now() stands still in that time, as it does here.
    page.clock.set_system_time(wake_time)
    advance_time(page, 2)
    expect(page.locator(".htmx-request:not(#stream)")).to_have_count(0)
    assert routes
    advance_time(page, 2)
    expect(elapsed_time(page)).to_have_text(re.compile("^1 h 0[12] min"))


@pytest.mark.slow
@pytest.mark.usefixtures("manager")
def test_page_is_live_again_after_sign_in_in_other_tab(
    run: Run, open_live_page: OpenPage, live: Live
) -> None:
    page = open_live_page("manager")
    install_clock(page)
    set_reload_mark(page)
    Session.objects.all().delete()
    break_streams(live)
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    other = page.context.new_page()
    other.goto("/health/")
    submit_sign_in(other, "manager")
    other.close()
    page.locator("[data-abort]").click()
    page.keyboard.press("Escape")
    expect(page.locator("#notices .notice")).to_have_count(0)
    factories.change(run, status="approval_wait")
    advance_time(page, POLLING_FALLBACK_SECONDS)
    expect(page.locator(badge(page))).to_have_text("Needs approval")
    for _ in range(6):  # it opens no two streams within half a minute
        advance_time(page, POLLING_FALLBACK_SECONDS)
        expect(page.locator(".htmx-request:not(#stream)")).to_have_count(0)
    page.wait_for_function("() => isConnected")
    wait_for_viewers(live)
    assert has_reload_mark(page)


@pytest.mark.usefixtures("viewer")
def test_signed_out_page_shows_notice_and_stops_requests(
    run: Run, open_live_page: OpenPage, live: Live
) -> None:
    page = open_live_page("viewer")
    install_clock(page)
    Session.objects.all().delete()
    break_streams(live)
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    urls = record_requests(page)
    advance_time(page, 300)
    assert urls == []


@pytest.mark.usefixtures("viewer")
def test_chip_is_live_only_while_the_stream_is_open(
    run: Run, open_live_page: OpenPage, live: Live, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors += ["net::ERR_FAILED", "Failed to fetch"]
    factories.leader()
    page = open_live_page("viewer", factories.address(run.stage))
    chip = page.locator("[data-chip]")
    expect(chip).to_have_attribute("data-tone", "good")
    expect(chip.locator("time")).to_have_text("Live")
    page.route("**/live/**", lambda route: route.abort())
    break_streams(live)
    expect(chip).to_have_attribute("data-tone", "neutral")
    expect(chip.locator("time")).to_have_text(re.compile(r"^\d+ s$"))


@pytest.mark.usefixtures("viewer")
def test_chip_is_not_live_over_data_of_more_than_a_minute_ago(
    run: Run, open_live_page: OpenPage
) -> None:
    factories.leader()
    read_at = timezone.now() - timedelta(seconds=70)
    Stage.objects.update(synced_at=read_at, fresh_until=read_at + timedelta(seconds=60))
    page = open_live_page("viewer", factories.address(run.stage))
    page.wait_for_function("() => isConnected")
    chip = page.locator("[data-chip]")
    expect(chip.locator("time")).to_have_text("1 min")
    expect(chip).to_have_attribute("data-tone", "neutral")
