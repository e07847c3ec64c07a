"""Pages in a real browser: sign-in, refresh during user input, small screens, themes."""

import re
from datetime import timedelta

import pytest
from playwright.sync_api import Request, expect

from dashboard.models import Run, Session, Upstream
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    has_reload_mark,
    install_clock,
    set_reload_mark,
    submit_sign_in,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser

REFRESH_MS = 5_000  # milliseconds after which a page with a run in flight refreshes


@pytest.fixture
def nightly_run(live: Live) -> Run:
    """A run in flight, without a worker."""
    return factories.run(factories.stage(), "r-1", name="Nightly")


@pytest.mark.usefixtures("viewer")
def test_alert_link_opens_run_after_sign_in(
    stuck_run: Run, open_browser: OpenPage, live: Live
) -> None:
    page = open_browser()
    page.goto(f"{factories.address(stuck_run)}?from=alert&n=1")
    submit_sign_in(page, "viewer")
    expect(page).to_have_url(f"{live.base_url}{factories.address(stuck_run)}?from=alert&n=1")
    expect(page.get_by_role("heading", level=1)).to_have_text(stuck_run.title)


@pytest.mark.usefixtures("viewer")
def test_now_page_lists_runs_in_flight(stuck_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer")
    expect(
        page.get_by_role("region", name="In flight").locator(f'[data-run="{stuck_run.run_id}"]')
    ).to_be_visible()


@pytest.mark.usefixtures("viewer", "live")
def test_pipeline_page_shows_stages_without_history(sign_in: OpenPage) -> None:
    factories.run(factories.stage(), status="success")
    factories.stage("Staging", has_flow=False)
    factories.stage("Development", error="forbidden", error_message="No access.")
    page = sign_in("viewer", factories.address(factories.pipeline()))
    for name in ("Development", "Staging", "Production"):
        expect(page.get_by_role("heading", name=name)).to_be_visible()
    expect(page.get_by_text("No access.")).to_be_visible()
    page.goto(
        factories.address(factories.run(factories.stage("Staging")))
    )  # the first of its stage
    expect(page.get_by_role("heading", name="Latest runs of this stage")).to_be_hidden()


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_changed_run_is_shown_without_reload_and_keeps_focus(
    nightly_run: Run, sign_in: OpenPage
) -> None:
    page = sign_in("viewer")
    install_clock(page)
    set_reload_mark(page)
    link = page.get_by_role("link", name="Nightly")
    link.focus()
    factories.change(nightly_run, status="approval_wait")
    page.clock.run_for(REFRESH_MS)
    expect(page.locator('[data-run="r-1"] [data-badge]')).to_have_text("Needs approval")
    expect(link).to_be_focused()
    assert has_reload_mark(page)


@pytest.mark.slow
@pytest.mark.usefixtures("manager")
def test_page_refresh_keeps_dialog_and_typed_reason(nightly_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("manager")
    install_clock(page)
    page.locator("[data-abort]").click()
    reason = page.get_by_role("dialog").get_by_label("Reason")
    reason.fill("Half a sent")
    factories.change(nightly_run, status="approval_wait")
    page.clock.run_for(REFRESH_MS)
    expect(page.locator('tr[data-run="r-1"] [data-badge]')).to_have_text("Needs approval")
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(reason).to_have_value("Half a sent")
    expect(reason).to_be_focused()


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_expired_session_shows_sign_in_link_and_stops_requests(
    nightly_run: Run, live: Live, sign_in: OpenPage, ignored_console_errors: list[str]
) -> None:
    ignored_console_errors.append("the server responded with a status of 503")
    live.end_streams()  # the page polls
    page = sign_in("viewer", "/board/?x=1")
    page.clock.install()
    requests: list[Request] = []
    page.on("request", lambda request: requests.append(request))  # noqa: PLW0108 - no built-in is taken
    Session.objects.all().delete()
    page.clock.run_for(20_000)
    notice = page.locator("#notices")
    expect(notice).to_contain_text("You are signed out")
    sign_in_link = notice.get_by_role("link", name="Sign in and return to this page")
    expect(sign_in_link).to_have_attribute(
        "href", re.compile(r"/accounts/login/\?next=%2Fboard%2F%3Fx%3D1$")
    )
    request_count = len(requests)  # none, if the stream ended first
    page.clock.run_for(300_000)
    assert len(requests) == request_count
    sign_in_link.click()
    submit_sign_in(page, "viewer")
    expect(page.locator("#live")).to_have_attribute("data-page", "board")


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_upstream_outage_notice_appears_and_disappears(nightly_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer")
    install_clock(page)
    factories.upstream_error("It fell over.", nightly_run.synced_at - timedelta(minutes=3))
    page.clock.run_for(REFRESH_MS)
    expect(page.locator("[data-upstream-error]")).to_contain_text("It fell over.")
    expect(page.locator("[data-upstream-error] time")).to_contain_text("min")
    Upstream.objects.update(error="", error_since=None)
    page.clock.run_for(REFRESH_MS)
    expect(page.locator("[data-upstream-error]")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_theme_is_kept_across_pages(nightly_run: Run, sign_in: OpenPage) -> None:
    page = sign_in("viewer")
    root = page.locator("html")
    toggle = page.locator("[data-theme-toggle]")
    for theme in ("light", "dark"):
        toggle.click()
        expect(root).to_have_attribute("data-theme", theme)
        expect(toggle).to_have_accessible_name(f"Theme: {theme}")
        page.reload()
        expect(root).to_have_attribute("data-theme", theme)
    page.goto("/board/")
    expect(root).to_have_attribute("data-theme", "dark")
    toggle.click()
    page.reload()
    expect(root).not_to_have_attribute("data-theme", "dark")
