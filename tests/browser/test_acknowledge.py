"""Acknowledgements in real browsers: two users respond to one alert."""

import pytest
from playwright.sync_api import Page, expect

from dashboard.models import Run
from dashboard.models.severity import Severity
from tests.support import factories
from tests.support.browser import OpenPage, has_reload_mark, set_reload_mark
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def run(live: Live) -> Run:
    """A run that is overdue."""
    return factories.run(
        factories.stage(),
        "r-1",
        name="Nightly",
        overdue_severity=Severity.WARNING,
        overdue_reason="run",
    )


def acknowledged_by(page: Page) -> list[str]:
    return [text.strip() for text in page.locator(".acknowledgement bdi").all_inner_texts()]


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "viewer")
def test_acknowledgement_is_shown_live_to_others_and_can_be_taken_over(
    run: Run, sign_in: OpenPage
) -> None:
    address = factories.address(run)
    ana, ben = sign_in("manager", address), sign_in("viewer", address)
    now = sign_in("viewer")
    for page in (ana, ben, now):
        set_reload_mark(page)
    ana.get_by_role("button", name="Acknowledge").click()
    expect(ana.get_by_role("button", name="Hand back")).to_be_visible()
    for page in (ben, now):
        expect(page.locator(".acknowledgement").first).to_contain_text("Acknowledged by manager")
    expect(ben.locator("#announcements")).to_contain_text("Acknowledged by manager since")
    ben.get_by_role("button", name="Take over from manager").click()
    expect(ben.get_by_role("button", name="Hand back")).to_be_visible()
    expect(ana.locator(".acknowledgement")).to_contain_text("Acknowledged by viewer")
    expect(ana.locator("[data-acknowledgements] ul")).to_contain_text("taken over by viewer")
    # The buttons follow the new state.
    ana.get_by_role("button", name="Acknowledge too").click()
    expect(ben.locator(".acknowledgement")).to_have_count(2)
    assert acknowledged_by(ben) == ["viewer", "manager"]
    ben.get_by_role("button", name="Hand back").click()
    expect(ana.locator(".acknowledgement")).to_have_count(1)
    expect(now.locator(".acknowledgement")).to_contain_text("Acknowledged by manager")
    for page in (ana, ben, now):
        assert has_reload_mark(page)


@pytest.mark.usefixtures("manager", "viewer")
def test_changed_run_keeps_acknowledgement_buttons_and_focus(run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer", factories.address(run))
    page.locator("[data-acknowledgements] button").focus()
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    factories.change(run, status="retrying")
    expect(page.locator("[data-badge]").first).to_have_text("Retrying")
    expect(page.locator("[data-acknowledgements] button")).to_be_focused()
    assert [url for url in urls if "looking" in url] == []
