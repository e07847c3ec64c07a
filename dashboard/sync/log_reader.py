"""Read the logs that people look at: one read for all viewers in a process, none for nobody.

What a step waits for is read at first, when the step changes, and every few minutes; else only its
newest lines. They are kept in memory alone, without secrets, and not for long after the last look.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from time import monotonic
from typing import NamedTuple

from django.conf import settings
from django.utils.translation import gettext_lazy

from dashboard.db import threads as db_threads
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Run, Work
from dashboard.northflank import (
    LogLine,
    NorthflankError,
    NotFound,
    SecretValues,
    ShownLine,
    UnexpectedResponse,
    WorkRef,
    show_lines,
)
from dashboard.runs import steps
from dashboard.runs import works as work_rules
from dashboard.runs.works import AwaitedWork
from dashboard.sync import requests, works
from dashboard.texts.rich_text import ExternalText, MessageTable, RichText
from dashboard.upstream import budget_store
from dashboard.upstream.connection import Connection, get_connection
from dashboard.upstream.log_share import LogShare

LINES, MAX_LINES = 50, 1_000  # lines: at first, and at most, which is Northflank's limit
LOOK_INTERVAL = 60.0  # seconds between two looks of an open page, or less if it is read sooner
LOOK_LIFETIME = 150.0  # seconds after a look during which somebody counts as looking
MEMORY = 600.0  # seconds after the last look until the lines are forgotten
MAX_CHARACTERS = 1_000_000  # of lines beyond the first: each takes 0.3 µs to search for secrets
MAX_REQUESTS = 4  # of one read: what it is of, the values of the run, the lines, fewer lines
MAX_WAIT = 8.0  # seconds that a page waits for a read that is under way
STATUS_INTERVAL = timedelta(minutes=5)  # between two reads of a job run or build in progress
RETRY_INTERVAL = 60.0  # seconds until the next read after one that failed, or found nothing
LATE_LINES = timedelta(seconds=30)  # after an end, in which lines still arrive
SPAN_MARGIN = timedelta(minutes=1)  # around the times of a job run: clocks differ
_text = MessageTable(
    {
        "share_spent": gettext_lazy("This hour’s %(n)d API requests for logs are used up."),
        "off": gettext_lazy("Reading logs is switched off (NORTHFLANK_LOG_REQUESTS)."),
        "gone": gettext_lazy("Northflank does not have it (404)."),
        "none_found": gettext_lazy(
            "Nothing of %(owner)s started at that time, and the step names none."
        ),
        "several_found": gettext_lazy(
            "%(n)d of %(owner)s started at that time; the step does not name its own."
        ),
        "too_large": gettext_lazy("Only the last %(n)d lines can be read: more are too large."),
        "failed": gettext_lazy("It could not be read from Northflank. %(error)s"),
    }
)


class DatedLine(NamedTuple):
    """A line as it can be shown, and about when it was written."""

    at: datetime | None
    line: ShownLine


@dataclass(frozen=True, slots=True)
class LogView:
    """What a look at a log shows: the same for all viewers."""

    work: Work | None = None  # None: not known yet
    lines: tuple[DatedLine, ...] | None = field(default=None, repr=False)  # None: not read
    has_more: bool = False  # there may be earlier lines
    read_at: datetime | None = None  # of the lines
    next_read_at: datetime | None = None  # None: not again, it has ended
    problem: RichText = ""  # why something is not shown
    looks_again_in: float | None = None  # seconds; None: nothing changes any more

    @property
    def last_line_at(self) -> datetime | None:
        return max((line.at for line in self.lines or () if line.at is not None), default=None)


@dataclass
class _Log:
    """A log that somebody looks at, or did not long ago; times in seconds of the reader's clock."""

    opened_at: float
    looks: dict[int, float] = field(default_factory=dict)  # the last for so many lines; 0: none
    max_lines: int = MAX_LINES  # fewer after a response with more could not be used
    asked: int = 0  # lines, by the last read
    next_at: float = 0.0
    read_step: object = None  # the state of the step at the last read of its work
    values: SecretValues | None = field(default=None, repr=False)
    view: LogView = LogView()
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None  # until it is forgotten

    def wanted(self, now: float) -> int:
        """Return how many lines those who look now want, at most."""
        since = now - LOOK_LIFETIME
        return max((lines for lines, at in self.looks.items() if at > since), default=0)

    def lacks(self, lines: int) -> bool:
        """Return whether the last read was of fewer lines, and there may be more."""
        return self.asked < min(lines, self.max_lines) and (self.view.has_more or not self.asked)


