"""Look up a run that was never read: the only upstream request that a page can cause.

Northflank finds a run only within its stage. If the stage is known, `find_in_stage` queries it.
If only the run's id is known, `search` queries the possible stages, several at a time, from a share
of the hour's requests: a flood of invented ids can't use up the budget for reading.

Queries are leased in the database: each stage is queried once per run id, whatever the user or
process, and the answer is valid for all until it expires or someone retries.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Max, Min, QuerySet, Sum
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.db import health as db_health
from dashboard.db import prepared
from dashboard.db import threads as db_threads
from dashboard.db.prepared import NOW, PreparedQuery
from dashboard.db.threads import run_in_db_thread
from dashboard.models import RequestCounter, Run, RunLookup, Stage, Upstream
from dashboard.models.catalog import ID_LENGTH
from dashboard.northflank import NorthflankClient, NorthflankError, NotFound, RunDetail
from dashboard.sync import mirror, path_spelling
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from dashboard.upstream.rate_budget import MIN_OWN_SHARE

log = structlog.get_logger(__name__)

HOUR = timedelta(hours=1)
# Share of Northflank's hourly rate limit that searches may use: enough to query 180 stages once,
# and at most a quarter of what reading has with the default reserve.
SEARCH_SHARE = 0.2
# Share of that for stages not queried before, however often users repeat a search.
NEW_STAGES_SHARE = 0.5
# Share of that for one run id, so that one stale link in an account with very many stages leaves
# requests for other ids: enough for 180 stages, queried once.
PER_RUN_SHARE = 0.9
# Full addresses cost one request each. The limit is per user, so that a runaway client with one
# user's session does not lock out others.
MAX_REQUESTS_PER_USER = 120  # requests an hour
# How long an answer is valid. More than an hour, because a search may not reach all stages in one;
# and a run whose id people already have will not appear in a stage later.
ANSWER_LIFETIME = timedelta(hours=12)
MIN_RETRY_INTERVAL = timedelta(minutes=2)  # minimum time between two lookups of an id
FAILURE_BACKOFF = timedelta(minutes=5)  # how long searches skip a stage that failed
FLOW_CHECK_AGE = timedelta(minutes=5)  # until when a stage found without a flow is not asked
LEASE = timedelta(seconds=30)  # longer than a request's timeout
MAX_CONCURRENT_QUERIES = 8  # concurrent search queries in one process
STEP_SECONDS = 2.0  # seconds until `search` returns its progress; the next call continues
WAIT_TIMEOUT = 15.0  # seconds to wait for the same query of another process
POLL_INTERVAL = 0.25  # seconds between two checks for the other process's result

type _TaskKey = tuple[int, int, str]  # id() of the connection, key of the stage, run id

# Queries in progress in this process.
_tasks: dict[_TaskKey, asyncio.Task[str | None]] = {}


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """Progress of a search: `stages_asked` of `stages_total` stages have answered."""

    stages_asked: int
    stages_total: int
    blocked_reason: str = ""  # why it can't continue now; empty if it can
    resumes_at: datetime | None = None  # when it can continue, if known
    is_found: bool = False

    @property
    def is_exhausted(self) -> bool:
        return self.stages_asked == self.stages_total


@dataclass(frozen=True, slots=True)
class NotFoundAnswer:
    """Northflank's answer that a run is in none of the queried stages."""

    answered_at: datetime  # the last answer
    expires_at: datetime  # when the oldest of the answers expires


@dataclass(frozen=True, slots=True)
class SearchUsage:
    """The requests that searches used of their share in the last hour."""

    used: int
    share: int
    limit: int
    resumes_at: datetime | None = None  # when the oldest of those used is an hour old

    @property
    def remaining(self) -> int:
        return max(self.share - self.used, 0)


@dataclass(frozen=True, slots=True)
class _StageQuery:
    stage: Stage
    path_segments: tuple[str, ...]
    from_search: bool


