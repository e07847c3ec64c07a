"""What one process consists of: web server, sync worker, sandbox. Started and stopped together."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import structlog
import uvicorn
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.urls import reverse

from dashboard import aborts, sandbox
from dashboard.db import health as db_health
from dashboard.db.threads import in_database, set_clock
from dashboard.models import Upstream
from dashboard.northflank import NorthflankError
from dashboard.sync.overdue_checker import OverdueMarks
from dashboard.sync.worker import SyncWorker
from dashboard.upstream import connection as upstream_connection
from dashboard.web.live.feed import Feed, close_feed, open_feed

log = structlog.get_logger(__name__)

# Streams are ended by us; what else is under way at Ctrl-C gets this long, in seconds.
GRACE = 0.5
CLOCK_EVERY = 60.0  # seconds: a machine's clock may be set while it runs
TEAM_AGAIN = 30.0  # seconds until Northflank is asked again whose the token is


class OtherUpstream(Exception):
    """The database mirrors another Northflank than the one that is configured."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: one Ctrl-C stops all parts of the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Process:
    """The parts to run; `run` returns when a signal or a part's end has stopped them all."""

    web: socket.socket | None = None
    sync: bool = True
    sandbox_options: sandbox.Options = field(default_factory=sandbox.Options)
    _servers: list[_Server] = field(default_factory=list)
    _feed: Feed | None = None

    async def run(self) -> None:
        """Run until SIGINT or SIGTERM; a second signal does not wait for what is under way."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, stop)
        aside: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as group:
            base_url, token = settings.NORTHFLANK_API_BASE_URL, settings.NORTHFLANK_API_TOKEN
            if settings.SANDBOX:
                place = socket.create_server(("127.0.0.1", 0))
                base_url = f"http://127.0.0.1:{place.getsockname()[1]}"
                token = self.sandbox_options.token
                app = sandbox.create_app(self.sandbox_options)
                if self.web is not None:
                    _connect_webhook(app.state.sandbox, self.web)
                group.create_task(self._serve(app, place, stop))
                aside.append(group.create_task(app.state.sandbox.webhooks.run()))
            to = upstream_connection.open_connection(base_url, token)
            await in_database(set_clock)
            if connection.vendor == "sqlite":  # one process at a time: the last one has ended
                await in_database(aborts.orphan_all)
            if self.web is not None:
                from dashboard.asgi import application

                self._feed = open_feed()
                aside.append(group.create_task(self._feed.run()))
                group.create_task(self._serve(application, self.web, stop))
            if self.sync:
                worker = SyncWorker(to, chores=[aborts.keep_looking, OverdueMarks()])
                group.create_task(worker.run(stop))
                aside.append(group.create_task(learn_team(to)))
            else:
                aside.append(group.create_task(keep_time()))
            await stop.wait()
            for task in aside:
                task.cancel()  # Northflank may be slow; Ctrl-C must not be
        close_feed()
        await aborts.let_go()  # before its client is closed
        await to.close()

    def _stop(self, stop: asyncio.Event) -> None:
        if self._feed is not None:
            self._feed.close()  # the server waits for its answers to end, and streams have no end
        for server in self._servers:
            server.force_exit = stop.is_set()
            server.should_exit = True
        stop.set()

    async def _serve(self, app: Any, place: socket.socket, stop: asyncio.Event) -> None:
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=GRACE,  # type: ignore[arg-type]  # fractions work too
                proxy_headers=True,
                server_header=False,
            )
        )
        self._servers.append(server)
        await server.serve(sockets=[place])
        # A server that ended by itself takes the process with it: half a process helps nobody.
        self._stop(stop)


def _connect_webhook(box: sandbox.Sandbox, web: socket.socket) -> None:
    """Have the embedded sandbox ring at our own door, as if it came by the address people use."""
    host, port = web.getsockname()[:2]
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # both mean: any
    shown = f"[{near}]" if ":" in near else near
    outside = urlsplit(settings.BASE_URL)
    headers = {}
    if outside.netloc:
        headers = {"Host": outside.netloc, "X-Forwarded-Proto": outside.scheme}
    box.webhooks.connect(
        f"http://{shown}:{port}{reverse('northflank_hook')}",
        settings.NORTHFLANK_WEBHOOK_SECRET[0],
        headers=headers,
    )


def check_upstream() -> None:
    """Refuse to mix two Northflanks in one database; raises OtherUpstream.

    Trouble that was there when the last process ended is told: its begin was told to that one.
    """
    identity = (
        "sandbox"
        if settings.SANDBOX
        else f"{settings.NORTHFLANK_API_BASE_URL} {settings.NORTHFLANK_TEAM_ID}".strip()
    )
    known, _ = Upstream.objects.get_or_create(pk=1, defaults={"identity": identity})
    if known.identity != identity:
        raise OtherUpstream(
            f"This database mirrors {known.identity}; the settings say {identity}. "
            "Use another database (DATABASE_URL) for another Northflank."
        )
    if known.error:
        log.warning("northflank.trouble", cause=known.error, message=known.error_message)


async def keep_time(every: float = CLOCK_EVERY) -> None:
    """Go by the database's clock where no worker, which measures it, shares the process.

    It is measured `every` so many seconds.
    """
    while True:
        await asyncio.sleep(every)
        with contextlib.suppress(DatabaseError, InterfaceError):  # its health is told elsewhere
            await in_database(set_clock)


async def learn_team(to: upstream_connection.Connection, pause: float = TEAM_AGAIN) -> None:
    """Keep whose the token is, for links to Northflank.

    Northflank is asked until it answers, with pauses of so many seconds.
    """
    while True:
        try:
            if to.may_ask():
                who = await to.ask(lambda nf: nf.auth())
                if who.entity_type == "team" and who.entity_id:
                    await in_database(Upstream.objects.filter(pk=1).update, team=who.entity_id)
                return
        except NorthflankError:
            pass  # logged where it was met
        except (DatabaseError, InterfaceError) as error:
            if not db_health.is_outage(error):
                raise
        await asyncio.sleep(pause)
