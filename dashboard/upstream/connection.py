"""This process's connection to Northflank: one client, and what every answer tells of the account.

Each answer's rate limit goes into the budget that all processes share. Trouble of one project or
stage is told from the account's by a second question: only where that fails too is it the
account's. It is kept in one row for all, logged once when it begins and once when it ends, and
while it lasts this process asks now and then only (`may_ask`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from time import monotonic

import structlog
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from dashboard.db import health as db_health
from dashboard.db.threads import in_database, now
from dashboard.models import QuestionCounter, Upstream
from dashboard.northflank import Call, NorthflankClient, NorthflankError
from dashboard.upstream import budget_store

log = structlog.get_logger(__name__)

# Northflank, or the way to it, is broken; which of these it is may change with every request.
OUTAGE = {"unreachable", "timeout", "server_error", "unexpected_answer"}
# Causes that may say nothing of one project or run, but of all that we ask.
ACCOUNT_WIDE = OUTAGE | {"unauthorised", "rate_limited"}

# Seconds between two questions while none is answered: twice as many each time, up to the last.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 30.0
TOO_MANY = 429
UNAUTHORISED_PAUSE = 60.0  # people have to replace the token


@dataclass
class Connection:
    """The one client of this process; make it on the event loop that uses it."""

    token: str
    base_url: str
    team_id: str | None = None
    client: NorthflankClient = field(init=False)
    trouble: str = ""  # its cause, while nothing that this process asks is answered
    failed_at: float = -1.0  # when it was last met, by time.monotonic
    ask_at: float = 0.0  # when to ask again, by the same
    calls: list[Call] = field(default_factory=list)  # what the budget has not been told of yet
    _pause: float = 0.0
    _answered: float = -1.0  # when the latest question was put that got its answer
    _second: asyncio.Task[NorthflankError | None] | None = None
    _notes: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.client = NorthflankClient(
            self.token, base_url=self.base_url, team_id=self.team_id, observe=self.calls.append
        )

    async def ask[T](
        self,
        question: Callable[[NorthflankClient], Awaitable[T]],
        *,
        somebody_waits: bool = False,
        asked_seq: int | None = None,
    ) -> T:
        """Put one question to Northflank and return its answer.

        Raises NorthflankError. Either way the budget and the account's state are kept; where
        somebody waits for the answer, after it. `asked_seq` is the question's number, where whoever
        asks has taken one already.
        """
        if asked_seq is None:
            asked_seq = await in_database(QuestionCounter.take)
        put = monotonic()
        try:
            answer = await question(self.client)
        except NorthflankError as error:
            await self._note(self._failure(error, put, asked_seq), somebody_waits=somebody_waits)
            raise
        await self._note(self._answer(put, asked_seq), somebody_waits=somebody_waits)
        return answer

    def may_ask(self) -> bool:
        """Say whether it is time to ask again; always, unless nothing was answered lately."""
        return not self.trouble or monotonic() >= self.ask_at

    def concerns_all(self, error: NorthflankError) -> bool:
        """Say whether an error that was raised here is the account's, and not one place's."""
        return bool(self.trouble) and error.cause in ACCOUNT_WIDE

    async def noted(self) -> None:
        """Return once all is kept of what was answered to those who waited."""
        await asyncio.gather(*self._notes, return_exceptions=True)

    async def close(self) -> None:
        await self.noted()
        await self.client.aclose()

    async def _note(self, note: Awaitable[None], *, somebody_waits: bool) -> None:
        noting = asyncio.ensure_future(_noted(note))
        if somebody_waits:
            self._notes.add(noting)
            noting.add_done_callback(self._notes.discard)
        else:
            await noting

    async def _answer(self, put: float, asked_seq: int, *, as_it_should: bool = True) -> None:
        self._answered = max(self._answered, put)
        if put > self.failed_at:
            self.trouble, self._pause = "", 0.0
        await in_database(_keep_answer, self._take_calls(), asked_seq, as_it_should=as_it_should)

    async def _failure(self, error: NorthflankError, put: float, asked_seq: int) -> None:
        everywhere = await self._is_everywhere(error, put)
        if everywhere is None:
            await self._answer(put, asked_seq, as_it_should=False)
            return
        begins = not self.trouble
        if begins or put > self.failed_at:  # questions that were under way together fail as one
            self._pause = min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
            if everywhere.cause == "unauthorised":
                self._pause = UNAUTHORISED_PAUSE
        self.trouble, self.failed_at = everywhere.cause, monotonic()
        self.ask_at = self.failed_at + self._pause
        await in_database(_keep_trouble, self._take_calls(), everywhere, begins=begins)

    async def _is_everywhere(self, error: NorthflankError, put: float) -> NorthflankError | None:
        """Return what keeps everything from being read; None where it is one place's trouble."""
        if error.cause not in ACCOUNT_WIDE:
            return None
        # What was under way when it was last met fails with it, and is not asked about again.
        if error.cause == "rate_limited" or (self.trouble and put <= self.failed_at):
            return error
        if self._second is None:
            if self._answered > put:
                return None
            self._second = asyncio.ensure_future(self._ask_second())
            self._second.add_done_callback(self._forget_second)
        return await asyncio.shield(self._second)

    async def _ask_second(self) -> NorthflankError | None:
        put = monotonic()
        try:
            await self.client.auth()
        except NorthflankError as error:
            if error.cause in ACCOUNT_WIDE:
                return error
        self._answered = max(self._answered, put)
        return None

    def _forget_second(self, _: object) -> None:
        self._second = None

    def _take_calls(self) -> list[Call]:
        calls, self.calls[:] = list(self.calls), []
        return calls


