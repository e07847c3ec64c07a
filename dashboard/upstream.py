"""This process's connection to Northflank: one client, and what every answer tells of the account.

Each answer's rate limit goes into the budget that all processes share; trouble that concerns the
whole account is noted once, when it begins, and once when it ends.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.utils import timezone

from dashboard import budget
from dashboard.database import in_database
from dashboard.models import Upstream
from dashboard.northflank import Call, NorthflankClient, NorthflankError

log = structlog.get_logger(__name__)

# Causes that say nothing of one project or run, but of the way to Northflank as a whole.
ACCOUNT_WIDE = {"unreachable", "timeout", "unauthorised", "rate_limited", "server_error"}
# One failed request is no trouble yet: connections break, proxies restart.
FAILURES_BEFORE_TROUBLE = 2


@dataclass
class Connection:
    """The one client of this process; make it on the event loop that uses it."""

    token: str
    base_url: str
    team_id: str | None = None
    client: NorthflankClient = field(init=False)
    _calls: list[Call] = field(default_factory=list)
    _failures: int = 0
    _notes: set[asyncio.Future[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.client = NorthflankClient(
            self.token, base_url=self.base_url, team_id=self.team_id, observe=self._calls.append
        )

    async def ask[T](
        self, question: Callable[[NorthflankClient], Awaitable[T]], *, somebody_waits: bool = False
    ) -> T:
        """Put one question to Northflank and return its answer.

        Raises NorthflankError. Either way the budget and the account's state are kept; where
        somebody waits for the answer, after it.
        """
        try:
            answer = await question(self.client)
        except NorthflankError as error:
            await self._note(error)
            raise
        note = asyncio.ensure_future(self._note(None))
        if somebody_waits:
            self._notes.add(note)
            note.add_done_callback(self._notes.discard)
        else:
            await note
        return answer

    async def close(self) -> None:
        await asyncio.gather(*self._notes, return_exceptions=True)
        await self.client.aclose()

    async def _note(self, error: NorthflankError | None) -> None:
        calls, self._calls[:] = list(self._calls), []
        self._failures = self._failures + 1 if error and error.cause in ACCOUNT_WIDE else 0
        troubled = self._failures >= FAILURES_BEFORE_TROUBLE or (
            error is not None and error.cause in {"unauthorised", "rate_limited"}
        )
        await in_database(_keep, calls, error, troubled=troubled)


def _keep(calls: list[Call], error: NorthflankError | None, *, troubled: bool) -> None:
    now = timezone.now()
    for call in calls:
        if call.status is not None:
            budget.record(call.ratelimit, now)
    if error is not None and error.cause == "rate_limited":
        budget.refuse(error.reset_seconds, now)
    state = Upstream.objects.first()
    if state is None:
        return
    # Answers come in side by side: the one whose update applies is the one that says so.
    as_known = Upstream.objects.filter(pk=state.pk, error=state.error)
    if error is not None and troubled and state.error != error.cause:
        if as_known.update(
            error=error.cause, error_message=str(error), error_since=state.error_since or now
        ):
            log.warning("northflank.trouble", cause=error.cause, message=str(error))
    elif error is None:
        cleared = as_known.update(error="", error_message="", error_since=None, answered_at=now)
        if cleared and state.error:
            log.info("northflank.recovered", after=state.error)


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
