"""A run that was never read, asked for once: the only upstream request that a page can cause.

Northflank finds a run only in its stage. Where the stage is known, `find` asks that one. Of a run
that is known by its id alone `search` asks the stages that it may be in, some side by side, from a
share of the hour, so that no flood of made-up ids takes reading its requests.

Who asks which stage for which run is in the database: whoever asks, by whichever process, a stage
is asked once, and its answer counts for everybody until it is old or somebody has it asked again.
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from django.db import transaction
from django.db.models import Max, Min, QuerySet, Sum
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
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
# Searches may use this share of the requests that Northflank allows in an hour: enough to ask 180
# stages once, and at most a quarter of what reading has with the usual reserve.
SEARCH_SHARE = 0.2
# Of that, this share is left to stages that were not asked before, however often people look again.
NEW_STAGES_SHARE = 0.5
# Of that, one id may use so much, so that a stale link in an account of very many stages leaves
# something to others: enough for 180 stages, asked once.
PER_RUN_SHARE = 0.9
# Full addresses cost one request each and are bounded for each person, so that a broken machine
# with somebody's session locks out nobody else.
MAX_REQUESTS_PER_USER = 120  # requests an hour
# How long an answer counts. In an hour a search may reach some stages only, and an id that people
# have belongs to a run that was there before.
ANSWER_LIFETIME = timedelta(hours=12)
MIN_RETRY_INTERVAL = timedelta(minutes=2)  # an id is not looked for again sooner
FAILURE_BACKOFF = timedelta(minutes=5)  # a stage that could not be asked is left alone by searches
LEASE = timedelta(seconds=30)  # longer than a question waits for its answer
MAX_CONCURRENT_QUERIES = 8  # questions of searches under way in one process
STEP_SECONDS = 2.0  # seconds after which a search tells how far it is; it goes on when asked again
WAIT_TIMEOUT = 15.0  # seconds to wait for another process that asks for the same
POLL_INTERVAL = 0.25  # seconds between two looks at what the other process has found

type _TaskKey = tuple[int, int, str]  # the connection, by its id, the stage, and the run

# What this process asks just now.
_tasks: dict[_TaskKey, asyncio.Task[str | None]] = {}


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """How far the search for a run has come: Northflank was asked for it in `asked` of `stages`."""

    stages_asked: int
    stages_total: int
    blocked_reason: str = ""  # why it does not go on just now
    resumes_at: datetime | None = None  # when it does, where that is known
    is_found: bool = False

    @property
    def is_exhausted(self) -> bool:
        return self.stages_asked == self.stages_total


@dataclass(frozen=True, slots=True)
class NotFoundAnswer:
    """Northflank has answered that it does not know a run."""

    answered_at: datetime  # the last answer
    expires_at: datetime  # when the first of the stages is asked again


@dataclass(frozen=True, slots=True)
class SearchUsage:
    """What searches have used of their share in the last hour, in requests."""

    used: int
    share: int
    limit: int
    resumes_at: datetime | None = None  # when the first of those used is an hour old

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
    """Ask Northflank for a run we have never seen, in one stage, and mirror it.

    Returns "" when the run is in the mirror now, else a sentence saying why it is not. It does not
    depend on what searches have used. `person` is the key of who opened the address.
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
            _start_task(key, _claim_and_query(connection, stage, run_id, user_pk))
        result = await asyncio.shield(_tasks[key])
        if result is not None:
            return result
        if loop.time() >= deadline:
            return _("It is being asked for just now: load this page again.")
        await asyncio.sleep(POLL_INTERVAL)


async def search(
    connection: Connection, stages: Sequence[int], run_id: str, *, seconds: float = STEP_SECONDS
) -> SearchProgress:
    """Ask for a run in its possible `stages`, by their keys, in this order, and mirror it.

    Returns after so many `seconds`, or when it is found or can't go on. Each call goes on where the
    last one ended, whoever made it, in whichever process.
    """
    if not _is_valid_id(run_id):
        return SearchProgress(len(stages), len(stages))
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        if not connection.may_call():
            progress = await run_in_db_thread(_load_progress, stages, run_id)
            return replace(progress, blocked_reason=_("Northflank does not answer."))
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
    """Return when Northflank said that it knows the run in none of `stages`; None: it did not."""
    rows = (
        _recent_lookups(run_id, db_threads.now()).filter(stage__in=stages).exclude(answered_at=None)
    )
    times = rows.aggregate(first=Min("requested_at"), last=Max("answered_at"))
    return (
        NotFoundAnswer(times["last"], times["first"] + ANSWER_LIFETIME) if times["last"] else None
    )


