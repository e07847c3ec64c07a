"""The log of what a run waits for, on the run's page: read again, found in, left in its place."""

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from dashboard.models import Run
from tests.support import factories, live_runs
from tests.support.accessibility import find_complaints
from tests.support.browser import OpenPage, record_requests, wait_for_viewers
from tests.support.live import Live

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("manager", "reading")]

LINE = "[data-log-line]"


@pytest.fixture
def scenario() -> str:
    return "jobs-and-builds"


@pytest.fixture
def reading(live: Live) -> Iterator[None]:
    """A worker reads meanwhile: without one, no log is read."""
    with live.ticking():
        yield


@pytest.fixture
def run(live: Live) -> Run:
    return live_runs.waiting_run(live, "chatty")


def open_log(sign_in: OpenPage, live: Live, run: Run) -> Page:
    page = sign_in("manager", factories.address(run))
    expect(page.locator(LINE)).to_have_count(50)
    wait_for_viewers(live)
    return page


def test_log_stays_as_it_is_when_the_run_changes(sign_in: OpenPage, live: Live, run: Run) -> None:
    page = open_log(sign_in, live, run)
    page.evaluate(
        """() => {
          window.line = document.querySelector('[data-log-line]');
          document.querySelector('.log-box').scrollTop = -100;
          getSelection().selectAllChildren(window.line);
        }"""
    )
    urls = record_requests(page)
    factories.change(run, name="Another name")
    expect(page.locator("h1")).to_have_text("Another name")
    assert page.evaluate(
        """() => [window.line.isConnected, getSelection().containsNode(window.line, true),
          document.querySelector('.log-box').scrollTop]"""
    ) == [True, True, -100]
    assert not [url for url in urls if "/logs/" in url]


def test_log_of_another_job_run_takes_its_place(sign_in: OpenPage, live: Live, run: Run) -> None:
    page = open_log(sign_in, live, run)
    named = page.locator("[data-waiting-for]").get_attribute("data-id") or ""
    factories.change(run, steps=json.loads(json.dumps(run.steps).replace(named, "another")))
    expect(page.locator("[data-log-problem]")).to_contain_text("Northflank does not have it")
    expect(page.locator(LINE)).to_have_count(0)


@pytest.mark.parametrize("page_of", ["", "logs/"])
def test_log_is_looked_at_again(sign_in: OpenPage, run: Run, page_of: str) -> None:
    page = sign_in("manager", factories.address(run) + page_of)
    expect(page.locator(LINE)).to_have_count(50)
    newest = page.locator(LINE).last.get_attribute("id") or ""
    expect(page.locator(LINE).last).not_to_have_id(newest)
    expect(page.locator(f"#{newest}")).to_be_attached()


def test_lines_with_a_text_stay_found_when_new_ones_come(
    sign_in: OpenPage, live: Live, run: Run
) -> None:
    page = open_log(sign_in, live, run)
    text = page.locator(f"{LINE} bdi").last.inner_text()
    newest = page.locator(LINE).last.get_attribute("id") or ""
    page.get_by_label("Find in these lines").fill(text.upper())
    found = page.locator(f"{LINE}:visible")
    expect(found).to_have_count(1)
    expect(page.locator(LINE).last).not_to_have_id(newest)
    expect(found).to_have_count(1)
    expect(page.get_by_label("Find in these lines")).to_have_value(text.upper())


def test_earlier_lines_are_added(sign_in: OpenPage, live: Live, run: Run) -> None:
    page = open_log(sign_in, live, run)
    page.get_by_role("link", name="Earlier lines").click()
    expect(page.locator(LINE).nth(51)).to_be_attached()
    assert page.url.endswith(factories.address(run))


def test_log_is_accessible(sign_in: OpenPage, live: Live) -> None:
    address = factories.address(live_runs.waiting_run(live, "build"))
    page = sign_in("manager", address, reduced_motion="reduce", device_scale_factor=2)
    expect(page.locator(LINE).first).to_be_attached()
    for number in range(2):
        for name, complaints in find_complaints(page, number):
            assert not complaints, name
