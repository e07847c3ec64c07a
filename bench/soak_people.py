"""Users of bench/soak.py: open pages, page loads, aborts, sign-ins, connection resets."""

import asyncio
import contextlib
import random
import re
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from urllib.parse import urlsplit

import httpx

ACCOUNTS, SESSIONS_PER_ACCOUNT = 8, 2
# Every second account is a release manager.
CREATE_ACCOUNTS = f"""
from django.contrib.auth.models import Group, User
managers = Group.objects.get(name="Release managers")
for number in range({ACCOUNTS}):
    user = User.objects.create_user(f"person-{{number}}", password=f"person-{{number}}")
    if number % 2 == 0:
        user.groups.add(managers)
"""
VIEW_SECONDS = (20.0, 120.0)  # shortest and longest time that a page stays open
LOADERS = 2  # sessions that load pages without a stream
# Mean seconds between two page loads of a loader, starts of runs, aborts, sign-ins and resets.
LOAD_INTERVAL, START_INTERVAL, ABORT_INTERVAL, SIGN_IN_INTERVAL = 1.0, 10.0, 10.0, 20.0
RESET_INTERVAL = 5.0
TIMEOUT = 60.0  # seconds until a response, or a heartbeat of a stream, counts as missing
# Stages that allow any number of concurrent runs.
STAGES = (
    "projects/payments/pipelines/billing-api/release-flows/development",
    "projects/shop/pipelines/search/release-flows/development",
    "projects/payments/pipelines/ledger/release-flows/staging",
    "projects/identity/pipelines/auth-gateway/release-flows/development",
)
PAGES = (
    "/", "/board/", "/status/", "/aborts/", "/aborts/?state=aborted", "/aborts/bulk/",
    *(f"/{stage}/" for stage in STAGES), *(f"/{stage}/?all=1" for stage in STAGES),
    f"/{STAGES[0]}/?q=release", "/projects/shop/pipelines/checkout/",
    "/projects/shop/pipelines/checkout/release-flows/production/",
)  # fmt: skip
RUN_ADDRESS = r'"(/projects/[^"?#]*/runs/[^/"?#]*/)"'  # in a page's HTML


@dataclass(frozen=True)
class Failure:
    """A request or a stream that failed."""

    failed_at: float  # of time.time
    description: str
    status: int | None = None  # of the response, if there was one


