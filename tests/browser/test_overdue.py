"""Overdue runs in a real browser: bars grow without requests, badges come by the stream."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect

from dashboard.models import Run, Stage
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    advance_time,
    install_clock,
    record_requests,
    wait_for_viewers,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def stage(live: Live) -> Stage:
    """A stage whose runs take a minute: overdue after two, 3× after three."""
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
