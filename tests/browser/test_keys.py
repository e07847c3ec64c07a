"""Keyboard shortcuts in a real browser: they navigate, change nothing, and can be disabled."""

import re

import pytest
from playwright.sync_api import Page, expect

from dashboard.models import Abort, Run
from tests.support import factories
from tests.support.browser import OpenPage
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def runs_newest_first(live: Live) -> list[Run]:
    """Runs of a stage, as its page lists them: the newest first."""
    stage = factories.stage()
    statuses = ["running", "success", "failure", "success", "failure"]
    runs = [
        factories.run(stage, f"r-{number}", status=status, name=f"Release {number}")
        for number, status in reversed(list(enumerate(statuses)))
    ]
    for number, run in enumerate(runs):
        Run.objects.filter(pk=run.pk).update(created_at=runs[0].created_at.replace(second=number))
    return runs[::-1]


def expect_run_focused(page: Page, number: int) -> None:
    expect(page.get_by_role("link", name=f"Release {number}", exact=True)).to_be_focused()


def press_keys(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


@pytest.mark.usefixtures("viewer")
def test_keys_j_and_k_move_between_runs_and_enter_opens_run(
    runs_newest_first: list[Run], sign_in: OpenPage, live: Live
) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    press_keys(page, "j")
    expect_run_focused(page, 0)
    press_keys(page, "k")  # no run is before the first
    expect_run_focused(page, 0)
    press_keys(page, "j", "j", "j")
    expect_run_focused(page, 3)
    script = "() => getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(script) == "solid"
    press_keys(page, "k")
    expect_run_focused(page, 2)
    press_keys(page, "j", "j", "j", "j")
    expect_run_focused(page, 4)
    press_keys(page, "Enter")
    expect(page).to_have_url(f"{live.base_url}{factories.address(runs_newest_first[4])}")


@pytest.mark.usefixtures("manager")
def test_key_j_starts_from_row_with_focus(runs_newest_first: list[Run], sign_in: OpenPage) -> None:
    page = sign_in("manager", factories.address(runs_newest_first[0].stage))
    page.locator("td.select input").focus()
    press_keys(page, "j")
    expect_run_focused(page, 1)


@pytest.mark.usefixtures("viewer")
def test_key_f_moves_to_next_failed_run_and_wraps_around(
    runs_newest_first: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    for number in (2, 4, 2):
        press_keys(page, "f")
        expect_run_focused(page, number)


@pytest.mark.usefixtures("viewer")
def test_stream_update_keeps_key_position(runs_newest_first: list[Run], sign_in: OpenPage) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    press_keys(page, "j")
    factories.change(runs_newest_first[0], status="retrying")
    badge = page.locator('[data-run="r-0"] [data-badge]')
    expect(badge).to_have_text("Retrying")
    expect_run_focused(page, 0)
    press_keys(page, "j")
    expect_run_focused(page, 1)


@pytest.mark.usefixtures("viewer")
def test_slash_and_control_k_focus_the_search_field(
    runs_newest_first: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    header = page.get_by_label("Search everywhere")
    press_keys(page, "/")
    expect(header).to_be_focused()
    press_keys(page, *"jkf/?")  # keys are text from here on
    expect(header).to_have_value("jkf/?")
    page.get_by_label("Search", exact=True).focus()  # the filter's
    press_keys(page, "Control+k", "x")  # the text is selected
    expect(header).to_have_value("x")
    page.goto("/search/?q=old")
    field = page.get_by_label("Run, pipeline or project")
    expect(field).to_be_focused()
    page.locator("#main").focus()
    press_keys(page, "/", "x")
    expect(field).to_have_value("x")


@pytest.mark.usefixtures("viewer")
def test_key_question_mark_opens_help_and_escape_closes_it(
    runs_newest_first: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    press_keys(page, "j", "?")
    help = page.get_by_role("dialog", name="Keyboard")
    expect(help).to_be_visible()
    press_keys(page, "f")  # the page behind does not move
    press_keys(page, "Escape")
    expect(help).to_be_hidden()
    expect_run_focused(page, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("viewer")
def test_keys_disabled_in_help_stay_disabled(
    runs_newest_first: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    page.get_by_role("button", name="Keyboard").click()
    switch = page.get_by_label("Shortcuts enabled in this browser")
    switch.uncheck()
    press_keys(page, "Escape")
    for _ in range(2):
        expect(page.get_by_role("dialog")).to_have_count(0)
        press_keys(page, "j", "f", "?")
        expect(page.locator("a.title:focus")).to_have_count(0)
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.reload()
    page.get_by_role("button", name="Keyboard").click()
    expect(switch).not_to_be_checked()
    switch.check()
    press_keys(page, "Escape", "j")
    expect_run_focused(page, 0)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("modifier", ["Control", "Meta"])
def test_keys_with_modifier_are_ignored(
    modifier: str, runs_newest_first: list[Run], sign_in: OpenPage
) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    handled = page.evaluate(
        """name => ["j", "f", "/", "?"].filter((key) => {
          const how = { key, [name]: true, bubbles: true, cancelable: true };
          return !document.body.dispatchEvent(new KeyboardEvent("keydown", how));
        })""",
        {"Control": "ctrlKey", "Alt": "altKey", "Meta": "metaKey"}[modifier],
    )
    assert handled == []
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.usefixtures("viewer")
def test_keys_in_text_fields_are_ignored(runs_newest_first: list[Run], sign_in: OpenPage) -> None:
    page = sign_in("viewer", factories.address(runs_newest_first[0].stage))
    handled = page.evaluate(
        """() => {
          document.body.insertAdjacentHTML("beforeend", `<input class="w">
            <textarea class="w"></textarea><select class="w"></select>
            <p contenteditable class="w">x</p>`);
          const composing = [document.body, true];
          const at = [...document.querySelectorAll(".w")].map((place) => [place, false]);
          return [composing, ...at].filter(([place, isComposing]) => {
            const how = { key: "?", isComposing, bubbles: true, cancelable: true };
            return !place.dispatchEvent(new KeyboardEvent("keydown", how));
          }).length;
        }"""
    )
    assert handled == 0
    expect(page.get_by_role("dialog")).to_have_count(0)
    press_keys(page, "?")  # without modifiers it is handled
    expect(page.get_by_role("dialog")).to_have_count(1)


@pytest.mark.usefixtures("manager")
def test_keys_never_change_a_run(
    runs_newest_first: list[Run], sign_in: OpenPage, live: Live
) -> None:
    page = sign_in("manager", factories.address(runs_newest_first[0].stage))
    for key in "abcdefghijklmnopqrstuvwxyz0123456789!/.,x":
        press_keys(page, key)
    expect(page.locator("#dialog")).to_be_hidden()
    expect(page).to_have_url(f"{live.base_url}{factories.address(runs_newest_first[0].stage)}")
    assert not Abort.objects.exists()


@pytest.mark.usefixtures("viewer")
def test_tab_icon_and_title_follow_worst_state(
    runs_newest_first: list[Run], sign_in: OpenPage
) -> None:
    Run.objects.filter(status="failure").delete()
    page = sign_in("viewer")
    icon = page.locator("link[rel=icon]")
    for fields, name in (
        ({}, "in-flight"),
        ({"overdue_severity": 1}, "overdue"),
        ({"overdue_severity": 0, "status": "aborting", "abort_severity": 2}, "bad"),
    ):
        if fields:
            factories.change(runs_newest_first[0], **fields)
        expect(icon).to_have_attribute("href", re.compile(rf"^/static/icons/{name}\.svg\?"))
    expect(page).to_have_title("Abort overdue · Now (1) · Release flows")


@pytest.mark.usefixtures("viewer")
def test_slash_focuses_the_link_to_the_search_in_a_narrow_window(
    runs_newest_first: list[Run], sign_in: OpenPage, live: Live
) -> None:
    page = sign_in("viewer", viewport={"width": 640, "height": 700})
    press_keys(page, "/", "Enter")
    expect(page).to_have_url(f"{live.base_url}/search/")