async def find_in_stage(
    connection: Connection, stage: Stage, run_id: str, *, user_pk: int | None = None
) -> str:
    """Look up an unknown run in one stage at Northflank, and mirror it.

    Returns "" if the run is in the mirror now, else a sentence with the reason. The searches' share
    does not limit it; MAX_REQUESTS_PER_USER does if `user_pk`, the requesting user, is given.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_TIMEOUT
    key = id(connection), stage.pk, run_id
    while True:
        if key not in _tasks:
            local_result = await run_in_db_thread(_answer_locally, stage, run_id, user_pk)
            if local_result is not None:
                return local_result
        if key not in _tasks:
            if not connection.may_call():
                return _unreachable_message()
            _start_task(key, _claim_and_query(connection, stage, run_id, user_pk))
        result = await asyncio.shield(_tasks[key])
        if result is not None:
            return result
        if loop.time() >= deadline:
            return _("This run is being looked up. Reload the page.")
        await asyncio.sleep(POLL_INTERVAL)


def has_no_runs(stage: Stage) -> bool:
    """Return whether a stage had no release flow a moment ago: looking up a run is pointless."""
    checked_at = stage.flow_synced_at
    is_recent = checked_at is not None and db_threads.now() - checked_at < FLOW_CHECK_AGE
    return stage.has_flow is False and is_recent


async def search(
    connection: Connection, stages: Sequence[int], run_id: str, *, seconds: float = STEP_SECONDS
) -> SearchProgress:
    """Query `stages` (keys), in this order, for a run, mirror it, and return the progress.

    Returns after `seconds`, or earlier if the run is found or the search can't continue. Each call
    continues where the last one ended, whatever its user or process.
    """
    if not _is_valid_id(run_id):
        return SearchProgress(len(stages), len(stages))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        if not connection.may_call():
            progress = await run_in_db_thread(_load_progress, stages, run_id)
            return replace(progress, blocked_reason=_unreachable_message())
        tasks = {key: task for key, task in _tasks.items() if key[0] == id(connection)}
        free_slots = MAX_CONCURRENT_QUERIES - len(tasks) if loop.time() < deadline else 0
        queries, progress = await run_in_db_thread(
            _claim_next_stages, stages, run_id, max(free_slots, 0)
        )
        for query in queries:
            key = id(connection), query.stage.pk, run_id
            tasks[key] = _start_task(key, _query_stage(connection, query, run_id))
        run_tasks = [task for key, task in tasks.items() if key[2] == run_id]
        seconds_left = deadline - loop.time()
        if progress.is_found or progress.is_exhausted or seconds_left <= 0 or not tasks:
            return progress
        if progress.blocked_reason and not run_tasks:
            return progress
        await asyncio.wait(
            run_tasks or tasks.values(), timeout=seconds_left, return_when=asyncio.FIRST_COMPLETED
        )


def load_not_found(stages: Sequence[int], run_id: str) -> NotFoundAnswer | None:
    """Return Northflank's answer, while valid, that the run is in none of `stages`; else None."""
    rows = (
        _recent_lookups(run_id, db_threads.now()).filter(stage__in=stages).exclude(answered_at=None)
    )
    times = rows.aggregate(first=Min("requested_at"), last=Max("answered_at"))
    return (
        NotFoundAnswer(times["last"], times["first"] + ANSWER_LIFETIME) if times["last"] else None
    )


def retry(stages: Sequence[int], run_id: str) -> datetime | None:
    """Discard the answers of `stages` for a run; if that is too soon, return when it is allowed."""
    now = db_threads.now()
    rows = _recent_lookups(run_id, now).filter(stage__in=stages)
    last_requested_at = rows.aggregate(at=Max("requested_at"))["at"]
    if last_requested_at is not None and now - last_requested_at < MIN_RETRY_INTERVAL:
        retry_at: datetime = last_requested_at + MIN_RETRY_INTERVAL
        return retry_at
    rows.update(answered_at=None, error="")
    return None


def load_usage() -> SearchUsage:
    """Return what searches have used of their share in the last hour."""
    ((used, first),) = _usage_query().fetch(now=db_threads.now())
    resumes_at = first + HOUR if first else None
    limit = budget_store.load_limit()
    return SearchUsage(used or 0, round(SEARCH_SHARE * limit), limit, resumes_at)


@cache
def _usage_query() -> PreparedQuery:
    recent = RunLookup.objects.filter(from_search=True, requested_at__gt=NOW - HOUR)
    totals = prepared.Sum("request_count"), prepared.Min("requested_at")
    return PreparedQuery(recent.values_list(*totals))


def _start_task(key: _TaskKey, work: Coroutine[Any, Any, str | None]) -> asyncio.Task[str | None]:
    task = _tasks[key] = asyncio.create_task(work)
    task.add_done_callback(lambda done: _finish_task(key, done))
    return task


