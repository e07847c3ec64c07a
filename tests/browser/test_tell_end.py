"""To be told when a run ends: the browser's notification, from an open page in the background."""

import pytest
from django.utils import timezone
from playwright.sync_api import Locator, Page, expect
from pytest_django import Settings

from dashboard.models import NoticeRule, Run
from dashboard.models.notices import NoticeEvent
from tests.support import factories
from tests.support.browser import OpenPage, record_requests, set_hidden, wait_for_viewers
from tests.support.live import Live

pytestmark = pytest.mark.browser

# Records what it would show; the answer of the browser is its own. Without a title it is a trial.
NOTIFICATION = """
  const Real = Notification;
  window.told = [];
  window.Notification = class extends EventTarget {
    static get permission() { return Real.permission; }
    static requestPermission() { return Real.requestPermission(); }
    constructor(title, { body } = {}) {
      super();
      if (title) told.push([title, body]);
    }
  };
"""


@pytest.fixture
def run(live: Live) -> Run:
    return factories.run(factories.stage(), "r-1", name="Nightly")


def open_run(sign_in: OpenPage, run: Run, script: str = NOTIFICATION, **options: object) -> Page:
    page = sign_in("viewer", factories.address(run), **options)
    page.add_init_script(script)
    page.reload()
    return page


def tell_button(page: Page) -> Locator:
    return page.locator("[data-tell-end-switch]")


def end(run: Run) -> None:
    factories.change(run, status="success", concluded=True, in_flight=False)


@pytest.mark.usefixtures("viewer")
def test_page_in_the_background_tells_once_when_its_run_ends(
    run: Run, live: Live, sign_in: OpenPage
) -> None:
    page = open_run(sign_in, run, permissions=["notifications"])
    tell_button(page).click()
    expect(tell_button(page)).to_have_text("Do not tell me", use_inner_text=True)
    expect(page.locator("#announcements")).to_contain_text("This browser tells you")
    urls = record_requests(page)
    set_hidden(page, True)
    factories.change(run, status="retrying")
    expect(page.locator("[data-badge]").first).to_have_text("Retrying")
    assert page.evaluate("told") == []
    end(run)
    page.wait_for_function("() => told.length")
    assert page.evaluate("told") == [["Nightly", page.locator("#run-summary").inner_text()]]
    expect(tell_button(page)).to_have_count(0)
    assert urls == []  # its stream goes on


@pytest.mark.usefixtures("viewer")
def test_page_that_was_not_asked_or_not_any_more_tells_nothing(
    run: Run, live: Live, sign_in: OpenPage
) -> None:
    page = open_run(sign_in, run, permissions=["notifications"])
    tell_button(page).click()
    expect(tell_button(page)).to_have_text("Do not tell me", use_inner_text=True)
    tell_button(page).click()
    expect(tell_button(page)).to_have_text("Tell me when this run ends", use_inner_text=True)
    wait_for_viewers(live)
    set_hidden(page, True)
    wait_for_viewers(live, viewers=0)  # the stream is paused, as without asking
    set_hidden(page, False)
    end(run)
    expect(tell_button(page)).to_have_count(0)
    assert page.evaluate("told") == []


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize(
    ("script", "text"),
    [
        (NOTIFICATION, "Your browser does not let this page notify you"),
        ("delete window.Notification", "This browser doesn’t support notifications."),
        # As on Android.
        (
            "window.Notification = class { constructor() { throw new TypeError() } }",
            "This browser doesn’t support notifications.",
        ),
    ],
)
def test_page_says_that_the_browser_will_not_tell(
    run: Run, sign_in: OpenPage, script: str, text: str
) -> None:
    page = open_run(sign_in, run, script)
    tell_button(page).click()
    expect(page.locator("[data-tell-end]")).to_contain_text(text, use_inner_text=True)
    expect(page.locator("#announcements")).to_contain_text(text)
    expect(tell_button(page)).to_have_text("Tell me when this run ends", use_inner_text=True)


@pytest.mark.usefixtures("viewer", "manager")
def test_request_to_a_channel_is_shown_live_and_withdrawn(
    run: Run, sign_in: OpenPage, settings: Settings
) -> None:
    settings.NOTIFY_URLS = {"oncall": "json://oncall"}
    NoticeRule.objects.create(
        channel="oncall", events=[NoticeEvent.RUN_ENDED], created_at=timezone.now()
    )
    ana, ben = (sign_in(name, factories.address(run)) for name in ("manager", "viewer"))
    ana.get_by_role("button", name="Tell “oncall” when this run ends").click()
    for page in (ana, ben):
        expect(page.locator("[data-tell-end]")).to_contain_text("asked by manager")
    expect(ben.get_by_role("button", name="Withdraw")).to_have_count(0)
    ana.get_by_role("button", name="Withdraw").click()
    expect(ben.get_by_role("button", name="Tell “oncall” when this run ends")).to_be_visible()
