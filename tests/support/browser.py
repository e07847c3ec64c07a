"""What tests do to a page in a real browser."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from playwright.sync_api import Page, Request, Response

from tests.support.live import PATIENCE, Live
from tests.support.sessions import session_key

type OpenPage = Callable[..., Page]


MARKER = "/healthz"  # an address for which no page asks by itself
CHECKS = (Path(__file__).parent / "checks.js").read_text()


def save_page(page: Page, folder: Path, name: str) -> None:
    """Save what a page looks like and says."""
    page.screenshot(path=folder / f"{name}.png", timeout=5_000)
    text = page.locator("body").inner_text(timeout=5_000)
    (folder / f"{name}.txt").write_text(f"{page.url}\n\n{text}\n")


def session_cookie(name: str, base_url: str) -> dict[str, str]:
    """The cookie of a session that this account has just begun."""
    value = session_key(name)
    return {"name": settings.SESSION_COOKIE_NAME, "value": value, "url": base_url}


def submit_sign_in(page: Page, name: str) -> Response | None:
    """Fill in the sign-in form and send it."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(name)
    with page.expect_navigation() as done:
        page.get_by_role("button", name="Sign in").click()
    return done.value


def break_streams(live: Live) -> None:
    """End all streams, as they end by themselves after a while."""

    async def end_all() -> None:
        live.feed.hub.close_streams(lambda _channel, _who: True)

    live.run(end_all)


def record_requests(page: Page) -> list[str]:
    """Note what a page asks for from now on, beside its icon: that is fetched at any time."""
    asked: list[str] = []

    def note(request: Request) -> None:
        if "/static/" not in request.url and not request.url.endswith(MARKER):
            asked.append(request.url)

    page.on("request", note)
    wait_for_requests(page)
    asked.clear()
    return asked


def wait_for_requests(page: Page) -> None:
    """Wait until all is told that a page has asked for: one more question marks where that ends."""
    with page.expect_request(f"**{MARKER}"):
        page.evaluate("address => { fetch(address) }", MARKER)


def advance_time(page: Page, seconds: float) -> None:
    """Let so much time pass at once on the clock that was taken from a page."""
    page.clock.run_for(int(1000 * seconds))
    wait_for_requests(page)


def wait_until_painted(page: Page) -> None:
    """Wait until a page shows what it is about to show; whoever looks for changes is told then."""
    frame = "new Promise((then) => requestAnimationFrame(() => setTimeout(then)))"
    page.evaluate(f"async () => {{ await {frame}; await {frame} }}")


def install_clock(page: Page, until: str = "isConnected") -> None:
    """Let a test move the time of a page, which is loaded anew and listens."""
    page.clock.install()
    # In a page that is open already it is 1970 for some milliseconds, and what its stream says just
    # then is dated so.
    page.reload()
    page.wait_for_function(f"() => {until}")


def mark(page: Page) -> None:
    """Leave a mark that only a reload would wipe away."""
    page.evaluate("() => { window.unreloaded = true }")


def is_marked(page: Page) -> bool:
    return page.evaluate("() => window.unreloaded === true") is True


def check(page: Page, what: str) -> Any:
    """What one of checks.js has against a page as it is now."""
    return page.evaluate(f"{CHECKS.strip()}.{what}()")


def wait_for_viewers(live: Live, viewers: int = 1) -> None:
    until = time.monotonic() + PATIENCE
    while live.feed.hub.viewers != viewers:
        assert time.monotonic() < until, f"{live.feed.hub.viewers} viewers"
        time.sleep(0.02)
