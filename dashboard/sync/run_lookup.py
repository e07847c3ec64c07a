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
from dashboard.db.threads import in_database
from dashboard.models import QuestionCounter, Run, RunLookup, Stage, Upstream
from dashboard.models.catalog import ID_LENGTH
from dashboard.northflank import NorthflankClient, NorthflankError, NotFound, RunDetail
from dashboard.sync import mirror, path_spelling
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection
from dashboard.upstream.rate_budget import LEAST

log = structlog.get_logger(__name__)

HOUR = timedelta(hours=1)
# Searches may use this share of the requests that Northflank allows in an hour: enough to ask 180
# stages once, and at most a quarter of what reading has with the usual reserve.
SEARCH_SHARE = 0.2
# Of that, this share is left to stages that were not asked before, however often people look again.
FOR_NEW = 0.5
# Of that, one id may use so much, so that a stale link in an account of very many stages leaves
# something to others: enough for 180 stages, asked once.
FOR_ONE = 0.9
# Full addresses cost one request each and are bounded for each person, so that a broken machine
# with somebody's session locks out nobody else.
A_PERSON = 120  # requests an hour
# How long an answer counts. In an hour a search may reach some stages only, and an id that people
# have belongs to a run that was there before.
REMEMBERED = timedelta(hours=12)
AGAIN_AFTER = timedelta(minutes=2)  # an id is not looked for again sooner
REST = timedelta(minutes=5)  # a stage that could not be asked is left alone by searches
LEASE = timedelta(seconds=30)  # longer than a question waits for its answer
AT_ONCE = 8  # questions of searches under way in one process
STEP = 2.0  # seconds after which a search tells how far it is; it goes on when asked again
PATIENCE = 15.0  # seconds to wait for another process that asks for the same
PAUSE = 0.25  # seconds between two looks at what the other process has found

type _Key = tuple[int, int, str]  # the connection, by its id, the stage, and the run

# What this process asks just now.
_asking: dict[_Key, asyncio.Task[str | None]] = {}


@dataclass(frozen=True, slots=True)
class Search:
    """How far the search for a run has come: Northflank was asked for it in `asked` of `stages`."""

    asked: int
    stages: int
    why_not: str = ""  # why it does not go on just now
    goes_on_at: datetime | None = None  # when it does, where that is known
    found: bool = False

    @property
    def over(self) -> bool:
        return self.asked == self.stages


@dataclass(frozen=True, slots=True)
class Answered:
    """Northflank has answered that it does not know a run."""

    at: datetime  # the last answer
    until: datetime  # when the first of the stages is asked again


@dataclass(frozen=True, slots=True)
class Spent:
    """What searches have used of their share in the last hour, in requests."""

    used: int
    share: int
    limit: int
    goes_on_at: datetime | None = None  # when the first of those used is an hour old

    @property
    def left(self) -> int:
        return max(self.share - self.used, 0)


@dataclass(frozen=True, slots=True)
class _Question:
    stage: Stage
    spellings: tuple[str, ...]
    by_search: bool


