"""Northflank's answers to aborts, and the records of an abort that they leave."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
from django.db import connections
from structlog.testing import capture_logs

from dashboard.aborts import resend
from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.aborts.send import send_abort
from dashboard.models import Abort, Run
from dashboard.northflank import NorthflankClient
from dashboard.upstream.connection import Connection
from dashboard.web.api import serializers
from tests.support import payloads

Logs = list[MutableMapping[str, Any]]


def run_response(
    status: str = "aborting", run_id: str = "r1", *, concluded: bool = False
) -> tuple[Any, ...]:
    """Northflank's answer with a run."""
    return 200, payloads.data(payloads.run(run_id, status=status, concluded=concluded))


def job_run_response(status: str = "RUNNING", *, concluded: bool = False) -> tuple[Any, ...]:
    """Northflank's answer with a job run, as of `factories.work`."""
    fields = {"id": "j1", "runName": "migrate-j1", "status": status, "concluded": concluded}
    return 200, payloads.data(fields | {"startedAt": "2026-03-02T08:00:00Z"})


def error_response(status: int, **fields: Any) -> tuple[Any, ...]:
    """Northflank's answer with an error."""
    return status, payloads.error("It broke", **fields)


@dataclass
class FakeNorthflank:
    """Gives the same answer to every abort, and to every read."""

    abort: tuple[Any, ...] = run_response()
    reading: tuple[Any, ...] = run_response("running")
    headers: dict[str, str] = field(default_factory=dict)
    during_abort: Callable[[], None] = lambda: None  # while an abort is under way
    during_read: Callable[[], None] = lambda: None  # while the run is read
    methods: list[str] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/runs"):  # the list, for an unknown run
            return httpx.Response(200, json={"data": {"runs": []}})
        self.methods.append(request.method)
        is_abort = request.method != "GET"
        status, body = self.abort if is_abort else self.reading
        run_in_thread(self.during_abort if is_abort else self.during_read)
        return httpx.Response(status, json=body, headers=self.headers)

    def run_with_connection(self, work: Callable[[Connection], Awaitable[None]]) -> Logs:
        """Run `work` with a connection to this fake, and return what it logs."""
        return run_with_answers(self.answer, work)

    def send(self, abort: Abort) -> Logs:
        return self.run_with_connection(lambda connection: send_abort(connection, abort.pk))

    def reconcile(self) -> Logs:
        return self.run_with_connection(reconcile_open_aborts)


def run_with_answers(
    answer: Callable[[httpx.Request], httpx.Response],
    work: Callable[[Connection], Awaitable[None]],
) -> Logs:
    """Run `work` with a connection whose requests get these answers; return its logs of aborts."""

    async def work_and_close() -> None:
        connection = Connection("token", "http://northflank.invalid")
        transport = httpx.MockTransport(answer)
        connection.client = NorthflankClient(
            "token", transport=transport, on_call=connection.unrecorded_calls.append
        )
        connection.client._spell = str.lower  # as after an answer about a stage
        await work(connection)
        await connection.close()

    with capture_logs() as logs:
        asyncio.run(work_and_close())
    return [line for line in logs if line["event"].startswith("abort.")]


def run_in_thread(work: Callable[[], None]) -> None:
    """Run `work`, which uses the database, outside of the event loop's thread."""

    def work_and_close() -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(work_and_close).result()


def stored_fields(abort: Abort) -> dict[str, Any]:
    """The abort's stored state, without its request; a time after the request is “then”."""
    names = (
        "state", "sent_at", "responded_at", "response", "response_status", "error_id", "retry_at",
        "outcome", "settled_at",
    )  # fmt: skip
    values = Abort.every.values(*names).get(pk=abort.pk)
    return {
        name: "then" if isinstance(value, datetime) and value > abort.requested_at else value
        for name, value in values.items()
        if value not in {"", None}
    }


def timeline(abort: Abort) -> list[tuple[str, str]]:
    """The abort's timeline after the request."""
    lines = list(abort.events.values_list("event_type", "detail", "occurred_at"))
    assert all(at >= abort.requested_at for _, _, at in lines)
    return [(event_type, detail) for event_type, detail, _ in lines if event_type != "requested"]


def log_line(event: str, level: str, **fields: Any) -> dict[str, Any]:
    return {"event": f"abort.{event}", "log_level": level, "run": "r1", **fields}


def claim_due_resends(now: datetime) -> list[Abort]:
    """Claim the aborts that are due to be resent, as a process that has read no run yet."""
    return resend.claim_due_resends(Connection("token", "http://northflank.invalid"), now)


def place_fields(run: Run) -> dict[str, Any]:
    """Where a run is, as events for alerts and the API have it."""
    fields = serializers.run(run)
    return {name: fields[name] for name in ("project", "pipeline", "stage", "url")}


def claim_first(claim: Callable[[], object]) -> Callable[..., Any]:
    """Let another worker claim first what this one is about to claim."""
    has_claimed = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_claimed
        if sql.startswith("UPDATE") and not has_claimed:
            has_claimed = True
            claim()
        return run(sql, *rest)

    return execute


def change_after_read_of(table: str, change: Callable[[], object]) -> Callable[..., Any]:
    """Let another process change something just after this one has read a table for the first time.

    This goes into `connection.execute_wrapper`.
    """
    has_changed = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal has_changed
        result = run(sql, *rest)
        if sql.startswith("SELECT") and f'FROM "{table}"' in sql and not has_changed:
            has_changed = True
            change()
        return result

    return execute


SENT = {"sent_at": "then"}
ANSWERED = SENT | {"responded_at": "then"}
SETTLED = {"settled_at": "then"}
SERVER_ERROR_TEXT = "Northflank server error (500): It broke"
REFUSED_TEXT = "Northflank refused (409): It broke"
