"""Times in a real browser: rewritten in the user's time zone before the page is painted."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect
from pytest_django import Settings

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import OpenPage, wait_until_painted
from tests.support.durations import DURATIONS
from tests.support.live import Live

pytestmark = pytest.mark.browser

# Times of another year are written with it.
YEAR = timezone.now().year - 1
AT = datetime(YEAR, 1, 31, 23, 30, tzinfo=UTC)
IN_UTC, IN_BERLIN = f"31 Jan {YEAR} 23:30:00", f"1 Feb {YEAR} 00:30:00"
IN_NEW_YORK = f"31 Jan {YEAR} 18:30:00"
# Records the texts of some elements at each paint.
RECORD_PAINTS = """
  window.painted = new Set();
  const record = () => {
    for (const element of document.querySelectorAll("%s")) painted.add(element.textContent);
    requestAnimationFrame(record);
  };
  requestAnimationFrame(record);
"""


@pytest.fixture(autouse=True)
def berlin_timezone(settings: Settings) -> None:
    settings.TIME_ZONE = "Europe/Berlin"


@pytest.fixture
def run(live: Live) -> Run:
    """A run that has been under way for a long time."""
    return factories.run(factories.stage(), "r-1", name="Nightly", created_at=AT, started_at=AT)


def start_time(page: Page) -> Locator:
    return page.locator('[data-run="r-1"] .started time')


def footer_text(page: Page) -> Locator:
    return page.locator(".footer > span")


def timezone_buttons(page: Page) -> Locator:
    return page.locator("[data-zone-choice]:visible")


def choose_timezone(page: Page, name: str) -> None:
    page.locator(".footer").get_by_role("button", name=name).click()


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_timezone_choice_converts_all_times_and_is_kept(
    run: Run, sign_in: OpenPage, live: Live
) -> None:
    address = f"{factories.address(run.stage)}?status=running"
    page = sign_in("viewer", address, timezone_id="America/New_York")
    expect(start_time(page)).to_have_text(IN_BERLIN)
    expect(timezone_buttons(page)).to_have_text(
        ["Show times in UTC", "Show times in America/New_York (this browser)"]
    )
    choose_timezone(page, "this browser")
    expect(start_time(page)).to_have_text(IN_NEW_YORK)
    expect(start_time(page)).to_have_attribute("title", f"{YEAR}-01-31 18:30:00 GMT-5")
    expect(footer_text(page)).to_have_text("Times are in America/New_York.")
    choose_timezone(page, "Show times in UTC")
    expect(page).to_have_url(f"{live.base_url}{address}")
    expect(start_time(page)).to_have_text(IN_UTC)
    expect(start_time(page)).to_have_attribute("title", f"{YEAR}-01-31 23:30:00 UTC")
    expect(footer_text(page)).to_have_text("Times are in UTC.")
    expect(timezone_buttons(page)).to_have_text(
        ["Show times in Europe/Berlin", "Show times in America/New_York (this browser)"]
    )
    page.reload()
    expect(start_time(page)).to_have_text(IN_UTC)
    page.goto(factories.address(run))
    first_detail = page.locator("#details-title + dl time").first
    expect(first_detail).to_have_text(IN_UTC)
    choose_timezone(page, "Show times in Europe/Berlin")
    expect(first_detail).to_have_text(IN_BERLIN)
    expect(first_detail).to_have_attribute("title", f"{YEAR}-02-01 00:30:00 CET")
    expect(footer_text(page)).to_have_text("Times are in Europe/Berlin.")


@pytest.mark.usefixtures("viewer")
def test_timezone_choice_keeps_focus_and_is_announced(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", timezone_id="Europe/Berlin")
    choose_timezone(page, "Show times in UTC")
    berlin_button = page.get_by_role("button", name="Show times in Europe/Berlin")
    expect(berlin_button).to_be_focused()
    expect(page.locator("#announcements")).to_have_text("Times are in UTC.")


@pytest.mark.usefixtures("viewer")
def test_timezone_choice_is_hidden_if_all_timezones_are_equal(
    run: Run, sign_in: OpenPage, settings: Settings
) -> None:
    settings.TIME_ZONE = "UTC"
    page = sign_in("viewer", timezone_id="UTC")
    expect(footer_text(page)).to_have_text("Times are in UTC.")
    expect(timezone_buttons(page)).to_have_count(0)


@pytest.mark.usefixtures("viewer")
def test_timezone_choice_applies_before_first_paint(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", timezone_id="America/New_York")
    choose_timezone(page, "this browser")
    page.add_init_script(
        RECORD_PAINTS % "[data-run=r-1] .started time, .footer > span, [data-zone-choice]"
    )
    page.reload()
    page.wait_for_function("() => isConnected")
    wait_until_painted(page)
    assert set(page.evaluate("() => [...painted]")) == {
        IN_NEW_YORK,
        "Times are in America/New_York.",
        "Show times in Europe/Berlin",
        "Show times in UTC",
        "Show times in America/New_York (this browser)",  # hidden
    }


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_swapped_parts_are_painted_in_chosen_timezone_only(
    run: Run, manager: User, sign_in: OpenPage
) -> None:
    page = sign_in("manager", timezone_id="Europe/Berlin")
    choose_timezone(page, "Show times in UTC")
    times = "[data-run=r-1] .started time, [data-upstream-error] time, #notices time"
    page.evaluate(RECORD_PAINTS % times)
    factories.upstream_error("It fell over.", AT)
    for status, label in (("retrying", "Retrying"), ("approval_wait", "Needs approval")):
        factories.change(run, status=status)
        row = page.locator('[data-run="r-1"]')
        expect(row.locator("[data-badge]")).to_have_text(label)
        expect(start_time(page)).to_have_text(IN_UTC)
        expect(start_time(page)).to_have_attribute("title", f"{YEAR}-01-31 23:30:00 UTC")
        # The same where the page refreshes itself.
        page.evaluate("() => htmx.trigger('#live', 'refresh')")
        expect(page.locator(".htmx-request:not(#stream)")).to_have_count(0)
        expect(start_time(page)).to_have_text(IN_UTC)
    expect(page.locator("[data-upstream-error] time")).to_have_text(IN_UTC)
    # New elements rather than a morph of those that are there.
    page.evaluate(
        """(at) => {
          const text = `<time datetime="${at}" data-clock>1 Feb 00:30:00</time>`;
          document.querySelector("#notices").innerHTML = text;
        }""",
        AT.isoformat(),
    )
    expect(page.locator("#notices time")).to_have_text(IN_UTC)
    assert page.evaluate("() => [...painted]") == [IN_UTC]


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_other_tabs_follow_timezone_choice(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", timezone_id="Europe/Berlin")
    other = page.context.new_page()
    other.goto(factories.address(run.stage))
    for name, text in (("UTC", IN_UTC), ("Europe/Berlin", IN_BERLIN)):
        choose_timezone(page, f"Show times in {name}")
        for tab in (page, other):
            expect(start_time(tab)).to_have_text(text)
            expect(footer_text(tab)).to_have_text(f"Times are in {name}.")


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_filter_names_its_timezone_if_another_is_chosen(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", factories.address(run.stage))
    hint = page.get_by_text("Dates in the filter are in Europe/Berlin.")
    expect(hint).to_be_hidden()
    choose_timezone(page, "Show times in UTC")
    for address in (factories.address(run.stage), "/aborts/"):
        page.goto(address)
        expect(hint).to_be_visible()


def zone_at_hour(hour: int) -> str:
    """Return the name of a zone where that hour of the day is now."""
    offset = (hour - timezone.now().hour + 11) % 24 - 11  # hours, from -11 to 12
    return f"Etc/GMT{-offset:+d}" if offset else "UTC"  # "Etc/GMT-3" is three hours ahead


@pytest.mark.usefixtures("viewer")
def test_clock_time_has_day_if_zone_is_past_midnight(
    run: Run, manager: User, sign_in: OpenPage, settings: Settings
) -> None:
    settings.TIME_ZONE = noon_zone = zone_at_hour(12)
    midnight_zone = zone_at_hour(0)
    requested_at = timezone.now() - timedelta(minutes=90)
    factories.abort(run, manager, "requested", requested_at=requested_at, sent_at=None)
    page = sign_in("viewer", factories.address(run), timezone_id=midnight_zone)
    requested = page.locator(".abort-details .message time")
    expect(requested).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))
    choose_timezone(page, f"Show times in {midnight_zone}")
    expect(requested).to_have_text(re.compile(r"^\d+ \w+ \d\d:\d\d:\d\d$"))
    choose_timezone(page, f"Show times in {noon_zone}")
    expect(requested).to_have_text(re.compile(r"^\d\d:\d\d:\d\d$"))


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize(
    ("at", "text", "title"),
    [
        # The night on which New York's clocks go from 2:00 to 3:00, and that on which they go back.
        ("2025-03-09T07:00:00", "9 Mar 2025 03:00:00", "2025-03-09 03:00:00 GMT-4"),
        ("2025-11-02T06:30:00", "2 Nov 2025 01:30:00", "2025-11-02 01:30:00 GMT-5"),
    ],
)
def test_daylight_saving_time_of_chosen_timezone(
    at: str, text: str, title: str, run: Run, sign_in: OpenPage
) -> None:
    factories.change(run, started_at=datetime.fromisoformat(f"{at}+00:00"))
    page = sign_in("viewer", timezone_id="America/New_York")
    choose_timezone(page, "this browser")
    expect(start_time(page)).to_have_text(text)
    expect(start_time(page)).to_have_attribute("title", title)


@pytest.mark.usefixtures("viewer")
def test_page_counts_durations_in_the_words_of_the_server(sign_in: OpenPage) -> None:
    script = "seconds => seconds.map((n) => [n, formatDuration(n), formatElapsed(n)])"
    texts = sign_in("viewer").evaluate(script, [seconds for seconds, *_ in DURATIONS])
    assert [tuple(row) for row in texts] == DURATIONS


@pytest.mark.usefixtures("viewer")
def test_relative_time_also_shows_absolute_time(run: Run, sign_in: OpenPage) -> None:
    started_at = timezone.now().replace(microsecond=0) - timedelta(minutes=20)
    factories.change(run, started_at=started_at)
    page = sign_in("viewer")
    time = start_time(page)
    title = time.get_attribute("title")
    assert title is not None
    assert re.fullmatch(r"2\d{3}-\d\d-\d\d \d\d:\d\d:\d\d CES?T", title)
    expect(time).to_have_text(re.compile(rf"^2\d min ago, {title}$"))
    hidden = time.locator(".visually-hidden").bounding_box()
    assert hidden is not None
    assert hidden["width"] <= 1
