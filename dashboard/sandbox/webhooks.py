"""Notification webhooks: who wants to be told of what, and the telling, over real HTTP.

The world has no moment at which something "happens", it is a function of time. So it is looked at
again and again, and what differs is told.
"""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import uuid4

from .calls import Json
from .forms import format_iso, format_spaced, serialize_run
from .history import Run
from .posting import post

if TYPE_CHECKING:
    from .sandbox import Sandbox

POLL_INTERVAL = 0.25
"""Seconds between two looks at the world."""
RETRY_DELAYS = (1.0, 5.0, 25.0)
"""Seconds before an event that was not answered 2xx is sent again; then it is given up."""
MAX_FAILURES = 20
"""Failed requests in a row after which an integration is disabled; like the above, a guess."""

EVENT_PREFIX = "release-flow-template-run"
EVENTS = tuple(
    f"trigger:{EVENT_PREFIX}:{w}" for w in ("start", "update", "success", "failure", "aborted")
)
FINAL_STATUSES = {"success", "failure", "aborted"}
"""Ends that have an event of their own; another end is an update."""
HEADER_PREFIX = "X-Northflank-Notification-Integration-"


@dataclass(eq=False)
class NotificationIntegration:
    """Somebody who wants to be told."""

    id: str
    name: str
    webhook: str
    created_at: float
    events: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(EVENTS, True))
    secret: str = ""
    type: str = "RAW_WEBHOOK"
    restricted: bool = False
    projects: list[str] = field(default_factory=list)
    updated_at: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    """Sent as well: what a proxy in front of the receiver would add."""
    first_failed_at: float | None = None
    failure_count: int = 0
    is_disabled: bool = False

    def is_subscribed(self, event: str, project: str) -> bool:
        return (
            not self.is_disabled
            and self.events.get(f"trigger:{event}", False)
            and (not self.restricted or project in self.projects)
        )

    def serialize(self) -> Json:
        """Write it as the API's list does, never with its secret."""
        status: Json = {"disabled": self.is_disabled, "numberOfFailedRequests": self.failure_count}
        if self.first_failed_at is not None:
            status["timeOfFirstFailedRequest"] = format_iso(self.first_failed_at)
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "webhook": self.webhook,
            "createdAt": format_iso(self.created_at),
            "updatedAt": format_iso(self.updated_at or self.created_at),
            "status": status,
        }

    def serialize_detail(self) -> Json:
        settings = {"restricted": self.restricted, "projects": self.projects, "events": self.events}
        return self.serialize() | settings


@dataclass(frozen=True)
class WebhookEvent:
    """Something to tell."""

    name: str
    run: Run
    occurred_at: float


