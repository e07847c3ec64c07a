"""The abort log in a real browser: filters, details, and updates while it is open."""

import re

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import expect

from dashboard.models import Abort
from dashboard.models.abort_lifecycle import EventType
from tests.support import factories
from tests.support.browser import OpenPage, has_reload_mark, set_reload_mark
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def two_aborts(live: Live, manager: User) -> list[Abort]:
    """An abort under way, and one that was refused."""
    stage = factories.stage()
    aborts = [
        factories.abort(factories.run(stage, name="Nightly"), manager, reason="Stuck"),
        factories.abort(
            factories.run(stage, name="Weekly"), manager, "refused", response="No.",
            settled_at=timezone.now(),
        ),
    ]  # fmt: skip
    for abort in aborts:
        abort.add_event(EventType.REQUESTED, timezone.now())
    return aborts


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_abort_row_is_found_expanded_and_updated_live(
    two_aborts: list[Abort], sign_in: OpenPage
) -> None:
    page = sign_in("viewer", "/aborts/")
    rows = page.locator("[data-abort-row]")
    expect(rows).to_have_count(2)
    page.get_by_label("Run or reason").fill("stuck")
    page.keyboard.press("Tab")  # the filter applies when it has changed, and keeps the focus
    expect(rows).to_have_count(1)
    expect(page.get_by_label("Outcome")).to_be_focused()
    expect(page).to_have_url(re.compile("text=stuck"))
    page.reload()
    expect(page.get_by_label("Run or reason")).to_have_value("stuck")
    row = page.locator(f"#abort-{two_aborts[0].pk}")
    row.locator("summary").click()
    expect(row.locator(".abort-timeline li")).to_have_count(1)
    set_reload_mark(page)
    assert two_aborts[0].apply(EventType.CONCLUDED, timezone.now(), "aborted")
    factories.change(two_aborts[0].run, status="aborted", concluded=True, in_flight=False)
    expect(row.locator("[data-badge]")).to_have_text("Aborted")
    expect(row.locator(".abort-line")).to_contain_text("Aborted after")
    # Open details stay open, and have the new lines.
    expect(row.locator(".abort-timeline li").last).to_be_visible()
    expect(row.locator(".abort-timeline li").last).to_contain_text("Ended as aborted.")
    assert has_reload_mark(page)
