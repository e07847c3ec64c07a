"""A live dashboard with a proxy of faults before its sandbox, and a clock that tests set."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from html import unescape
from ssl import PROTOCOL_TLS_SERVER, SSLContext

import httpx
import time_machine

from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.db.threads import now
from dashboard.models import Run, Stage
from dashboard.northflank import NorthflankClient
from dashboard.server import process
from dashboard.sync import catalog
from dashboard.upstream import budget_store
from tests.support.fault_kinds import FaultKind
from tests.support.fault_proxy import FaultProxy
from tests.support.live import Live
from tests.support.live_runs import replace_client
from tests.support.pages import address_of
from tests.support.scripted_server import SELF_SIGNED, Request, ScriptedServer
from tests.support.world import World

# Seconds until the dashboard gives up where it gets no answer, and otherwise.
SHORT_TIMEOUT, LONG_TIMEOUT = 1.0, 60.0

_PIPELINE = r"/v1/projects/[^/]+/pipelines/[^/]+"
_FLOW = _PIPELINE + r"/release-flows/[^/]+"
# Every request that the dashboard sends to Northflank, by what it asks for.
CALLS = {
    "the token's team": r"GET /v1/auth",
    "projects": r"GET /v1/projects",
    "pipelines": r"GET /v1/projects/[^/]+/pipelines",
    "a pipeline": f"GET {_PIPELINE}",
    "a release flow": f"GET {_FLOW}",
    "runs": f"GET {_FLOW}/runs",
    "a run": f"GET {_FLOW}/runs/[^/]+",
    "an abort": f"POST {_FLOW}/runs/[^/]+/abort",
    "every call": r".*",
}


def matcher(call: str) -> Callable[[Request], bool]:
    """Return whether a request is of this kind of call."""
    pattern = re.compile(CALLS[call])
    return lambda request: pattern.fullmatch(f"{request.method} {request.path}") is not None


class FaultyUpstream:
    """One pipeline of the sandbox behind a proxy; Northflank's clock stands, ours goes on."""

    def __init__(self, live: Live, clock: time_machine.Traveller) -> None:
        self.live = live
        self.clock = clock
        self.world = World(live)
        self.world.keep_one_pipeline()
        self.proxy = FaultProxy(live.upstream_url)
        self.untrusted = ScriptedServer(SSLContext(PROTOCOL_TLS_SERVER))
        # Each tick sends a heartbeat: a test's ticks are hours apart by our clock.
        live.replace_worker(
            chores=[reconcile_open_aborts],
            renewal_interval=0,
            sync_clock=lambda: None,
        )

    @contextmanager
    def run(self) -> Iterator["FaultyUpstream"]:
        """Serve the proxy until the block ends."""
        assert self.untrusted._tls is not None
        self.untrusted._tls.load_cert_chain(SELF_SIGNED)
        for server in (self.proxy, self.untrusted):
            self.live.run(server.__aenter__)
        self._connect(self.proxy.url, LONG_TIMEOUT)
        try:
            yield self
        finally:
            self.live.run(self.live.connection.client.aclose)
            for server in (self.proxy, self.untrusted):
                self.live.run(lambda server=server: server.__aexit__(None, None, None))  # type: ignore[misc]

    @contextmanager
    def failing(self, kind: FaultKind, call: str) -> Iterator[None]:
        """Answer calls of this kind by a fault until the block ends."""
        is_new_client = kind.hangs or bool(kind.connection)
        self.proxy.break_answers(kind.answer, matcher(call))
        if is_new_client:
            self._connect(self.url(kind), SHORT_TIMEOUT if kind.hangs else LONG_TIMEOUT)
        try:
            yield
        finally:
            self.proxy.restore()
            if is_new_client:
                self._connect(self.proxy.url, LONG_TIMEOUT)

    def has_met_fault(self, kind: FaultKind) -> bool:
        """Return whether a request met the fault, and none followed a redirect to elsewhere."""
        has_followed = any(request.path == "/elsewhere" for request in self.proxy.requests)
        return not has_followed and (self.proxy.hits > 0 or bool(kind.connection))

    def _connect(self, url: str, timeout_seconds: float) -> None:
        connection = self.live.connection
        client = NorthflankClient(
            connection.token,
            base_url=url,
            timeout_seconds=timeout_seconds,
            on_call=connection.unrecorded_calls.append,
        )
        replace_client(self.live, client)

    def url(self, kind: FaultKind) -> str:
        """Return where Northflank is: for a fault of the connection, where it is not."""
        broken = {
            "refused": "http://127.0.0.1:9",
            "untrusted": self.untrusted.url,
            "plain": self.live.upstream_url.replace("http:", "https:"),
        }
        return broken.get(kind.connection, self.proxy.url)

    def jump(self, seconds: float) -> None:
        """Let time pass for the dashboard."""
        self.clock.shift(timedelta(seconds=seconds))
        self.live.connection.retry_at -= seconds

    def make_flows_due(self) -> None:
        """Look at all stages, so that a read of one includes its release flow."""
        Stage.objects.update(flow_synced_at=None, last_viewed_at=now())

    def work(self) -> None:
        """Let the worker read all that is due, as its ticks would."""
        worker = self.live.worker

        async def tick_until_idle() -> None:
            for _ in range(100):  # far more than any test requires
                before = self.live.reads_started
                if worker.reads is not None:
                    worker.reads.plan_again()
                await worker.tick()
                await worker.wait_idle()
                if self.live.reads_started == before:
                    return
            raise AssertionError("the worker never rests")

        self.live.run(tick_until_idle)

    def fetch_team(self) -> None:
        """Ask whose token it is, as a process does at its start and until it knows."""
        if not budget_store.load(now()).is_paused:  # it would wait for the worker's request
            self.live.run(lambda: process.fetch_team(self.live.connection, repeats=False))

    def start(self) -> Run:
        """Read everything, and return a run in flight."""
        catalog.start(now())
        self.work()
        self.work()
        return Run.objects.with_stage().in_flight().order_by("pk")[0]

    @cached_property
    def browser(self) -> httpx.Client:
        """A browser in which a user who may abort is signed in."""
        return self.live.sign_in("manager")

    def page(self, name: str, run: Run) -> str:
        """Return a page that shows a run; it must be there."""
        answer = self.browser.get(address_of(name, run))
        assert answer.status_code == 200, f"{name}: {answer.status_code}"
        return unescape(answer.text)

    def pages(self, run: Run) -> dict[str, str]:
        """Return all pages that show a run, by name."""
        names = ("now", "board", "pipeline", "stage", "run", "health")
        return {name: self.page(name, run) for name in names}

    def statuses(self) -> dict[str, str]:
        """Return the status of each run on Northflank, by its id."""
        world, moment = self.live.sandbox.world, self.world.now
        return {
            run.id: run.status(moment)
            for flow in world.list_flows()
            for run in world.list_runs(flow, moment)
        }

    def is_mirrored(self) -> bool:
        """Return whether each run on Northflank is stored with its status."""
        return self.statuses().items() <= dict(Run.objects.values_list("run_id", "status")).items()
