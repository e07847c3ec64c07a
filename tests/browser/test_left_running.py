"""What an abort has left running, in a real browser: it appears, is aborted, and ends."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from dashboard.models import Run, Work
from tests.support import factories
from tests.support.browser import OpenPage, has_reload_mark, set_reload_mark
from tests.support.live import Live
from tests.support.live_runs import run_live_with_survivor

pytestmark = pytest.mark.browser


@pytest.fixture
def survivor(transactional_db: None) -> Iterator[tuple[Live, Run]]:
    """A run that waits for a job run that survives its abort."""
    with run_live_with_survivor() as survivor:
        yield survivor


@pytest.fixture
def live(survivor: tuple[Live, Run]) -> Live:
    return survivor[0]


def confirm_abort(page: Page) -> None:
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Reason in your own words").fill("Stuck")
    dialog.locator("button.danger").click()
    expect(dialog).to_be_hidden()


def open_dialog(page: Page, button: Locator) -> Locator:
    button.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    return dialog


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "sync_worker")
def test_job_run_that_survives_an_abort_appears_and_is_aborted_without_reload(
    survivor: tuple[Live, Run], sign_in: OpenPage, world: Live
) -> None:
    _, run = survivor
    page = sign_in("manager", factories.address(run))
    set_reload_mark(page)
    dialog = open_dialog(page, page.locator("[data-abort]"))
    running = dialog.locator("[data-running-now]")
    expect(running).to_contain_text("Aborting the run may not stop it.")
    confirm_abort(page)
    left = page.locator("[data-left-running]")
    expect(left).to_have_attribute("data-status", "RUNNING")
    expect(page.locator(".headline [data-badge]")).to_have_text("Aborted")
    work = Work.objects.get(run=run)
    open_dialog(page, left.locator("[data-abort-left]"))
    confirm_abort(page)
    expect(left).to_contain_text("Abort accepted")
    expect(left).to_have_attribute("data-concluded", "true")
    expect(left).to_contain_text("Ended (FAILED)")
    expect(left.locator("[data-abort-left]")).to_have_count(0)
    assert has_reload_mark(page)
    assert world.sandbox.abort_request_counts[work.work_id] == 1
