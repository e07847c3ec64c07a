"""This process's connection to Northflank: one client, rate limit recording, outage detection.

Every response's rate limit is recorded in the budget that all processes share. When a request
fails, a probe request distinguishes an error of one project or stage from one of the whole account.
An account-wide error is stored in one row for all processes and logged when it begins and when it
ends; a refused token by each process, since each has its own. While an error lasts, this process
sends requests only at intervals (`may_call`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from time import monotonic

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from dashboard.db import health as db_health
from dashboard.db.threads import now, run_in_db_thread
from dashboard.models import RequestCounter, Upstream
from dashboard.models.counters import CounterName, increment, store
from dashboard.northflank import Call, NorthflankClient, NorthflankError, RateLimited
from dashboard.upstream import access_hint, budget_store

log = structlog.get_logger(__name__)

# Northflank or the network is down; the cause may differ from request to request.
OUTAGE_CAUSES = {"unreachable", "timeout", "server_error", "unexpected_response"}
# Causes that may affect every request, not just one project or run.
ACCOUNT_WIDE_CAUSES = OUTAGE_CAUSES | {"unauthorised", "rate_limited"}

# Seconds from an answer until its deferred recording starts. Who deferred it has something to write
# that a person waits for, and on SQLite one thread at a time can write.
RECORDING_DELAY = 0.1
# Seconds between requests during an outage: doubled each time, up to the maximum.
INITIAL_PAUSE, MAX_PAUSE = 5.0, 30.0
UNAUTHORISED_PAUSE = 60.0  # seconds; someone has to replace the token


@dataclass
class Connection:
    """This process's client and outage state; create it on the event loop that uses it.

    `recording_delay` is the time in seconds from an answer until its deferred recording.
    """

    token: str = field(repr=False)  # tracebacks with DEBUG show variables
    base_url: str
    team_id: str | None = None
    logs_token: str = field(repr=False, default="")  # empty: the same
    recording_delay: float = RECORDING_DELAY
    client: NorthflankClient = field(init=False)
    logs_client: NorthflankClient | None = field(init=False, default=None)
    outage: str = ""  # cause of the current outage as this process sees it; "" if there is none
    failed_at: float = -1.0  # time of the last account-wide error, by time.monotonic
    retry_at: float = 0.0  # earliest next request, by time.monotonic
    # When this process last repeated a read before a resend (aborts/resend.py), of any run.
    repeated_read_at: datetime | None = None
    unrecorded_calls: list[Call] = field(default_factory=list)  # not yet in the rate budget
    _pause: float = 0.0
    _last_answered_sent_at: float = -1.0  # send time of the latest answered request
    _probe_task: asyncio.Task[NorthflankError | None] | None = None
    _deferred_records: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _pending_records: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.client = self._open_client(self.token)
        if self.logs_token:
            self.logs_client = self._open_client(self.logs_token)

    def _open_client(self, token: str) -> NorthflankClient:
        return NorthflankClient(
            token,
            base_url=self.base_url,
            team_id=self.team_id,
            on_call=self.unrecorded_calls.append,
        )

    async def call[T](
        self,
        request: Callable[[NorthflankClient], Awaitable[T]],
        *,
        defer_recording: bool = False,
        request_seq: int | None = None,
        excluded_from_burst: int = 0,
    ) -> T:
        """Send one request to Northflank and return its answer.

        Raises NorthflankError. Either way the rate limit and the outage state are recorded: before
        this returns or, with `defer_recording`, in the background: an answer after
        `recording_delay`, an error at once. `request_seq` is the request's number if the caller has
        already taken one; `excluded_from_burst` as in `budget_store.record_calls`.
        """
        if request_seq is None:
            request_seq = await run_in_db_thread(RequestCounter.take_next)
        sent = _SentRequest(monotonic(), request_seq, excluded_from_burst)
        try:
            answer = await request(self.client)
        except NorthflankError as error:
            recording = self._start_record(partial(self._handle_error, error, sent))
            if not defer_recording:
                await recording
            raise
        handle_answer = partial(self._handle_answer, sent)
        if defer_recording:
            self._deferred_records.append(handle_answer)
            asyncio.get_running_loop().call_later(
                self.recording_delay, self._start_deferred_records
            )
        else:
            await self._start_record(handle_answer)
        return answer

    async def call_aside[T](
        self,
        request: Callable[[NorthflankClient], Awaitable[T]],
        *,
        for_logs: bool = False,
        by_main_token: bool = False,
    ) -> T:
        """Send one request about a job run, a build or a log, and return its answer.

        Raises NorthflankError, of which only a 429 concerns the account: these routes need rights
        that the token may lack, and runs are read without them. The rate limit is recorded before
        this returns; regular reads are not delayed. `for_logs`: it counts in the share of logs.
        Sent with the token for logs, if there is one, but for a request `by_main_token`.
        """
        sent = _SentRequest(monotonic(), seq=0, excluded_from_burst=1, log_requests=int(for_logs))
        try:
            return await request((not by_main_token and self.logs_client) or self.client)
        except RateLimited as error:
            await self._start_record(partial(self._handle_error, error, sent))
            raise
        finally:
            await self._start_record(partial(run_in_db_thread, self._record_calls, sent))

    def may_call(self) -> bool:
        """Return whether a request may be sent now; False only between retries of an outage."""
        return not self.outage or monotonic() >= self.retry_at

    def is_account_wide(self, error: NorthflankError) -> bool:
        """Return whether an error raised by `call` affects the account, not one project or run."""
        return bool(self.outage) and error.cause in ACCOUNT_WIDE_CAUSES

    async def flush(self) -> None:
        """Write the deferred recordings now, and return once all have been written."""
        self._start_deferred_records()
        await asyncio.gather(*self._pending_records, return_exceptions=True)

    async def close(self) -> None:
        await self.flush()
        await self.client.aclose()
        if self.logs_client is not None:
            await self.logs_client.aclose()

    def _start_deferred_records(self) -> None:
        recordings, self._deferred_records[:] = list(self._deferred_records), []
        for recording in recordings:
            self._start_record(recording)

    def _start_record(self, recording: Callable[[], Awaitable[None]]) -> asyncio.Future[None]:
        # A function, so that a task that is cancelled before it starts leaves no coroutine behind.
        task = asyncio.ensure_future(_ignore_database_outage(recording))
        self._pending_records.add(task)
        task.add_done_callback(self._pending_records.discard)
        return task

    async def _handle_answer(self, sent: "_SentRequest", *, is_success: bool = True) -> None:
        self._last_answered_sent_at = max(self._last_answered_sent_at, sent.at)
        if sent.at > self.failed_at:
            self.outage, self._pause = "", 0.0
        await run_in_db_thread(_record_response, self._pop_calls(), sent, is_success=is_success)

    async def _handle_error(self, error: NorthflankError, sent: "_SentRequest") -> None:
        account_error = await self._find_account_error(error, sent.at)
        if account_error is None:
            await self._handle_answer(sent, is_success=False)
            return
        is_new = not self.outage
        # Concurrent requests that fail together count as one failure.
        if is_new or sent.at > self.failed_at:
            self._pause = min(2 * self._pause or INITIAL_PAUSE, MAX_PAUSE)
            if account_error.cause == "unauthorised":
                self._pause = UNAUTHORISED_PAUSE
        self.outage, self.failed_at = account_error.cause, monotonic()
        self.retry_at = self.failed_at + self._pause
        await run_in_db_thread(
            _record_outage, self._pop_calls(), sent, account_error, is_new=is_new
        )

    async def _find_account_error(
        self, error: NorthflankError, sent_at: float
    ) -> NorthflankError | None:
        """Return the account-wide error behind `error`, or None if it concerns one request only."""
        if error.cause not in ACCOUNT_WIDE_CAUSES:
            return None
        # A request sent before the last account-wide error shares it: no further probe.
        if error.cause == "rate_limited" or (self.outage and sent_at <= self.failed_at):
            return error
        if self._probe_task is None:
            if self._last_answered_sent_at > sent_at:
                return None
            self._probe_task = asyncio.ensure_future(self._probe())
            self._probe_task.add_done_callback(self._clear_probe)
        return await asyncio.shield(self._probe_task)

    async def _probe(self) -> NorthflankError | None:
        sent_at = monotonic()
        try:
            await self.client.get_auth()
        except NorthflankError as error:
            if error.cause in ACCOUNT_WIDE_CAUSES:
                return error
        self._last_answered_sent_at = max(self._last_answered_sent_at, sent_at)
        return None

    def _clear_probe(self, _: object) -> None:
        self._probe_task = None

    def _record_calls(self, sent: "_SentRequest") -> None:
        budget_store.record_calls(
            self._pop_calls(),
            excluded_from_burst=sent.excluded_from_burst,
            log_requests=sent.log_requests,
        )

    def _pop_calls(self) -> list[Call]:
        calls, self.unrecorded_calls[:] = list(self.unrecorded_calls), []
        return calls


async def _ignore_database_outage(recording: Callable[[], Awaitable[None]]) -> None:
    # Recording must not fail the request it belongs to.
    try:
        await recording()
    except (DatabaseError, InterfaceError) as error:
        if not db_health.is_outage(error):
            raise


@dataclass(frozen=True, slots=True)
class _SentRequest:
    at: float  # by time.monotonic
    seq: int  # see RequestCounter
    excluded_from_burst: int
    log_requests: int = 0


def _record_response(calls: list[Call], sent: _SentRequest, *, is_success: bool) -> None:
    budget_store.record_calls(calls, excluded_from_burst=sent.excluded_from_burst)
    cause = Upstream.record_success(now()) if is_success else Upstream.current_error()
    # An answer during the pause after a 429, as to an abort, does not end it: nothing is read.
    if not cause or (cause == "rate_limited" and budget_store.load(now()).is_paused):
        return
    # An answer to a request older than the outage does not prove that the outage is over. Several
    # processes get answers concurrently: the one that updates the row logs the recovery.
    outage = Upstream.objects.filter(error_seq__lt=sent.seq).exclude(error="")
    if outage.update(error="", error_message="", error_since=None):
        log.info("northflank.recovered", after=cause)


def _record_outage(
    calls: list[Call], sent: _SentRequest, error: NorthflankError, *, is_new: bool
) -> None:
    budget_store.record_calls(calls, excluded_from_burst=sent.excluded_from_burst)
    if error.cause == "rate_limited":
        budget_store.record_rate_limited(error.retry_after_seconds, now())
    is_token_refused = is_new and error.cause == "unauthorised"
    if _store_outage(error, is_new=is_new) or is_token_refused:
        log_unavailable(error.cause, str(error))


def _store_outage(error: NorthflankError, *, is_new: bool) -> bool:
    """Store the outage; return whether that is news for the log."""
    state = Upstream.objects.first()
    # If another process has cleared the row, the outage is this process's only: recorded once.
    if state is None or state.error == error.cause or not (is_new or state.error):
        return False
    unchanged = Upstream.objects.filter(pk=state.pk, error=state.error)
    is_updated = unchanged.update(
        error=error.cause,
        error_message=str(error),
        error_since=state.error_since or now(),
        error_seq=state.error_seq if state.error else RequestCounter.latest(),
    )
    if is_updated:
        store([increment(CounterName.SYSTEM_ERRORS, "sync", error.cause)])
    return bool(is_updated) and not {state.error, error.cause} <= OUTAGE_CAUSES


def log_unavailable(cause: str, message: str) -> None:
    """Log that Northflank cannot be read; if it refuses the token, with what to check."""
    fields = access_hint.log_fields(cause)
    log.warning("northflank.unavailable", cause=cause, message=message, **fields)


_connections: list[Connection] = []  # at most one


def create_connection(base_url: str, token: str) -> Connection:
    """Return a new connection, bound to the running event loop; the caller closes it."""
    team_id, logs_token = settings.NORTHFLANK_TEAM_ID or None, settings.NORTHFLANK_LOGS_TOKEN
    return Connection(token, base_url, team_id, logs_token)


def open_connection(base_url: str, token: str) -> Connection:
    """Create and return this process's connection, bound to the running event loop."""
    _connections[:] = [create_connection(base_url, token)]
    return _connections[0]


def get_connection() -> Connection:
    """Return this process's connection; open one from the settings if there is none yet.

    Raises RuntimeError in sandbox mode if none is open: the sandbox runs inside `manage.py serve`.
    """
    if _connections:
        return _connections[0]
    if settings.SANDBOX:
        raise RuntimeError("No upstream: set NORTHFLANK_API_TOKEN or run `manage.py serve`.")
    return open_connection(settings.NORTHFLANK_API_BASE_URL, settings.NORTHFLANK_API_TOKEN)


def configured_source() -> str:
    """Return which Northflank the settings are for: its address and the team, or "sandbox"."""
    if settings.SANDBOX:
        return "sandbox"
    return f"{settings.NORTHFLANK_API_BASE_URL} {settings.NORTHFLANK_TEAM_ID}".strip()
