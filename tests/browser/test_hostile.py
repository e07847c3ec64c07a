"""Texts of Northflank that attack: in a real browser they are text, also where scripts insert them.

The content security policy would stop most of it; here not even an element may appear.
"""

import pytest
from playwright.sync_api import Page, expect

from dashboard.models import Stage
from tests.support import factories
from tests.support.browser import OpenPage, wait_for_viewers
from tests.support.live import Live
from tests.support.states import LONG_TEXTS, create_long_texts, open_abort_dialog

pytestmark = pytest.mark.browser

MARK = "attack-mark"
ATTACK = (
    f'"\'><img class="{MARK}" src="x" onerror="attacked = 1"></title></textarea></script>'
    f'<svg class="{MARK}" onload="attacked = 1"></svg><script class="{MARK}">attacked = 1</script>'
    f'<hx-partial class="{MARK}" hx-target="body">{{{{ 7 }}}}</hx-partial>'
    f'<a class="{MARK}" href="javascript:attacked = 1" hx-get="/" hx-trigger="load">x</a>'
)


def assert_harmless(page: Page) -> None:
    assert page.locator(f".{MARK}").count() == 0, page.url
    assert page.evaluate("typeof attacked") == "undefined", page.url
    assert page.locator("a[href^='javascript:' i]").count() == 0, page.url


@pytest.mark.slow
@pytest.mark.usefixtures("manager", "viewer", "live")
@pytest.mark.parametrize("username", ["manager", "boss"])
def test_no_page_lets_texts_of_northflank_become_elements(username: str, sign_in: OpenPage) -> None:
    places = create_long_texts(ATTACK)
    states = [state for state in LONG_TEXTS if state.username == username]
    addresses = dict.fromkeys(state.address.format(**places) for state in states)
    page = sign_in(username)
    for address in addresses:
        page.goto(address)
        assert_harmless(page)


def test_no_message_of_a_stream_lets_texts_become_elements(
    sign_in: OpenPage, live: Live, manager: object
) -> None:
    run = factories.run(factories.stage(), "r-1", name="Nightly")
    page = sign_in("manager")
    wait_for_viewers(live)
    fields = {"name": ATTACK, "description": ATTACK, "step": ATTACK, "status": ATTACK}
    factories.change(run, **fields)
    expect(page.locator("#run-r-1")).to_contain_text("attacked = 1")
    factories.run(Stage.objects.get(), "r-2", name=ATTACK, status="failure", step=ATTACK)
    expect(page.locator("[data-run='r-2']")).to_contain_text("attacked = 1")
    open_abort_dialog(page)
    expect(page.get_by_role("dialog")).to_contain_text("attacked = 1")
    assert_harmless(page)
