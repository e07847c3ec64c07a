"""`manage.py sandbox`: serve the sandbox by itself, for any client of Northflank's API."""

import asyncio
import contextlib
import socket
from argparse import ArgumentParser
from typing import Any

import uvicorn
import uvloop
from django.core.management.base import BaseCommand

from dashboard import sandbox
from dashboard.management.commands.serve import base_url, host_name, listen


class Command(BaseCommand):
    help = "Serve an in-memory Northflank API, for trying this dashboard and other clients."
    requires_system_checks = ()  # it uses no settings of the dashboard

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--host", type=host_name, default="127.0.0.1", help="Address to listen on."
        )
        parser.add_argument(
            "--port", type=int, default=9000, help="Port to listen on; 0 for any free port."
        )
        sandbox.add_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        app = sandbox.Sandbox(sandbox.build_options(options))
        sock = listen(options["host"], options["port"])
        self.stdout.write(f"Sandbox on {base_url(sock)}/v1/")
        self.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):  # everything has stopped by then
            # asyncio's loop sends an answer's body 40 ms after its head (Nagle, delayed ACK).
            uvloop.run(_serve(app, sock))


async def _serve(app: sandbox.Sandbox, sock: socket.socket) -> None:
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    async with asyncio.TaskGroup() as group:
        webhook_task = group.create_task(app.webhooks.run())
        await server.serve(sockets=[sock])
        webhook_task.cancel()
