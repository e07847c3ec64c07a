"""A real Chromium before the real server; what its console complains of fails the test."""

import os
import re
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import Any

import pytest
from django.utils import timezone
from playwright.sync_api import BrowserContext, Page, expect

from dashboard.models import CatalogueSweep, Run
from tests.support import evidence, flights
from tests.support.browser import Open, save_page, session_cookie
from tests.support.live import PATIENCE, Live
from tests.support.services import CHROMIUM

# No test fails for a machine that is busy: what it waits for comes, or does not.
expect.set_options(timeout=1000 * PATIENCE)

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
def world(live: Live) -> Live:
    """The sandbox, whose aborts take a second; nothing is read but the stages that a test names."""
    live.sandbox.choices["abort-seconds"] = "1"
    now = timezone.now()
    # What has failed rests, whatever the plan: the catalogue is not read again.
    CatalogueSweep.objects.create(swept_at=now, next_at=now + timedelta(days=1000), failures=1)
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
        page.set_default_timeout(1000 * PATIENCE)
        evidence.add("page", partial(save_page, page))
        return page

    yield open_
    assert [said for said in complaints if not re.search("|".join(forgiven), said)] == []


@pytest.fixture
def sign_in(open_browser: Callable[..., Page], live: Live) -> Open:
    """Open an address as somebody who has signed in; test_journeys goes through that page."""

    def sign_in_(name: str, address: str = "/", **options: Any) -> Page:
        page = open_browser(**options)
        page.context.add_cookies([session_cookie(name, live.base_url)])
        page.goto(address)
        return page

    return sign_in_
