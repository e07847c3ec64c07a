"""People of bench/soak.py: viewers of open pages, page loads, aborts, sign-ins, broken requests."""

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

PEOPLE, SESSIONS = 8, 2  # sessions of each; every second person is a release manager
MAKE_PEOPLE = f"""
from django.contrib.auth.models import Group, User
managers = Group.objects.get(name="Release managers")
for number in range({PEOPLE}):
    user = User.objects.create_user(f"person-{{number}}", password=f"person-{{number}}")
    if number % 2 == 0:
        user.groups.add(managers)
"""
STAY = (20.0, 120.0)  # seconds that a page stays open
LOADERS = 2
# Seconds between two page loads of a loader, runs started, aborts, sign-ins, and broken requests.
LOAD_EVERY, START_EVERY, ABORT_EVERY, SIGN_IN_EVERY, BREAK_EVERY = 1.0, 10.0, 10.0, 20.0, 5.0
PATIENCE = 60.0  # seconds until an answer, or a heartbeat of a stream, counts as missing
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
RUN = r'"(/projects/[^"?#]*/runs/[^/"?#]*/)"'  # its address in a page


@dataclass(frozen=True)
class Failure:
    """Something that a person did not get."""

    at: float  # of time.time
    request: str
    status: int | None = None  # of the answer, if there was one


