"""Since you were away in a real browser: an open page asks again for who comes back to it."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from dashboard.models import LastVisit
from tests.support import factories
from tests.support.browser import OpenPage, install_clock, record_requests
from tests.support.live import Live

pytestmark = pytest.mark.browser

ABSENCE = 1_200_000  # milliseconds


def test_page_that_slept_tells_what_happened_meanwhile(
    live: Live, sign_in: OpenPage, viewer: User
) -> None:
    LastVisit.objects.create(user=viewer, version=0, at=timezone.now() - timedelta(hours=1))
    run = factories.run(factories.stage())
    page = sign_in("viewer")
    line = page.locator(".away summary")
    expect(line).to_contain_text("1 started")
    install_clock(page, condition="isHtmxStarted")
    expect(line).to_contain_text("1 started")
    line.click()
    urls = record_requests(page)
    factories.run(run.stage)
    page.clock.fast_forward(ABSENCE)
    page.mouse.move(10, 10)
    expect(line).to_contain_text("2 started")
    expect(page.locator("#announcements")).to_contain_text("2 started")
    expect(page.locator(".away dd")).to_be_visible()  # it stays open
    page.get_by_role("button", name="Seen").click()
    expect(line).to_have_count(0)
    expect(page.locator("#main")).to_be_focused()
    page.clock.fast_forward(ABSENCE)
    with page.expect_request("**/away/?since=*"):  # of until when somebody was here
        page.keyboard.press("Shift")
    asked = [url for url in urls if "/away/" in url]
    assert asked[:-1] == [f"{live.base_url}/away/"] * 2  # what was not seen yet is told again
