"""Notification webhooks: events about runs, posted to receivers over real HTTP.

The world has no events. It is therefore polled, and each change of a run's status becomes one.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
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


class Webhooks:
    """The receivers of a sandbox; `run` sends their events."""

    def __init__(
        self, get_world: Callable[[], World], clock: Callable[[], float], choices: Choices
    ) -> None:
        self._get_world = get_world
        self._clock = clock
        self._choices = choices
        self.receivers: list[tuple[str, dict[str, str]]] = []
        """The URL of each, and the headers that it gets."""
        self.last_statuses: dict[Run, str] | None = None
        """Statuses of the runs in flight at the last poll; None: not polled yet."""

    def subscribe(
        self, url: str, secret: str = "", *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Send every event about release flows to `url` from now on.

        `headers` are further ones, such as those of a proxy in front of the receiver.
        """
        names = {"Id": f"webhook-{len(self.receivers) + 1}", "Name": "Webhook", "Token": secret}
        own = {f"{HEADER_PREFIX}{name}": value for name, value in names.items() if value}
        self.receivers.append((url, {**(headers or {}), **own}))

    async def run(self) -> None:
        """Send events until cancelled."""
        for flow in self._get_world().list_flows():
            self._get_world().list_in_flight(flow, self._clock())
            await asyncio.sleep(0)  # the first time, each takes as long as a page
        while True:
            await self.send_events()
            await asyncio.sleep(POLL_INTERVAL)

    async def send_events(self) -> None:
        """Send the events since the last poll to all receivers, and wait for their answers."""
        if self.receivers:
            events = self.detect_events()
            posts = (post(*receiver, event) for event in events for receiver in self.receivers)
            await asyncio.gather(*posts)
        else:
            self.last_statuses = None  # events are not stored for later receivers

    def detect_events(self) -> list[Json]:
        """Return the events since the last poll; empty for the first poll."""
        now, world, previous = self._clock(), self._get_world(), self.last_statuses
        runs = [run for flow in world.list_flows() for run in world.list_in_flight(flow, now)]
        self.last_statuses = {run: run.status(now) for run in runs}
        if previous is None:
            return []
        statuses = {run: run.status(now) for run in previous} | self.last_statuses
        return [
            {"event": name, "data": self._event_data(run, now)}
            for run, status in statuses.items()
            if status != previous.get(run)
            and (name := _event_name(run, status, previous.get(run), now))
        ]

    def _event_data(self, run: Run, now: float) -> Json:
        """Return what the choice `webhook-body` says."""
        world, content = self._get_world(), self._choices["webhook-body"]
        project = world.find_project(run.flow.project)
        pipeline = world.find_pipeline(run.flow.project, run.flow.pipeline)
        run_data = serialize_run(run, now, self._choices)
        keys = ("id", "name", "status", "concluded", "createdAt")
        data = {
            "project": {"id": project.id, "name": project.name},
            "pipeline": {"id": pipeline.id, "name": pipeline.name},
            "releaseFlow": {"stage": run.flow.stage},
            "releaseFlowRun": {key: run_data[key] for key in keys if key in run_data},
        }
        fields = {"empty": [], "project": ["project"], "ids": list(data)}[content]
        return {key: data[key] for key in fields}


async def post(url: str, headers: Mapping[str, str], event: Json) -> None:
    """Post an event, whatever comes of it."""
    about = {"Event-Id": str(uuid4()), "Event-Type": event["event"]}
    headers = {**headers, **{f"{HEADER_PREFIX}{name}": value for name, value in about.items()}}
    with suppress(httpx.HTTPError, httpx.InvalidURL, ValueError):
        # No proxy: receivers are on this machine or in its network.
        async with httpx.AsyncClient(
            timeout=TIMEOUT, trust_env=False, verify=_tls_context()
        ) as client:
            await client.post(url, headers=headers, json=event)


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