def _finish_task(key: _TaskKey, task: asyncio.Task[str | None]) -> None:
    del _tasks[key]
    error = None if task.cancelled() else task.exception()
    if error is not None and not db_health.is_outage(error):
        log.error("run_lookup.crashed", exc_info=error)  # queried again after its lease


async def _claim_and_query(
    connection: Connection, stage: Stage, run_id: str, user_pk: int | None
) -> str | None:
    query = await run_in_db_thread(_claim_stage, stage, run_id, user_pk)
    return None if query is None else await _query_stage(connection, query, run_id)


async def _query_stage(connection: Connection, query: _StageQuery, run_id: str) -> str:
    """Query one stage; return like `find_in_stage`."""
    project, pipeline = query.stage.pipeline.project.slug, query.stage.pipeline.slug
    requested_at, seq = db_threads.now(), await run_in_db_thread(RequestCounter.take_next)
    run_detail = None
    try:
        for path in query.path_segments:
            with contextlib.suppress(NotFound):
                run_detail = await connection.call(
                    partial(_fetch_run, project, pipeline, path, run_id), request_seq=seq
                )
                break
    except NorthflankError as error:
        # An account-wide error stops every search; an error of one stage stops none.
        stage_error = "" if connection.is_account_wide(error) else str(error)
        await run_in_db_thread(_record_failure, query, run_id, stage_error)
        return _("Lookup on Northflank failed: %(error)s") % {"error": error}
    is_found = run_detail is not None and run_detail.run.id == run_id
    if run_detail is not None and not is_found:
        log.warning("run_lookup.wrong_run", requested=run_id, received=run_detail.run.id)
    if run_detail is not None and is_found:
        await run_in_db_thread(
            mirror.apply_detail,
            query.stage.pk,
            run_detail,
            requested_at=requested_at,
            request_seq=seq,
        )
        await run_in_db_thread(_record_stage_of_run, query.stage, path)
    await run_in_db_thread(_record_answer, query, run_id)
    return "" if is_found else _not_found_message()


async def _fetch_run(
    project: str, pipeline: str, stage: str, run_id: str, client: NorthflankClient
) -> RunDetail:
    return await client.get_run(project, pipeline, stage, run_id)


def _not_found_message() -> str:
    return _("Not found on Northflank either.")


def _unreachable_message() -> str:
    return _("Northflank is unreachable.")


def _paused_message() -> str:
    return _("Lookup paused: rate limited by Northflank.")


def _exhausted_message() -> str:
    return _("Lookup paused: this hour’s requests are used up.")


def _is_valid_id(run_id: str) -> bool:
    return "\x00" not in run_id and len(run_id) <= ID_LENGTH  # PostgreSQL rejects NUL


def _recent_lookups(run_id: str, now: datetime) -> QuerySet[RunLookup]:
    return RunLookup.objects.filter(run_id=run_id, requested_at__gt=now - ANSWER_LIFETIME)


def _lock_lookups() -> datetime:
    """Lock out other claims in this transaction, delete expired lookups, and return the time."""
    Upstream.objects.select_for_update().first()
    now = db_threads.now()
    RunLookup.objects.filter(requested_at__lte=now - ANSWER_LIFETIME).delete()
    return now


def _answer_locally(stage: Stage, run_id: str, user_pk: int | None) -> str | None:
    """Return the result of `find_in_stage` if no request is needed or allowed, else None."""
    now = db_threads.now()
    if not _is_valid_id(run_id):
        return _not_found_message()
    if Run.objects.filter(stage=stage, run_id=run_id).exists():
        return ""
    if _recent_lookups(run_id, now).filter(stage=stage).exclude(answered_at=None).exists():
        return _not_found_message()
    read_budget = budget_store.load(now)
    if read_budget.is_paused:
        return _paused_message()
    if read_budget.requests <= 0:
        return _exhausted_message()
    if user_pk is not None:
        recent = RunLookup.objects.filter(user=user_pk, requested_at__gt=now - HOUR)
        if (recent.aggregate(n=Sum("request_count"))["n"] or 0) >= MAX_REQUESTS_PER_USER:
            message = _(
                "Your %(n)s lookup requests of this hour are used up, by links to runs not read "
                "yet."
            )
            return message % {"n": MAX_REQUESTS_PER_USER}
    return None


