"""Times in a real browser: one zone for a whole page, with JavaScript and without."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django import Settings

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import Open, painted
from tests.support.live import Live

pytestmark = pytest.mark.browser

# Of another year, which is told then.
YEAR = timezone.now().year - 1
AT = datetime(YEAR, 1, 31, 23, 30, tzinfo=UTC)
IN_UTC, IN_BERLIN = f"31 Jan {YEAR} 23:30:00", f"1 Feb {YEAR} 00:30:00"
IN_NEW_YORK = f"31 Jan {YEAR} 18:30:00"
SOON = 10_000  # milliseconds


@pytest.fixture(autouse=True)
def in_berlin(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"


@pytest.fixture
def run(live: Live) -> Run:
    """A run that has been under way for a long time."""
    return factories.run(factories.stage(), "r-1", name="Nightly", created_at=AT, started_at=AT)


def started(page: Page) -> object:
    return page.locator('[data-run="r-1"] .started time')


def foot(page: Page) -> object:
    return page.locator(".foot > span")


def choose(page: Page, name: str) -> None:
    with page.expect_navigation():
        page.locator(".foot").get_by_role("button", name=name).click()


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("scripted", [True, False])
def test_one_press_brings_the_whole_page_into_another_zone(
    scripted: bool, run: Run, sign_in: Open, live: Live
) -> None:
    address = f"{factories.address(run.stage)}?status=running"
    page = sign_in("viewer", address, java_script_enabled=scripted, timezone_id="Europe/Berlin")
    expect(started(page)).to_have_text(IN_BERLIN)
    choose(page, "Show them in UTC")
    expect(page).to_have_url(f"{live.base_url}{address}")
    expect(started(page)).to_have_text(IN_UTC)
    expect(started(page)).to_have_attribute("title", f"{YEAR}-01-31 23:30:00 UTC")
    expect(foot(page)).to_have_text("Times are in UTC.")
    page.goto(factories.address(run))  # kept from page to page
    expect(page.locator("#facts-title + dl time").first).to_have_text(IN_UTC)
    choose(page, "Show them in Europe/Berlin")
    expect(page.locator("#facts-title + dl time").first).to_have_text(IN_BERLIN)
    expect(foot(page)).to_have_text("Times are in Europe/Berlin.")


@pytest.mark.usefixtures("viewer")
def test_the_browsers_own_zone_is_offered_where_it_is_a_third(run: Run, sign_in: Open) -> None:
    page = sign_in("viewer", timezone_id="America/New_York")
    expect(page.locator(".foot button[name=zone]:visible")).to_have_text(
        ["Show them in UTC", "Show them in America/New_York, this browser’s zone"]
    )
    choose(page, "this browser")
    expect(started(page)).to_have_text(IN_NEW_YORK)
    expect(foot(page)).to_have_text("Times are in America/New_York.")
    expect(page.locator(".foot button[name=zone]:visible")).to_have_text(
        ["Show them in Europe/Berlin", "Show them in UTC"]
    )


@pytest.mark.usefixtures("viewer")
def test_the_offer_of_ones_own_zone_moves_nothing(run: Run, sign_in: Open) -> None:
    page = sign_in("viewer", timezone_id="America/New_York")  # the first page asks the browser
    page.add_init_script(
        """window.shifts = 0;
        window.add = (list) => { for (const entry of list) shifts += entry.value; };
        window.watching = new PerformanceObserver((list) => add(list.getEntries()));
        watching.observe({ type: "layout-shift", buffered: true });"""
    )
    page.goto("/")
    expect(page.locator("[data-own-zone]")).to_be_in_viewport()
    page.wait_for_function("() => connected")  # what the stream opens with has come
    painted(page)
    page.evaluate("() => add(watching.takeRecords())")
    assert page.evaluate("shifts") == 0


@pytest.mark.usefixtures("viewer")
def test_where_all_are_one_there_is_nothing_to_choose(
    run: Run, sign_in: Open, settings: Settings
) -> None:
    settings.TIME_ZONE = "UTC"
    page = sign_in("viewer", timezone_id="UTC")
    expect(foot(page)).to_have_text("Times are in UTC.")
    expect(page.locator(".foot button[name=zone]:visible")).to_have_count(0)


@pytest.mark.usefixtures("viewer")
def test_what_the_stream_paints_is_in_the_pages_zone_whatever_another_tab_has_chosen(
    run: Run, sign_in: Open
) -> None:
    page = sign_in("viewer", timezone_id="Europe/Berlin")
    other = page.context.new_page()
    other.goto("/")
    choose(other, "Show them in UTC")
    page.bring_to_front()
    for status, shown in (("retrying", "Retrying"), ("approval_wait", "Needs approval")):
        factories.change(run, status=status)
        row = page.locator('[data-run="r-1"]')
        expect(row.locator("[data-badge]")).to_have_text(shown, timeout=SOON)
        expect(started(page)).to_have_text(IN_BERLIN)
        expect(started(page)).to_have_attribute("title", f"{YEAR}-02-01 00:30:00 CET")
        # The same when the page asks by itself.
        page.evaluate("() => htmx.trigger('#live', 'refresh')")
        expect(page.locator(".htmx-request")).to_have_count(0)
        expect(started(page)).to_have_text(IN_BERLIN)
    expect(foot(page)).to_have_text("Times are in Europe/Berlin.")
    expect(started(other)).to_have_text(IN_UTC)
    expect(other.locator('[data-run="r-1"] [data-badge]')).to_have_text(
        "Needs approval", timeout=SOON
    )
    expect(started(other)).to_have_text(IN_UTC)


@pytest.mark.usefixtures("viewer")
def test_news_does_not_cover_the_switch(run: Run, sign_in: Open) -> None:
    for number in range(40):
        factories.run(run.stage, status="failure", name=f"Old {number}")
    page = sign_in("viewer", viewport={"width": 390, "height": 700})
    page.get_by_role("link", name="Nightly").focus()  # who is at work sees no page change by itself
    factories.run(run.stage, "r-2")
    expect(page.locator("#news")).to_have_text("1 new run", timeout=SOON)
    choose(page, "Show them in UTC")
    expect(foot(page)).to_have_text("Times are in UTC.")


@pytest.mark.usefixtures("viewer")
def test_what_is_relative_is_also_told_by_the_clock(run: Run, sign_in: Open) -> None:
    began = timezone.now().replace(microsecond=0) - timedelta(minutes=20)
    factories.change(run, started_at=began)
    page = sign_in("viewer")
    time = started(page)
    title = time.get_attribute("title")
    assert title is not None
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d CES?T", title)
    expect(time).to_have_text(re.compile(rf"^2\d min ago, {title}$"))
    hidden = time.locator(".unseen").bounding_box()
    assert hidden is not None
    assert hidden["width"] <= 1


@pytest.mark.usefixtures("viewer")
def test_every_time_on_every_page_says_its_zone(run: Run, sign_in: Open) -> None:
    page = sign_in("viewer", java_script_enabled=False)
    for address in (
        "/", "/board/", "/status/", "/aborts/", factories.address(run.stage.pipeline),
        factories.address(run.stage), factories.address(run),
    ):  # fmt: skip
        page.goto(address)
        titles = page.locator("time:not(.counts)").evaluate_all(
            "all => all.map(time => time.title)"
        )
        assert [title for title in titles if not re.search(r"\d CES?T$", title)] == [], address
        # Nothing that looks like a time stands outside of a <time>.
        bare = page.evaluate(
            """() => {
              const found = [];
              const all = NodeFilter.SHOW_TEXT;
              const walk = document.createTreeWalker(document.querySelector("main"), all);
              while (walk.nextNode()) {
                const { data, parentElement } = walk.currentNode;
                if (parentElement.closest("time, pre, svg")) continue;
                if (/\\d\\d:\\d\\d/.test(data)) found.push(data);
              }
              return found;
            }"""
        )
        assert bare == [], address


@pytest.mark.usefixtures("viewer")
def test_nothing_moves_for_those_who_want_it_so(run: Run, sign_in: Open) -> None:
    moving = "() => document.getAnimations().length"
    page = sign_in("viewer", reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
    for address in ("/", "/board/", factories.address(run)):
        page.emulate_media(reduced_motion="reduce")
        page.goto(address)
        assert page.evaluate(moving) == 0, address
