"""The product as deployed: our handler and a sandbox on real ports, in a thread of the test."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx
from django.conf import settings
from django.db import connections

from dashboard import sandbox
from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.accounts.authentication import password_queue
from dashboard.asgi import application
from dashboard.db import threads as db_threads
from dashboard.server.process import verify_database
from dashboard.sync import lead
from dashboard.sync.reads import Reads
from dashboard.sync.worker import SyncWorker
from dashboard.upstream import connection as upstream_connection
from dashboard.web.live.feed import (
    HEARTBEAT_INTERVAL,
    POLL_INTERVAL,
    Broadcaster,
    close_broadcaster,
    open_broadcaster,
)
from dashboard.web.pages import search
from tests.support import asgi_servers
from tests.support.asgi_servers import Server
from tests.support.sessions import CSRF_TOKEN, session_key

WAIT_TIMEOUT = 120  # seconds until a waiting test fails
HISTORY_HOURS = 6  # a short list is read quickly, and still contains all runs in flight


@dataclass
class Live:
    """A running dashboard with its upstream."""

    base_url: str
    upstream_url: str
    sandbox: sandbox.Sandbox
    connection: upstream_connection.Connection
    loop: asyncio.AbstractEventLoop
    feed: Broadcaster
    worker: SyncWorker = field(init=False)
    clients: list[httpx.Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.worker = SyncWorker(self.connection, chores=[reconcile_open_aborts])

    @property
    def reads(self) -> Reads:
        """The worker's reads; it has ticked once, and leads."""
        assert self.worker.reads is not None
        return self.worker.reads

    @property
    def reads_started(self) -> int:
        return self.worker.reads.started if self.worker.reads is not None else 0

    def replace_worker(self, **options: Any) -> SyncWorker:
        """Replace the worker by a new one, which leads from its first tick on."""
        lead.release_leftover()
        self.worker = SyncWorker(self.connection, **options)
        return self.worker

    def run[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Run `work` on the server's event loop and return what it returns."""

        async def on_loop() -> T:
            return await work()

        return asyncio.run_coroutine_threadsafe(on_loop(), self.loop).result(WAIT_TIMEOUT)

    def sync(self, rounds: int = 6) -> None:
        """Let a worker read until nothing is due, `rounds` times, since reads make others due."""

        async def read_all() -> None:
            from django.utils import timezone

            from dashboard.sync import catalog

            await db_threads.run_in_db_thread(catalog.start, timezone.now())
            for _ in range(rounds):
                for _ in range(100):  # far more reads than any test requires
                    before = self.reads_started
                    await self.worker.tick()
                    await self.worker.wait_idle()
                    if self.reads_started == before:
                        break

        self.run(read_all)

    @contextlib.contextmanager
    def ticking(self) -> Iterator[None]:
        """Let a worker tick until the block ends, so that it answers links and searches."""
        stop = threading.Event()

        async def tick() -> None:
            while not stop.is_set():
                await self.worker.tick()
                await asyncio.sleep(0.01)
            await self.worker.wait_idle()

        self.run(self.worker.tick)  # from now on it has a heartbeat
        ticks = asyncio.run_coroutine_threadsafe(tick(), self.loop)
        try:
            yield
        finally:
            stop.set()
            ticks.result(WAIT_TIMEOUT)

    def end_streams(self) -> None:
        """Close all streams and accept no new ones, so that pages poll."""

        async def close() -> None:
            close_broadcaster()

        self.run(close)

    def sign_in(self, name: str) -> httpx.Client:
        """Return a browser-like client that has signed in as `name`."""
        cookies = httpx.Cookies()
        for cookie, value in (
            (settings.SESSION_COOKIE_NAME, session_key(name)),
            (settings.CSRF_COOKIE_NAME, CSRF_TOKEN),
        ):  # with the server's attributes, so that cookies set later replace these
            cookies.set(cookie, value, domain="127.0.0.1")
        # Plain HTTP: a client without certificates is created much faster.
        client = httpx.Client(
            base_url=self.base_url, cookies=cookies, timeout=WAIT_TIMEOUT, verify=False
        )
        self.clients.append(client)
        return client


def token(client: httpx.Client) -> str:
    """Return the session's CSRF token for forms."""
    return client.cookies["csrftoken"]


def options(rate_limit: int = 100_000, rate_window: float = 3600) -> sandbox.Options:
    """Return options of a sandbox with the same runs at any time of day.

    Ten minutes after its origin most stages have a run in flight, and for the next ten minutes only
    tests abort runs.
    """
    now = int(time.time())
    return sandbox.Options(
        scenario="everyday",
        rate_limit=rate_limit,
        rate_window_seconds=rate_window,
        opened_at=now,
        schedule_origin=now - 600,
        history_hours=HISTORY_HOURS,
    )


@contextlib.contextmanager
def run_live(
    upstream_options: sandbox.Options | None = None,
    *,
    poll_interval: float = POLL_INTERVAL,
    heartbeat_interval: float = HEARTBEAT_INTERVAL,
) -> Iterator[Live]:
    """Serve the dashboard and a sandbox until the block ends. The worker runs on request only.

    `poll_interval` and `heartbeat_interval` are the broadcaster's, in seconds.
    """
    upstream = sandbox.Sandbox(upstream_options or options())
    ready, state = threading.Event(), {}

    async def serve() -> None:
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        web_port, upstream_port = (listener.getsockname()[1] for listener in listeners)
        upstream_url = f"http://127.0.0.1:{upstream_port}"
        connection = upstream_connection.open_connection(upstream_url, upstream.options.token)
        feed = open_broadcaster(poll_interval=poll_interval, heartbeat_interval=heartbeat_interval)
        feed_tasks = [asyncio.create_task(feed.run())]
        servers = [Server(application), Server(upstream)]
        tasks = [
            asyncio.create_task(server.serve_on(listener))
            for server, listener in zip(servers, listeners, strict=True)
        ]
        feed_tasks.append(asyncio.create_task(upstream.webhooks.run()))
        state["live"] = Live(
            f"http://127.0.0.1:{web_port}",
            upstream_url,
            upstream,
            connection,
            asyncio.get_running_loop(),
            feed,
        )
        stop = state["stop"] = asyncio.Event()
        # The broadcaster's first round asks all pages to reload: no test is to get that.
        while feed.version is None or not all(server.started for server in servers):
            await asyncio.sleep(0.005)
        ready.set()
        await stop.wait()
        feed.close()
        for server in servers:
            server.stop()
        for task in feed_tasks:
            task.cancel()
        await asyncio.gather(*tasks)
        await asyncio.gather(*feed_tasks, return_exceptions=True)
        close_broadcaster()
        await connection.close()

    verify_database()
    thread = threading.Thread(target=lambda: asgi_servers.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(WAIT_TIMEOUT), "the server did not start"
    try:
        yield state["live"]
    finally:
        for client in state["live"].clients:
            client.close()
        state["live"].loop.call_soon_threadsafe(state["stop"].set)
        thread.join(WAIT_TIMEOUT)
        for pool in (
            application.executor,
            application.sign_in_executor,
            password_queue.queue.executor,
            search.queue.executor,
            db_threads.executor,
            db_threads.abort_executor,
        ):
            close_connections(pool)


def close_connections(pool: ThreadPoolExecutor) -> None:
    """Close the database connections of all threads of a pool, so that a test leaves none open."""
    run_in_each_thread(pool, connections.close_all)


def run_in_each_thread(pool: ThreadPoolExecutor, work: Callable[[], object]) -> None:
    """Run `work` once in each thread of a pool."""
    barrier = threading.Barrier(pool._max_workers)

    def wait_and_run(_: Any) -> None:
        barrier.wait(WAIT_TIMEOUT)
        work()

    list(pool.map(wait_and_run, range(pool._max_workers)))
