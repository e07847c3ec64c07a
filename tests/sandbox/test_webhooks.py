"""Webhooks: the events that each receiver gets, over real HTTP."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from dashboard.sandbox import Options
from dashboard.sandbox.webhooks import HEADER_PREFIX, Webhooks, post
from tests.support.sandbox import SandboxServer


class Receiver:
    """A server that stores the posted requests."""

    def __init__(self) -> None:
        self.deliveries: list[tuple[dict[str, str], Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {**dict(self.headers), ":path": self.path}
                receiver.deliveries.append((headers, json.loads(body)))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/in?from=nf"

    @property
    def events(self) -> list[str]:
        return [body["event"] for _, body in self.deliveries]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def deliver(sandbox_server: SandboxServer) -> None:
    """Deliver the events since the last poll."""

    asyncio.run(sandbox_server.sandbox.webhooks.send_events())


@pytest.fixture
def webhooks(sandbox_server: SandboxServer, receiver: Receiver) -> Webhooks:
    """Webhooks with the receiver, after their first poll."""
    result = sandbox_server.sandbox.webhooks
    result.subscribe(receiver.url, "the secret")
    deliver(sandbox_server)
    return result


def create(sandbox_server: SandboxServer, flow: str = "payments/ledger/staging") -> Any:
    release_flow = sandbox_server.sandbox.world.find_flow(*flow.split("/"))
    assert release_flow is not None
    return sandbox_server.sandbox.world.start_run(release_flow, sandbox_server.clock.now, {})


def start(sandbox_server: SandboxServer) -> Any:
    """Create a run, and go on to its start; what other runs did meanwhile sends no events."""
    run = create(sandbox_server)
    pass_until_start(sandbox_server, run)
    return run


def pass_until_start(sandbox_server: SandboxServer, run: Any) -> None:
    sandbox_server.clock.now = run.started_at - 0.001
    sandbox_server.sandbox.webhooks.detect_events()
    sandbox_server.clock.now = run.started_at


# --- events ------------------------------------------------------------------------------------


def test_started_run_sends_documented_event(
    sandbox_server: SandboxServer, webhooks: Webhooks, receiver: Receiver
) -> None:
    start(sandbox_server)
    deliver(sandbox_server)
    ((headers, body),) = receiver.deliveries
    assert body == {
        "event": "release-flow-template-run:start",
        "data": {"project": {"id": "payments", "name": "Payments"}},
    }
    assert headers[f"{HEADER_PREFIX}Token"] == "the secret"
    assert headers[f"{HEADER_PREFIX}Event-Type"] == body["event"]
    assert headers[f"{HEADER_PREFIX}Id"] == "webhook-1"
    assert headers[f"{HEADER_PREFIX}Name"] == "Webhook"
    assert len(headers[f"{HEADER_PREFIX}Event-Id"]) == 36
    assert headers["Content-Type"] == "application/json"
    assert headers[":path"] == "/in?from=nf"


def test_run_sends_events_from_start_to_end(
    sandbox_server: SandboxServer, webhooks: Webhooks, receiver: Receiver
) -> None:
    run = start(sandbox_server)
    sandbox_server.sandbox.choices["webhook-body"] = "ids"
    while sandbox_server.clock.now < run.concluded_at:
        deliver(sandbox_server)
        sandbox_server.clock.now += 5
    deliver(sandbox_server)
    event_statuses = [
        (body["event"].split(":")[1], body["data"]["releaseFlowRun"]["status"])
        for _, body in receiver.deliveries
        if body["data"]["releaseFlowRun"]["id"] == run.id
    ]
    statuses = [status for _, status in event_statuses]
    assert event_statuses[0][0] == "start"
    assert event_statuses[-1][0] == run.outcome == statuses[-1]
    assert {word for word, _ in event_statuses[1:-1]} == {"update"}
    assert all(previous != following for previous, following in pairwise(statuses))


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ("project", {"project"}),
        ("ids", {"project", "pipeline", "releaseFlow", "releaseFlowRun"}),
        ("empty", set()),
    ],
)
def test_webhook_body_choice_sets_its_fields(
    sandbox_server: SandboxServer,
    webhooks: Webhooks,
    receiver: Receiver,
    body: str,
    fields: set[str],
) -> None:
    sandbox_server.sandbox.choices["webhook-body"] = body
    start(sandbox_server)
    deliver(sandbox_server)
    assert set(receiver.deliveries[0][1]["data"]) == fields


def test_running_webhooks_send_events(sandbox_server: SandboxServer, receiver: Receiver) -> None:
    webhooks = sandbox_server.sandbox.webhooks
    webhooks.subscribe(receiver.url)

    async def watch() -> None:
        task = asyncio.create_task(webhooks.run())
        while not webhooks.last_statuses:
            await asyncio.sleep(0.01)
        start(sandbox_server)
        while not receiver.deliveries:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(asyncio.wait_for(watch(), 10))
    assert receiver.events == ["release-flow-template-run:start"]


def test_receiver_of_options_gets_events(sandbox_server: SandboxServer, receiver: Receiver) -> None:
    sandbox_server.configure(
        Options(webhook_urls=[receiver.url], webhook_secret="from the command line")
    )
    deliver(sandbox_server)
    start(sandbox_server)
    deliver(sandbox_server)
    assert receiver.deliveries[0][0][f"{HEADER_PREFIX}Token"] == "from the command line"


# --- receivers that fail -----------------------------------------------------------------------


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://127.0.0.1:0/ä€"])
def test_post_to_invalid_address_fails_silently(url: str) -> None:
    asyncio.run(post(url, {}, {"event": "test"}))
