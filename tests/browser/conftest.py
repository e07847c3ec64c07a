"""A real browser against the real server; an error in its console fails the test.

Chromium, or with `--browser firefox` Debian's Firefox, by WebDriver BiDi: see `make firefox`.
"""

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import Browser, BrowserContext, Page, expect

from dashboard.models import CatalogSync, Run
from tests.support import evidence, live_runs
from tests.support.browser import OpenPage, save_page, session_cookie
from tests.support.live import WAIT_TIMEOUT, Live
from tests.support.services import CHROMIUM, FIREFOX

# A busy machine must not fail a test: an expected change happens at some time, or never.
expect.set_options(timeout=1000 * WAIT_TIMEOUT)

LEDGER_PRODUCTION = ("payments", "ledger", "Production")


@pytest.fixture(scope="session")
def playwright_loop(browser: Browser) -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop that Playwright marks as running in this thread, between its calls too."""
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    yield loop
    asyncio._set_running_loop(loop)  # for the end of the browser


@pytest.fixture(autouse=True)
def _playwright(
    playwright_loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    # Tests read rows in the thread of that loop. Those without a browser run loops of their own in
    # it, before and after this one.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    asyncio._set_running_loop(playwright_loop)
    yield
    asyncio._set_running_loop(None)


@pytest.fixture(scope="session")
def browser_type_launch_args(
    browser_type_launch_args: dict[str, Any], browser_name: str
) -> dict[str, Any]:
    if browser_name == "firefox":
        # By this channel Playwright drives a Firefox that it has not patched.
        return {**browser_type_launch_args, "executable_path": FIREFOX, "channel": "moz-firefox"}
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
            # One process for all pages, not one for each: its start is a tenth of a test.
            "--disable-site-isolation-trials",
            "--process-per-site",
            "--renderer-process-limit=1",
            # No page lives as long as the second optimizing compiler takes.
            "--js-flags=--no-opt",
        ],
    }


@pytest.fixture
def world(live: Live) -> Live:
    """Return the dashboard with aborts of one second; only stages that a test names are read."""
    live.sandbox.choices["abort-seconds"] = "1"
    now = timezone.now()
    # A failed list is not read before its time, whatever the schedule.
    CatalogSync.objects.create(synced_at=now, next_sync_at=now + timedelta(days=1000), failures=1)
    return live


@pytest.fixture
def stuck_run(world: Live) -> Run:
    """Return a run that hangs for hours unless it is aborted."""
    flow = live_runs.flow(world, LEDGER_PRODUCTION)
    # Of two hanging runs, the older one may be about to end.
    last_run = max(
        world.sandbox.world.list_runs(flow, world.sandbox.clock()), key=lambda run: run.concluded_at
    )
    return live_runs.mirror_run(world, LEDGER_PRODUCTION, last_run.id)


@pytest.fixture
def runs_in_flight(world: Live) -> list[Run]:
    """Return three new runs that last longer than any test."""
    now, flow = world.sandbox.clock(), live_runs.flow(world, LEDGER_PRODUCTION)
    new_runs = (world.sandbox.world.start_run(flow, now, {}) for _ in range(100))
    run_ids = islice((run.id for run in new_runs if run.concluded_at > now + 120), 3)
    return [live_runs.mirror_run(world, LEDGER_PRODUCTION, run_id) for run_id in run_ids]


@pytest.fixture
def sync_worker(world: Live) -> Iterator[None]:
    """Run a worker that continuously reads whatever is due."""
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
def ignored_console_errors() -> list[str]:
    """Console errors that are not a page's fault.

    Chromium reports each response from 400 up. htmx does so for a stream that is opened again after
    the end of its session, before the page knows of it; whether it is depends on the machine. In
    Firefox it also does so for what a page that is left was reading.
    """
    return [
        r"Failed to load resource: the server responded with a status of 4\d\d",
        "SSE reconnect failed with status 401",
        "htmx:sse:error: Error in input stream",
        "htmx:error: NetworkError when attempting to fetch resource",
    ]


@pytest.fixture
def open_browser(
    new_context: Callable[..., BrowserContext], live: Live, ignored_console_errors: list[str]
) -> Iterator[Callable[..., Page]]:
    """Open a separate browser; scripts must not raise or violate the content security policy."""
    messages: list[str] = []

    def open_(**options: Any) -> Page:
        page = new_context(base_url=live.base_url, **options).new_page()
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on(
            "console",
            lambda message: (
                messages.append(message.text) if message.type in {"error", "warning"} else None
            ),
        )
        page.set_default_timeout(1000 * WAIT_TIMEOUT)
        evidence.add("page", partial(save_page, page))
        return page

    yield open_
    assert [
        message for message in messages if not re.search("|".join(ignored_console_errors), message)
    ] == []


@pytest.fixture
def sign_in(open_browser: Callable[..., Page], live: Live) -> OpenPage:
    """Open a URL as a signed-in user; test_journeys covers the sign-in page."""

    def open_signed_in(name: str, address: str = "/", **options: Any) -> Page:
        page = open_browser(**options)
        page.context.add_cookies([session_cookie(name, live.base_url)])
        page.goto(address)
        return page

    return open_signed_in
