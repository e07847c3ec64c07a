"""Live pages in a real browser: painted at once, and nothing taken from under one's hands."""

import re
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from django.utils import timezone
from playwright.sync_api import Locator, Page, Route, expect

from dashboard.models import Run, Stage, Upstream
from tests.support import factories
from tests.support.browser import (
    Open,
    break_streams,
    enter,
    is_marked,
    listens,
    mark,
    note_requests,
    pass_time,
    take_clock,
)
from tests.support.databases import moved
from tests.support.live import Live
from tests.support.stream import brisk

pytestmark = pytest.mark.browser

PATIENCE = 30_000  # milliseconds
# In seconds of the page's own time, and less than it waits for an answer:
LEFT_ALONE = 9  # until it shows by itself what nobody has asked for, at the latest
LOST = 6  # until it asks by itself, for want of a stream


@pytest.fixture
def run(live: Live) -> Run:
    """A run in flight, without anybody who would read more."""
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.fixture
def watch(sign_in: Open, live: Live) -> Open:
    """Open a page as somebody, and wait until it listens."""

    def watch_(name: str, address: str = "/", **options: object) -> Page:
        page = sign_in(name, address, **options)
        listens(live)
        mark(page)
        page.evaluate(
            """() => {
              window.refreshes = 0;
              document.addEventListener("refresh", () => { refreshes += 1 }, true);
            }"""
        )
        return page

    return watch_


def comes(to: Locator, text: str | list[str]) -> None:
    """Wait until the stream has brought a text: the page has asked for nothing by itself."""
    expect(to).to_have_text(text, timeout=PATIENCE)
    assert to.page.evaluate("() => refreshes") == 0


@pytest.mark.usefixtures("viewer")
def test_a_filtered_board_hears_of_pipelines_that_begin_to_match(run: Run, watch: Open) -> None:
    others = [factories.stage(of=factories.pipeline(slug)) for slug in ("ledger", "checkin")]
    page = watch("viewer", "/board/?q=SHOP+check&show=flight")
    page.get_by_label("Pipeline or project").focus()  # a hand at work: nothing comes by itself
    page.locator("#live").hover()
    factories.run(others[0], "r-2")  # in flight, by another name
    factories.run(others[1], "r-3", status="success")
    factories.change(run, status="waiting")  # told after both
    expect(page.locator(f"#stage-{run.stage_id} [data-badge]")).to_have_text("Waiting")
    expect(page.locator("#news")).to_be_hidden()
    factories.run(others[1], "r-4")
    expect(page.locator("#news")).to_have_text("This page has changed")
    page.locator("#news").click()
    expect(page.locator("[data-stage][data-status]")).to_have_count(2)


def badge(page: Page, run_id: str = "r-1") -> str:
    return f'[data-run="{run_id}"] [data-badge]'


@pytest.mark.usefixtures("viewer")
def test_a_change_is_painted_at_once_and_said_once(run: Run, watch: Open) -> None:
    page = watch("viewer")
    factories.change(run, status="approval_wait")
    comes(page.locator(badge(page)), "Needs approval")
    expect(page.locator("#said")).to_have_text("Nightly: Needs approval")
    expect(page).to_have_title("Needs approval · Now (1) · Release flows")
    assert page.evaluate("() => history.state") is None  # going back is the browser's
    assert is_marked(page)
    page.evaluate("() => { document.querySelector('#said').textContent = '' }")
    factories.change(run, step="migrate")  # no change of status: nothing to say
    comes(page.locator('[data-run="r-1"] .step'), "migrate")
    expect(page.locator("#said")).to_have_text("")


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("page_of", ["stage", "pipeline", "run"])
def test_each_page_is_live(page_of: str, run: Run, watch: Open) -> None:
    about = {"stage": run.stage, "pipeline": run.stage.pipeline, "run": run}[page_of]
    page = watch("viewer", factories.address(about))
    factories.change(run, status="retrying")
    comes(page.locator(badge(page)).first, "Retrying")
    expect(page.locator("#said")).to_have_text("Nightly: Retrying")
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_the_boards_cells_are_live(run: Run, watch: Open) -> None:
    page = watch("viewer", "/board/")
    factories.change(run, status="retrying")
    cell = page.locator(f"#stage-{run.stage_id}")
    comes(cell.locator("[data-badge]"), "Retrying")
    # It is still a cell of its table.
    expect(page.locator(".board td[data-stage]")).to_have_count(1)
    expect(page.locator("#said")).to_have_text("Checkout / Production: Retrying")
    expect(page).to_have_title("Retrying · Board · Release flows")


