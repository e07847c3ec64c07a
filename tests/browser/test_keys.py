"""Single keys in a real browser: they move about, act on nothing, and can be switched off."""

import re

import pytest
from playwright.sync_api import Page, expect

from dashboard.models import Abort, Run
from tests.support import factories
from tests.support.browser import Open
from tests.support.live import Live

pytestmark = pytest.mark.browser


@pytest.fixture
def runs(live: Live) -> list[Run]:
    """Runs of a stage, as its page lists them: the newest first."""
    stage = factories.stage()
    statuses = ["running", "success", "failure", "success", "failure"]
    made = [
        factories.run(stage, f"r-{number}", status=status, name=f"Release {number}")
        for number, status in reversed(list(enumerate(statuses)))
    ]
    for number, run in enumerate(made):
        Run.objects.filter(pk=run.pk).update(created_at=made[0].created_at.replace(second=number))
    return made[::-1]


def at(page: Page, number: int) -> None:
    expect(page.get_by_role("link", name=f"Release {number}", exact=True)).to_be_focused()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


@pytest.mark.usefixtures("viewer")
def test_j_and_k_move_between_runs_and_enter_opens(
    runs: list[Run], sign_in: Open, live: Live
) -> None:
    page = sign_in("viewer", factories.address(runs[0].stage))
    press(page, "j")
    at(page, 0)
    press(page, "k")  # there is none before the first
    at(page, 0)
    press(page, "j", "j", "j")
    at(page, 3)
    ring = "() => getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(ring) == "solid"
    press(page, "k")
    at(page, 2)
    press(page, "j", "j", "j", "j")
    at(page, 4)
    press(page, "Enter")
    expect(page).to_have_url(f"{live.base_url}{factories.address(runs[4])}")


@pytest.mark.usefixtures("viewer")
def test_the_row_that_is_moved_to_is_in_sight(runs: list[Run], sign_in: Open) -> None:
    page = sign_in(
        "viewer", factories.address(runs[0].stage), viewport={"width": 390, "height": 240}
    )
    press(page, *"jjjjj")
    at(page, 4)
    expect(page.locator("a.title:focus")).to_be_in_viewport(ratio=1)


@pytest.mark.usefixtures("manager")
def test_moving_goes_on_from_wherever_one_is_in_a_row(runs: list[Run], sign_in: Open) -> None:
    page = sign_in("manager", factories.address(runs[0].stage))
    page.locator("td.pick input").focus()
    press(page, "j")
    at(page, 1)


@pytest.mark.usefixtures("viewer")
def test_f_leads_to_the_next_that_failed_and_round(runs: list[Run], sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(runs[0].stage))
    for number in (2, 4, 2):
        press(page, "f")
        at(page, number)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("address", ["/", "/board/", "pipeline"])
def test_other_pages_have_rows_too(address: str, runs: list[Run], sign_in: Open) -> None:
    if address == "pipeline":
        address = factories.address(runs[0].stage.pipeline)
    page = sign_in("viewer", address)
    press(page, "j")
    expect(page.locator("#live a:focus")).to_be_visible()


@pytest.mark.usefixtures("viewer")
def test_a_change_leaves_the_place_where_it_was(runs: list[Run], sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(runs[0].stage))
    press(page, "j")
    factories.change(runs[0], status="retrying")
    badge = page.locator('[data-run="r-0"] [data-badge]')
    expect(badge).to_have_text("Retrying", timeout=10_000)
    at(page, 0)
    press(page, "j")
    at(page, 1)


@pytest.mark.usefixtures("viewer")
def test_a_slash_leads_to_the_search_of_a_page_that_has_one(runs: list[Run], sign_in: Open) -> None:
    page = sign_in("viewer", "/aborts/?text=old")
    press(page, "/")
    field = page.get_by_label("Run or reason")
    expect(field).to_be_focused()
    press(page, *"jkf/?")  # what was there is selected, and keys are text from here on
    expect(field).to_have_value("jkf/?")
    expect(field).to_be_focused()
    page.goto("/")
    press(page, "/")
    expect(page.locator("body")).to_be_focused()


@pytest.mark.usefixtures("viewer")
def test_a_question_mark_opens_the_list_and_escape_closes_it(
    runs: list[Run], sign_in: Open
) -> None:
    page = sign_in("viewer", factories.address(runs[0].stage))
    press(page, "j", "?")
    help = page.get_by_role("dialog", name="Keyboard")
    expect(help).to_be_visible()
    press(page, "f")  # nothing behind it moves
    press(page, "Escape")
    expect(help).to_be_hidden()
    at(page, 0)


