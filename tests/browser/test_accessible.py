"""Automated WCAG 2.2 AA checks of every page in every state: see states.py."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.test import override_settings
from django.urls import Resolver404, URLPattern, URLResolver, get_resolver, resolve
from playwright.sync_api import Page, Response, expect

from dashboard.models import Run
from dashboard.web.live import page as live_page
from tests.support import factories
from tests.support.accessibility import find_complaints, find_narrow_layout_complaints
from tests.support.browser import OpenPage, session_cookie, wait_for_viewers
from tests.support.live import Live
from tests.support.states import NON_PAGE_URLS, WORLDS, State, create_full

pytestmark = pytest.mark.browser


def url_names(patterns: list[URLPattern | URLResolver]) -> Iterator[str | None]:
    for pattern in patterns:
        if isinstance(pattern, URLPattern):
            yield pattern.name
        else:
            yield from url_names(pattern.url_patterns)


def test_states_table_covers_every_page() -> None:
    names, statuses = set(), set()
    for _, states in WORLDS.values():
        for state in states:
            statuses.add(state.status)
            places = defaultdict(lambda: "1", release="/", odd="/")
            address = state.address.format_map(places)
            with contextlib.suppress(Resolver404):
                names.add(resolve(address.partition("?")[0]).view_name)
    assert {
        name for name in url_names(get_resolver().url_patterns) if name
    } - NON_PAGE_URLS == names
    assert statuses == {200, 400, 403, 404, 422, 429, 500}


# --- Checks of each state ------------------------------------------------------------------------


@contextlib.contextmanager
def state_settings(state: State) -> Iterator[None]:
    """Apply the settings that a state needs beside its world's rows."""

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("it broke")

    with override_settings(**state.settings), pytest.MonkeyPatch.context() as patch:
        if state.status == 500:
            patch.setattr(live_page, "build_live_region", fail)
        yield


@pytest.fixture
def open_state(
    open_browser: OpenPage, live: Live, ignored_console_errors: list[str]
) -> Callable[..., Page]:
    """Open a state as whom it is for, all in one page: each new one would start a process."""
    page = open_browser(reduced_motion="reduce", device_scale_factor=2, color_scheme="light")
    answers: list[int] = []

    def record(response: Response) -> None:
        if response.request.is_navigation_request() and response.status != 302:
            answers.append(response.status)

    page.on("response", record)
    ignored_console_errors.append("the server responded with a status of 500")

    def visit(state: State, places: dict[str, object]) -> Page:
        page.context.clear_cookies()
        if state.username:
            page.context.add_cookies([session_cookie(state.username, live.base_url)])
        page.goto(state.address.format(**places))
        if state.action:
            state.action(page)
        assert answers[-1] == state.status, f"{state}: {answers[-1]}"
        return page

    return visit


LAYOUT_CHECKS = {
    "hostile": ["horizontalOverflow"],
    "wordy": ["horizontalOverflow", "truncatedText"],
}
STATES_PER_TEST = 8  # states that one test goes through


def state_groups() -> Iterator[Any]:
    """All states in small groups: each group is for another worker, and creates its own world."""
    for world, (_, states) in WORLDS.items():
        number = -(-len(states) // STATES_PER_TEST)
        for offset in range(number):
            yield pytest.param(world, states[offset::number], id=f"{world}-{offset + 1}")


@pytest.mark.slow
@pytest.mark.parametrize(("world", "states"), state_groups())
@pytest.mark.usefixtures("manager", "viewer", "live")
def test_pages_in_every_state_are_accessible(
    world: str, states: list[State], open_state: Callable[..., Page]
) -> None:
    build, _ = WORLDS[world]
    places = build()
    problems = []
    for number, state in enumerate(states):
        with state_settings(state):
            page = open_state(state, places)
            # Long texts must fit, hostile ones too; the other checks use usual texts.
            layout = LAYOUT_CHECKS.get(world)
            for name, complaints in (
                find_narrow_layout_complaints(page, *layout)
                if layout
                else find_complaints(page, number)
            ):
                problems += [
                    f"{state}, {name}: {' '.join(complaint.split())}" for complaint in complaints
                ]
    assert not problems, "\n".join(problems)


@pytest.mark.usefixtures("viewer")
def test_skip_link_moves_focus_to_main(live: Live, sign_in: OpenPage) -> None:
    factories.run(factories.stage())
    page = sign_in("viewer")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()


# --- Focus ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "run"), [("/", "aborting-2"), ("", "very-late"), ("", "release")]
)
@pytest.mark.usefixtures("manager", "viewer")
def test_stream_update_keeps_focus(place: str, run: str, live: Live, sign_in: OpenPage) -> None:
    """Of a run's row, or of all of its page."""
    create_full()
    row = Run.objects.with_stage().get(run_id=run)
    page = sign_in("manager", place or factories.address(row))
    wait_for_viewers(live)
    region = page.locator(f"[data-run='{run}']" if place else "#live")
    focusable = region.locator("a[href], button, summary, input, [tabindex='0']").locator(
        "visible=true"
    )
    assert focusable.count()
    for number in range(focusable.count()):
        focusable.nth(number).focus()
        focused = page.evaluate_handle("() => document.activeElement")
        factories.change(row, name=f"Nightly {number}")
        expect(region).to_contain_text(f"Nightly {number}")
        # A browser takes the focus from what has gone when it paints.
        page.evaluate("() => new Promise((then) => setTimeout(() => requestAnimationFrame(then)))")
        script = "at => at === document.activeElement ? '' : at.outerHTML"
        assert page.evaluate(script, focused) == ""
