"""One process: web server, sync worker and sandbox, started and stopped together."""

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
from django.core.management import CommandError
from django.db import DatabaseError, InterfaceError, connection
from django.urls import reverse

from dashboard import __version__, sandbox
from dashboard.aborts.reconcile import cancel_tasks, reconcile_in_background, release_all_leases
from dashboard.accounts import sessions
from dashboard.db import health as db_health
from dashboard.db.threads import now, run_in_db_thread, set_clock_offset
from dashboard.models import Upstream
from dashboard.northflank import NorthflankError
from dashboard.notices import delivery
from dashboard.notices import round as notices_round
from dashboard.runs import acknowledgements
from dashboard.server import memory
from dashboard.server.http_protocol import LimitedHttpProtocol
from dashboard.sync import lead, overdue_checker
from dashboard.sync.pruning import Pruner
from dashboard.sync.worker import Periodic, SyncWorker
from dashboard.upstream import access_hint, budget_store
from dashboard.upstream import connection as upstream_connection
from dashboard.web.live.feed import Broadcaster, close_broadcaster, open_broadcaster

log = structlog.get_logger(__name__)

# Seconds that requests in progress get when the process stops; streams are closed at once. With
# SQLite nobody serves meanwhile, and the next process continues an abort. With PostgreSQL others
# serve, and whoever aborts gets Northflank's response, within 12 seconds.
SHUTDOWN_GRACE = {"sqlite": 0.5, "postgresql": 15}
CLOCK_SYNC_INTERVAL = 5.0  # seconds, as of a worker: the database's clock may be set at any time
TEAM_RETRY_INTERVAL = 30.0  # seconds between attempts to fetch the token's team


class UpstreamMismatch(CommandError):
    """The database mirrors a Northflank other than the configured one."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: one Ctrl-C stops all parts of the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass
class Process:
    """The parts to run; they stop together, at a signal or when a server ends."""

    web_socket: socket.socket | None = None
    runs_sync: bool = True
    sandbox_options: sandbox.Options = field(default_factory=sandbox.Options)
    _servers: list[_Server] = field(default_factory=list)
    _feed: Broadcaster | None = None

    async def run(self) -> None:
        """Run until SIGINT or SIGTERM; a second signal does not wait for requests in progress."""
        log.info("process.started", version=__version__)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop, stop)
        background_tasks: list[asyncio.Task[None]] = []
        async with asyncio.TaskGroup() as group:
            base_url, token = settings.NORTHFLANK_API_BASE_URL, settings.NORTHFLANK_API_TOKEN
            if settings.SANDBOX:
                sandbox_socket = socket.create_server(("127.0.0.1", 0))
                base_url = f"http://127.0.0.1:{sandbox_socket.getsockname()[1]}"
                token = self.sandbox_options.token
                sandbox_app = sandbox.Sandbox(self.sandbox_options)
                if self.web_socket is not None:
                    _connect_webhook(sandbox_app, self.web_socket)
                group.create_task(self._serve(sandbox_app, sandbox_socket, stop))
                background_tasks.append(group.create_task(sandbox_app.webhooks.run()))
            northflank = upstream_connection.open_connection(base_url, token)
            memory.spare_collections()
            background_tasks.append(group.create_task(memory.keep_returning()))
            await run_in_db_thread(set_clock_offset)
            if connection.vendor == "sqlite":  # no other process serves (database_lock.py)
                await run_in_db_thread(release_all_leases)
                await run_in_db_thread(lead.release_leftover)
            if self.web_socket is not None:
                from dashboard.asgi import application

                self._feed = open_broadcaster()
                background_tasks.append(group.create_task(self._feed.run()))
                group.create_task(self._serve(application, self.web_socket, stop))
            if self.runs_sync:
                worker = SyncWorker(
                    northflank,
                    chores=[
                        reconcile_in_background,
                        Periodic(overdue_checker.check_runs, overdue_checker.CHECK_INTERVAL),
                        Periodic(notices_round.Round().tell, notices_round.INTERVAL),
                        *map(delivery.Delivery, settings.NOTIFY_URLS),
                        Periodic(delivery.give_up_removed, delivery.CLEANUP_INTERVAL),
                        Periodic(acknowledgements.end_expired, acknowledgements.INTERVAL),
                        Periodic(sessions.delete_expired, sessions.CLEANUP_INTERVAL),
                        Pruner(),
                    ],
                )
                group.create_task(worker.run(stop))
                background_tasks.append(group.create_task(fetch_team(northflank)))
            else:
                background_tasks.append(group.create_task(keep_clock_synced()))
                # The only request at the start: a refused token is logged then, not hours later.
                background_tasks.append(group.create_task(fetch_team(northflank, repeats=False)))
            await stop.wait()
            for task in background_tasks:
                task.cancel()  # a slow Northflank must not delay Ctrl-C
        close_broadcaster()
        await cancel_tasks()  # before the connection they use is closed
        await northflank.close()

    def _stop(self, stop: asyncio.Event) -> None:
        if self._feed is not None:
            self._feed.close()  # uvicorn waits for open responses, and streams do not end
        for server in self._servers:
            server.force_exit = stop.is_set()
            server.should_exit = True
        stop.set()

    async def _serve(self, app: Any, sock: socket.socket, stop: asyncio.Event) -> None:
        if stop.is_set():  # by a signal during the start: nobody would end this server
            return
        server = _Server(
            uvicorn.Config(
                app,
                http=LimitedHttpProtocol,
                ws="none",
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=SHUTDOWN_GRACE[connection.vendor],  # type: ignore[arg-type]  # fractions work too
                proxy_headers=True,
                forwarded_allow_ips=settings.FORWARDED_ALLOW_IPS,
                server_header=False,
            )
        )
        self._servers.append(server)
        await server.serve(sockets=[sock])
        # A server that ends by itself stops the whole process: half of it is of no use.
        self._stop(stop)


def _connect_webhook(sandbox_app: sandbox.Sandbox, web_socket: socket.socket) -> None:
    """Send the embedded sandbox's webhook events to this process, addressed as BASE_URL."""
    host, port = web_socket.getsockname()[:2]
    connect_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # both mean any address
    url_host = f"[{connect_host}]" if ":" in connect_host else connect_host
    base_url = urlsplit(settings.BASE_URL)
    headers = {}
    if base_url.netloc:
        headers = {"Host": base_url.netloc, "X-Forwarded-Proto": base_url.scheme}
    sandbox_app.webhooks.subscribe(
        f"http://{url_host}:{port}{reverse('northflank_webhook')}",
        settings.NORTHFLANK_WEBHOOK_SECRET[0],
        headers=headers,
    )


