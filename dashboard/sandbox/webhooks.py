"""Notification webhooks: events about runs, posted to receivers over real HTTP.

The world has no events. It is therefore polled, and each change of a run's status becomes one.
"""

import asyncio
import json
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from uuid import uuid4

import httpx

from .choices import Choices
from .runs import Run
from .serializers import Json, serialize_run
from .world import World

POLL_INTERVAL = 0.25
"""Seconds between two polls of the world."""
TIMEOUT = 10.0
"""Seconds until a request to a receiver times out; its event is not sent again."""

EVENT_PREFIX = "release-flow-template-run"
FINAL_STATUSES = {"success", "failure", "aborted"}
"""Final statuses with an event of their own; other final statuses are an update event."""
NOT_STARTED_STATUSES = {"pending", "queued"}
HEADER_PREFIX = "X-Northflank-Notification-Integration-"


@dataclass(frozen=True)
class WebhookReceiver:
    """A URL that receives all events about release flows."""

    id: str
    url: str
    secret: str = ""
    """The token to send; empty: none."""
    headers: dict[str, str] = field(default_factory=dict)
    """Further headers to send, such as those of a proxy in front of the receiver."""


@dataclass(frozen=True)
class WebhookEvent:
    name: str
    run: Run
    occurred_at: float


class Webhooks:
    """The receivers of a sandbox; `run` sends their events."""

    def __init__(
        self, get_world: Callable[[], World], clock: Callable[[], float], choices: Choices
    ) -> None:
        self._get_world = get_world
        self._clock = clock
        self._choices = choices
        self.receivers: list[WebhookReceiver] = []
        self.last_statuses: dict[Run, str] | None = None
        """Statuses of the runs in flight at the last poll; None: not polled yet."""
        self._deliveries: set[asyncio.Task[None]] = set()

    def subscribe(
        self, url: str, secret: str = "", *, headers: dict[str, str] | None = None
    ) -> None:
        """Send every event about release flows to `url` from now on."""
        receiver_id = f"webhook-{len(self.receivers) + 1}"
        self.receivers.append(WebhookReceiver(receiver_id, url, secret, headers or {}))

    async def run(self) -> None:
        """Send events until cancelled."""
        try:
            for flow in self._get_world().list_flows():
                self._get_world().list_in_flight(flow, self._clock())
                await asyncio.sleep(0)  # the first time, each takes as long as a page
            while True:
                if self.receivers:
                    for event in self.detect_events():
                        self.dispatch(event)
                else:
                    self.last_statuses = None  # events are not stored for later receivers
                await asyncio.sleep(POLL_INTERVAL)
        finally:
            deliveries = list(self._deliveries)
            for task in deliveries:
                task.cancel()
            await asyncio.gather(*deliveries, return_exceptions=True)

    async def wait_idle(self) -> None:
        """Wait until all deliveries have ended."""
        await asyncio.gather(*self._deliveries)

    def detect_events(self) -> list[WebhookEvent]:
        """Return the events since the last poll; empty for the first poll."""
        now, world, previous = self._clock(), self._get_world(), self.last_statuses
        runs = [run for flow in world.list_flows() for run in world.list_in_flight(flow, now)]
        self.last_statuses = {run: run.status(now) for run in runs}
        if previous is None:
            return []
        statuses = {run: run.status(now) for run in previous} | self.last_statuses
        return [
            WebhookEvent(name, run, now)
            for run, status in statuses.items()
            if status != previous.get(run)
            and (name := _event_name(run, status, previous.get(run), now))
        ]

    def dispatch(self, event: WebhookEvent) -> None:
        """Start delivering an event to all receivers."""
        for receiver in self.receivers:
            task = asyncio.ensure_future(self._deliver(receiver, event))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, receiver: WebhookReceiver, event: WebhookEvent) -> None:
        body = json.dumps({"event": event.name, "data": self._event_data(event)}).encode()
        headers = receiver.headers | {
            "Content-Type": "application/json",
            f"{HEADER_PREFIX}Id": receiver.id,
            f"{HEADER_PREFIX}Name": "Webhook",
            f"{HEADER_PREFIX}Event-Id": str(uuid4()),
            f"{HEADER_PREFIX}Event-Type": event.name,
        }
        if receiver.secret:
            headers[f"{HEADER_PREFIX}Token"] = receiver.secret
        await post(receiver.url, headers, body)

    def _event_data(self, event: WebhookEvent) -> Json:
        """Return what the choice `webhook-body` says."""
        run, world, content = event.run, self._get_world(), self._choices["webhook-body"]
        project = world.find_project(run.flow.project)
        pipeline = world.find_pipeline(run.flow.project, run.flow.pipeline)
        run_data = serialize_run(run, event.occurred_at, self._choices)
        keys = ("id", "name", "status", "concluded", "createdAt")
        data = {
            "project": {"id": project.id, "name": project.name},
            "pipeline": {"id": pipeline.id, "name": pipeline.name},
            "releaseFlow": {"stage": run.flow.stage},
            "releaseFlowRun": {key: run_data[key] for key in keys if key in run_data},
        }
        fields = {"empty": [], "project": ["project"], "ids": list(data)}[content]
        return {key: data[key] for key in fields}


async def post(url: str, headers: dict[str, str], body: bytes) -> None:
    """Post a body, whatever comes of it."""
    # OSError includes a timeout.
    with suppress(httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        async with (
            asyncio.timeout(TIMEOUT),
            # No proxy: receivers are on this machine or in its network.
            httpx.AsyncClient(timeout=TIMEOUT, trust_env=False, verify=_tls_context()) as client,
        ):
            await client.post(url, headers=headers, content=body)


_tls_context = cache(ssl.create_default_context)  # slower than a request


def _event_name(run: Run, status: str, previous_status: str | None, now: float) -> str | None:
    """Return the name of the event of a new status; None: a run that has not started has none."""
    was_waiting = previous_status is None or previous_status in NOT_STARTED_STATUSES
    if now >= run.concluded_at and status in FINAL_STATUSES:
        action = status
    elif status in NOT_STARTED_STATUSES:
        return None
    elif was_waiting and run.started_at is not None and run.started_at <= now:
        action = "start"
    else:
        action = "update"
    return f"{EVENT_PREFIX}:{action}"
