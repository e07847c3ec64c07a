"""Bulk aborts in a real browser: select runs, confirm, and follow the results."""

import re

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Locator, Page, expect

from dashboard.models import Run
from tests.support import factories
from tests.support.browser import OpenPage, check, has_reload_mark, set_reload_mark
from tests.support.live import Live

pytestmark = pytest.mark.browser


def count_abortable() -> int:
    """The number of runs in flight that are not aborting."""
    return Run.objects.in_flight().exclude(status="aborting").count()


def checkbox_of(page: Page, run: Run) -> Locator:
    return page.locator(f'[data-run="{run.run_id}"] .select input')


def result_of(page: Page, run: Run) -> Locator:
    row = page.locator("[data-abort-row]", has=page.locator(f'a[href*="{run.run_id}"]'))
    return row.locator("[data-badge]")


def abort_selected_button(page: Page) -> Locator:
    return page.locator("[data-abort-selected]")


def selected_count(page: Page) -> Locator:
    """The number of selected runs, in the bar that is visible while there are any."""
    return page.locator("[data-selected-count]:visible")


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "sync_worker")
def test_bulk_abort_of_three_selected_runs_shows_each_aborted(
    runs_in_flight: list[Run], sign_in: OpenPage, world: Live
) -> None:
    page = sign_in("manager")
    expect(abort_selected_button(page)).to_be_hidden()
    for run in runs_in_flight:
        checkbox_of(page, run).check()
    expect(selected_count(page)).to_have_text("3")
    abort_selected_button(page).click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading", level=1)).to_have_text("Abort 3 runs?")
    expect(dialog.get_by_role("heading", level=1)).to_be_focused()
    for run in runs_in_flight:
        expect(dialog.locator(".list")).to_contain_text(run.title)
    dialog.get_by_placeholder("In your own words").fill("Bad release")
    dialog.get_by_role("button", name="Abort 3 runs").click()
    page.wait_for_url("**/aborts/bulk/*/")
    set_reload_mark(page)
    for run in runs_in_flight:
        expect(result_of(page, run)).to_have_text("Aborted")
    expect(page.locator(".summary .summary-text")).to_have_text("3 requested: 3 aborted.")
    expect(page).to_have_title(re.compile(r"^3 of 3"))
    assert has_reload_mark(page)
    assert world.sandbox.abort_request_counts == {run.run_id: 1 for run in runs_in_flight}


@pytest.mark.usefixtures("manager")
def test_stream_update_keeps_selection(runs_in_flight: list[Run], sign_in: OpenPage) -> None:
    page = sign_in("manager")
    checkbox_of(page, runs_in_flight[0]).check()
    checkbox_of(page, runs_in_flight[1]).check()
    factories.change(runs_in_flight[0], name="Another name")
    expect(page.locator(f'[data-run="{runs_in_flight[0].run_id}"] a.title')).to_have_text(
        "Another name"
    )
    expect(checkbox_of(page, runs_in_flight[0])).to_be_checked()
    expect(selected_count(page)).to_have_text("2")


def test_run_aborted_by_other_user_leaves_selection(
    runs_in_flight: list[Run], sign_in: OpenPage, manager: User
) -> None:
    page = sign_in("manager")
    checkbox_of(page, runs_in_flight[0]).check()
    checkbox_of(page, runs_in_flight[1]).check()
    factories.abort(runs_in_flight[0], manager)
    factories.change(runs_in_flight[0], status="aborting")
    expect(checkbox_of(page, runs_in_flight[0])).to_have_count(0)
    expect(selected_count(page)).to_have_text("1")


@pytest.mark.parametrize("place", ["Production", "this pipeline"])
@pytest.mark.usefixtures("manager")
def test_abort_all_count_is_updated_live(
    place: str, runs_in_flight: list[Run], sign_in: OpenPage
) -> None:
    stage = runs_in_flight[0].stage
    address = factories.address(stage if place == "Production" else stage.pipeline)
    page = sign_in("manager", address)
    button = page.locator("[data-abort-all]")
    expect(button).to_have_text(f"Abort {count_abortable()} runs in {place}…")
    before = count_abortable()
    factories.change(runs_in_flight[0], status="aborting")
    assert count_abortable() == before - 1
    expect(button).to_have_text(f"Abort {count_abortable()} runs in {place}…")
    button.click()
    expect(page.get_by_role("dialog")).to_contain_text(f"Abort {count_abortable()} runs?")
    expect(page.get_by_role("dialog")).to_contain_text("including those not on screen")


# --- Select all, and the bar ----------------------------------------------------------------------


def select_all(page: Page, table: str = "Other runs in flight") -> Locator:
    return page.get_by_role("checkbox", name=f"Select all: {table}")


def is_indeterminate(box: Locator) -> bool:
    return box.evaluate("box => box.indeterminate") is True


@pytest.fixture
def sixty_runs(live: Live) -> list[Run]:
    """Sixty runs of a stage in flight, the newest first, more than fit into a window."""
    stage = factories.stage()
    runs = [factories.run(stage) for _ in range(60)]
    return sorted(runs, key=lambda run: (run.created_at, run.pk), reverse=True)