@pytest.mark.usefixtures("viewer")
def test_the_list_is_reached_by_a_button(runs: list[Run], sign_in: Open) -> None:
    page = sign_in("viewer")
    page.get_by_role("button", name="Keyboard").click()
    help = page.get_by_role("dialog", name="Keyboard")
    expect(help).to_be_visible()
    help.get_by_role("button", name="Close").click()
    expect(help).to_be_hidden()
    expect(page.get_by_role("button", name="Keyboard")).to_be_focused()


@pytest.mark.usefixtures("viewer")
def test_single_keys_can_be_switched_off_for_good(runs: list[Run], sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(runs[0].stage))
    page.get_by_role("button", name="Keyboard").click()
    switch = page.get_by_label("Single keys work in this browser")
    switch.uncheck()
    press(page, "Escape")
    for _ in range(2):
        expect(page.get_by_role("dialog")).to_have_count(0)
        press(page, "j", "f", "?")
        expect(page.locator("a.title:focus")).to_have_count(0)
        expect(page.get_by_role("dialog")).to_have_count(0)
        page.reload()
    page.get_by_role("button", name="Keyboard").click()
    expect(switch).not_to_be_checked()
    switch.check()
    press(page, "Escape", "j")
    at(page, 0)


@pytest.mark.usefixtures("viewer")
@pytest.mark.parametrize("with_", ["Control", "Alt", "Meta"])
def test_keys_of_the_browser_are_left_alone(with_: str, runs: list[Run], sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(runs[0].stage))
    taken = page.evaluate(
        """name => ["j", "k", "f", "/", "?"].filter((key) => {
          const how = { key, [name]: true, bubbles: true, cancelable: true };
          return !document.body.dispatchEvent(new KeyboardEvent("keydown", how));
        })""",
        {"Control": "ctrlKey", "Alt": "altKey", "Meta": "metaKey"}[with_],
    )
    assert taken == []
    expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.usefixtures("viewer")
def test_keys_are_left_to_who_writes(runs: list[Run], sign_in: Open) -> None:
    page = sign_in("viewer", factories.address(runs[0].stage))
    taken = page.evaluate(
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
    assert taken == 0
    expect(page.get_by_role("dialog")).to_have_count(0)
    press(page, "?")  # without any of them it is taken
    expect(page.get_by_role("dialog")).to_have_count(1)


@pytest.mark.usefixtures("manager")
def test_no_single_key_acts_on_a_run(runs: list[Run], sign_in: Open, live: Live) -> None:
    page = sign_in("manager", factories.address(runs[0].stage))
    for key in "abcdefghijklmnopqrstuvwxyz0123456789!/.,x":
        press(page, key)
    expect(page.locator("#dialog")).to_be_hidden()
    expect(page).to_have_url(f"{live.base_url}{factories.address(runs[0].stage)}")
    assert not Abort.objects.exists()


@pytest.mark.usefixtures("viewer")
def test_without_javascript_nothing_is_offered_that_would_not_work(
    runs: list[Run], sign_in: Open
) -> None:
    page = sign_in("viewer", java_script_enabled=False)
    expect(page.get_by_text("Keyboard")).to_have_count(2)
    for each in page.get_by_text("Keyboard").all():
        expect(each).to_be_hidden()


@pytest.mark.usefixtures("viewer")
def test_the_tabs_icon_follows_the_worst_state_as_its_name_does(
    runs: list[Run], sign_in: Open
) -> None:
    Run.objects.filter(status="failure").delete()
    page = sign_in("viewer")
    icon = page.locator("link[rel=icon]")
    for fields, name in (
        ({}, "in-flight"),
        ({"overdue": 1}, "overdue"),
        ({"overdue": 0, "status": "aborting", "aborting_level": 2}, "bad"),
    ):
        if fields:
            factories.change(runs[0], **fields)
        expect(icon).to_have_attribute(
            "href", re.compile(rf"^/static/icons/{name}\.svg\?"), timeout=20_000
        )
    expect(page).to_have_title("Abort overdue · Now (1) · Release flows")


@pytest.mark.usefixtures("viewer")
def test_a_run_that_failed_is_not_the_last_good_one_of_its_page(
    runs: list[Run], sign_in: Open
) -> None:
    factories.timing(runs[2].stage, last_good=runs[1])
    page = sign_in("viewer", factories.address(runs[2]))
    good = page.locator("[data-last-good] a.title")
    expect(good).to_be_visible()
    press(page, "f")
    expect(good).not_to_be_focused()
    page.get_by_role("button", name="Hand over").focus()
    press(page, "j")
    expect(page.locator("#live a.title").first).to_be_focused()