def retry(stages: Sequence[int], run_id: str) -> datetime | None:
    """Have `stages` asked anew for a run; where that is too soon, return from when it can be."""
    now = db_threads.now()
    rows = _recent_lookups(run_id, now).filter(stage__in=stages)
    last_requested_at = rows.aggregate(at=Max("requested_at"))["at"]
    if last_requested_at is not None and now - last_requested_at < MIN_RETRY_INTERVAL:
        retry_at: datetime = last_requested_at + MIN_RETRY_INTERVAL
        return retry_at
    rows.update(answered_at=None, error="")
    return None


def load_usage() -> SearchUsage:
    """Return what searches have used of their share."""
    recent = RunLookup.objects.filter(from_search=True, requested_at__gt=db_threads.now() - HOUR)
    totals = recent.aggregate(all=Sum("request_count"), first=Min("requested_at"))
    resumes_at = totals["first"] + HOUR if totals["first"] else None
    limit = budget_store.load_limit()
    return SearchUsage(totals["all"] or 0, round(SEARCH_SHARE * limit), limit, resumes_at)


def _start_task(key: _TaskKey, work: Coroutine[Any, Any, str | None]) -> asyncio.Task[str | None]:
    task = _tasks[key] = asyncio.create_task(work)
    task.add_done_callback(lambda done: _finish_task(key, done))
    return task


def _finish_task(key: _TaskKey, task: asyncio.Task[str | None]) -> None:
    del _tasks[key]
    error = None if task.cancelled() else task.exception()
    if error is not None and not db_health.is_outage(error):
        log.error("run_lookup.crashed", exc_info=error)  # the stage is asked again after its lease


async def _claim_and_query(
    connection: Connection, stage: Stage, run_id: str, user_pk: int | None
) -> str | None:
    query = await run_in_db_thread(_claim_stage, stage, run_id, user_pk)
    return None if query is None else await _query_stage(connection, query, run_id)


async def _query_stage(connection: Connection, query: _StageQuery, run_id: str) -> str:
    """Ask one stage, and return as `find` does."""
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
        # In trouble of the whole account no search goes on; that of one stage holds up none.
        stage_error = "" if connection.is_account_wide(error) else str(error)
        await run_in_db_thread(_record_failure, query, run_id, stage_error)
        return _("Northflank could not be asked for it: %(error)s") % {"error": error}
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
        await run_in_db_thread(_store_path_segment, query.stage, path)
    await run_in_db_thread(_record_answer, query, run_id)
    return "" if is_found else _not_found_message()


async def _fetch_run(
    project: str, pipeline: str, stage: str, run_id: str, client: NorthflankClient
) -> RunDetail:
    return await client.get_run(project, pipeline, stage, run_id)


def _not_found_message() -> str:
    return _("Northflank does not know it either.")


def _paused_message() -> str:
    return _("Northflank can't be asked for it now: it asks for a pause between requests.")


def _exhausted_message() -> str:
    return _("Northflank can't be asked for it now: this hour's requests are spent.")


def _is_valid_id(run_id: str) -> bool:
    return "\x00" not in run_id and len(run_id) <= ID_LENGTH  # PostgreSQL takes no NUL


def _recent_lookups(run_id: str, now: datetime) -> QuerySet[RunLookup]:
    return RunLookup.objects.filter(run_id=run_id, requested_at__gt=now - ANSWER_LIFETIME)


def _lock_lookups() -> datetime:
    """Have whoever takes on to ask take turns, and return the time; old lookups go."""
    Upstream.objects.select_for_update().first()
    now = db_threads.now()
    RunLookup.objects.filter(requested_at__lte=now - ANSWER_LIFETIME).delete()
    return now


