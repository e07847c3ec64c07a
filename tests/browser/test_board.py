"""The board's pages in a real browser: by keyboard, without JavaScript, and while runs change."""

from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from dashboard.models import Run, Stage
from dashboard.web.components.board import board_list
from tests.support import factories
from tests.support.browser import (
    OpenPage,
    advance_time,
    has_reload_mark,
    install_clock,
    set_reload_mark,
    wait_for_viewers,
)
from tests.support.live import Live

pytestmark = pytest.mark.browser

IDLE_REFRESH_SECONDS = 9  # after which an idle page shows changes, at the latest
FIRST, NEXT, PREVIOUS = (f'.pager [rel="{name}"]' for name in ("first", "next", "prev"))


@pytest.fixture
def runs(live: Live, viewer: object) -> list[Run]:
    """The last run of each pipeline, of two pages and a pipeline more."""
    return [
        factories.run(
            factories.stage(parent=factories.pipeline(f"p-{number:03}")), status="success"
        )
        for number in range(2 * board_list.PER_PAGE + 1)
    ]


def listed(page: Page) -> list[str]:
    return page.locator(".board tbody th a bdi").all_inner_texts()


def names(first: int, last: int) -> list[str]:
    return [f"P-{number:03}" for number in range(first, last)]


@pytest.mark.slow
def test_pipeline_that_begins_to_need_attention_is_counted_at_once_and_moves_when_page_is_idle(
    runs: list[Run], sign_in: OpenPage, live: Live
) -> None:
    page = sign_in("viewer", "/board/")
    wait_for_viewers(live)
    install_clock(page)
    set_reload_mark(page)
    page.locator(f"#stage-{runs[3].stage_id}").hover()
    factories.run(Stage.objects.get(pk=runs[120].stage_id), "r", status="failure")
    expect(page.locator("#board-choices")).to_contain_text("Needs attention 1")
    expect(page.locator("#new-runs")).to_have_text("Show changes")
    assert listed(page) == names(0, 100)  # nothing moves under the mouse
    page.mouse.move(1, 1)
    advance_time(page, IDLE_REFRESH_SECONDS)
    expect(page.locator(".board tbody th a bdi").first).to_have_text("P-120")
    assert listed(page) == ["P-120", *names(0, 99)]
    assert has_reload_mark(page)


@pytest.mark.parametrize(
    ("status", "text"), [("success", "Nightly, last succeeded"), ("failure", "Failed")]
)
def test_end_of_a_run_is_announced(
    live: Live, viewer: object, sign_in: OpenPage, status: str, text: str
) -> None:
    run = factories.run(factories.stage(), name="Nightly")
    page = sign_in("viewer", "/board/")
    wait_for_viewers(live)
    factories.change(
        run, status=status, concluded=True, in_flight=False, concluded_at=run.created_at
    )
    place = f"{run.stage.pipeline.name} / {run.stage.name}"
    expect(page.locator("#announcements")).to_have_text(f"{place}: {text}")


@pytest.mark.parametrize("width", [1440, 1024, 390])
def test_board_has_room_for_how_far_a_stage_is_behind_beside_its_title(
    viewer: object, sign_in: OpenPage, width: int
) -> None:
    production, staging = factories.stage("Production"), factories.stage("Staging")
    an_hour_ago = timezone.now() - timedelta(hours=1)
    name = "Currency table 6895"
    factories.run(production, name=name, status="success", concluded_at=an_hour_ago)
    for number in (6896, 6897):
        factories.run(staging, name=f"Audit log {number}", status="success")
        factories.run(production, name=f"Audit log {number}", overdue_severity=2)
    page = sign_in("viewer", "/board/")
    page.set_viewport_size({"width": width, "height": 800})
    behind = page.locator(".behind")
    expect(behind).to_have_text("2+ behind Staging")
    title = page.locator("[data-behind] .released .title")
    for element, least in ((behind, 50), (title, 70)):
        box = element.bounding_box()
        assert box is not None
        assert box["width"] >= least
        assert box["x"] + box["width"] <= width
