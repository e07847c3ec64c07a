"""A real Chromium before the real server; what its console complains of fails the test."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Request, Response
from pytest_django import Settings

from dashboard.models import Run
from tests.aborting import flights
from tests.conftest import CHROMIUM
from tests.live import Live

type Open = Callable[..., Page]
CHECKS = (Path(__file__).parent / "checks.js").read_text()

LEDGER_PRODUCTION = ("payments", "ledger", "Production")


@pytest.fixture(scope="session", autouse=True)
def _database_beside_playwright() -> None:
    # Playwright keeps an event loop in this thread; the tests read rows here all the same.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    return {
        **browser_type_launch_args,
        "executable_path": CHROMIUM,
        "args": [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ],
    }


@pytest.fixture
def world(live: Live, settings: Settings) -> Live:
    """The sandbox's project `payments`, read once."""
    settings.NORTHFLANK_PROJECTS = ["payments"]
    live.sandbox.choices["abort-seconds"] = "1"
    live.sync()
    return live


@pytest.fixture
def stuck(world: Live) -> Run:
    """A run that hangs for hours unless it is aborted."""
    flow = flights.flow(world, LEDGER_PRODUCTION)
    # Of two that hang the older one may be about to end.
    last = max(world.sandbox.world.runs(flow, world.sandbox.clock()), key=lambda run: run.concluded)
    return flights.mirrored(world, LEDGER_PRODUCTION, last.id)


@pytest.fixture
def flying(world: Live) -> list[Run]:
    """Three runs that go on for longer than any test, beside those that were there already."""
    now, flow = world.sandbox.clock(), flights.flow(world, LEDGER_PRODUCTION)
    begun = (world.sandbox.world.start(flow, now, {}) for _ in range(100))
    long = islice((run.id for run in begun if run.concluded > now + 120), 3)
    return [flights.mirrored(world, LEDGER_PRODUCTION, run_id) for run_id in long]


@pytest.fixture
def syncing(world: Live) -> Iterator[None]:
    """A worker that reads whatever is due, all the time."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.2):
            world.sync(rounds=1)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def forgiven() -> list[str]:
    """Complaints that are no fault of a page: Chromium reports each answer from 400 up."""
    return [r"Failed to load resource: the server responded with a status of 4\d\d"]


@pytest.fixture
def open_browser(
    new_context: Callable[..., BrowserContext], live: Live, forgiven: list[str]
) -> Iterator[Callable[..., Page]]:
    """Open a browser of its own; nothing that it runs may raise or break the security policy."""
    complaints: list[str] = []

    def open_(**options: Any) -> Page:
        page = new_context(base_url=live.base_url, **options).new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: (
                complaints.append(said.text) if said.type in {"error", "warning"} else None
            ),
        )
        page.set_default_timeout(15_000)
        return page

    yield open_
    assert [said for said in complaints if not re.search("|".join(forgiven), said)] == []


@pytest.fixture
def sign_in(open_browser: Callable[..., Page]) -> Open:
    """Open an address as somebody: it leads through the sign-in page and back."""

    def sign_in_(name: str, address: str = "/", **options: Any) -> Page:
        page = open_browser(**options)
        page.goto(address)
        enter(page, name)
        return page

    return sign_in_


def enter(page: Page, name: str) -> Response | None:
    """Fill in the sign-in form and send it."""
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(name)
    with page.expect_navigation() as done:
        page.get_by_role("button", name="Sign in").click()
    return done.value


def break_streams(live: Live) -> None:
    """End all streams, as they end by themselves after a while."""

    async def end_all() -> None:
        for viewers in live.feed.hub._viewers.values():
            for viewer in viewers:
                viewer.end()

    live.run(end_all)


def note_requests(page: Page) -> list[str]:
    """Note what a page asks for from now on, beside its icon: that is fetched at any time.

    What it has asked for before may be told late, so one more question marks where that ends.
    """
    asked: list[str] = []

    def note(request: Request) -> None:
        if "/static/" not in request.url:
            asked.append(request.url)

    page.on("request", note)
    with page.expect_request("**/healthz"):
        page.evaluate("() => { fetch('/healthz') }")
    asked.clear()
    return asked


def take_clock(page: Page) -> None:
    """Let a test move the time of a page, which is loaded anew and listens."""
    page.clock.install()
    # In a page that is open already it is 1970 for some milliseconds, and what its stream says just
    # then is dated so.
    page.reload()
    page.wait_for_function("() => connected")


def mark(page: Page) -> None:
    """Leave a mark that only a reload would wipe away."""
    page.evaluate("() => { window.unreloaded = true }")


def is_marked(page: Page) -> bool:
    return page.evaluate("() => window.unreloaded === true") is True


def check(page: Page, what: str) -> Any:
    """What one of checks.js has against a page as it is now."""
    return page.evaluate(f"{CHECKS.strip()}.{what}()")