class Webhooks:
    """The integrations of a sandbox; `run` tells them what happens."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self.sandbox = sandbox
        self.integrations: dict[str, NotificationIntegration] = {}
        self.retry_delays: tuple[float, ...] = RETRY_DELAYS
        self.last_statuses: dict[str, str] | None = None
        """The runs in flight at the last look, by id, and their statuses; None: nobody listens."""
        self._deliveries: set[asyncio.Task[None]] = set()

    def add(self, integration: NotificationIntegration) -> NotificationIntegration:
        """Tell somebody from now on; the id is made unique."""
        base_id, number = integration.id, 2
        while integration.id in self.integrations:
            integration.id, number = f"{base_id}-{number}", number + 1
        self.integrations[integration.id] = integration
        return integration

    def subscribe(
        self, url: str, secret: str = "", *, headers: dict[str, str] | None = None
    ) -> NotificationIntegration:
        """Tell the receiver at `url` of every event about release flows."""
        now, extra_headers = self.sandbox.clock(), headers or {}
        return self.add(
            NotificationIntegration(
                "webhook", "Webhook", url, now, secret=secret, headers=extra_headers
            )
        )

    async def run(self) -> None:
        """Tell what happens until cancelled."""
        try:
            while True:
                if any(not integration.is_disabled for integration in self.integrations.values()):
                    for event in self.detect_events():
                        self.dispatch(event)
                else:
                    self.last_statuses = None  # what happens while nobody listens is not told later
                await asyncio.sleep(POLL_INTERVAL)
        finally:
            deliveries = list(self._deliveries)
            for task in deliveries:
                task.cancel()
            await asyncio.gather(*deliveries, return_exceptions=True)

    async def wait_until_delivered(self) -> None:
        """Return once all that was to be told has been taken, or given up."""
        await asyncio.gather(*self._deliveries)

    def detect_events(self) -> list[WebhookEvent]:
        """Return what has happened since the last look."""
        now = self.sandbox.clock()
        previous, self.last_statuses = self.last_statuses, {}
        events = []
        for run, status in self._in_flight(now, previous or {}):
            previous_status = (previous or {}).get(run.id)
            if now < run.concluded_at:
                self.last_statuses[run.id] = status
            if previous is not None and status != previous_status:
                events.append(
                    WebhookEvent(_event_name(run, status, previous_status, now), run, now)
                )
        return events

    def _in_flight(self, now: float, previous: dict[str, str]) -> Iterator[tuple[Run, str]]:
        """Yield the runs in flight, and those that were so at the last look."""
        world = self.sandbox.world
        for flow in world.list_flows():
            for run in world.list_runs(flow, now):
                if now < run.concluded_at or run.id in previous:
                    yield run, world.run_status(run, now)

    def dispatch(self, event: WebhookEvent) -> None:
        """Begin to tell everybody who wants to be told."""
        project = event.run.flow.project
        for integration in self.integrations.values():
            if integration.is_subscribed(event.name, project):
                task = asyncio.ensure_future(self._deliver(integration, event))
                self._deliveries.add(task)
                task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, integration: NotificationIntegration, event: WebhookEvent) -> None:
        body = json.dumps({"event": event.name, "data": self._data(event)})
        headers = integration.headers | {
            "Content-Type": "application/json",
            f"{HEADER_PREFIX}Id": integration.id,
            f"{HEADER_PREFIX}Name": integration.name,
            f"{HEADER_PREFIX}Event-Id": str(uuid4()),
            f"{HEADER_PREFIX}Event-Type": event.name,
        }
        if integration.secret:
            headers[f"{HEADER_PREFIX}Token"] = integration.secret
        faults = {
            f.name: f for f in self.sandbox.trigger_webhook_faults(event.name, integration.webhook)
        }
        if "webhook-lost" in faults:
            return
        if "webhook-late" in faults:
            await asyncio.sleep(faults["webhook-late"].number)
        for _ in range(2 if "webhook-twice" in faults else 1):
            await self._send(integration, headers, body.encode())

    async def _send(
        self, integration: NotificationIntegration, headers: dict[str, str], body: bytes
    ) -> None:
        for delay in (0.0, *self.retry_delays):
            await asyncio.sleep(delay)
            if integration.is_disabled or self.integrations.get(integration.id) is not integration:
                return
            if 200 <= await post(integration.webhook, headers, body) < 300:
                integration.first_failed_at, integration.failure_count = None, 0
                return
            integration.failure_count += 1
            integration.first_failed_at = integration.first_failed_at or self.sandbox.clock()
            integration.is_disabled = integration.failure_count >= MAX_FAILURES

    def _data(self, event: WebhookEvent) -> Json:
        run = event.run
        body_choice = self.sandbox.choices["webhook-body"]
        project = self.sandbox.world.find_project(run.flow.project)
        assert project is not None
        if body_choice == "empty":
            return {}
        data: Json = {"project": {"id": project.id, "name": project.name}}
        if body_choice == "ids":
            pipeline = self.sandbox.world.find_pipeline(project.id, run.flow.pipeline)
            assert pipeline is not None
            run_data = serialize_run(self.sandbox.world, run, event.occurred_at, format_spaced)
            data["pipeline"] = {"id": pipeline.id, "name": pipeline.name}
            data["releaseFlow"] = {"stage": run.flow.stage}
            data["releaseFlowRun"] = {
                key: run_data[key] for key in ("id", "name", "status", "concluded", "createdAt")
                if key in run_data
            }  # fmt: skip
        return data


def _event_name(run: Run, status: str, previous_status: str | None, now: float) -> str:
    action = "start" if previous_status is None else "update"
    if now >= run.concluded_at and status in FINAL_STATUSES:
        action = status
    return f"{EVENT_PREFIX}:{action}"