class _Unreadable(Exception):
    """Why nothing is read, and for how many seconds."""

    def __init__(self, text: RichText, seconds: float = RETRY_INTERVAL) -> None:
        super().__init__()
        self.text, self.seconds = text, seconds


class LogReader:
    """The logs that are looked at in this process."""

    def __init__(self, connection: Connection, clock: Callable[[], float] = monotonic) -> None:
        self.connection = connection
        self._clock = clock
        self._logs: dict[tuple[int, str, WorkRef], _Log] = {}

    async def look(
        self, run: Run, awaited: AwaitedWork, *, max_lines: int = LINES, with_lines: bool = True
    ) -> LogView:
        """Return what a run waits for, with its newest lines; read now if a read is due.

        `run` with its stage. Without `with_lines` only the status is read, for those who may not
        see the log.
        """
        now, loop, key = self._clock(), asyncio.get_running_loop(), _key(run, awaited)
        log = self._logs.setdefault(key, _Log(opened_at=now))
        if log.timer is not None:
            log.timer.cancel()
        log.timer = loop.call_later(MEMORY, self._logs.pop, key, None)
        if max(log.looks.values(), default=now) < now - LOOK_LIFETIME:
            log.opened_at = now
        wanted = max(max_lines, LINES) if with_lines else 0
        log.looks[wanted] = now
        is_due, give_up_at = now >= log.next_at - 1, loop.time() + MAX_WAIT
        # A read that is under way may be of fewer lines than are wanted here.
        while (task := log.task) is not None or is_due or log.lacks(wanted):
            if task is None:
                log.asked = min(log.wanted(now), log.max_lines)
                task = log.task = asyncio.ensure_future(self._read(run, awaited, log))
            await asyncio.wait({task}, timeout=max(give_up_at - loop.time(), 0))
            if not task.done():
                return replace(log.view, looks_again_in=2.0)
            if log.task is task:
                log.task = None
            task.result()  # raises what is no error of Northflank
            is_due = False
        return self._view(log, max_lines)

    def _view(self, log: _Log, max_lines: int) -> LogView:
        view, lines = log.view, log.view.lines
        if lines is not None and len(lines) > max_lines:
            view = replace(view, lines=lines[-max_lines:], has_more=True)
        if max_lines > log.max_lines and not view.problem:
            view = replace(view, problem=_text("too_large", n=log.max_lines))
        if math.isinf(log.next_at):
            return view
        seconds = max(log.next_at - self._clock(), 1.0)
        return replace(view, looks_again_in=min(seconds, LOOK_INTERVAL))

    async def _read(self, run: Run, awaited: AwaitedWork, log: _Log) -> None:
        try:
            work = await run_in_db_thread(work_rules.stored, run, *awaited)
            log.view = replace(log.view, work=work or log.view.work)
            share = await run_in_db_thread(_find_share)
            work = await self._read_work(run, awaited, log, work)
            log.view = replace(log.view, work=work)
            if log.asked:
                await self._read_lines(run, awaited, work, log)
        except NorthflankError as error:
            problem = _text("failed", error=ExternalText(str(error), 400))
            self._plan(log, RETRY_INTERVAL, problem)
        except _Unreadable as reason:
            self._plan(log, reason.seconds, reason.text)
        else:
            self._plan(log, self._interval(log, share))

    def _interval(self, log: _Log, share: LogShare) -> float:
        """Return the seconds until the next read; infinite if nothing more is to come."""
        now, work = db_threads.now(), log.view.work
        if work is not None and work.concluded:
            ended_at = work.ended_at or work.synced_at
            late_for = (ended_at + LATE_LINES - now).total_seconds()
            return late_for + 1 if late_for > 0 else math.inf
        if not log.asked:
            return STATUS_INTERVAL.total_seconds()
        loop_time = self._clock()
        logs = sum(other.wanted(loop_time) > 0 for other in self._logs.values())
        return share.interval(logs=logs, looked_for=loop_time - log.opened_at)

    def _plan(self, log: _Log, seconds: float, problem: RichText = "") -> None:
        """Have the log read again in so many seconds, and show the problem until then."""
        log.next_at = self._clock() + seconds
        is_last = math.isinf(seconds)
        next_read_at = None if is_last else db_threads.now() + timedelta(seconds=seconds)
        log.view = replace(log.view, next_read_at=next_read_at, problem=problem)

    async def _read_work(
        self, run: Run, awaited: AwaitedWork, log: _Log, work: Work | None
    ) -> Work:
        """Return what the step waits for, read now if that is due; raises _Unreadable."""
        node, ref = awaited
        step_state = node.status, node.ended_at, run.status
        is_unchanged = log.read_step in {None, step_state}
        log.read_step = step_state
        if work is not None:
            is_fresh = db_threads.now() - work.synced_at < STATUS_INTERVAL
            if is_unchanged and (is_fresh or work.concluded):
                return work
            ref = replace(ref, id=work.work_id)
        if ref.id is None:
            return await self._find_work(run, awaited)
        is_probable = work is not None and work.is_probable
        work = await works.read_work(
            self.connection, run, steps.key(node), ref, is_probable=is_probable, for_logs=True
        )
        if work is None:
            raise _Unreadable(_text("gone"))
        return work

    async def _find_work(self, run: Run, awaited: AwaitedWork) -> Work:
        """Return what the step has probably started, found by its time; raises _Unreadable."""
        (node, ref), requested_at = awaited, db_threads.now()
        project_id = run.stage.pipeline.project.slug
        page = await self.connection.call_aside(
            lambda nf: nf.list_works(project_id, ref), for_logs=True
        )
        found = work_rules.probable_works(node, ref, page.items)
        if len(found) != 1:
            key = "several_found" if found else "none_found"
            raise _Unreadable(_text(key, n=len(found), owner=ExternalText(ref.owner_id)))
        arguments = run.pk, steps.key(node), ref, found[0]
        return await run_in_db_thread(
            works.store, *arguments, requested_at=requested_at, is_probable=True
        )

    async def _read_lines(self, run: Run, awaited: AwaitedWork, work: Work, log: _Log) -> None:
        node, ref = awaited
        pipeline, now, count = run.stage.pipeline, db_threads.now(), log.asked
        place = pipeline.project.slug, pipeline.slug, run.stage.name
        call = partial(self.connection.call_aside, for_logs=True)
        if log.values is None:
            own = await call(
                lambda nf: nf.get_secret_values(*place, run.run_id), by_main_token=True
            )
            log.values = own | SecretValues(settings.KNOWN_SECRETS)
        # From the start of the step: after a shorter span, silence would look like no log at all.
        starts = filter(None, (work_rules.attempt_start(node), work.started_at))
        since = min(starts, default=run.started_at or run.created_at) - SPAN_MARGIN
        until = (work.ended_at if work.concluded and work.ended_at else now) + SPAN_MARGIN
        of_work = replace(ref, id=work.work_id)

        async def read(count: int) -> list[LogLine]:
            return await call(
                lambda nf: nf.read_log(place[0], of_work, since=since, until=until, max_lines=count)
            )

        try:
            lines = await read(count)
        except NotFound:  # as some answer where there are no lines
            lines = []
        except UnexpectedResponse:  # perhaps too large: the earlier lines of one are not for all
            if count <= LINES:
                raise
            log.max_lines = count = LINES
            lines = await read(count)
        sizes = accumulate(len(line.text) for line in lines)
        fitting = max(sum(size <= MAX_CHARACTERS for size in sizes), LINES)
        if len(lines) > fitting:  # whole lines: none is cut within a secret
            log.max_lines = count = fitting
            lines = lines[:fitting]
        shown = await asyncio.to_thread(show, lines, log.values)
        log.view = replace(log.view, lines=shown, has_more=len(lines) == count, read_at=now)
        if (at := log.view.last_line_at) is not None:
            await run_in_db_thread(works.store_last_line, work, at)


