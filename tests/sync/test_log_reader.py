"""Reading the logs that people look at: how many requests, what is shown, and what goes wrong."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import msgspec
import pytest
import time_machine
from django.utils import timezone
from pytest_django import Settings

from dashboard.db.threads import run_in_db_thread
from dashboard.models import Lead, RateBudget, Run, Upstream, Work
from dashboard.northflank import NorthflankClient, WorkRef
from dashboard.runs import works
from dashboard.sync import log_reader
from dashboard.sync.log_reader import LogReader, LogView
from dashboard.texts.rich_text import Message
from dashboard.upstream.connection import Connection
from tests.support import factories, payloads
from tests.support.abort_answers import run_with_answers
from tests.support.world import T0, at

pytestmark = pytest.mark.usefixtures("closing_connections")

REF = WorkRef("job_run", "job", "migrate", "r1")
UNNAMED = WorkRef("job_run", "job", "migrate", None)
type Look = Callable[..., Awaitable[LogView]]


@dataclass
class Northflank:
    """Answers requests about one job run; counts them by kind, and the rate limit."""

    lines: list[tuple[float, str]] = field(default_factory=list)  # seconds after T0, oldest first
    job_run: dict[str, Any] = field(default_factory=dict)
    listed: list[dict[str, Any]] = field(default_factory=list)
    arguments: dict[str, str] = field(default_factory=dict)
    errors: dict[str, tuple[int, Any]] = field(default_factory=dict)  # by kind of request
    remaining: int = 1000
    requests: Counter[str] = field(default_factory=Counter)
    queries: list[httpx.QueryParams] = field(default_factory=list)  # of logs

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        kinds = {"logs": "log", "runs": "list"}
        kind = kinds.get(path.rpartition("/")[2], "status" if "/jobs/" in path else "run")
        self.requests[kind] += 1
        self.remaining -= 1
        headers = {"x-ratelimit-limit": "1000", "x-ratelimit-remaining": str(self.remaining)}
        elapsed = (timezone.now() - T0).total_seconds()  # since a window began
        headers |= {"x-ratelimit-reset": f"{3600 - elapsed % 3600:.0f}"}
        status, body = self.errors.get(kind, (200, None))
        if body is None:
            body = payloads.data(getattr(self, f"_{kind}")(request.url.params))
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return httpx.Response(status, content=content, headers=headers)

    def _log(self, query: httpx.QueryParams) -> Any:
        self.queries.append(query)
        newest = self.lines[::-1][: int(query["lineLimit"])]
        return [{"containerId": "c", "log": text, "ts": iso(seconds)} for seconds, text in newest]

    def _status(self, _query: object) -> Any:
        return job_run() | self.job_run

    def _list(self, _query: object) -> Any:
        return {"runs": self.listed}

    def _run(self, _query: object) -> Any:
        return payloads.detail(arguments=self.arguments)


def iso(seconds: float) -> str:
    return at(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_run(run_id: str = "r1", **fields: Any) -> dict[str, Any]:
    defaults = {"id": run_id, "runName": f"migrate-{run_id}", "status": "RUNNING"}
    return defaults | {"concluded": False, "startedAt": iso(1)} | fields


ENDED = {"status": "FAILED", "concluded": True, "concludedAt": iso(50)}


@dataclass
class Viewer:
    """Looks at the log of a run, whose time it decides."""

    run: Run
    ref: WorkRef
    traveller: time_machine.Traveller
    reader: LogReader
    step: dict[str, Any] = field(default_factory=dict)

    async def look(self, seconds: float, **options: Any) -> LogView:
        """Return what somebody sees who looks so many seconds after T0."""
        self.traveller.move_to(at(seconds))
        moment = at(seconds)
        await run_in_db_thread(
            lambda: Lead.objects.update(renewed_at=moment, round_ended_at=moment)
        )
        fields = {"status": "waiting", "started_at": T0, "work": self.ref} | self.step
        root = factories.node("Workflow", steps=(factories.node("JobRun", label="db", **fields),))
        awaited = works.awaited_work(self.run, root)
        assert awaited is not None
        return await self.reader.look(self.run, awaited, **options)


@pytest.fixture
def traveller() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(T0, tick=False) as traveller:
        yield traveller


@pytest.fixture
def watch(traveller: time_machine.Traveller) -> Callable[..., Any]:
    """Return a function that has a viewer look at a log of this Northflank."""
    Upstream.objects.create(pk=1)
    factories.leader()

    def watch(
        northflank: Northflank,
        visit: Callable[[Viewer], Awaitable[Any]],
        ref: WorkRef = REF,
        **run_fields: Any,
    ) -> Any:
        run = factories.run(factories.stage(), run_id=payloads.RUN_ID, **run_fields)
        results: list[Any] = []

        async def work(connection: Connection) -> None:
            reader = LogReader(connection, time.time)
            results.append(await visit(Viewer(run, ref, traveller, reader)))
            assert not connection.outage

        run_with_answers(northflank.answer, work)
        return results[0]

    return watch


def texts(view: LogView) -> list[str]:
    return [line.line.text for line in view.lines or ()]


def problem(view: LogView) -> str:
    return view.problem.key if isinstance(view.problem, Message) else str(view.problem)


# What is shown


def test_first_look_reads_the_job_run_its_values_and_its_newest_lines(watch: Any) -> None:
    northflank = Northflank([(10, "one"), (20, "two")])
    view = watch(northflank, lambda viewer: viewer.look(60))
    assert northflank.requests == {"status": 1, "run": 1, "log": 1}
    assert not str(view.problem)
    assert texts(view) == ["one", "two"]
    assert view.work is not None
    assert (view.work.name, view.last_line_at) == ("migrate-r1", at(20))


def test_log_is_asked_for_from_before_the_start_of_the_step(watch: Any) -> None:
    northflank = Northflank()
    watch(northflank, lambda viewer: viewer.look(7200))
    [query] = northflank.queries
    assert (query["startTime"], query["endTime"]) == (iso(-60), iso(7260))
    assert (query["runId"], query["lineLimit"]) == ("r1", "50")


def test_lines_are_in_the_order_of_their_times(watch: Any) -> None:
    view = watch(Northflank([(20, "b"), (10, "a"), (30, "c")]), lambda viewer: viewer.look(60))
    assert texts(view) == ["a", "b", "c"]


def test_arguments_of_the_run_are_not_shown(watch: Any) -> None:
    northflank = Northflank([(10, "using correct-horse now")])
    northflank.arguments = {"PASSWORD": "correct-horse"}
    view = watch(northflank, lambda viewer: viewer.look(60))
    assert texts(view) == ["using [redacted] now"]


def test_secrets_of_the_dashboard_are_not_shown(watch: Any, settings: Settings) -> None:
    settings.KNOWN_SECRETS = ["postgres://app:correct-horse@db/dashboard"]
    view = watch(Northflank([(10, "using correct-horse now")]), lambda viewer: viewer.look(60))
    assert texts(view) == ["using [redacted] now"]


def test_no_line_is_shown_while_the_values_of_the_run_are_unknown(watch: Any) -> None:
    northflank = Northflank([(10, "one")], errors={"run": (500, payloads.error("Down"))})
    view = watch(northflank, lambda viewer: viewer.look(60))
    assert (view.lines, problem(view)) == (None, "failed")
    assert not northflank.requests["log"]


def test_without_the_right_only_the_status_is_read(watch: Any) -> None:
    northflank = Northflank([(10, "one")])
    view = watch(northflank, lambda viewer: viewer.look(60, with_lines=False))
    assert northflank.requests == {"status": 1}
    assert (view.lines, view.work.status) == (None, "RUNNING")


def test_lines_are_not_in_the_text_of_an_error_report(watch: Any) -> None:
    view = watch(Northflank([(10, "a-line")]), lambda viewer: viewer.look(60))
    assert "a-line" not in repr(view)


def test_earlier_lines_are_read_when_somebody_wants_them(watch: Any) -> None:
    northflank = Northflank([(n, str(n)) for n in range(120)])

    async def visit(viewer: Viewer) -> tuple[LogView, ...]:
        first = await viewer.look(200)
        return first, await viewer.look(201, max_lines=200), await viewer.look(201)

    first, more, other = watch(northflank, visit)
    assert [(len(view.lines), view.has_more) for view in (first, more, other)] == [
        (50, True),
        (120, False),
        (50, True),
    ]
    assert northflank.requests["log"] == 2


def test_time_of_the_last_line_is_stored_and_shown_by_open_pages_once_a_minute(watch: Any) -> None:
    northflank = Northflank([(10, "one")])

    async def visit(viewer: Viewer) -> list[tuple[datetime, int]]:
        stored = []
        for seconds, line in ((12, 11), (18, 17), (90, 80), (400, 81)):
            northflank.lines.append((line, "next"))
            await viewer.look(seconds)
            work = await run_in_db_thread(Work.objects.get)
            run = await run_in_db_thread(Run.objects.get)
            stored.append((work.last_line_at, run.version))
        return stored

    stored = watch(northflank, visit)
    times = [time for time, _version in stored]
    assert times == [at(11), at(11), at(80), at(81)]
    assert len({version for _time, version in stored}) == 3


# How many requests


def test_viewers_of_one_run_share_each_read(watch: Any) -> None:
    northflank = Northflank([(10, "one")])

    async def visit(viewer: Viewer) -> None:
        await asyncio.gather(*(viewer.look(60) for _ in range(100)))
        await asyncio.gather(*(viewer.look(62) for _ in range(100)))

    watch(northflank, visit)
    assert northflank.requests["log"] == 1


def test_run_looked_at_for_an_hour_needs_a_tenth_of_the_hour(watch: Any) -> None:
    northflank = Northflank([(1, "one")])

    async def visit(viewer: Viewer) -> None:
        seconds = 3600.0  # when the window begins
        while seconds < 7200:
            northflank.lines.append((seconds, "next"))
            view = await viewer.look(seconds)
            seconds += view.looks_again_in

    watch(northflank, visit)
    assert 85 <= northflank.requests.total() <= 101
    assert northflank.requests["log"] > 0.8 * northflank.requests.total()
    assert RateBudget.objects.get().log_requests == northflank.requests.total()


def test_nothing_is_read_while_nobody_looks(watch: Any) -> None:
    northflank = Northflank([(10, "one")])

    async def visit(viewer: Viewer) -> None:
        await viewer.look(60)
        viewer.traveller.move_to(at(3600))
        await asyncio.sleep(0.05)

    watch(northflank, visit)
    assert northflank.requests["log"] == 1


def test_lines_are_forgotten_some_time_after_the_last_look_even_if_nobody_looks_again(
    watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[asyncio.TimerHandle] = []

    async def visit(viewer: Viewer) -> None:
        call_later = (loop := asyncio.get_running_loop()).call_later

        def record(delay: float, call: Any, *args: Any, **options: Any) -> asyncio.TimerHandle:
            handle = call_later(delay, call, *args, **options)
            if delay == log_reader.MEMORY:
                timers.append(handle)
            return handle

        monkeypatch.setattr(loop, "call_later", record)
        await viewer.look(60)
        await viewer.look(62)
        first, last = timers
        assert first.cancelled()
        assert viewer.reader._logs
        last._run()
        assert not viewer.reader._logs

    watch(Northflank([(10, "one")]), visit)


def test_after_earlier_lines_only_the_newest_are_read_once_nobody_wants_more(watch: Any) -> None:
    northflank = Northflank([(n, str(n)) for n in range(120)])

    async def visit(viewer: Viewer) -> None:
        await viewer.look(200, max_lines=1000)
        await viewer.look(300)
        await viewer.look(400)

    watch(northflank, visit)
    assert [query["lineLimit"] for query in northflank.queries] == ["1000", "1000", "50"]


def test_lines_that_take_too_long_to_search_are_shown_without_the_earlier_ones(
    watch: Any,
) -> None:
    northflank = Northflank([(n, f"{n} {'x' * 12_490}") for n in range(120)])

    async def visit(viewer: Viewer) -> list[LogView]:
        return [await viewer.look(at, max_lines=1000) for at in (200, 300)]

    views = watch(northflank, visit)
    assert [(len(view.lines), problem(view)) for view in views] == [(80, "too_large")] * 2
    assert views[0].lines[-1].line.text.startswith("119 ")
    assert [query["lineLimit"] for query in northflank.queries] == ["1000", "80"]


def test_lines_that_are_too_large_together_are_read_without_the_earlier_ones(watch: Any) -> None:
    northflank = Northflank([(n, "x" * 60_000) for n in range(120)])

    async def visit(viewer: Viewer) -> list[LogView]:
        return [await viewer.look(at, max_lines=1000) for at in (200, 201, 300)]

    views = watch(northflank, visit)
    assert [(len(view.lines), problem(view)) for view in views] == [(50, "too_large")] * 3
    assert [query["lineLimit"] for query in northflank.queries] == ["1000", "50", "50"]


@pytest.mark.parametrize(
    ("first", "second", "limits"),
    [
        ({"with_lines": False}, {}, ["50"]),
        ({}, {"max_lines": 200}, ["50", "200"]),
        ({"max_lines": 200}, {}, ["200"]),
    ],
)
def test_who_looks_during_a_read_of_less_gets_all_that_is_wanted(
    watch: Any, first: dict[str, Any], second: dict[str, Any], limits: list[str]
) -> None:
    northflank = Northflank([(n, str(n)) for n in range(200)])

    async def visit(viewer: Viewer) -> LogView:
        reading = asyncio.ensure_future(viewer.look(300, **first))
        while not northflank.requests:
            await asyncio.sleep(0)
        view = await viewer.look(300, **second)
        await reading
        return view

    view = watch(northflank, visit)
    assert len(view.lines) == second.get("max_lines", 50)
    assert [query["lineLimit"] for query in northflank.queries] == limits


def test_lines_are_not_read_while_only_those_without_the_right_look(watch: Any) -> None:
    northflank = Northflank([(10, "one")])

    async def visit(viewer: Viewer) -> LogView:
        await viewer.look(60)
        for seconds in range(120, 600, 60):
            await viewer.look(seconds, with_lines=False)
        assert northflank.requests["log"] == 3  # until nobody counts as looking at lines
        northflank.lines.append((599, "two"))
        return await viewer.look(600)

    assert texts(watch(northflank, visit)) == ["one", "two"]


def test_status_is_read_again_when_the_step_has_changed(watch: Any) -> None:
    northflank = Northflank([(10, "one")])

    async def visit(viewer: Viewer) -> LogView:
        await viewer.look(60)
        northflank.job_run = ENDED
        await viewer.look(66)
        viewer.step = {"status": "retrying"}
        return await viewer.look(72)

    view = watch(northflank, visit)
    assert northflank.requests["status"] == 2
    assert view.work.status == "FAILED"


def test_log_of_what_has_ended_is_read_once_more_and_then_no_more(watch: Any) -> None:
    northflank = Northflank([(49, "last words")], ENDED)

    async def visit(viewer: Viewer) -> LogView:
        await viewer.look(60)
        await viewer.look(82)
        return await viewer.look(500)

    view = watch(northflank, visit)
    assert northflank.requests["log"] == 2
    assert (view.looks_again_in, view.next_read_at) == (None, None)
    assert northflank.queries[-1]["endTime"] == iso(110)


# What stands in the way


def test_share_that_is_used_up_is_said_with_the_time_of_the_next_read(watch: Any) -> None:
    budget = {"limit": 1000, "remaining": 500, "synced_at": T0, "resets_at": at(1800)}
    RateBudget.objects.create(pk=1, log_requests=100, **budget)
    northflank = Northflank([(10, "one")])
    view = watch(northflank, lambda viewer: viewer.look(60))
    assert not northflank.requests
    assert problem(view) == "share_spent"
    assert view.next_read_at == at(1800)


def test_nothing_is_read_of_logs_from_the_reserve_for_aborts(watch: Any) -> None:
    budget = {"limit": 1000, "remaining": 100, "synced_at": T0, "resets_at": at(1800)}
    RateBudget.objects.create(pk=1, **budget)
    northflank = Northflank([(10, "one")])
    view = watch(northflank, lambda viewer: viewer.look(60))
    assert not northflank.requests
    assert "used up" in problem(view)


def test_nothing_is_read_of_logs_during_an_outage(watch: Any) -> None:
    northflank = Northflank([(10, "one")])

    async def visit(viewer: Viewer) -> LogView:
        await run_in_db_thread(lambda: Upstream.objects.update(error="unreachable", error_since=T0))
        return await viewer.look(60)

    view = watch(northflank, visit)
    assert not northflank.requests
    assert problem(view)


def test_logs_can_be_switched_off(watch: Any, settings: Any) -> None:
    settings.NORTHFLANK_LOG_REQUESTS = "0"
    northflank = Northflank([(10, "one")])
    assert problem(watch(northflank, lambda viewer: viewer.look(60))) == "off"
    assert not northflank.requests


@pytest.mark.parametrize(
    ("kind", "error", "expected"),
    [
        ("status", (404, payloads.error("No such run")), "gone"),
        ("status", (403, payloads.error("No")), "failed"),
        ("log", (401, payloads.error("No")), "failed"),
        ("log", (403, payloads.error("No")), "failed"),
        ("log", (500, payloads.error("Oh")), "failed"),
        ("log", (502, b"<html>Bad gateway</html>"), "failed"),
        ("log", (200, b"<html>Sign in</html>"), "failed"),
        ("log", (200, b'{"data": {}}'), "failed"),
        ("log", (200, b" " * 6_000_000), "failed"),
    ],
)
def test_error_is_said_and_is_no_outage(
    watch: Any, kind: str, error: tuple[int, Any], expected: str
) -> None:
    northflank = Northflank([(10, "one")], errors={kind: error})
    view = watch(northflank, lambda viewer: viewer.look(60))
    assert problem(view) == expected
    assert view.looks_again_in == 60
    assert Upstream.objects.get().error == ""


def test_lines_stay_while_the_log_cannot_be_read(watch: Any) -> None:
    northflank = Northflank([(10, "one")])

    async def visit(viewer: Viewer) -> LogView:
        await viewer.look(60)
        northflank.errors["log"] = (500, payloads.error("Oh"))
        return await viewer.look(70)

    view = watch(northflank, visit)
    assert (texts(view), problem(view)) == (["one"], "failed")


@pytest.mark.parametrize("answer", [(404, payloads.error("No logs")), (200, b'{"data": []}')])
def test_no_lines_are_no_error(watch: Any, answer: tuple[int, Any]) -> None:
    view = watch(Northflank(errors={"log": answer}), lambda viewer: viewer.look(60))
    assert (view.lines, view.problem, view.last_line_at) == ((), "", None)


def test_hostile_lines_are_shown_as_text(watch: Any) -> None:
    lines = [(1, "a\0b"), (2, "50%\r100%"), (3, "\u202eevil"), (4, "x" * 100_000), (5, "<b>")]
    view = watch(Northflank(lines), lambda viewer: viewer.look(60))
    assert texts(view)[1] == "100%"
    assert max(map(len, texts(view))) == 4000


# What the step does not name


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ([], "none_found"),
        ([job_run("a"), job_run("b")], "several_found"),
        ([job_run("a"), job_run("b", startedAt=iso(-900))], ""),
    ],
)
def test_job_run_that_the_step_does_not_name_is_found_by_its_time(
    watch: Any, listed: list[dict[str, Any]], expected: str
) -> None:
    northflank = Northflank([(10, "one")], listed=listed)
    view = watch(northflank, lambda viewer: viewer.look(60), UNNAMED)
    assert problem(view) == expected
    assert northflank.requests["list"] == 1
    if not expected:
        assert (view.work.work_id, view.work.is_probable) == ("a", True)
        assert northflank.queries[0]["runId"] == "a"


def test_failed_run_shows_the_last_lines_of_its_step(watch: Any) -> None:
    northflank = Northflank([(49, "No space left")], ENDED)

    async def visit(viewer: Viewer) -> LogView:
        viewer.step = {"status": "failure", "ended_at": at(50)}
        return await viewer.look(600)

    view = watch(northflank, visit, status="failure")
    assert texts(view) == ["No space left"]
    assert view.looks_again_in is None


def test_token_for_logs_is_used_for_all_but_the_run_itself(watch: Any) -> None:
    northflank = Northflank([(10, "one")])
    tokens: dict[str, str] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        tokens[request.url.path.rpartition("/")[2]] = request.headers["authorization"]
        return northflank.answer(request)

    async def visit(viewer: Viewer) -> LogView:
        connection = viewer.reader.connection
        transport = httpx.MockTransport(answer)
        on_call = connection.unrecorded_calls.append
        connection.logs_client = NorthflankClient("logs", transport=transport, on_call=on_call)
        return await viewer.look(60)

    assert texts(watch(northflank, visit)) == ["one"]
    assert tokens == {"r1": "Bearer logs", "logs": "Bearer logs"}
    assert northflank.requests["run"] == 1
    assert RateBudget.objects.get().remaining == 1000 - 3