def _claim_stage(stage: Stage, run_id: str, user_pk: int | None) -> _StageQuery | None:
    """Lease the query of one stage; None if another process holds it or has the answer."""
    with transaction.atomic():
        now = _lock_lookups()
        row = _recent_lookups(run_id, now).filter(stage=stage).first()
        if row is not None and (row.answered_at is not None or _is_leased(row, now)):
            return None
        query = _StageQuery(
            stage, _candidate_segments(stage, path_spelling.find_confirmed()), from_search=False
        )
        _record_queries([query], {stage.pk: row} if row else {}, run_id, now, user_pk)
        return query


def _claim_next_stages(
    stages: Sequence[int], run_id: str, limit: int
) -> tuple[list[_StageQuery], SearchProgress]:
    """Lease the queries of the next stages, up to `limit`; return them and the progress."""
    progress = _load_progress(stages, run_id)
    if progress.is_found or progress.is_exhausted:
        return [], progress
    with transaction.atomic():
        now = _lock_lookups()
        lookups = {row.stage_id: row for row in _recent_lookups(run_id, now)}
        pending = [pk for pk in stages if pk not in lookups or _is_pending(lookups[pk], now)]
        if not pending:
            return [], _with_failure_reason(progress, [lookups[pk] for pk in stages], now)
        capacity = _measure_capacity(now, run_id)
        if capacity.blocked_reason:
            return [], replace(
                progress, blocked_reason=capacity.blocked_reason, resumes_at=capacity.resumes_at
            )
        repeated = [pk for pk in pending if pk in lookups]
        excess = set(repeated[capacity.repeat_requests :])
        stage_keys = [pk for pk in pending if pk not in excess]
        if not stage_keys:
            message = _("Repeated lookups have used their share of the search budget.")
            return [], replace(progress, blocked_reason=message, resumes_at=capacity.resumes_at)
        stage_keys = stage_keys[: min(limit, capacity.requests)]
        stages_by_key = Stage.objects.select_related("pipeline__project").in_bulk(stage_keys)
        # Without a confirmed spelling, trying both would double the cost of a search.
        confirmed_segment = path_spelling.find_confirmed() or "production"
        queries = [
            _StageQuery(
                stages_by_key[pk],
                _candidate_segments(stages_by_key[pk], confirmed_segment),
                from_search=True,
            )
            for pk in stage_keys
            if pk in stages_by_key
        ]
        _record_queries(queries, lookups, run_id, now)
    return queries, progress


def _load_progress(stages: Sequence[int], run_id: str) -> SearchProgress:
    answered_lookups = _recent_lookups(run_id, db_threads.now()).exclude(answered_at=None)
    stages_asked = set(answered_lookups.values_list("stage", flat=True)).intersection(stages)
    stages_with_run = set(Run.objects.filter(run_id=run_id).values_list("stage", flat=True))
    return SearchProgress(
        len(stages_asked), len(stages), is_found=not stages_with_run.isdisjoint(stages)
    )


def _is_leased(row: RunLookup, now: datetime) -> bool:
    return row.leased_until is not None and row.leased_until > now


def _is_pending(row: RunLookup, now: datetime) -> bool:
    is_backed_off = bool(row.error) and row.requested_at > now - FAILURE_BACKOFF
    return row.answered_at is None and not is_backed_off and not _is_leased(row, now)


def _with_failure_reason(
    progress: SearchProgress, rows: Sequence[RunLookup], now: datetime
) -> SearchProgress:
    """Return the progress with the reason it is blocked, if all remaining stages failed."""
    failed = [row for row in rows if row.error and row.answered_at is None]
    if not failed or any(_is_leased(row, now) for row in rows):
        return progress
    message = ngettext(
        "One stage could not be searched: %(error)s",
        "%(n)s stages could not be searched; last error: %(error)s",
        len(failed),
    ) % {"n": len(failed), "error": max(failed, key=lambda row: row.requested_at).error}
    retry_at = min(row.requested_at for row in failed) + FAILURE_BACKOFF
    return replace(progress, blocked_reason=message, resumes_at=retry_at)


@dataclass(frozen=True, slots=True)
class _SearchCapacity:
    """How many requests searches may send now; at most `repeat_requests` of them may be repeats."""

    requests: int = 0
    repeat_requests: int = 0
    blocked_reason: str = ""
    resumes_at: datetime | None = None