def verify_database() -> None:
    """Raise UpstreamMismatch if the database mirrors a Northflank other than the configured one.

    An error that is still recorded from an earlier process is logged again, since only that process
    logged its start.
    """
    source = upstream_connection.configured_source()
    row, _ = Upstream.objects.get_or_create(pk=1, defaults={"source": source})
    if row.source != source:
        raise UpstreamMismatch(
            f"This database mirrors {row.source}, but the settings are for {source}. "
            "Set DATABASE_URL to another database."
        )
    # A refused token is logged by the first request of this process, whose token may be another.
    if row.error not in {"", "unauthorised"}:
        upstream_connection.log_unavailable(row.error, row.error_message)


async def keep_clock_synced(interval: float = CLOCK_SYNC_INTERVAL) -> None:
    """Measure the database's clock every `interval` seconds.

    For a process without a sync worker, which would measure it.
    """
    while True:
        await asyncio.sleep(interval)
        with contextlib.suppress(DatabaseError, InterfaceError):  # db/health.py logs outages
            await run_in_db_thread(set_clock_offset)


async def fetch_team(
    northflank: upstream_connection.Connection,
    *,
    repeats: bool = True,
    retry_interval: float = TEAM_RETRY_INTERVAL,
) -> None:
    """Store the team of the API token, for links to Northflank.

    During an outage or while the token is refused, which the connection logs, and during a pause
    after a 429, retry every `retry_interval` seconds. Send one request only if not `repeats`.
    """
    is_paused = False
    while True:
        try:
            # A pause that other processes have met is in the database only.
            is_paused = await run_in_db_thread(lambda: budget_store.load(now()).is_paused)
            if northflank.may_call() and not is_paused:
                auth = await northflank.call(lambda nf: nf.get_auth())
                if auth.entity_type == "team" and auth.entity_id:
                    await run_in_db_thread(
                        Upstream.objects.filter(pk=1).update, team=auth.entity_id
                    )
                return
        except NorthflankError as error:
            if error.cause not in upstream_connection.ACCOUNT_WIDE_CAUSES:
                # Another request would get the same answer. Older APIs have no `/v1/auth`.
                fields = access_hint.log_fields(error.cause)
                log.warning(
                    "northflank.team_unknown", cause=error.cause, message=str(error), **fields
                )
                return
        except (DatabaseError, InterfaceError) as error:
            if not db_health.is_outage(error):
                raise
        if not repeats and not is_paused:
            return
        await asyncio.sleep(retry_interval)
