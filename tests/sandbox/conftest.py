"""The sandbox on a real server, with a clock that the tests set."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.sandbox import Options, Sandbox, create_app

NOW = 1_800_000_000.0
TOKEN = "sandbox"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Front:
    """Passes requests on to the application of the test at hand: one server for all tests."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Served:
    """A sandbox that answers at `url`."""

    def __init__(self, front: Front, url: str, client: httpx.Client) -> None:
        self.front = front
        self.client = client
        self.url = url
        self.clock = Clock()
        self.configure(Options())

    def configure(self, options: Options) -> Sandbox:
        """Start over with other options."""
        app = create_app(options, clock=self.clock)
        self.front.app = app
        sandbox: Sandbox = app.state.sandbox
        self.sandbox = sandbox
        return sandbox

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"} | more.pop("headers", {})
        return self.client.request(method, f"{self.url}/v1{path}", headers=headers, **more)

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


@pytest.fixture(scope="session")
def front_and_url() -> Iterator[tuple[Front, str]]:
    front = Front()
    server = uvicorn.Server(
        uvicorn.Config(front, host="127.0.0.1", port=0, lifespan="off", log_level="warning")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield front, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="session")
def client_of_all(front_and_url: tuple[Front, str]) -> Iterator[httpx.Client]:
    with httpx.Client(timeout=5) as client:  # making one takes longer than a request
        yield client


@pytest.fixture
def served(front_and_url: tuple[Front, str], client_of_all: httpx.Client) -> Served:
    return Served(*front_and_url, client_of_all)
