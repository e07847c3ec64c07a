"""Times in a real browser: one zone for a whole page, with JavaScript and without."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect
from pytest_django import Settings

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import OpenPage, wait_until_painted
from tests.support.live import Live

pytestmark = pytest.mark.browser

# Of another year, which is told then.
YEAR = timezone.now().year - 1
AT = datetime(YEAR, 1, 31, 23, 30, tzinfo=UTC)
IN_UTC, IN_BERLIN = f"31 Jan {YEAR} 23:30:00", f"1 Feb {YEAR} 00:30:00"
IN_NEW_YORK = f"31 Jan {YEAR} 18:30:00"


@pytest.fixture(autouse=True)
def berlin_timezone(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"


@pytest.fixture
def run(live: Live) -> Run:
    """A run that has been under way for a long time."""
    return factories.run(factories.stage(), "r-1", name="Nightly", created_at=AT, started_at=AT)


def start_time(page: Page) -> object:
    return page.locator('[data-run="r-1"] .started time')


def footer_text(page: Page) -> object:
    return page.locator(".footer > span")


def choose_timezone(page: Page, name: str) -> None:
    with page.expect_navigation():
        page.locator(".footer").get_by_role("button", name=name).click()


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("scripted", [True, False])
def test_timezone_button_converts_all_times_of_page(
    scripted: bool, run: Run, sign_in: OpenPage, live: Live
) -> None:
    address = f"{factories.address(run.stage)}?status=running"
    page = sign_in("viewer", address, java_script_enabled=scripted, timezone_id="Europe/Berlin")
    expect(start_time(page)).to_have_text(IN_BERLIN)
    choose_timezone(page, "Show them in UTC")
    expect(page).to_have_url(f"{live.base_url}{address}")
    expect(start_time(page)).to_have_text(IN_UTC)
    expect(start_time(page)).to_have_attribute("title", f"{YEAR}-01-31 23:30:00 UTC")
    expect(footer_text(page)).to_have_text("Times are in UTC.")
    page.goto(factories.address(run))  # kept from page to page
    expect(page.locator("#details-title + dl time").first).to_have_text(IN_UTC)
    choose_timezone(page, "Show them in Europe/Berlin")
    expect(page.locator("#details-title + dl time").first).to_have_text(IN_BERLIN)
    expect(footer_text(page)).to_have_text("Times are in Europe/Berlin.")


@pytest.mark.usefixtures("viewer")
def test_browser_timezone_is_offered_if_different(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", timezone_id="America/New_York")
    expect(page.locator(".footer button[name=zone]:visible")).to_have_text(
        ["Show them in UTC", "Show them in America/New_York, this browser’s zone"]
    )
    choose_timezone(page, "this browser")
    expect(start_time(page)).to_have_text(IN_NEW_YORK)
    expect(footer_text(page)).to_have_text("Times are in America/New_York.")
    expect(page.locator(".footer button[name=zone]:visible")).to_have_text(
        ["Show them in Europe/Berlin", "Show them in UTC"]
    )


@pytest.mark.usefixtures("viewer")
def test_browser_timezone_offer_does_not_shift_layout(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", timezone_id="America/New_York")  # the first page asks the browser
    page.add_init_script(
        """window.shifts = 0;
        window.add = (list) => { for (const entry of list) shifts += entry.value; };
        window.watching = new PerformanceObserver((list) => add(list.getEntries()));
        watching.observe({ type: "layout-shift", buffered: true });"""
    )
    page.goto("/")
    expect(page.locator("[data-browser-zone]")).to_be_in_viewport()
    page.wait_for_function("() => isConnected")  # what the stream opens with has come
    wait_until_painted(page)
    page.evaluate("() => add(watching.takeRecords())")
    assert page.evaluate("shifts") == 0


@pytest.mark.usefixtures("viewer")
def test_timezone_choice_is_hidden_if_all_timezones_are_equal(
    run: Run, sign_in: OpenPage, settings: Settings
) -> None:
    settings.TIME_ZONE = "UTC"
    page = sign_in("viewer", timezone_id="UTC")
    expect(footer_text(page)).to_have_text("Times are in UTC.")
    expect(page.locator(".footer button[name=zone]:visible")).to_have_count(0)


@pytest.mark.usefixtures("viewer")
def test_stream_updates_keep_timezone_of_page(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", timezone_id="Europe/Berlin")
    other = page.context.new_page()
    other.goto("/")
    choose_timezone(other, "Show them in UTC")
    page.bring_to_front()
    for status, shown in (("retrying", "Retrying"), ("approval_wait", "Needs approval")):
        factories.change(run, status=status)
        row = page.locator('[data-run="r-1"]')
        expect(row.locator("[data-badge]")).to_have_text(shown)
        expect(start_time(page)).to_have_text(IN_BERLIN)
        expect(start_time(page)).to_have_attribute("title", f"{YEAR}-02-01 00:30:00 CET")
        # The same when the page asks by itself.
        page.evaluate("() => htmx.trigger('#live', 'refresh')")
        expect(page.locator(".htmx-request")).to_have_count(0)
        expect(start_time(page)).to_have_text(IN_BERLIN)
    expect(footer_text(page)).to_have_text("Times are in Europe/Berlin.")
    expect(start_time(other)).to_have_text(IN_UTC)
    expect(other.locator('[data-run="r-1"] [data-badge]')).to_have_text("Needs approval")
    expect(start_time(other)).to_have_text(IN_UTC)


@pytest.mark.usefixtures("viewer")
def test_new_runs_notice_does_not_cover_timezone_button(run: Run, sign_in: OpenPage) -> None:
    for number in range(40):
        factories.run(run.stage, status="failure", name=f"Old {number}")
    page = sign_in("viewer", viewport={"width": 390, "height": 700})
    page.get_by_role("link", name="Nightly").focus()  # who is at work sees no page change by itself
    factories.run(run.stage, "r-2")
    expect(page.locator("#new-runs")).to_have_text("1 new run")
    choose_timezone(page, "Show them in UTC")
    expect(footer_text(page)).to_have_text("Times are in UTC.")


@pytest.mark.usefixtures("viewer")
def test_relative_time_also_shows_absolute_time(run: Run, sign_in: OpenPage) -> None:
    began = timezone.now().replace(microsecond=0) - timedelta(minutes=20)
    factories.change(run, started_at=began)
    page = sign_in("viewer")
    time = start_time(page)
    title = time.get_attribute("title")
    assert title is not None
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d CES?T", title)
    expect(time).to_have_text(re.compile(rf"^2\d min ago, {title}$"))
    hidden = time.locator(".visually-hidden").bounding_box()
    assert hidden is not None
    assert hidden["width"] <= 1


@pytest.mark.usefixtures("viewer")
def test_times_of_every_page_have_timezone_in_title(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", java_script_enabled=False)
    for address in (
        "/", "/board/", "/status/", "/aborts/", factories.address(run.stage.pipeline),
        factories.address(run.stage), factories.address(run),
    ):  # fmt: skip
        page.goto(address)
        titles = page.locator("time:not(.elapsed-note)").evaluate_all(
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
def test_reduced_motion_disables_animations(run: Run, sign_in: OpenPage) -> None:
    moving = "() => document.getAnimations().length"
    page = sign_in("viewer", reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
    for address in ("/", "/board/", factories.address(run)):
        page.emulate_media(reduced_motion="reduce")
        page.goto(address)
        assert page.evaluate(moving) == 0, address