@pytest.mark.usefixtures("manager", "live")
def test_select_all_selects_runs_of_its_table_only(sign_in: OpenPage) -> None:
    stage = factories.stage()
    late = [factories.run(stage, overdue_severity=1) for _ in range(2)]
    calm = [factories.run(stage) for _ in range(3)]
    factories.run(stage, status="aborting")
    page = sign_in("manager")
    select_all(page).check()
    expect(selected_count(page)).to_have_text("3")
    expect(checkbox_of(page, late[0])).not_to_be_checked()
    select_all(page, "Runs that need attention, Production first").check()
    expect(selected_count(page)).to_have_text("5")
    select_all(page).uncheck()
    expect(selected_count(page)).to_have_text("2")
    for run in calm:
        expect(checkbox_of(page, run)).not_to_be_checked()


@pytest.mark.usefixtures("manager")
def test_select_all_is_indeterminate_while_some_runs_are_selected(
    runs_in_flight: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("manager")
    box = select_all(page)
    assert not is_indeterminate(box)
    checkbox_of(page, runs_in_flight[0]).check()
    assert is_indeterminate(box)
    expect(box).not_to_be_checked()
    box.click()  # selects the others, too
    expect(box).to_be_checked()
    assert not is_indeterminate(box)
    expect(selected_count(page)).to_have_text(str(count_abortable()))
    checkbox_of(page, runs_in_flight[0]).uncheck()
    assert is_indeterminate(box)


@pytest.mark.usefixtures("manager")
def test_run_that_starts_after_select_all_is_not_selected(
    runs_in_flight: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("manager", factories.address(runs_in_flight[0].stage))
    box = select_all(page, "Runs of this stage, newest first")
    box.check()
    count = count_abortable()
    expect(selected_count(page)).to_have_text(str(count))
    later = factories.run(runs_in_flight[0].stage)
    page.get_by_role("button", name="1 new run").click()
    expect(checkbox_of(page, later)).to_be_visible()
    expect(checkbox_of(page, later)).not_to_be_checked()
    expect(selected_count(page)).to_have_text(str(count))
    assert is_indeterminate(box)


@pytest.mark.usefixtures("manager")
def test_clear_deselects_all_runs_and_focuses_last_selected(
    runs_in_flight: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("manager")
    for run in runs_in_flight:
        checkbox_of(page, run).check()
    page.get_by_role("button", name="Clear").focus()
    page.keyboard.press("Enter")
    expect(abort_selected_button(page)).to_be_hidden()
    for run in runs_in_flight:
        expect(checkbox_of(page, run)).not_to_be_checked()
    expect(checkbox_of(page, runs_in_flight[-1])).to_be_focused()
    assert not is_indeterminate(select_all(page))


@pytest.mark.usefixtures("manager", "live")
def test_focus_in_bar_goes_to_main_when_its_last_run_ends(sign_in: OpenPage) -> None:
    stage = factories.stage()
    run = factories.run(stage)
    page = sign_in("manager")
    checkbox_of(page, run).check()
    abort_selected_button(page).focus()
    factories.change(run, status="success", concluded=True, in_flight=False)
    expect(abort_selected_button(page)).to_be_hidden()
    expect(page.locator("#main")).to_be_focused()


@pytest.mark.slow
@pytest.mark.parametrize(("place", "width"), [("now", 1280), ("stage", 390)])
@pytest.mark.usefixtures("manager")
def test_bar_is_at_bottom_of_window_and_covers_neither_focus_nor_last_row(
    place: str, width: int, sixty_runs: list[Run], sign_in: OpenPage
) -> None:
    address = "/" if place == "now" else factories.address(sixty_runs[0].stage)
    viewport = {"width": width, "height": 700}
    page = sign_in("manager", address, viewport=viewport, has_touch=width == 390)
    first, last = (checkbox_of(page, run) for run in (sixty_runs[0], sixty_runs[-1]))
    bar = page.locator(".bulk-abort-bar")
    expect(bar).to_be_hidden()
    first.check()
    box = bar.bounding_box()
    assert box is not None
    assert box["y"] + box["height"] == 700
    assert box["height"] <= 80
    first.focus()
    for number in range(3 * len(sixty_runs)):  # checkbox, links and button of each row
        page.keyboard.press("Tab")
        assert check(page, "focusVisibility") == [], number
    expect(bar).to_be_in_viewport(ratio=1)
    last.check()
    page.evaluate("() => scrollTo(0, document.documentElement.scrollHeight)")
    row, box, footer = (
        page.locator(selector).bounding_box()
        for selector in (f'[data-run="{sixty_runs[-1].run_id}"]', ".bulk-abort-bar", ".footer")
    )
    assert row is not None
    assert box is not None
    assert footer is not None
    assert row["y"] + row["height"] <= box["y"]
    assert box["y"] + box["height"] <= footer["y"]
