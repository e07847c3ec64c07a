"""Live pages in a real browser: painted at once, and nothing taken from under one's hands."""

import re
from datetime import timedelta

import pytest
from django.contrib.sessions.models import Session
from django.utils import timezone
from playwright.sync_api import Page, Route, expect

from dashboard.models import Run, Upstream
from tests.support import factories
from tests.support.browser import (
    Open,
    break_streams,
    enter,
    is_marked,
    listens,
    mark,
    note_requests,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser

# The page asks by itself only where there is no stream: within the first seconds it can't have.
SOON = 2_500  # milliseconds


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
        return page

    return watch_


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
    expect(page.locator(badge(page))).to_have_text("Needs approval", timeout=SOON)
    expect(page.locator("#said")).to_have_text("Nightly: Needs approval")
    expect(page).to_have_title("Needs approval · Now (1) · Release flows")
    assert page.evaluate("() => history.state") is None  # going back is the browser's
    assert is_marked(page)
    page.evaluate("() => { document.querySelector('#said').textContent = '' }")
    factories.change(run, step="migrate")  # no change of status: nothing to say
    expect(page.locator('[data-run="r-1"] .step')).to_have_text("migrate", timeout=SOON)
    expect(page.locator("#said")).to_have_text("")


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("page_of", ["stage", "pipeline", "run"])
def test_each_page_is_live(page_of: str, run: Run, watch: Open) -> None:
    about = {"stage": run.stage, "pipeline": run.stage.pipeline, "run": run}[page_of]
    page = watch("viewer", factories.address(about))
    factories.change(run, status="retrying")
    expect(page.locator(badge(page)).first).to_have_text("Retrying", timeout=SOON)
    expect(page.locator("#said")).to_have_text("Nightly: Retrying")
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_the_boards_cells_are_live(run: Run, watch: Open) -> None:
    page = watch("viewer", "/board/")
    factories.change(run, status="retrying")
    cell = page.locator(f"#stage-{run.stage_id}")
    expect(cell.locator("[data-badge]")).to_have_text("Retrying", timeout=SOON)
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
    expect(page.locator(badge(page))).to_have_text("Retrying", timeout=SOON)
    expect(reason).to_have_value("Half a sent")
    expect(reason).to_be_focused()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Old 40").focus()
    page.evaluate("() => getSelection().selectAllChildren(document.activeElement)")
    where = page.evaluate("() => scrollY")
    factories.change(run, status="approval_wait")
    expect(page.locator(badge(page))).to_have_text("Needs approval", timeout=SOON)
    expect(page.get_by_role("link", name="Old 40")).to_be_focused()
    assert page.evaluate("() => String(getSelection()).trim()") == "Old 40"
    assert page.evaluate("() => scrollY") == where > 0


@pytest.mark.usefixtures("viewer")
def test_what_is_said_in_one_breath_is_said_in_full(run: Run, watch: Open) -> None:
    other = factories.run(run.stage, "r-2", name="Hourly")
    page = watch("viewer")
    for number, changed in enumerate((run, other), start=1):
        factories.change(changed, status="retrying")
        expect(page.locator("#said p")).to_have_count(number, timeout=SOON)
    expect(page.locator("#said p")).to_have_text(["Nightly: Retrying", "Hourly: Retrying"])


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
    page.mouse.move(1, 1)
    page.context.set_offline(True)
    factories.stage(of=factories.pipeline("brand-new"))
    page.context.set_offline(False)
    expect(page.get_by_role("link", name="Brand-New")).to_be_visible(timeout=20_000)
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
    page.mouse.move(1, 1)
    run.delete()
    expect(page.locator("#as-of")).to_contain_text("no longer known here", timeout=10_000)
    expect(page.locator("#as-of")).to_have_attribute("data-stale", "true")
    expect(page.locator("#notices")).to_contain_text("No run “r-1” is known", timeout=15_000)


@pytest.mark.usefixtures("manager", "syncing")
def test_the_notice_of_an_accepted_abort_leaves_when_the_run_has_concluded(
    stuck: Run, sign_in: Open
) -> None:
    page = sign_in("manager", factories.address(stuck))
    page.locator("[data-abort]").click()
    page.get_by_role("dialog").get_by_text("Stuck", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Abort run").click()
    expect(page.locator("#notices")).to_contain_text("Abort accepted")
    expect(page.locator("[data-run]")).to_have_attribute("data-concluded", "true", timeout=20_000)
    expect(page.locator("#notices .notice")).to_be_hidden()  # its room is left under a hand
    page.mouse.move(0, 0)
    expect(page.locator("#notices .notice")).to_have_count(0, timeout=20_000)


@pytest.mark.usefixtures("viewer")
def test_new_runs_are_announced_and_come_when_asked_for(run: Run, watch: Open) -> None:
    page = watch("viewer")
    page.get_by_role("link", name="Nightly").hover()  # a hand over the table: nothing may move
    factories.run(run.stage, "r-2", name="Second")
    news = page.get_by_role("button", name="1 new run", exact=True)
    expect(news).to_be_visible(timeout=SOON)
    factories.run(run.stage, "r-3", name="Third")
    news = page.get_by_role("button", name="2 new runs", exact=True)
    expect(news).to_be_visible(timeout=SOON)
    expect(page.locator("[data-run]")).to_have_count(1)
    expect(page.locator("#in-flight .count")).to_have_text("3")
    news.click()
    expect(page.locator("[data-run]")).to_have_count(3)
    expect(page.locator("#news")).to_be_hidden()
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_a_page_that_nobody_touches_shows_new_runs_by_itself(run: Run, watch: Open) -> None:
    page = watch("viewer")
    page.mouse.move(1, 1)
    factories.run(run.stage, "r-2", name="Second")
    expect(page.get_by_role("link", name="Second")).to_be_visible(timeout=15_000)
    expect(page.locator("#news")).to_be_hidden()
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_a_filter_announces_only_what_it_would_show(run: Run, watch: Open) -> None:
    factories.run(run.stage, "r-2", status="failure")
    page = watch("viewer", f"{factories.address(run.stage)}?status=failure")
    page.locator('[data-run="r-2"]').hover()
    factories.run(run.stage, "r-3", status="retrying")
    factories.run(run.stage, "r-4", status="failure")
    expect(page.locator("#news")).to_have_text("1 new run", timeout=SOON)
    expect(page).to_have_url(re.compile(r"status=failure$"))


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("address", ["/", "/aborts/", "/aborts/lists/", "/status/"])
def test_while_the_stream_lives_the_page_asks_for_nothing(
    address: str, run: Run, watch: Open
) -> None:
    page = watch("viewer", address)
    asked = note_requests(page)
    page.wait_for_timeout(6_000)
    assert asked == []


@pytest.mark.usefixtures("viewer")
def test_a_stream_that_breaks_comes_back_and_brings_what_was_missed(
    run: Run, watch: Open, live: Live
) -> None:
    page = watch("viewer")
    break_streams(live)
    factories.change(run, status="retrying")
    expect(page.locator(badge(page))).to_have_text("Retrying", timeout=SOON)
    listens(live)


@pytest.mark.usefixtures("viewer")
def test_without_a_stream_the_page_asks_by_itself(
    run: Run, live: Live, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("the server responded with a status of 503")
    live.end_streams()
    page = sign_in("viewer")
    mark(page)
    factories.change(run, status="retrying")
    expect(page.locator(badge(page))).to_have_text("Retrying", timeout=20_000)
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
    page.reload()
    mark(page)
    factories.change(run, status="retrying")
    expect(page.locator(badge(page))).to_have_text("Retrying", timeout=20_000)
    assert held
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_a_dashboard_that_gives_no_answer_is_said_to_be_out_of_reach(
    run: Run, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("htmx:error")
    page = sign_in("viewer")
    hold_streams(page)
    page.reload()

    def vanish(_route: Route) -> None:
        """Neither an answer nor an error."""

    page.route(lambda url: "/live/" not in url and "/static/" not in url, vanish)
    expect(page.locator("[data-unreachable]")).to_be_visible(timeout=40_000)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("beat", [60.0], ids=["slow"])
def test_a_stream_that_comes_back_at_once_leaves_the_page_alone(
    run: Run, watch: Open, live: Live
) -> None:
    page = watch("viewer")
    page.wait_for_timeout(10_000)  # there was nothing to say for longer than a page is without one
    held, asked = hold_streams(page), note_requests(page)
    break_streams(live)
    page.wait_for_timeout(3_500)
    assert [url for url in asked if "/live/" not in url] == []
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
    expect(page.locator(badge(page))).to_have_text("Needs approval", timeout=40_000)
    assert is_marked(page)


@pytest.mark.usefixtures("viewer")
def test_who_is_signed_out_meanwhile_is_told_and_asks_no_more(
    run: Run, watch: Open, live: Live, forgiven: list[str]
) -> None:
    forgiven.append("SSE reconnect failed with status 401")  # htmx says so, once
    page = watch("viewer")
    Session.objects.all().delete()
    break_streams(live)
    expect(page.locator("#notices")).to_contain_text("You are signed out")
    asked = note_requests(page)
    page.wait_for_timeout(6_000)
    assert asked == []


@pytest.mark.usefixtures("manager")
def test_an_abort_gets_through_though_its_row_has_left_the_page(
    live: Live, stuck: Run, sign_in: Open, forgiven: list[str]
) -> None:
    forgiven.append("the server responded with a status of 503")
    live.end_streams()  # pages that ask by themselves move what is in them
    page = sign_in("manager", f"{factories.address(stuck.stage)}?status={stuck.status}")
    page.locator(f'[data-run="{stuck.run_id}"] [data-abort]').click()  # others may be in flight
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    factories.change(stuck, status="approval_wait")
    expect(page.locator(f'[data-run="{stuck.run_id}"]')).to_have_count(0, timeout=20_000)
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
    expect(page.locator(badge(page))).to_have_text("Success", timeout=SOON)
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