def _answer_locally(stage: Stage, run_id: str, user_pk: int | None) -> str | None:
    """Return what `find` returns without asking; None: Northflank is to be asked."""
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
                "Your links to runs never read here have used their %(n)s requests this hour."
            )
            return message % {"n": MAX_REQUESTS_PER_USER}
    return None


def _claim_stage(stage: Stage, run_id: str, user_pk: int | None) -> _StageQuery | None:
    """Take on to ask one stage; None: another process does so, or was answered meanwhile."""
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
    """Take on to ask the next stages, `most` of them, and return how far the search is."""
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
        chosen = [pk for pk in pending if pk not in excess]
        if not chosen:
            message = _("Looking again has used its part of what searches may use.")
            return [], replace(progress, blocked_reason=message, resumes_at=capacity.resumes_at)
        chosen = chosen[: min(limit, capacity.requests)]
        stages_by_key = Stage.objects.select_related("pipeline__project").in_bulk(chosen)
        # Before anything was read both spellings would cost a whole search its second half.
        confirmed_segment = path_spelling.find_confirmed() or "production"
        queries = [
            _StageQuery(
                stages_by_key[pk],
                _candidate_segments(stages_by_key[pk], confirmed_segment),
                from_search=True,
            )
            for pk in chosen
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
    """Return a search with why it waits, where all that is left could not be asked."""
    failed = [row for row in rows if row.error and row.answered_at is None]
    if not failed or any(_is_leased(row, now) for row in rows):
        return progress
    message = ngettext(
        "One stage could not be asked: %(error)s",
        "%(n)s stages could not be asked, the last one for this: %(error)s",
        len(failed),
    ) % {"n": len(failed), "error": max(failed, key=lambda row: row.requested_at).error}
    retry_at = min(row.requested_at for row in failed) + FAILURE_BACKOFF
    return replace(progress, blocked_reason=message, resumes_at=retry_at)


@dataclass(frozen=True, slots=True)
class _SearchCapacity:
    """How many requests searches may send now, of which `for_again` may repeat earlier ones."""

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
            resumes_at=read_budget.backoff_until or read_budget.probe_until,
        )
    if available <= 0:
        return _SearchCapacity(blocked_reason=_exhausted_message(), resumes_at=window_ends_at)
    usage = load_usage()
    if not usage.remaining:
        message = _("Searches have used their %(n)s requests of this hour.") % {"n": usage.share}
        return _SearchCapacity(blocked_reason=message, resumes_at=usage.resumes_at)
    run_lookups = RunLookup.objects.filter(
        run_id=run_id, from_search=True, requested_at__gt=now - HOUR
    )
    run_usage = run_lookups.aggregate(n=Sum("request_count"), first=Min("requested_at"))
    run_remaining = round(PER_RUN_SHARE * usage.share) - (run_usage["n"] or 0)
    if run_remaining <= 0:
        message = _("The search for this run has used its part of what searches may use.")
        return _SearchCapacity(blocked_reason=message, resumes_at=run_usage["first"] + HOUR)
    # Others of the account get theirs, and reading keeps half at least of what it has without.
    own_requests = max(available - read_budget.other_requests, MIN_OWN_SHARE * available)
    limit = min(usage.remaining, run_remaining, int(own_requests - usage.used) // 2)
    if limit <= 0:
        message = _("What is left of this hour's requests is kept for what is in flight.")
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
    """Return how addresses may spell a stage: as has worked, there or elsewhere; else both ways."""
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
    """Write down what is asked now, before it is."""
    for query in queries:
        row = lookups.get(query.stage.pk)
        lookup = row or RunLookup(run_id=run_id, stage=query.stage, request_count=0)
        if row is not None and row.requested_at <= now - HOUR:
            lookup.request_count, lookup.from_search = 0, False  # no more of this hour
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


def _store_path_segment(stage: Stage, path: str) -> None:
    Stage.objects.filter(pk=stage.pk, confirmed_path_segment="").update(confirmed_path_segment=path)


def _exclude_from_burst(query: _StageQuery) -> None:
    if query.from_search:
        budget_store.exclude_from_burst(len(query.path_segments))