async def _noted(note: Awaitable[None]) -> None:
    # The answer is worth more than its bookkeeping, and those who keep it try on.
    try:
        await note
    except (DatabaseError, InterfaceError) as error:
        if not db_health.is_outage(error):
            raise


def _keep_answer(calls: list[Call], asked_seq: int, *, as_it_should: bool) -> None:
    _keep_budget(calls)
    state = Upstream.objects.first()
    if state is None:
        return
    if as_it_should:
        Upstream.objects.filter(pk=state.pk).update(answered_at=now())
    # An answer to what was asked before the trouble began says nothing of its end. Answers come in
    # side by side, to several processes: the one whose update applies is the one that says so.
    over = Upstream.objects.filter(pk=state.pk, error_seq__lt=asked_seq).exclude(error="")
    if state.error and over.update(error="", error_message="", error_since=None):
        log.info("northflank.recovered", after=state.error)


def _keep_trouble(calls: list[Call], error: NorthflankError, *, begins: bool) -> None:
    _keep_budget(calls)
    if error.cause == "rate_limited":
        budget_store.refuse(error.reset_seconds, now())
    state = Upstream.objects.first()
    # Where another process was answered meanwhile, the trouble is this one's only: told once.
    if state is None or state.error == error.cause or not (begins or state.error):
        return
    as_known = Upstream.objects.filter(pk=state.pk, error=state.error)
    if (
        as_known.update(
            error=error.cause,
            error_message=str(error),
            error_since=state.error_since or now(),
            error_seq=state.error_seq if state.error else QuestionCounter.latest(),
        )
        and not {state.error, error.cause} <= OUTAGE
    ):
        log.warning("northflank.trouble", cause=error.cause, message=str(error))


def _keep_budget(calls: list[Call]) -> None:
    # What a 429 says of the window is not believed: a limiter of bursts counts something else.
    for call in calls:
        if call.status not in {None, TOO_MANY}:
            moment = now()
            budget_store.record(
                call.ratelimit, moment, asked_at=moment - timedelta(seconds=call.seconds)
            )


_open: list[Connection] = []  # at most one


def open_connection(base_url: str, token: str) -> Connection:
    """Make this process's connection, on the running loop, and return it."""
    _open[:] = [Connection(token, base_url, settings.NORTHFLANK_TEAM_ID or None)]
    return _open[0]


def connection() -> Connection:
    """Return this process's connection, opened as the settings say where none is open yet.

    Raises RuntimeError without a token: the sandbox runs inside `manage.py serve` only.
    """
    if _open:
        return _open[0]
    if settings.SANDBOX:
        raise RuntimeError("No upstream: set NORTHFLANK_API_TOKEN, or run `manage.py serve`.")
    return open_connection(settings.NORTHFLANK_API_BASE_URL, settings.NORTHFLANK_API_TOKEN)
