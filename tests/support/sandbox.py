"""The sandbox on a real server, with a clock that tests set."""

from typing import Any

import httpx
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard.sandbox import Options, Sandbox

NOW = 1_800_000_000.0


TOKEN = "sandbox"


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class AppSwitch:
    """Passes requests to the current test's application: one server for all tests."""

    app: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class SandboxServer:
    """A sandbox at `url`."""

    def __init__(self, app_switch: AppSwitch, url: str, client: httpx.Client) -> None:
        self.app_switch = app_switch
        self.client = client
        self.url = url
        self.clock = Clock()
        self.configure(Options(scenario="everyday"))

    def configure(self, options: Options) -> Sandbox:
        """Restart with other options."""
        self.sandbox = self.app_switch.app = Sandbox(options, self.clock)
        return self.sandbox

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {TOKEN}"} | options.pop("headers", {})
        return self.client.request(method, f"{self.url}/v1{path}", headers=headers, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)