@pytest.mark.usefixtures("manager")
def test_focus_selection_scroll_and_an_open_dialog_stay(run: Run, watch: Open) -> None:
    for number in range(60):
        factories.run(run.stage, status="success", name=f"Old {number}")
    page = watch("manager", factories.address(run.stage))
    page.locator("[data-abort]").click()
    reason = page.get_by_role("dialog").get_by_label("Reason")
    reason.fill("Half a sent")
    factories.change(run, status="retrying")
    comes(page.locator(badge(page)), "Retrying")
    expect(reason).to_have_value("Half a sent")
    expect(reason).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Old 40").focus()
    page.evaluate("() => getSelection().selectAllChildren(document.activeElement)")
    where = page.evaluate("() => scrollY")
    factories.change(run, status="approval_wait")
    comes(page.locator(badge(page)), "Needs approval")
    expect(page.get_by_role("link", name="Old 40")).to_be_focused()
    assert page.evaluate("() => String(getSelection()).trim()") == "Old 40"
    assert page.evaluate("() => scrollY") == where > 0


@pytest.mark.usefixtures("viewer")
def test_what_is_said_in_one_breath_is_said_in_full(run: Run, watch: Open) -> None:
    other = factories.run(run.stage, "r-2", name="Hourly")
    page = watch("viewer")
    for number, changed in enumerate((run, other), start=1):
        factories.change(changed, status="retrying")
        expect(page.locator("#said p")).to_have_count(number)
    comes(page.locator("#said p"), ["Nightly: Retrying", "Hourly: Retrying"])


@pytest.mark.usefixtures("viewer")
def test_blindness_is_said_when_it_begins_and_when_it_ends(run: Run, watch: Open) -> None:
    page = watch("viewer")
    factories.trouble("It fell over.")
    expect(page.locator("#said")).to_have_text("It fell over.", timeout=10_000)
    expect(page).to_have_title("Can’t see · Now (1) · Release flows")
    Upstream.objects.update(error="", error_since=None)
    expect(page.locator("#said")).to_contain_text("can be read again", timeout=10_000)


@pytest.mark.usefixtures("viewer")
def test_a_board_that_was_away_shows_what_came_and_went_meanwhile(run: Run, watch: Open) -> None:
    page = watch("viewer", "/board/")
    take_clock(page)
    mark(page)
    page.mouse.move(1, 1)
    page.context.set_offline(True)
    factories.stage(of=factories.pipeline("brand-new"))
    page.context.set_offline(False)
    page.wait_for_function("() => moved")
    pass_time(page, LEFT_ALONE)
    expect(page.get_by_role("link", name="Brand-New")).to_be_visible(timeout=PATIENCE)
    assert is_marked(page)


@pytest.mark.usefixtures("manager")
def test_a_page_that_hears_of_its_session_s_end_hangs_up(run: Run, watch: Open, live: Live) -> None:
    page = watch("manager")
    page.locator("[data-abort]").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    Session.objects.all().delete()
    page.get_by_role("dialog").get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    listens(live, viewers=0)


@pytest.mark.usefixtures("viewer")
def test_a_page_whose_run_is_no_more_says_so(
    run: Run, watch: Open, live: Live, forgiven: list[str]
) -> None:
    page = watch("viewer", factories.address(run))
    take_clock(page)
    page.mouse.move(1, 1)
    run.delete()
    expect(page.locator("#as-of")).to_contain_text("no longer known here", timeout=PATIENCE)
    expect(page.locator("#as-of")).to_have_attribute("data-stale", "true")
    pass_time(page, LEFT_ALONE)
    expect(page.locator("#notices")).to_contain_text("No run “r-1” is known", timeout=PATIENCE)


