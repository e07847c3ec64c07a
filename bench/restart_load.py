"""Threads that use the pages as people do: read them, keep their streams open, and abort runs."""

import contextlib
import http.client
import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import httpx
import psycopg
from processes import Browser, wait_for

STREAMS, READERS, ABORTERS = 20, 4, 6
RECONNECT_DELAY, MAX_RECONNECT_DELAY = 0.5, 10.0  # of htmx, and of templates/base.html
PAGES = ["/", "/board/", "/aborts/", "/projects/payments/"]
FLOWS = [
    f"/projects/payments/pipelines/{pipeline}/release-flows/{stage}"
    for pipeline in ("ledger", "billing-api")
    for stage in ("staging", "production")
]


@dataclass
class Load:
    """Threads that use the pages; what they have met."""

    url: str
    cookies: dict[str, str]
    upstream: str
    database: str
    is_over: threading.Event = field(default_factory=threading.Event)
    requests: int = 0
    failures: list[str] = field(default_factory=list)
    aborts_under_way: set[str] = field(default_factory=set)
    aborted: list[str] = field(default_factory=list)
    away: list[float] = field(default_factory=list)  # seconds, of each stream that was cut
    open_streams: set[int] = field(default_factory=set)
    threads: list[threading.Thread] = field(default_factory=list)
    addresses: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def start(self) -> None:
        work: list[Callable[[], None]] = [self._read_pages] * READERS
        work += [self._abort_runs] * ABORTERS
        work += [partial(self._view, number) for number in range(STREAMS)]
        self.threads = [threading.Thread(target=task, daemon=True) for task in work]
        for thread in self.threads:
            thread.start()

    def browser(self) -> Browser:
        """Return a browser of this session at an address of its own: proxies distribute by it."""
        browser = Browser(self.url, f"127.0.{next(self.addresses)}.1")
        browser.cookies = dict(self.cookies)
        return browser

    def _read_pages(self) -> None:
        browser = self.browser()
        for path in itertools.cycle(PAGES):
            if self.is_over.wait(0.1):
                return
            self._request(browser, path)

    def _request(self, browser: Browser, path: str, form: dict[str, str] | None = None) -> bool:
        self.requests += 1
        headers = {"HX-Request": "true"} if form else {}
        for is_repeated in (form is not None, True):
            try:
                response = browser.request(path, form, headers)
            except (OSError, http.client.HTTPException) as error:
                browser.http.close()
                if is_repeated:  # browsers repeat a GET once
                    self._fail(f"{path}: {error!r}")
                    return False
            else:
                if response.status >= 400:
                    self._fail(f"{path}: {response.status} {response.text[:80]!r}")
                return response.status < 400
        return False

    def _fail(self, text: str) -> None:
        self.failures.append(
            f"{time.strftime('%X')} {'POST' if '/abort' in text else 'GET'} {text}"
        )

    def _abort_runs(self) -> None:
        browser = self.browser()
        with psycopg.connect(self.database, autocommit=True) as link:
            while not self.is_over.wait(random.uniform(0, 0.5)):
                flow = random.choice(FLOWS)
                answer = httpx.post(
                    f"{self.upstream}/v1{flow}/runs",
                    json={}, headers={"Authorization": "Bearer sandbox"}, timeout=60,
                )  # fmt: skip
                if answer.status_code == 409:  # of a flow that forbids a second run
                    continue
                run = answer.raise_for_status().json()["data"]["id"]
                wait_for(partial(is_mirrored, link, run), "a run is mirrored", 0.1)
                self.aborts_under_way.add(run)
                if self._request(browser, f"{flow}/runs/{run}/abort/", {"reason": "Stuck"}):
                    self.aborted.append(run)
                self.aborts_under_way.remove(run)

    def _view(self, number: int) -> None:
        """Keep a stream open as a page does; note how long it was away."""
        browser = self.browser()
        page = browser.request("/").text
        [address] = re.findall(r'"(/live/[^"]+)"', page)[:1]
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        headers = {"Cookie": cookie, "Accept": "text/event-stream", "HX-Request": "true"}
        lost_at, attempt = 0.0, 0
        while not self.is_over.is_set():
            link = http.client.HTTPConnection(browser.host, None, 40, browser.source)
            with contextlib.suppress(OSError, http.client.HTTPException):
                link.request("GET", address.replace("&amp;", "&"), headers=headers)
                response = link.getresponse()
                while response.status == 200 and response.read1(65536):
                    self.open_streams.add(number)
                    if lost_at:
                        self.away.append(time.monotonic() - lost_at)
                    lost_at, attempt = 0.0, 0
                    if self.is_over.is_set():
                        return
            link.close()
            self.open_streams.discard(number)
            lost_at = lost_at or time.monotonic()
            delay = min(RECONNECT_DELAY * 2**attempt, MAX_RECONNECT_DELAY)
            attempt += 1
            self.is_over.wait(delay * random.uniform(0.7, 1.3))


def is_mirrored(link: psycopg.Connection, run: str) -> bool:
    query = "SELECT 1 FROM dashboard_run WHERE run_id = %s"
    return link.execute(query, [run]).fetchone() is not None