class Users:
    """Viewers and other users, active until `run` is cancelled.

    `counts` has the number of completed requests by kind. `pause` makes samples comparable: each
    viewer has an open stream, and no other request is pending.
    """

    def __init__(self, url: str, upstream_url: str, viewers: int) -> None:
        self.url, self.upstream_url, self.viewers = url, upstream_url, viewers
        self.counts: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self._clients: list[httpx.AsyncClient] = []
        self._random = random.Random(1)
        self._run_addresses: set[str] = set()  # found on pages
        self._stream_count = self._pending_count = 0  # open streams; other pending actions
        self._is_active = asyncio.Event()  # cleared during a pause
        self._is_active.set()

    async def run(self) -> None:
        """Sign all sessions in, and use the dashboard."""
        sessions = [self._create_client() for _ in range(ACCOUNTS * SESSIONS_PER_ACCOUNT)]
        for number, client in enumerate(sessions):
            await self._sign_in(client, f"person-{number % ACCOUNTS}")
        manager = sessions[0]
        async with asyncio.TaskGroup() as group:
            for number in range(self.viewers):
                group.create_task(self._view_pages(sessions[number % len(sessions)]))
            for client in sessions[:LOADERS]:
                group.create_task(self._repeat(LOAD_INTERVAL, self._load_page, client))
            for interval, action, client in (
                (START_INTERVAL, self._start_run, self._create_client()),
                (ABORT_INTERVAL, self._abort_run, manager),
                (SIGN_IN_INTERVAL, self._sign_in_and_out, self._create_client()),
                (RESET_INTERVAL, self._reset_connection, manager),
            ):
                group.create_task(self._repeat(interval, action, client))

    @contextlib.asynccontextmanager
    async def pause(self) -> AsyncIterator[None]:
        """Pause all users for the block, with all viewers' streams open and no request pending."""
        self._is_active.clear()
        deadline = time.monotonic() + TIMEOUT
        while self._stream_count < self.viewers or self._pending_count:
            if time.monotonic() > deadline:
                self._add_failure(
                    f"no pause: {self._stream_count} of {self.viewers} streams,"
                    f" {self._pending_count} actions pending"
                )
                break
            await asyncio.sleep(0.1)
        try:
            yield
        finally:
            self._is_active.set()

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    # --- Viewers ---------------------------------------------------------------------------------

    async def _view_pages(self, client: httpx.AsyncClient) -> None:
        """Open one page after another, each with its stream while it stays open."""
        while True:
            text = await self._get(client, self._choose_page())
            match = re.search(r'"(/live/\?[^"]+)"', text)
            if match is None:
                await asyncio.sleep(1)
                continue
            with self._record_errors("a stream"):
                await self._read_stream(client, match[1].replace("&amp;", "&"))

    async def _read_stream(self, client: httpx.AsyncClient, address: str) -> None:
        closes_at = time.monotonic() + self._random.uniform(*VIEW_SECONDS)
        async with client.stream("GET", address) as response:
            self.counts["streams"] += 1
            if response.status_code != httpx.codes.OK:
                self._add_failure(f"{response.status_code} for a stream", response.status_code)
                await asyncio.sleep(1)
                return
            self._stream_count += 1
            try:
                async for _ in response.aiter_raw():  # a heartbeat at least every 15 s
                    if time.monotonic() > closes_at and self._is_active.is_set():
                        return
                self._add_failure(f"a stream ended: {address}")
            finally:
                self._stream_count -= 1

    # --- Other users -----------------------------------------------------------------------------

    async def _repeat(
        self,
        interval: float,
        action: Callable[[httpx.AsyncClient], Awaitable[None]],
        client: httpx.AsyncClient,
    ) -> None:
        while True:
            await asyncio.sleep(interval * self._random.uniform(0.5, 1.5))
            await self._is_active.wait()
            self._pending_count += 1
            try:
                await action(client)
            finally:
                self._pending_count -= 1

    async def _load_page(self, client: httpx.AsyncClient) -> None:
        await self._get(client, self._choose_page())

    async def _start_run(self, client: httpx.AsyncClient) -> None:
        with contextlib.suppress(httpx.HTTPError):  # the sandbox may have a fault
            await client.post(
                f"{self.upstream_url}/v1/{self._random.choice(STAGES)}/runs",
                headers={"Authorization": "Bearer sandbox"},
                json={},
            )

    async def _abort_run(self, client: httpx.AsyncClient) -> None:
        text = await self._get(client, "/")
        addresses = sorted(set(re.findall(r'"(/projects/[^"?#]*/abort/)', text)))
        if addresses:
            form = {"pick": "Stuck", "reason": "bench"}
            await self._post(client, self._random.choice(addresses), form, "aborts")

    async def _sign_in_and_out(self, client: httpx.AsyncClient) -> None:
        client.cookies.clear()  # a sign-out that failed may have ended the session, or not
        await self._sign_in(client, "person-0")
        if "sessionid" in client.cookies:  # else the failed sign-in is counted already
            await self._get(client, "/")
            await self._post(client, "/accounts/logout/", {}, "sign-outs")

    async def _reset_connection(self, client: httpx.AsyncClient) -> None:
        """Send half of a request, or a whole one, and reset the connection before the response."""
        address = urlsplit(self.url)
        head = f"GET /board/ HTTP/1.1\r\nHost: {address.netloc}\r\n"
        cookie = f"Cookie: sessionid={client.cookies['sessionid']}\r\n\r\n"
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"{head}{cookie if self._random.random() < 0.5 else ''}".encode())
        await writer.drain()
        await asyncio.sleep(self._random.uniform(0, 2))
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        self.counts["connection resets"] += 1

    # --- Requests --------------------------------------------------------------------------------

    def _create_client(self) -> httpx.AsyncClient:
        # Each request has a connection of its own: the server closes an idle one at any time.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._clients.append(
            httpx.AsyncClient(base_url=self.url, timeout=TIMEOUT, limits=limits, verify=False)
        )
        return self._clients[-1]

    def _choose_page(self) -> str:
        if self._run_addresses and self._random.random() < 0.3:
            return self._random.choice(sorted(self._run_addresses))
        return self._random.choice(PAGES)

    async def _get(self, client: httpx.AsyncClient, address: str) -> str:
        with self._record_errors(address):
            response = await client.get(address)
            self.counts["pages"] += 1
            if response.status_code == httpx.codes.OK:
                self._run_addresses.update(re.findall(RUN_ADDRESS, response.text))
                return response.text
            self._add_failure(f"{response.status_code} for {address}", response.status_code)
        return ""

    async def _post(
        self, client: httpx.AsyncClient, address: str, form: dict[str, str], kind: str
    ) -> None:
        token = {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
        with self._record_errors(address):
            response = await client.post(address, data=form | token)
            self.counts[kind] += 1
            if response.status_code != httpx.codes.FOUND:
                self._add_failure(
                    f"{response.status_code} for POST {address}", response.status_code
                )

    async def _sign_in(self, client: httpx.AsyncClient, name: str) -> None:
        await self._get(client, "/accounts/login/")
        if "csrftoken" in client.cookies:
            form = {"username": name, "password": name}
            await self._post(client, "/accounts/login/", form, "sign-ins")

    @contextlib.contextmanager
    def _record_errors(self, request: str) -> Iterator[None]:
        """Record an error of the HTTP client in the block as a failure of `request`."""
        try:
            yield
        except httpx.HTTPError as error:
            self._add_failure(f"{type(error).__name__} for {request}")

    def _add_failure(self, description: str, status: int | None = None) -> None:
        self.failures.append(Failure(time.time(), description, status))