def _measure_capacity(now: datetime, run_id: str) -> _SearchCapacity:
    read_budget = budget_store.load(now)
    window_ends_at = now + timedelta(seconds=read_budget.seconds)
    leased_requests = (
        RunLookup.objects.filter(leased_until__gt=now).aggregate(n=Sum("request_count"))["n"] or 0
    )
    available = read_budget.requests - leased_requests
    if read_budget.is_paused:
        return _SearchCapacity(
            blocked_reason=_paused_message(),
            resumes_at=read_budget.backoff_until,
        )
    if available <= 0:
        return _SearchCapacity(blocked_reason=_exhausted_message(), resumes_at=window_ends_at)
    usage = load_usage()
    if not usage.remaining:
        message = _("The %(n)s requests for searches are used up for this hour.") % {
            "n": usage.share
        }
        return _SearchCapacity(blocked_reason=message, resumes_at=usage.resumes_at)
    run_lookups = RunLookup.objects.filter(
        run_id=run_id, from_search=True, requested_at__gt=now - HOUR
    )
    run_usage = run_lookups.aggregate(n=Sum("request_count"), first=Min("requested_at"))
    run_remaining = round(PER_RUN_SHARE * usage.share) - (run_usage["n"] or 0)
    if run_remaining <= 0:
        message = _("This search has used up its share of requests.")
        return _SearchCapacity(blocked_reason=message, resumes_at=run_usage["first"] + HOUR)
    # Leave other clients their expected requests, and reading at least half of the rest.
    own_requests = max(available - read_budget.other_requests, MIN_OWN_SHARE * available)
    limit = min(usage.remaining, run_remaining, int(own_requests - usage.used) // 2)
    if limit <= 0:
        message = _("The remaining requests of this hour are reserved for runs in flight.")
        return _SearchCapacity(blocked_reason=message, resumes_at=window_ends_at)
    recent_repeats = RunLookup.objects.filter(
        from_search=True, is_repeat=True, requested_at__gt=now - HOUR
    )
    repeated_requests = recent_repeats.aggregate(n=Sum("request_count"))["n"] or 0
    return _SearchCapacity(
        limit,
        max(round((1 - NEW_STAGES_SHARE) * usage.share) - repeated_requests, 0),
        "",
        usage.resumes_at,
    )


def _candidate_segments(stage: Stage, confirmed_segment: str | None) -> tuple[str, ...]:
    """Return the path segments to try: the stage's confirmed one, that of others, or else both."""
    if stage.confirmed_path_segment:
        return (stage.confirmed_path_segment,)
    segments = path_spelling.candidate_segments(stage.name, confirmed_segment)
    return segments if confirmed_segment is None else segments[:1]


def _record_queries(
    queries: Sequence[_StageQuery],
    lookups: Mapping[int, RunLookup],
    run_id: str,
    now: datetime,
    user_pk: int | None = None,
) -> None:
    """Record queries and their leases before the requests are sent."""
    for query in queries:
        row = lookups.get(query.stage.pk)
        lookup = row or RunLookup(run_id=run_id, stage=query.stage, request_count=0)
        if row is not None and row.requested_at <= now - HOUR:
            # Its requests no longer count for this hour.
            lookup.request_count, lookup.from_search = 0, False
        lookup.from_search = lookup.from_search or query.from_search
        lookup.request_count += len(query.path_segments)
        lookup.is_repeat = row is not None
        if user_pk is not None:
            lookup.user_id = user_pk
        lookup.requested_at, lookup.leased_until = now, now + LEASE
        lookup.answered_at, lookup.error = None, ""
        lookup.save()


def _record_answer(query: _StageQuery, run_id: str) -> None:
    RunLookup.objects.filter(run_id=run_id, stage=query.stage).update(
        answered_at=db_threads.now(), leased_until=None
    )
    _exclude_from_burst(query)


def _record_failure(query: _StageQuery, run_id: str, error: str) -> None:
    RunLookup.objects.filter(run_id=run_id, stage=query.stage).update(
        error=error, leased_until=None
    )
    _exclude_from_burst(query)


def _record_stage_of_run(stage: Stage, path: str) -> None:
    Stage.objects.filter(pk=stage.pk, confirmed_path_segment="").update(confirmed_path_segment=path)
    # A stage with a run has a release flow, whatever it had when it was last checked.
    now = db_threads.now()
    Stage.objects.filter(pk=stage.pk, has_flow=False).update(flow_synced_at=None, next_sync_at=now)


def _exclude_from_burst(query: _StageQuery) -> None:
    if query.from_search:
        budget_store.exclude_from_burst(len(query.path_segments))