class Crowd:
    """Viewers, and other people beside them, until `run` is cancelled.

    `count` counts what they did; `failures` are what went wrong. A pause by `calm` lets two
    measurements see the same: every viewer with an open stream, nobody with a request.
    """

    def __init__(self, url: str, upstream_url: str, viewers: int) -> None:
        self.url, self.upstream_url, self.viewers = url, upstream_url, viewers
        self.count: Counter[str] = Counter()
        self.failures: list[Failure] = []
        self._clients: list[httpx.AsyncClient] = []
        self._chance = random.Random(1)
        self._runs: set[str] = set()  # addresses of runs seen lately
        self._open = self._busy = 0
        self._moving = asyncio.Event()
        self._moving.set()

    async def run(self) -> None:
        """Sign everybody in, and let them use the dashboard."""
        sessions = [self._client() for _ in range(PEOPLE * SESSIONS)]
        for number, client in enumerate(sessions):
            await self._sign_in(client, f"person-{number % PEOPLE}")
        manager = sessions[0]
        async with asyncio.TaskGroup() as group:
            for number in range(self.viewers):
                group.create_task(self._view_pages(sessions[number % len(sessions)]))
            for client in sessions[:LOADERS]:
                group.create_task(self._every(LOAD_EVERY, self._load_page, client))
            group.create_task(self._every(START_EVERY, self._start_run, self._client()))
            group.create_task(self._every(ABORT_EVERY, self._abort_run, manager))
            group.create_task(self._every(SIGN_IN_EVERY, self._sign_in_and_out, self._client()))
            group.create_task(self._every(BREAK_EVERY, self._break_off, manager))

    @contextlib.asynccontextmanager
    async def calm(self) -> AsyncIterator[None]:
        """Pause everybody for the block, with all viewers' streams open and no request pending."""
        self._moving.clear()
        until = time.monotonic() + PATIENCE
        while self._open < self.viewers or self._busy:
            if time.monotonic() > until:
                self._fail(f"{self._open} of {self.viewers} streams, {self._busy} busy")
                break
            await asyncio.sleep(0.1)
        try:
            yield
        finally:
            self._moving.set()

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()

    # --- Viewers ---------------------------------------------------------------------------------

    async def _view_pages(self, client: httpx.AsyncClient) -> None:
        """Open one page after another, with its stream for as long as somebody reads it."""
        while True:
            text = await self._get(client, self._choose_page())
            match = re.search(r'"(/live/\?[^"]+)"', text)
            if match is None:
                await asyncio.sleep(1)
                continue
            with self._reporting("a stream"):
                await self._watch(client, match[1].replace("&amp;", "&"))

    async def _watch(self, client: httpx.AsyncClient, address: str) -> None:
        stays_until = time.monotonic() + self._chance.uniform(*STAY)
        async with client.stream("GET", address) as response:
            self.count["streams"] += 1
            if response.status_code != httpx.codes.OK:
                self._fail(f"{response.status_code} for a stream", response.status_code)
                await asyncio.sleep(1)
                return
            self._open += 1
            try:
                async for _ in response.aiter_raw():  # a heartbeat at least every 15 s
                    if time.monotonic() > stays_until and self._moving.is_set():
                        return
                self._fail(f"a stream ended: {address}")
            finally:
                self._open -= 1

    # --- Others ----------------------------------------------------------------------------------

    async def _every(
        self,
        seconds: float,
        work: Callable[[httpx.AsyncClient], Awaitable[None]],
        client: httpx.AsyncClient,
    ) -> None:
        while True:
            await asyncio.sleep(seconds * self._chance.uniform(0.5, 1.5))
            await self._moving.wait()
            self._busy += 1
            try:
                await work(client)
            finally:
                self._busy -= 1

    async def _load_page(self, client: httpx.AsyncClient) -> None:
        await self._get(client, self._choose_page())

    async def _start_run(self, client: httpx.AsyncClient) -> None:
        with contextlib.suppress(httpx.HTTPError):  # the sandbox may have a fault
            await client.post(
                f"{self.upstream_url}/v1/{self._chance.choice(STAGES)}/runs",
                headers={"Authorization": "Bearer sandbox"},
                json={},
            )

    async def _abort_run(self, client: httpx.AsyncClient) -> None:
        text = await self._get(client, "/")
        addresses = sorted(set(re.findall(r'"(/projects/[^"?#]*/abort/)', text)))
        if addresses:
            form = {"pick": "Stuck", "reason": "bench"}
            await self._post(client, self._chance.choice(addresses), form, "aborts")

    async def _sign_in_and_out(self, client: httpx.AsyncClient) -> None:
        client.cookies.clear()  # a sign-out that failed may have ended the session, or not
        await self._sign_in(client, "person-0")
        if "sessionid" in client.cookies:  # else the failed sign-in is counted already
            await self._get(client, "/")
            await self._post(client, "/accounts/logout/", {}, "sign-outs")

    async def _break_off(self, client: httpx.AsyncClient) -> None:
        """Send half of a request, or a whole one without waiting for the answer, and reset."""
        address = urlsplit(self.url)
        head = f"GET /board/ HTTP/1.1\r\nHost: {address.netloc}\r\n"
        cookie = f"Cookie: sessionid={client.cookies['sessionid']}\r\n\r\n"
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"{head}{cookie if self._chance.random() < 0.5 else ''}".encode())
        await writer.drain()
        await asyncio.sleep(self._chance.uniform(0, 2))
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        self.count["broken requests"] += 1

    # --- Requests --------------------------------------------------------------------------------

    def _client(self) -> httpx.AsyncClient:
        # Each request has a connection of its own: the server closes an idle one at any time.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._clients.append(
            httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, limits=limits, verify=False)
        )
        return self._clients[-1]

    def _choose_page(self) -> str:
        if self._runs and self._chance.random() < 0.3:
            return self._chance.choice(sorted(self._runs))
        return self._chance.choice(PAGES)

    async def _get(self, client: httpx.AsyncClient, address: str) -> str:
        with self._reporting(address):
            response = await client.get(address)
            self.count["pages"] += 1
            if response.status_code == httpx.codes.OK:
                self._runs.update(re.findall(RUN, response.text))
                return response.text
            self._fail(f"{response.status_code} for {address}", response.status_code)
        return ""

    async def _post(
        self, client: httpx.AsyncClient, address: str, form: dict[str, str], kind: str
    ) -> None:
        token = {"csrfmiddlewaretoken": client.cookies["csrftoken"]}
        with self._reporting(address):
            response = await client.post(address, data=form | token)
            self.count[kind] += 1
            if response.status_code != httpx.codes.FOUND:
                self._fail(f"{response.status_code} for POST {address}", response.status_code)

    async def _sign_in(self, client: httpx.AsyncClient, name: str) -> None:
        await self._get(client, "/accounts/login/")
        if "csrftoken" in client.cookies:
            form = {"username": name, "password": name}
            await self._post(client, "/accounts/login/", form, "sign-ins")

    @contextlib.contextmanager
    def _reporting(self, request: str) -> Iterator[None]:
        """Report that `what` was not answered."""
        try:
            yield
        except httpx.HTTPError as error:
            self._fail(f"{type(error).__name__} for {request}")

    def _fail(self, request: str, status: int | None = None) -> None:
        self.failures.append(Failure(time.time(), request, status))