@pytest.mark.usefixtures("manager", "syncing")
def test_the_notice_of_an_accepted_abort_leaves_when_the_run_has_concluded(
    stuck: Run, sign_in: Open
) -> None:
    page = sign_in("manager", factories.address(stuck))
    take_clock(page)
    page.locator("[data-abort]").click()
    page.get_by_role("dialog").get_by_text("Stuck", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
    expect(page.locator("[data-run]")).to_have_attribute("data-concluded", "true", timeout=20_000)
    expect(page.locator("#notices .notice")).to_be_hidden()  # its room is left under a hand
    page.mouse.move(0, 0)
    pass_time(page, LEFT_ALONE)
    expect(page.locator("#notices .notice")).to_have_count(0)


@pytest.mark.usefixtures("viewer")
def test_new_runs_are_announced_and_come_when_asked_for(run: Run, watch: Open) -> None:
    page = watch("viewer")
    page.get_by_role("link", name="Nightly").hover()  # a hand over the table: nothing may move
    factories.run(run.stage, "r-2", name="Second")
    news = page.get_by_role("button", name="1 new run", exact=True)
    expect(news).to_be_visible(timeout=PATIENCE)
    factories.run(run.stage, "r-3", name="Third")
    news = page.get_by_role("button", name="2 new runs", exact=True)
    expect(news).to_be_visible(timeout=PATIENCE)
    expect(page.locator("[data-run]")).to_have_count(1)
    comes(page.locator("#in-flight .count"), "3")
    news.click()
    expect(page.locator("[data-run]")).to_have_count(3)
    expect(page.locator("#news")).to_be_hidden()
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_a_page_that_nobody_touches_shows_new_runs_by_itself(run: Run, watch: Open) -> None:
    page = watch("viewer")
    take_clock(page)
    mark(page)
    page.mouse.move(1, 1)
    factories.run(run.stage, "r-2", name="Second")
    page.wait_for_function("() => unseen.size")
    pass_time(page, LEFT_ALONE)
    expect(page.get_by_role("link", name="Second")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#news")).to_be_hidden()
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_runs_that_come_without_a_pause_do_not_put_off_what_came_first(
    run: Run, watch: Open
) -> None:
    page = watch("viewer")
    page.get_by_role("link", name="Nightly").hover()  # nothing is shown meanwhile
    page.evaluate("() => { Math.random = () => 1 }")
    factories.run(run.stage, "r-2", name="Second")
    page.wait_for_function("() => unseen.size === 1 && !news.hidden")
    at = page.evaluate("() => settleAt")
    factories.run(run.stage, "r-3", name="Third")
    page.wait_for_function("() => unseen.size === 2 && news.textContent.includes('2')")
    assert page.evaluate("() => settleAt") == at


@pytest.mark.usefixtures("viewer")
def test_what_was_incomplete_becomes_whole_without_moving_the_page(run: Run, watch: Open) -> None:
    unread = factories.stage("Staging", synced_at=None, promised_at=None)
    page = watch("viewer")
    page.get_by_role("link", name="Nightly").hover()
    expect(page.locator("[data-incomplete]")).to_be_visible()
    top = (page.locator("#in-flight").bounding_box() or {})["y"]
    now = timezone.now()
    Stage.objects.filter(pk=unread.pk).update(synced_at=now, promised_at=now + timedelta(hours=1))
    expect(page.locator("[data-incomplete]")).to_have_count(0)
    assert (page.locator("#in-flight").bounding_box() or {})["y"] == top


@pytest.mark.usefixtures("viewer")
def test_a_filter_announces_only_what_it_would_show(run: Run, watch: Open) -> None:
    factories.run(run.stage, "r-2", status="failure")
    page = watch("viewer", f"{factories.address(run.stage)}?status=failure")
    page.locator('[data-run="r-2"]').hover()
    factories.run(run.stage, "r-3", status="retrying")
    factories.run(run.stage, "r-4", status="failure")
    comes(page.locator("#news"), "1 new run")
    expect(page).to_have_url(re.compile(r"status=failure$"))


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("address", ["/", "/aborts/", "/aborts/lists/", "/status/"])
def test_while_the_stream_lives_the_page_asks_for_nothing(
    address: str, run: Run, watch: Open
) -> None:
    page = watch("viewer", address)
    take_clock(page)
    asked = note_requests(page)
    pass_time(page, 20)  # the server speaks sooner than a page gives up a stream
    assert asked == []


@pytest.mark.usefixtures("viewer")
def test_a_stream_that_breaks_comes_back_and_brings_what_was_missed(
    run: Run, watch: Open, live: Live
) -> None:
    page = watch("viewer")
    take_clock(page)
    asked = note_requests(page)
    page.clock.pause_at(page.evaluate("() => Date.now() + 1_000"))  # before the page asks by itself
    break_streams(live)
    page.wait_for_function("() => !connected")
    factories.change(run, status="retrying")
    pass_time(page, 3)
    page.wait_for_function("() => connected")
    page.clock.resume()
    expect(page.locator(badge(page))).to_have_text("Retrying", timeout=PATIENCE)
    listens(live)
    assert [url for url in asked if "/live/" not in url] == []


@pytest.mark.usefixtures("viewer")
def test_without_a_stream_the_page_asks_by_itself(
    run: Run, live: Live, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("the server responded with a status of 503")
    live.end_streams()
    page = sign_in("viewer")
    take_clock(page, until="started")
    mark(page)
    factories.change(run, status="retrying")
    pass_time(page, LOST)
    expect(page.locator(badge(page))).to_have_text("Retrying", timeout=PATIENCE)
    assert is_marked(page)


def hold_streams(page: Page) -> list[Route]:
    """Let a page's streams have no answer from now on."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/live/**", hold)
    return held


@pytest.mark.usefixtures("viewer")
def test_where_the_stream_gets_no_answer_the_page_asks_by_itself(run: Run, sign_in: Open) -> None:
    page = sign_in("viewer")
    held = hold_streams(page)
    take_clock(page, until="started")
    mark(page)
    factories.change(run, status="retrying")
    pass_time(page, LOST)
    expect(page.locator(badge(page))).to_have_text("Retrying", timeout=PATIENCE)
    assert held
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_a_dashboard_that_gives_no_answer_is_said_to_be_out_of_reach(
    run: Run, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("htmx:error")
    page = sign_in("viewer")
    hold_streams(page)
    take_clock(page, until="started")

    def vanish(_route: Route) -> None:
        """Neither an answer nor an error."""

    page.route(lambda url: "/live/" not in url and "/static/" not in url, vanish)
    pass_time(page, LOST)
    expect(page.locator("[data-unreachable]")).to_be_hidden()
    pass_time(page, 10)  # as long as it waits for an answer
    expect(page.locator("[data-unreachable]")).to_be_visible()


@brisk
@pytest.mark.usefixtures("viewer")
@pytest.mark.skipif(connection.vendor != "sqlite", reason="a file is moved away")
def test_a_page_says_that_the_database_is_away_and_keeps_what_it_shows(
    run: Run, watch: Open
) -> None:
    page = watch("viewer")
    line = page.locator("[data-unreachable]")
    with moved():
        expect(line).to_contain_text("The database has not answered since", timeout=PATIENCE)
        expect(line).to_be_visible()
        expect(page.locator("[data-run]")).to_have_count(1)
    expect(line).to_be_hidden(timeout=PATIENCE)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("beat", [60.0], ids=["slow"])
def test_a_stream_that_comes_back_at_once_leaves_the_page_alone(
    run: Run, watch: Open, live: Live
) -> None:
    page = watch("viewer")
    take_clock(page)
    # There was nothing to say for longer than a page is without a stream.
    page.clock.pause_at(page.evaluate("() => Date.now() + 20_000"))
    held, asked = hold_streams(page), note_requests(page)
    break_streams(live)
    page.wait_for_function("() => !connected")
    pass_time(page, 4)
    assert [url for url in asked if "/live/" not in url] == []
    assert len(held) == 1
    for route in held:
        route.continue_()


@pytest.mark.usefixtures("viewer")
def test_a_clock_that_is_off_is_put_right_by_the_stream(run: Run, open_browser: Open) -> None:
    page = open_browser()
    page.add_init_script("const own = Date.now; Date.now = () => own() + 300_000")
    page.goto("/")
    enter(page, "viewer")
    expect(page.locator("[data-run] [data-since]").first).to_have_text(re.compile("^1 min"))


@pytest.mark.usefixtures("manager")
def test_who_signs_in_again_elsewhere_has_a_live_page_again(
    run: Run, watch: Open, live: Live, forgiven: list[str]
) -> None:
    forgiven.append("SSE reconnect failed with status 401")
    page = watch("manager")
    take_clock(page)
    mark(page)
    Session.objects.all().delete()
    break_streams(live)
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    other = page.context.new_page()
    other.goto("/status/")
    enter(other, "manager")
    other.close()
    page.locator("[data-abort]").click()
    page.keyboard.press("Escape")
    expect(page.locator("#notices .notice")).to_have_count(0)
    factories.change(run, status="approval_wait")
    pass_time(page, LOST)
    expect(page.locator(badge(page))).to_have_text("Needs approval", timeout=PATIENCE)
    for _ in range(6):  # it opens no two streams within half a minute
        pass_time(page, LOST)
        expect(page.locator(".htmx-request:not(#stream)")).to_have_count(0, timeout=PATIENCE)
    page.wait_for_function("() => connected")
    listens(live)
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_who_is_signed_out_meanwhile_is_told_and_asks_no_more(
    run: Run, watch: Open, live: Live, forgiven: list[str]
) -> None:
    forgiven.append("SSE reconnect failed with status 401")  # htmx says so, once
    page = watch("viewer")
    take_clock(page)
    Session.objects.all().delete()
    break_streams(live)
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    asked = note_requests(page)
    pass_time(page, 300)
    assert asked == []


@pytest.mark.usefixtures("manager")
def test_an_abort_gets_through_though_its_row_has_left_the_page(
    live: Live, stuck: Run, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("the server responded with a status of 503")
    live.end_streams()  # pages that ask by themselves move what is in them
    page = sign_in("manager", f"{factories.address(stuck.stage)}?status={stuck.status}")
    take_clock(page, until="started")
    page.locator(f'[data-run="{stuck.run_id}"] [data-abort]').click()  # others may be in flight
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    factories.change(stuck, status="approval_wait")
    pass_time(page, LOST)
    expect(page.locator(f'[data-run="{stuck.run_id}"]')).to_have_count(0, timeout=PATIENCE)
    dialog.get_by_text("Stuck", exact=True).click()
    dialog.get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
    expect(dialog).to_be_hidden()
    assert stuck.aborts.count() == 1


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("age", [1, 200])
def test_a_row_that_has_less_to_say_moves_nothing_below_it(
    age: int, width: int, run: Run, watch: Open
) -> None:
    now = timezone.now()
    then = now - timedelta(minutes=age)
    Run.objects.filter(pk=run.pk).update(created_at=then, first_seen_at=then)
    factories.change(run, step="Run the migrations of the database", step_since=now)
    factories.run(run.stage, status="success", name="Old")
    page = watch("viewer", factories.address(run.stage), viewport={"width": width, "height": 700})
    page.locator("#live").hover()  # a hand at work: nothing comes by itself
    below = page.get_by_role("link", name="Old")
    where = below.bounding_box()
    expect(page.locator(".runs .step")).to_have_count(1)
    factories.change(
        run, status="success", concluded=True, in_flight=False, concluded_at=now, step=""
    )
    comes(page.locator(badge(page)), "Success")
    expect(page.locator(".runs .step")).to_have_count(0)
    assert below.bounding_box() == where
    page.reload()
    assert below.bounding_box() != where


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("scrolled", [0, 30, 300])
def test_what_is_told_above_a_page_moves_nothing_in_it(
    scrolled: int, run: Run, watch: Open
) -> None:
    for number in range(60):
        factories.run(run.stage, status="success", name=f"Old {number}")
    page = watch("viewer", factories.address(run.stage))
    page.evaluate("y => scrollTo(0, y)", scrolled)
    assert page.evaluate("scrollY") == scrolled
    row = page.get_by_role("link", name="Old 50")
    before = (row.bounding_box() or {})["y"]
    Session.objects.all().delete()
    page.evaluate("() => htmx.trigger('#live', 'refresh')")
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    page.wait_for_function("before => scrollY > before", arg=scrolled)
    assert (row.bounding_box() or {})["y"] == pytest.approx(before, abs=1)