async def find(to: Connection, stage: Stage, run_id: str, *, person: int | None = None) -> str:
    """Ask Northflank for a run we have never seen, in one stage, and mirror it.

    Returns "" when the run is in the mirror now, else a sentence saying why it is not. It does not
    depend on what searches have used. `person` is the key of who opened the address.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + PATIENCE
    key = id(to), stage.pk, run_id
    while True:
        if key not in _asking:
            known = await in_database(_known, stage, run_id, person)
            if known is not None:
                return known
        if key not in _asking:
            _start(key, _find(to, stage, run_id, person))
        said = await asyncio.shield(_asking[key])
        if said is not None:
            return said
        if loop.time() >= until:
            return _("It is being asked for just now: load this page again.")
        await asyncio.sleep(PAUSE)


async def search(
    to: Connection, stages: Sequence[int], run_id: str, *, seconds: float = STEP
) -> Search:
    """Ask for a run in its possible `stages`, by their keys, in this order, and mirror it.

    Returns after so many `seconds`, or when it is found or can't go on. Each call goes on where the
    last one ended, whoever made it, in whichever process.
    """
    if not _is_id(run_id):
        return Search(len(stages), len(stages))
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while True:
        if not to.may_ask():
            so_far = await in_database(_progress, stages, run_id)
            return replace(so_far, why_not=_("Northflank does not answer."))
        under_way = {key: task for key, task in _asking.items() if key[0] == id(to)}
        free = AT_ONCE - len(under_way) if loop.time() < until else 0
        questions, so_far = await in_database(_next, stages, run_id, max(free, 0))
        for question in questions:
            key = id(to), question.stage.pk, run_id
            under_way[key] = _start(key, _ask(to, question, run_id))
        ours = [task for key, task in under_way.items() if key[2] == run_id]
        left = until - loop.time()
        if so_far.found or so_far.over or left <= 0 or not under_way:
            return so_far
        if so_far.why_not and not ours:
            return so_far
        await asyncio.wait(
            ours or under_way.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED
        )


def answered(stages: Sequence[int], run_id: str) -> Answered | None:
    """Return when Northflank said that it knows the run in none of `stages`; None: it did not."""
    rows = _lookups(run_id, db_threads.now()).filter(stage__in=stages).exclude(answered_at=None)
    said = rows.aggregate(first=Min("asked_at"), last=Max("answered_at"))
    return Answered(said["last"], said["first"] + REMEMBERED) if said["last"] else None


def look_again(stages: Sequence[int], run_id: str) -> datetime | None:
    """Have `stages` asked anew for a run; where that is too soon, return from when it can be."""
    now = db_threads.now()
    rows = _lookups(run_id, now).filter(stage__in=stages)
    last = rows.aggregate(at=Max("asked_at"))["at"]
    if last is not None and now - last < AGAIN_AFTER:
        again_at: datetime = last + AGAIN_AFTER
        return again_at
    rows.update(answered_at=None, error="")
    return None


def spent() -> Spent:
    """Return what searches have used of their share."""
    lately = RunLookup.objects.filter(by_search=True, asked_at__gt=db_threads.now() - HOUR)
    used = lately.aggregate(all=Sum("requests"), first=Min("asked_at"))
    goes_on_at = used["first"] + HOUR if used["first"] else None
    limit = budget_store.limit()
    return Spent(used["all"] or 0, round(SEARCH_SHARE * limit), limit, goes_on_at)


def _start(key: _Key, work: Coroutine[Any, Any, str | None]) -> asyncio.Task[str | None]:
    task = _asking[key] = asyncio.create_task(work)
    task.add_done_callback(lambda done: _ended(key, done))
    return task


def _ended(key: _Key, done: asyncio.Task[str | None]) -> None:
    del _asking[key]
    error = None if done.cancelled() else done.exception()
    if error is not None and not db_health.is_outage(error):
        log.error("lookup.defect", exc_info=error)  # the stage is asked again after its lease


async def _find(to: Connection, stage: Stage, run_id: str, person: int | None) -> str | None:
    question = await in_database(_take_one, stage, run_id, person)
    return None if question is None else await _ask(to, question, run_id)


async def _ask(to: Connection, question: _Question, run_id: str) -> str:
    """Ask one stage, and return as `find` does."""
    project, pipeline = question.stage.pipeline.project.slug, question.stage.pipeline.slug
    asked_at, number = db_threads.now(), await in_database(QuestionCounter.take)
    said = None
    try:
        for path in question.spellings:
            with contextlib.suppress(NotFound):
                said = await to.ask(
                    partial(_run, project, pipeline, path, run_id), asked_seq=number
                )
                break
    except NorthflankError as error:
        # In trouble of the whole account no search goes on; that of one stage holds up none.
        told = "" if to.concerns_all(error) else str(error)
        await in_database(_keep_failure, question, run_id, told)
        return _("Northflank could not be asked for it: %(error)s") % {"error": error}
    found = said is not None and said.run.id == run_id
    if said is not None and not found:
        log.warning("lookup.other_run_answered", asked=run_id, got=said.run.id)
    if said is not None and found:
        await in_database(
            mirror.detail, question.stage.pk, said, asked_at=asked_at, asked_seq=number
        )
        await in_database(_keep_spelling, question.stage, path)
    await in_database(_keep_answer, question, run_id)
    return "" if found else _unknown()


async def _run(
    project: str, pipeline: str, stage: str, run_id: str, client: NorthflankClient
) -> RunDetail:
    return await client.run(project, pipeline, stage, run_id)


def _unknown() -> str:
    return _("Northflank does not know it either.")


def _paused() -> str:
    return _("Northflank can't be asked for it now: it asks for a pause between requests.")


def _reserved() -> str:
    return _("Northflank can't be asked for it now: this hour's requests are spent.")


def _is_id(run_id: str) -> bool:
    return "\x00" not in run_id and len(run_id) <= ID_LENGTH  # PostgreSQL takes no NUL


def _lookups(run_id: str, now: datetime) -> QuerySet[RunLookup]:
    return RunLookup.objects.filter(run_id=run_id, asked_at__gt=now - REMEMBERED)


def _lock() -> datetime:
    """Have whoever takes on to ask take turns, and return the time; old lookups go."""
    Upstream.objects.select_for_update().first()
    now = db_threads.now()
    RunLookup.objects.filter(asked_at__lte=now - REMEMBERED).delete()
    return now


def _known(stage: Stage, run_id: str, person: int | None) -> str | None:
    """Return what `find` returns without asking; None: Northflank is to be asked."""
    now = db_threads.now()
    if not _is_id(run_id):
        return _unknown()
    if Run.objects.filter(stage=stage, run_id=run_id).exists():
        return ""
    if _lookups(run_id, now).filter(stage=stage).exclude(answered_at=None).exists():
        return _unknown()
    spend = budget_store.allowance(now)
    if spend.paused:
        return _paused()
    if spend.requests <= 0:
        return _reserved()
    if person is not None:
        lately = RunLookup.objects.filter(person=person, asked_at__gt=now - HOUR)
        if (lately.aggregate(n=Sum("requests"))["n"] or 0) >= A_PERSON:
            said = _("Your links to runs never read here have used their %(n)s requests this hour.")
            return said % {"n": A_PERSON}
    return None


def _take_one(stage: Stage, run_id: str, person: int | None) -> _Question | None:
    """Take on to ask one stage; None: another process does so, or was answered meanwhile."""
    with transaction.atomic():
        now = _lock()
        row = _lookups(run_id, now).filter(stage=stage).first()
        if row is not None and (row.answered_at is not None or _is_asked(row, now)):
            return None
        question = _Question(stage, _spellings(stage, path_spelling.worked()), by_search=False)
        _write([question], {stage.pk: row} if row else {}, run_id, now, person)
        return question


def _next(stages: Sequence[int], run_id: str, most: int) -> tuple[list[_Question], Search]:
    """Take on to ask the next stages, `most` of them, and return how far the search is."""
    so_far = _progress(stages, run_id)
    if so_far.found or so_far.over:
        return [], so_far
    with transaction.atomic():
        now = _lock()
        rows = {row.stage_id: row for row in _lookups(run_id, now)}
        waiting = [pk for pk in stages if pk not in rows or _may_be_asked(rows[pk], now)]
        if not waiting:
            return [], _with_failures(so_far, [rows[pk] for pk in stages], now)
        room = _room(now, run_id)
        if room.why_not:
            return [], replace(so_far, why_not=room.why_not, goes_on_at=room.goes_on_at)
        again = [pk for pk in waiting if pk in rows]
        too_many = set(again[room.for_again :])
        chosen = [pk for pk in waiting if pk not in too_many]
        if not chosen:
            told = _("Looking again has used its part of what searches may use.")
            return [], replace(so_far, why_not=told, goes_on_at=room.goes_on_at)
        chosen = chosen[: min(most, room.requests)]
        found = Stage.objects.select_related("pipeline__project").in_bulk(chosen)
        # Before anything was read both spellings would cost a whole search its second half.
        worked = path_spelling.worked() or "production"
        questions = [
            _Question(found[pk], _spellings(found[pk], worked), by_search=True)
            for pk in chosen
            if pk in found
        ]
        _write(questions, rows, run_id, now)
    return questions, so_far


def _progress(stages: Sequence[int], run_id: str) -> Search:
    answers = _lookups(run_id, db_threads.now()).exclude(answered_at=None)
    asked = set(answers.values_list("stage", flat=True)).intersection(stages)
    places = set(Run.objects.filter(run_id=run_id).values_list("stage", flat=True))
    return Search(len(asked), len(stages), found=not places.isdisjoint(stages))


def _is_asked(row: RunLookup, now: datetime) -> bool:
    return row.lease_until is not None and row.lease_until > now


def _may_be_asked(row: RunLookup, now: datetime) -> bool:
    rests = bool(row.error) and row.asked_at > now - REST
    return row.answered_at is None and not rests and not _is_asked(row, now)


def _with_failures(so_far: Search, rows: Sequence[RunLookup], now: datetime) -> Search:
    """Return a search with why it waits, where all that is left could not be asked."""
    failed = [row for row in rows if row.error and row.answered_at is None]
    if not failed or any(_is_asked(row, now) for row in rows):
        return so_far
    told = ngettext(
        "One stage could not be asked: %(error)s",
        "%(n)s stages could not be asked, the last one for this: %(error)s",
        len(failed),
    ) % {"n": len(failed), "error": max(failed, key=lambda row: row.asked_at).error}
    again_at = min(row.asked_at for row in failed) + REST
    return replace(so_far, why_not=told, goes_on_at=again_at)


@dataclass(frozen=True, slots=True)
class _Room:
    """How many requests searches may send now, of which `for_again` may repeat earlier ones."""

    requests: int = 0
    for_again: int = 0
    why_not: str = ""
    goes_on_at: datetime | None = None


def _room(now: datetime, run_id: str) -> _Room:
    spend = budget_store.allowance(now)
    ends_at = now + timedelta(seconds=spend.seconds)
    under_way = RunLookup.objects.filter(lease_until__gt=now).aggregate(n=Sum("requests"))["n"] or 0
    requests = spend.requests - under_way
    if spend.paused:
        return _Room(why_not=_paused(), goes_on_at=spend.refused_until or spend.probe_until)
    if requests <= 0:
        return _Room(why_not=_reserved(), goes_on_at=ends_at)
    used = spent()
    if not used.left:
        told = _("Searches have used their %(n)s requests of this hour.") % {"n": used.share}
        return _Room(why_not=told, goes_on_at=used.goes_on_at)
    own = RunLookup.objects.filter(run_id=run_id, by_search=True, asked_at__gt=now - HOUR)
    by_one = own.aggregate(n=Sum("requests"), first=Min("asked_at"))
    for_one = round(FOR_ONE * used.share) - (by_one["n"] or 0)
    if for_one <= 0:
        told = _("The search for this run has used its part of what searches may use.")
        return _Room(why_not=told, goes_on_at=by_one["first"] + HOUR)
    # Others of the account get theirs, and reading keeps half at least of what it has without.
    ours = max(requests - spend.others, LEAST * requests)
    most = min(used.left, for_one, int(ours - used.used) // 2)
    if most <= 0:
        told = _("What is left of this hour's requests is kept for what is in flight.")
        return _Room(why_not=told, goes_on_at=ends_at)
    lately = RunLookup.objects.filter(by_search=True, repeated=True, asked_at__gt=now - HOUR)
    again = lately.aggregate(n=Sum("requests"))["n"] or 0
    return _Room(most, max(round((1 - FOR_NEW) * used.share) - again, 0), "", used.goes_on_at)


def _spellings(stage: Stage, worked: str | None) -> tuple[str, ...]:
    """Return how addresses may spell a stage: as has worked, there or elsewhere; else both ways."""
    if stage.path:
        return (stage.path,)
    likely = path_spelling.likely(stage.name, worked)
    return likely if worked is None else likely[:1]


def _write(
    questions: Sequence[_Question],
    rows: Mapping[int, RunLookup],
    run_id: str,
    now: datetime,
    person: int | None = None,
) -> None:
    """Write down what is asked now, before it is."""
    for question in questions:
        row = rows.get(question.stage.pk)
        asked = row or RunLookup(run_id=run_id, stage=question.stage, requests=0)
        if row is not None and row.asked_at <= now - HOUR:
            asked.requests, asked.by_search = 0, False  # no more of this hour
        asked.by_search = asked.by_search or question.by_search
        asked.requests += len(question.spellings)
        asked.repeated = row is not None
        if person is not None:
            asked.person_id = person
        asked.asked_at, asked.lease_until = now, now + LEASE
        asked.answered_at, asked.error = None, ""
        asked.save()


def _keep_answer(question: _Question, run_id: str) -> None:
    RunLookup.objects.filter(run_id=run_id, stage=question.stage).update(
        answered_at=db_threads.now(), lease_until=None
    )
    _set_aside(question)


def _keep_failure(question: _Question, run_id: str, error: str) -> None:
    RunLookup.objects.filter(run_id=run_id, stage=question.stage).update(
        error=error, lease_until=None
    )
    _set_aside(question)


def _keep_spelling(stage: Stage, path: str) -> None:
    Stage.objects.filter(pk=stage.pk, path="").update(path=path)


def _set_aside(question: _Question) -> None:
    if question.by_search:
        budget_store.set_aside(len(question.spellings))
