"""Overdue runs in a real browser: bars grow without requests, badges come by the stream."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from dashboard.models import Run, Stage
from dashboard.sync import overdue_checker
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    advance_time,
    has_reload_mark,
    install_clock,
    record_requests,
    set_reload_mark,
    wait_for_viewers,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def stage(live: Live) -> Stage:
    """A stage whose runs take a minute: overdue after two, far overdue after three."""
    row = factories.stage()
    factories.timing(
        row, observed_run_median=60, observed_run_p95=70, observed_steps={"migrate": [20, 40]}
    )
    return row


def run_in_flight(stage: Stage, seconds: float, **fields: object) -> Run:
    """A run that started so many seconds ago."""
    started_at = timezone.now() - timedelta(seconds=seconds)
    return factories.run(
        stage,
        "r-1",
        name="Nightly",
        **{"created_at": started_at, "started_at": started_at} | fields,
    )


def progress_bar(page: Page) -> Locator:
    return page.locator('tr[data-run="r-1"] .progress')


def progress_percent(page: Page) -> float:
    """The elapsed part of a run's bar, in percent."""
    return float(progress_bar(page).locator(".elapsed").get_attribute("width") or 0)


@pytest.mark.usefixtures("viewer")
def test_progress_bar_grows_without_requests(stage: Stage, sign_in: OpenPage, live: Live) -> None:
    run_in_flight(stage, 45)
    page = sign_in("viewer")
    wait_for_viewers(live)
    install_clock(page)
    urls = record_requests(page)
    tick = 33
    expect(progress_bar(page)).to_have_attribute("data-severity", "0")
    assert progress_percent(page) < tick
    advance_time(page, 20)
    assert progress_percent(page) > tick
    expect(progress_bar(page)).to_have_attribute("data-severity", "0")
    assert urls == []


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize(("seconds", "before", "after"), [(100, "0", "1"), (160, "1", "2")])
def test_progress_bar_changes_color_without_requests(
    seconds: float,
    before: str,
    after: str,
    stage: Stage,
    sign_in: OpenPage,
    live: Live,
) -> None:
    run_in_flight(stage, seconds)
    page = sign_in("viewer")
    wait_for_viewers(live)
    install_clock(page)
    expect(progress_bar(page)).to_have_attribute("data-severity", before)
    urls = record_requests(page)
    elapsed_bar = progress_bar(page).locator(".elapsed")
    tone = elapsed_bar.evaluate("bar => getComputedStyle(bar).fill")
    advance_time(page, 25)
    expect(progress_bar(page)).to_have_attribute("data-severity", after)
    assert elapsed_bar.evaluate("bar => getComputedStyle(bar).fill") != tone
    assert urls == []


@pytest.mark.usefixtures("viewer")
def test_progress_bar_stops_at_100_percent(stage: Stage, sign_in: OpenPage) -> None:
    run_in_flight(stage, 10_000)
    page = sign_in("viewer")
    expect(progress_bar(page)).to_have_attribute("data-severity", "2")
    assert progress_percent(page) == 100


@pytest.mark.usefixtures("viewer")
def test_overdue_mark_is_streamed_and_announced(stage: Stage, sign_in: OpenPage) -> None:
    run_in_flight(stage, 130)
    page = sign_in("viewer", "/board/")
    set_reload_mark(page)
    cell = page.locator(f"#stage-{stage.pk}")
    expect(cell.locator(".overdue")).to_have_count(0)
    overdue_checker.check_runs(timezone.now())
    expect(cell.locator(".overdue")).to_have_text("Overdue")
    expect(page.locator("#announcements")).to_have_text("Checkout / Production: Overdue")
    expect(page).to_have_title("Overdue · Board · Release flows")
    assert has_reload_mark(page)


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_now_page_moves_newly_overdue_run_first_when_user_is_idle(
    stage: Stage, sign_in: OpenPage
) -> None:
    run_in_flight(stage, 130)
    factories.run(stage, "r-2", name="Younger")
    page = sign_in("viewer")
    install_clock(page)
    first = page.locator("tr[data-run] a.title").first
    expect(first).to_have_text("Younger")
    overdue_checker.check_runs(timezone.now())
    expect(page.locator('tr[data-run="r-1"] .overdue')).to_have_text("Overdue")
    advance_time(page, 9)
    expect(first).to_have_text("Nightly")


@pytest.mark.usefixtures("viewer")
def test_history_chart_grows_when_run_ends(stage: Stage, sign_in: OpenPage) -> None:
    run = run_in_flight(stage, 50)
    factories.run(stage, status="success")
    page = sign_in("viewer", factories.address(stage))
    bars = page.locator(".history-chart .bar")
    expect(bars).to_have_count(1)
    now = timezone.now()
    factories.change(run, status="failure", concluded=True, in_flight=False, concluded_at=now)
    expect(bars).to_have_count(2)
    expect(page.locator(".history-chart figcaption")).to_contain_text("1 failed")


@pytest.mark.usefixtures("viewer")
def test_typical_duration_without_javascript_is_text(stage: Stage, sign_in: OpenPage) -> None:
    run_in_flight(stage, 50)
    page = sign_in("viewer", java_script_enabled=False)
    expect(page.locator(".typical-duration")).to_have_text("usually 60 to 70 s")
    expect(progress_bar(page)).to_be_hidden()


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("width", [320, 360, 390, 900, 1130])
def test_overdue_mark_overlaps_nothing_at_any_width(
    width: int, stage: Stage, sign_in: OpenPage
) -> None:
    run_in_flight(stage, 600, status="approval_wait", overdue_severity=2, overdue_reason="run")
    page = sign_in("manager", viewport={"width": width, "height": 700})
    row = page.locator('tr[data-run="r-1"]')
    mark_box, duration_box = (
        row.locator(".overdue").bounding_box(),
        row.locator("td.duration").bounding_box(),
    )
    assert mark_box is not None
    assert duration_box is not None
    is_beside = mark_box["x"] + mark_box["width"] <= duration_box["x"]
    assert is_beside or mark_box["y"] + mark_box["height"] <= duration_box["y"]
    assert (row.locator("a.title").bounding_box() or {"width": 0})["width"] >= 50
    assert (row.locator("td.status").bounding_box() or {"width": 0})["width"] >= 130


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("width", [320, 390, 900])
def test_long_status_keeps_abort_button_inside_row(
    width: int, stage: Stage, sign_in: OpenPage
) -> None:
    run_in_flight(stage, 60, status=factories.HOSTILE)
    page = sign_in("manager", viewport={"width": width, "height": 700})
    row = page.locator('tr[data-run="r-1"]')
    card, button = row.bounding_box(), row.locator("[data-abort]").bounding_box()
    assert card is not None
    assert button is not None
    assert button["x"] + button["width"] <= card["x"] + card["width"]


@pytest.mark.usefixtures("viewer")
def test_old_date_does_not_overlap_duration(stage: Stage, sign_in: OpenPage) -> None:
    now = timezone.now()
    started_at = now.replace(year=now.year - 1, month=9, day=30)
    ended_at = started_at + timedelta(minutes=7)
    factories.run(
        stage,
        "old",
        status="success",
        created_at=started_at,
        started_at=started_at,
        concluded_at=ended_at,
    )
    page = sign_in("viewer", factories.address(stage))
    text = page.locator('tr[data-run="old"] .started time').bounding_box()
    duration_box = page.locator('tr[data-run="old"] .duration').bounding_box()
    assert text is not None
    assert duration_box is not None
    assert text["x"] + text["width"] <= duration_box["x"]
