"""Actions on pages in a real browser."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from playwright.sync_api import Page, Request, Response, Route

from tests.support.live import WAIT_TIMEOUT, Live
from tests.support.sessions import session_key

type OpenPage = Callable[..., Page]


MARKER = "/healthz"  # a URL that no page requests by itself
CHECKS = (Path(__file__).parent / "checks.js").read_text()


def save_page(page: Page, folder: Path, name: str) -> None:
    """Save the page's screenshot and text; raise if it is closed, as after the end of a test."""
    # Then the loop of Playwright does not run either: a call would end the browser of later tests.
    assert not page.is_closed(), "the page is closed"
    page.screenshot(path=folder / f"{name}.png", timeout=5_000)
    text = page.locator("body").inner_text(timeout=5_000)
    (folder / f"{name}.txt").write_text(f"{page.url}\n\n{text}\n")


def session_cookie(name: str, base_url: str) -> dict[str, str]:
    """Return the cookie of a new session of this account."""
    value = session_key(name)
    return {"name": settings.SESSION_COOKIE_NAME, "value": value, "url": base_url}


def submit_sign_in(page: Page, name: str) -> Response | None:
    """Fill in the sign-in form and submit it."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(name)
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Sign in").click()
    return navigation.value


def break_streams(live: Live) -> None:
    """Close all streams once, as the server does after a while."""

    async def close_all() -> None:
        live.feed.hub.close_streams(lambda _channel, _session: True)

    live.run(close_all)


def redirect_to_sign_in(page: Page, address: str) -> None:
    """Answer requests to an address as a proxy does whose session has expired."""

    def answer(route: Route) -> None:
        # Not those that the browser itself makes for a page.
        if route.request.is_navigation_request():
            route.continue_()
        else:
            route.fulfill(status=302, headers={"Location": "/oauth2/sign_in"})

    page.route(address, answer)
    body = "<!doctype html><title>Sign in</title><h1>Sign in with SSO</h1>"
    page.route(
        "**/oauth2/sign_in", lambda route: route.fulfill(body=body, content_type="text/html")
    )


def record_requests(page: Page) -> list[str]:
    """Return a list that collects the URLs a page requests from now on.

    Static files are excluded, since the icon is requested at any time.
    """
    urls: list[str] = []

    def record(request: Request) -> None:
        if "/static/" not in request.url and not request.url.endswith(MARKER):
            urls.append(request.url)

    page.on("request", record)
    wait_for_requests(page)
    urls.clear()
    return urls


def wait_for_requests(page: Page) -> None:
    """Wait until the page's earlier requests have been reported; one more marks their end."""
    with page.expect_request(f"**{MARKER}"):
        page.evaluate("address => { fetch(address) }", MARKER)


def advance_time(page: Page, seconds: float) -> None:
    """Advance the page's installed clock by `seconds`."""
    page.clock.run_for(int(1000 * seconds))
    wait_for_requests(page)


def wait_until_painted(page: Page) -> None:
    """Wait until the page has painted, by when mutation observers have also run."""
    frame = "new Promise((then) => requestAnimationFrame(() => setTimeout(then)))"
    page.evaluate(f"async () => {{ await {frame}; await {frame} }}")


def install_clock(page: Page, condition: str = "isConnected") -> None:
    """Reload the page with a clock that the test controls, and wait until `condition` is true."""
    page.clock.install()
    # Installed in an open page, the clock starts in 1970 for some milliseconds, and stream messages
    # of that time would be dated so.
    page.reload()
    page.wait_for_function(f"() => {condition}")


def set_reload_mark(page: Page) -> None:
    """Set a mark that only a reload removes."""
    page.evaluate("() => { window.unreloaded = true }")


def has_reload_mark(page: Page) -> bool:
    return page.evaluate("() => window.unreloaded === true") is True


def check(page: Page, name: str) -> Any:
    """Return the result of one of the checks in checks.js for the page's current state."""
    return page.evaluate(f"{CHECKS.strip()}.{name}()")


def set_hidden(page: Page, hidden: bool) -> None:
    """Put a page in the background, or back in front."""
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { get: () => hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def wait_for_viewers(live: Live, viewers: int = 1) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT
    while live.feed.hub.viewers != viewers:
        assert time.monotonic() < deadline, f"{live.feed.hub.viewers} viewers"
        time.sleep(0.02)
