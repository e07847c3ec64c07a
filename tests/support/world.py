"""The sandbox with a stopped clock, and API responses without HTTP, for the sync."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from dashboard.models import Run, Stage
from dashboard.northflank import Node, RunDetail
from dashboard.northflank import Run as ApiRun
from dashboard.sandbox.world import World as SandboxWorld
from dashboard.sync import mirror
from tests.support.factories import node
from tests.support.live import HISTORY_HOURS, Live

NOW = 1_800_000_000.0  # the sandbox's time, in seconds since 1970
T0 = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

type LoggedEvents = Callable[[str], list[dict[str, Any]]]  # of the log lines of one event


def at(seconds: float) -> datetime:
    """Return the time `seconds` after T0."""
    return T0 + timedelta(seconds=seconds)


# What runs as in lists have in place of those in flight.
ENDED = {"status": "success", "concluded": True, "concluded_at": at(5)}
FAILED = {"status": "failure", "concluded": True, "concluded_at": at(5)}


def request_fields(seconds: float) -> dict[str, Any]:
    """Return time and number of a request that was sent `seconds` after T0."""
    return {"requested_at": at(seconds), "request_seq": 1_000_000 + round(1000 * seconds)}


class World:
    """A live dashboard whose sandbox has a stopped clock; tests use its project `payments`."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.sandbox = live.sandbox
        self.now = NOW
        self.sandbox.clock = lambda: self.now
        self.restart()

    def restart(self, history_hours: float = HISTORY_HOURS) -> None:
        """Reset the upstream to its scheduled runs, as far back as `history_hours`."""
        self.sandbox.world = SandboxWorld(opened_at=NOW, history_seconds=history_hours * 3600)

    def sync(self, rounds: int = 1) -> None:
        """Read all that is due, `rounds` times, making everything due again in between."""
        for round_ in range(rounds):
            if round_:
                self.make_due()
            self.live.sync(1)

    def make_due(self) -> None:
        """Make every stage due now, and end a pause of the connection."""
        Stage.objects.update(next_sync_at=LONG_AGO)
        Stage.objects.exclude(synced_at=None).update(synced_at=LONG_AGO)
        self.live.connection.retry_at = 0

    def start(self, flow: str = "payments/ledger/production", **request: Any) -> str:
        """Start a run upstream and return its id."""
        release_flow = self.sandbox.world.find_flow(*flow.split("/"))
        assert release_flow is not None
        return self.sandbox.world.start_run(release_flow, self.now, request).id

    def ids(self, *, in_flight: bool = False, project: str = "payments") -> set[str]:
        """Return the ids of the runs upstream."""
        world = self.sandbox.world
        return {
            run.id
            for flow in world.list_flows()
            if flow.project == project
            for run in world.list_runs(flow, self.now)
            if not in_flight or self.now < run.concluded_at
        }

    def requests_for(self, part: str) -> list[str]:
        """Return the received requests whose path contains `part`."""
        return [f"{method} {path}" for method, path in self.sandbox.requests if part in path]

    def keep_one_pipeline(self) -> None:
        """Delete all of the upstream but the pipeline `ledger`: two stages with release flows."""
        project = self.sandbox.world.find_project("payments")
        ledger = self.sandbox.world.find_pipeline("payments", "ledger")
        assert project is not None
        assert ledger is not None
        self.sandbox.world.projects = (replace(project, pipelines=(ledger,)),)

    def delete_projects(self, *slugs: str) -> Callable[[], None]:
        """Delete projects upstream; return a function that restores them."""
        projects = self.sandbox.world.projects
        self.sandbox.world.projects = tuple(
            project for project in projects if project.id not in slugs
        )

        def restore() -> None:
            self.sandbox.world.projects = projects

        return restore


def api_run(run_id: str = "r1", **fields: Any) -> ApiRun:
    """Return a run as in lists; in flight by default."""
    defaults: dict[str, Any] = {
        "id": run_id,
        "name": "Nightly",
        "description": None,
        "status": "running",
        "concluded": False,
        "created_at": at(-60),
        "started_at": at(-50),
        "concluded_at": None,
        "updated_at": at(-50),
    }
    return ApiRun(**defaults | fields)


def detail(run_id: str = "r1", steps: Node | None = None, **fields: Any) -> RunDetail:
    """Return a run with its detail."""
    return RunDetail(api_run(run_id, **fields), steps or node(status="waiting"))


def get_run(run_id: str = "r1") -> Run:
    return Run.objects.get(run_id=run_id)


def mirror_list(stage: Stage, *runs: object, requested_at: float = 0) -> None:
    """Mirror a list of a stage's runs that was requested at a time, in seconds after T0."""
    mirror.apply_runs(stage.pk, runs, **request_fields(requested_at))  # type: ignore[arg-type]