def show(lines: list[LogLine], values: SecretValues) -> tuple[DatedLine, ...]:
    """Return lines, as sent with the newest first, in the order of their times and as shown."""
    earliest = datetime.min.replace(tzinfo=UTC)
    ordered = list(reversed(lines))
    ordered.sort(key=lambda line: line.at or earliest)
    shown = show_lines([line.text for line in ordered], values)
    return tuple(DatedLine(ordered[line.index].at, line) for line in shown)


def _key(run: Run, awaited: AwaitedWork) -> tuple[int, str, WorkRef]:
    node, ref = awaited
    return run.pk, steps.key(node), ref


def _find_share() -> LogShare:
    """Return the share of logs; raises _Unreadable if nothing may be read now."""
    now = db_threads.now()
    share = budget_store.load_log_share(now)
    if not share.total:
        raise _Unreadable(_text("off"))
    if (obstacle := requests.find_obstacle(now)) is not None:
        until = obstacle.until or now + timedelta(seconds=RETRY_INTERVAL)
        raise _Unreadable(obstacle.reason, (until - now).total_seconds())
    if share.left < MAX_REQUESTS:
        raise _Unreadable(_text("share_spent", n=share.total), share.seconds)
    return share


_readers: list[LogReader] = []  # at most one


def get_reader() -> LogReader:
    """Return the reader of this process's connection to Northflank."""
    connection = get_connection()
    if not _readers or _readers[0].connection is not connection:
        _readers[:] = [LogReader(connection)]
    return _readers[0]
