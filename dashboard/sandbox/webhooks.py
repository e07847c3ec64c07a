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
from .forms import iso, run_in_list, spaced
from .history import Run
from .posting import post

if TYPE_CHECKING:
    from .sandbox import Sandbox

LOOK_EVERY = 0.25
"""Seconds between two looks at the world."""
RETRIES = (1.0, 5.0, 25.0)
"""Seconds before an event that was not answered 2xx is sent again; then it is given up."""
DISABLED_AFTER = 20
"""Failed requests in a row after which an integration is disabled; like the above, a guess."""

FAMILY = "release-flow-template-run"
EVENTS = tuple(
    f"trigger:{FAMILY}:{w}" for w in ("start", "update", "success", "failure", "aborted")
)
ENDS = {"success", "failure", "aborted"}
"""Ends that have an event of their own; another end is an update."""
HEADER = "X-Northflank-Notification-Integration-"


@dataclass(eq=False)
class Integration:
    """Somebody who wants to be told."""

    id: str
    name: str
    webhook: str
    created: float
    events: dict[str, bool] = field(default_factory=lambda: dict.fromkeys(EVENTS, True))
    secret: str = ""
    type: str = "RAW_WEBHOOK"
    restricted: bool = False
    projects: list[str] = field(default_factory=list)
    updated: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    """Sent as well: what a proxy in front of the receiver would add."""
    failed_at: float | None = None
    failures: int = 0
    disabled: bool = False

    def wants(self, event: str, project: str) -> bool:
        return (
            not self.disabled
            and self.events.get(f"trigger:{event}", False)
            and (not self.restricted or project in self.projects)
        )

    def in_list(self) -> Json:
        """Write it as the API's list does, never with its secret."""
        status: Json = {"disabled": self.disabled, "numberOfFailedRequests": self.failures}
        if self.failed_at is not None:
            status["timeOfFirstFailedRequest"] = iso(self.failed_at)
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "webhook": self.webhook,
            "createdAt": iso(self.created),
            "updatedAt": iso(self.updated or self.created),
            "status": status,
        }

    def in_full(self) -> Json:
        more = {"restricted": self.restricted, "projects": self.projects, "events": self.events}
        return self.in_list() | more


@dataclass(frozen=True)
class Happening:
    """Something to tell."""

    event: str
    run: Run
    at: float


class Webhooks:
    """The integrations of a sandbox; `run` tells them what happens."""

    def __init__(self, sandbox: "Sandbox") -> None:
        self.sandbox = sandbox
        self.integrations: dict[str, Integration] = {}
        self.retries: tuple[float, ...] = RETRIES
        self.last_look: dict[str, str] | None = None
        """The runs in flight at the last look, by id, and their statuses; None: nobody listens."""
        self._telling: set[asyncio.Task[None]] = set()

    def add(self, integration: Integration) -> Integration:
        """Tell somebody from now on; the id is made unique."""
        name, number = integration.id, 2
        while integration.id in self.integrations:
            integration.id, number = f"{name}-{number}", number + 1
        self.integrations[integration.id] = integration
        return integration

    def connect(
        self, url: str, secret: str = "", *, headers: dict[str, str] | None = None
    ) -> Integration:
        """Tell the receiver at `url` of every event about release flows."""
        now, sent = self.sandbox.clock(), headers or {}
        return self.add(Integration("webhook", "Webhook", url, now, secret=secret, headers=sent))

    async def run(self) -> None:
        """Tell what happens until cancelled."""
        try:
            while True:
                if any(not integration.disabled for integration in self.integrations.values()):
                    for happening in self.look():
                        self.tell(happening)
                else:
                    self.last_look = None  # what happens while nobody listens is not told later
                await asyncio.sleep(LOOK_EVERY)
        finally:
            telling = list(self._telling)
            for task in telling:
                task.cancel()
            await asyncio.gather(*telling, return_exceptions=True)

    async def idle(self) -> None:
        """Return once all that was to be told has been taken, or given up."""
        await asyncio.gather(*self._telling)

    def look(self) -> list[Happening]:
        """Return what has happened since the last look."""
        now = self.sandbox.clock()
        before, self.last_look = self.last_look, {}
        happenings = []
        for run, status in self._in_flight(now, before or {}):
            known = (before or {}).get(run.id)
            if now < run.concluded:
                self.last_look[run.id] = status
            if before is not None and status != known:
                happenings.append(Happening(_event(run, status, known, now), run, now))
        return happenings

    def _in_flight(self, now: float, before: dict[str, str]) -> Iterator[tuple[Run, str]]:
        """Yield the runs in flight, and those that were so at the last look."""
        world = self.sandbox.world
        for flow in world.flows():
            for run in world.runs(flow, now):
                if now < run.concluded or run.id in before:
                    yield run, world.status(run, now)

    def tell(self, happening: Happening) -> None:
        """Begin to tell everybody who wants to be told."""
        project = happening.run.flow.project
        for integration in self.integrations.values():
            if integration.wants(happening.event, project):
                task = asyncio.ensure_future(self._deliver(integration, happening))
                self._telling.add(task)
                task.add_done_callback(self._telling.discard)

    async def _deliver(self, integration: Integration, happening: Happening) -> None:
        body = json.dumps({"event": happening.event, "data": self._data(happening)})
        headers = integration.headers | {
            "Content-Type": "application/json",
            f"{HEADER}Id": integration.id,
            f"{HEADER}Name": integration.name,
            f"{HEADER}Event-Id": str(uuid4()),
            f"{HEADER}Event-Type": happening.event,
        }
        if integration.secret:
            headers[f"{HEADER}Token"] = integration.secret
        faults = {
            f.name: f for f in self.sandbox.struck_on_the_way(happening.event, integration.webhook)
        }
        if "webhook-lost" in faults:
            return
        if "webhook-late" in faults:
            await asyncio.sleep(faults["webhook-late"].amount)
        for _ in range(2 if "webhook-twice" in faults else 1):
            await self._send(integration, headers, body.encode())

    async def _send(self, to: Integration, headers: dict[str, str], body: bytes) -> None:
        for wait in (0.0, *self.retries):
            await asyncio.sleep(wait)
            if to.disabled or self.integrations.get(to.id) is not to:
                return
            if 200 <= await post(to.webhook, headers, body) < 300:
                to.failed_at, to.failures = None, 0
                return
            to.failures += 1
            to.failed_at = to.failed_at or self.sandbox.clock()
            to.disabled = to.failures >= DISABLED_AFTER

    def _data(self, happening: Happening) -> Json:
        run = happening.run
        choice = self.sandbox.choices["webhook-body"]
        project = self.sandbox.world.project(run.flow.project)
        assert project is not None
        if choice == "empty":
            return {}
        data: Json = {"project": {"id": project.id, "name": project.name}}
        if choice == "ids":
            pipeline = self.sandbox.world.pipeline(project.id, run.flow.pipeline)
            assert pipeline is not None
            form = run_in_list(self.sandbox.world, run, happening.at, spaced)
            data["pipeline"] = {"id": pipeline.id, "name": pipeline.name}
            data["releaseFlow"] = {"stage": run.flow.stage}
            data["releaseFlowRun"] = {
                key: form[key] for key in ("id", "name", "status", "concluded", "createdAt")
                if key in form
            }  # fmt: skip
        return data


def _event(run: Run, status: str, before: str | None, now: float) -> str:
    word = "start" if before is None else "update"
    if now >= run.concluded and status in ENDS:
        word = status
    return f"{FAMILY}:{word}"
