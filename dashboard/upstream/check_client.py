"""Send the requests of `manage.py check_upstream`: few, counted, and each answer compared."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from django.db import DatabaseError, InterfaceError, connection

from dashboard.db import schema
from dashboard.db.threads import now, run_in_db_thread, set_clock_offset
from dashboard.models import Upstream
from dashboard.northflank import (
    Answer,
    Call,
    Difference,
    NorthflankClient,
    NorthflankError,
    RateLimit,
    Unreachable,
    find_differences,
)
from dashboard.texts import local_time
from dashboard.upstream import budget_store
from dashboard.upstream.source import configured_source

MAX_REQUESTS = 20
_MAX_REQUESTS_PER_CALL = 2  # the client repeats a failed read once
# After these no further request would be answered, or it would prolong a pause.
_FINAL_CAUSES = {"unreachable", "timeout", "rate_limited"}


class NoFurtherRequest(Exception):
    """No further request can or may be sent; the text says why, for a person."""


@dataclass(frozen=True, slots=True)
class Outcome[T]:
    """What became of one request: a result, or a failure."""

    result: T | None
    failure: NorthflankError | None
    answer: Answer | None  # the last one, without the token; None: none came, or not whole

    @property
    def is_not_found(self) -> bool:
        return self.failure is not None and self.failure.cause == "not_found"


@dataclass
class CheckClient:
    """A client that counts its requests in the rate budget and compares each answer."""

    token: str = field(repr=False)
    base_url: str
    team_id: str
    timeout_seconds: float
    request_count: int = 0
    slowest_seconds: float = 0.0
    rate_limit: RateLimit | None = None  # by the last answer that had one
    rate_limit_headers: dict[str, str] = field(default_factory=dict)  # of the last answer, as sent
    differences: dict[tuple[str, str, str], Difference] = field(default_factory=dict)
    failures: list[NorthflankError] = field(default_factory=list)  # those not expected
    database_note: str = ""  # why requests are not counted in the rate budget; empty: they are
    _max_requests: int = MAX_REQUESTS
    _hour_ends_at: datetime | None = None  # if the rate budget leaves less than MAX_REQUESTS
    _calls: list[Call] = field(default_factory=list)  # of the current request
    _answers: list[Answer] = field(default_factory=list)  # the same

    def __post_init__(self) -> None:
        self._client = NorthflankClient(
            self.token,
            base_url=self.base_url,
            team_id=self.team_id or None,
            on_call=self._add_call,
            on_answer=self._add_answer,
            timeout_seconds=self.timeout_seconds,
        )

    def without_token(self, text: str) -> str:
        """Return a text of an answer without the token: a proxy may quote it."""
        return text.replace(self.token, "…")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def load_budget(self) -> None:
        """Limit this check to what the rate budget leaves; raises NoFurtherRequest during a pause.

        Without a database of this Northflank the limit is MAX_REQUESTS (`database_note`).
        """
        try:
            self.database_note = await run_in_db_thread(_find_database_problem)
            if self.database_note:
                return
            await run_in_db_thread(set_clock_offset)  # the budget's times are by that clock
            moment = now()
            budget = await run_in_db_thread(budget_store.load, moment)
        except (DatabaseError, InterfaceError) as error:
            self.database_note = f"Database error: {' '.join(str(error).split())}"
            return
        if budget.is_paused:
            raise NoFurtherRequest("Requests are paused after a 429: see the status page.")
        if budget.requests < MAX_REQUESTS:
            self._max_requests = budget.requests
            self._hour_ends_at = moment + timedelta(seconds=budget.seconds)

    async def send[T](
        self,
        request: Callable[[NorthflankClient], Awaitable[T]],
        *,
        expected: Collection[str] = (),
    ) -> Outcome[T]:
        """Send one request; a failure by an `expected` cause is no difference.

        Raises NoFurtherRequest if this one may not be sent, or none can follow: at MAX_REQUESTS, at
        the end of what the rate budget leaves, after a 429, and without an answer.
        """
        if self.request_count + _MAX_REQUESTS_PER_CALL > self._max_requests:
            raise NoFurtherRequest(self._describe_limit())
        self._calls, self._answers = [], []
        result: T | None = None
        failure: NorthflankError | None = None
        try:
            result = await request(self._client)
        except NorthflankError as error:
            failure = error
        await self._count(failure)
        for answer in self._answers:
            self._add_differences(find_differences(answer))
        if failure is not None and failure.cause not in expected:
            self.failures.append(failure)
            if not isinstance(failure, Unreachable):
                self._add_differences(self._describe(failure))
            if failure.cause in _FINAL_CAUSES:
                raise NoFurtherRequest(str(failure)) from failure
        return Outcome(result, failure, self.last_answer)

    @property
    def last_answer(self) -> Answer | None:
        """The last answer to the last request."""
        return self._answers[-1] if self._answers else None

    def _describe_limit(self) -> str:
        if self._hour_ends_at is None:
            return f"{self.request_count} requests were sent; the limit is reached."
        counts = {0: "Nothing was sent", 1: "1 request was sent"}
        sent = counts.get(self.request_count, f"{self.request_count} requests were sent")
        end = local_time.format_clock(self._hour_ends_at)
        return f"{sent}; too few of the hour's requests are left for reading, until {end}."

    def _add_call(self, call: Call) -> None:
        self.request_count += 1
        self.slowest_seconds = max(self.slowest_seconds, call.seconds)
        self.rate_limit = call.rate_limit or self.rate_limit
        self._calls.append(call)

    def _add_answer(self, answer: Answer) -> None:
        body = answer.body.replace(self.token.encode(), "…".encode())
        self._answers.append(replace(answer, body=body))
        self.rate_limit_headers = {
            name: self.without_token(value)[:40]
            for name, value in answer.headers.items()
            if name.startswith("x-ratelimit-") or name == "retry-after"
        }

    def _add_differences(self, differences: list[Difference]) -> None:
        for difference in differences:
            key = difference.route, difference.field, difference.problem
            earlier = self.differences.get(key)
            self.differences[key] = replace(
                difference, count=difference.count + (earlier.count if earlier else 0)
            )

    def _describe(self, failure: NorthflankError) -> list[Difference]:
        route = self._calls[-1].route if self._calls else ""
        if failure.http_status is not None and failure.http_status >= 400:
            return [Difference(route, "", f"{failure.http_status} ({failure.cause})")]
        # An answer that was received whole has been compared.
        return [] if self._answers else [Difference(route, "", failure.message)]

    async def _count(self, failure: NorthflankError | None) -> None:
        if self.database_note:
            return
        try:
            await run_in_db_thread(budget_store.record_calls, self._calls)
            if failure is not None and failure.cause == "rate_limited":
                await run_in_db_thread(
                    budget_store.record_rate_limited, failure.retry_after_seconds, now()
                )
        except (DatabaseError, InterfaceError) as error:
            self.database_note = f"Database error: {' '.join(str(error).split())}"


def _find_database_problem() -> str:
    """Return why the database has no rate budget for this Northflank; empty if it has."""
    try:
        schema.verify(connection)
    except schema.SchemaError as error:
        return str(error)
    other = (
        Upstream.objects.exclude(source=configured_source())
        .values_list("source", flat=True)
        .first()
    )
    return f"This database mirrors {other}: set DATABASE_URL to another one." if other else ""
