"""Processes that serve one database, with readers and people who abort while it fails."""

import contextlib
import itertools
import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
from django.db import connections
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.db.health import OutageCause
from dashboard.models import Abort, AbortEvent, Run
from dashboard.models.abort_lifecycle import EventType
from dashboard.sandbox.runs import Run as SandboxRun
from dashboard.sandbox.sandbox import Sandbox
from tests.support import abort_invariants, processes
from tests.support.databases import (
    LEDGER,
    PROCESS_DATABASE,
    abort_path,
    connected_to_database,
    create_idle_stage,
    create_run,
    run_path,
    stage_path,
)
from tests.support.live import token
from tests.support.live_runs import wait_until
from tests.support.processes import ProductFork, RunningProcess, product_fork, upstream
from tests.support.stream import messages

INTERVAL = 0.1  # seconds between two looks into the database
PAUSE = 0.1  # seconds between two aborts, and two rounds of pages
MAX_ABORTS = 100
ADDRESSES = ("/", "/board/", "/aborts/", "/health/", stage_path())
ANSWERS = {
    "Nothing was saved and nothing was sent to Northflank.": "nothing saved",
    "Your request was saved before the outage": "saved",
    "Your request may or may not have been saved": "doubtful",
}


@dataclass
class Answers:
    """What readers and people who abort have got."""

    pages: Counter[int] = field(default_factory=Counter)
    """The number of answers by status."""
    texts: set[str] = field(default_factory=set)
    """What pages say of the database, with TIME for the time."""
    aborts: dict[str, str] = field(default_factory=dict)
    """What is said of the abort, by run."""


@dataclass
class OutageSite:
    """Processes that share a database and a sandbox, each with a client of the same user."""

    sandbox: Sandbox
    processes: list[RunningProcess]
    clients: list[httpx.Client]
    streams: list[list[str]]
    """The events of each process's stream so far; "": a change."""
    addresses: tuple[str, ...]
    """The pages that are read: of all kinds, one of them of a run."""
    folder: Path
    parent: ProductFork

    @contextlib.contextmanager
    def process(self, module: str = "manage", **variables: str) -> Iterator[httpx.Client]:
        """Run one more process until the block ends, and yield its signed-in client."""
        serve = (module, "serve", "--port", "0")
        with processes.fork(*serve, folder=self.folder, parent=self.parent, **variables) as process:
            self.processes.append(process)
            self.clients.append(process.sign_in("boss"))
            yield self.clients[-1]

    def start_runs(self, count: int) -> list[SandboxRun]:
        """Start runs upstream, and mirror them."""
        connections[PROCESS_DATABASE].close()  # a fault may have ended the test's own connection
        return [_start_run(self.sandbox) for _ in range(count)]

    @contextlib.contextmanager
    def load(self) -> Iterator[Answers]:
        """Read pages and abort one run after the other, until the block ends."""
        runs = self.start_runs(MAX_ABORTS)
        answers, ended = Answers(), threading.Event()
        with ThreadPoolExecutor(1 + len(self.clients)) as executor:
            tasks = [
                executor.submit(self._read_pages, client, answers, ended) for client in self.clients
            ]
            tasks.append(executor.submit(self._abort_runs, runs, answers, ended))
            try:
                yield answers
            finally:
                ended.set()
                for task in tasks:
                    task.result()

    def _read_pages(self, client: httpx.Client, answers: Answers, ended: threading.Event) -> None:
        while not ended.is_set():
            for address in self.addresses:
                answer = client.get(address)
                answers.pages[answer.status_code] += 1
                answers.texts |= outage_texts(answer)
            assert client.get("/healthz").status_code == 200
            ended.wait(PAUSE)

    def _abort_runs(self, runs: list[SandboxRun], answers: Answers, ended: threading.Event) -> None:
        for run, client in zip(runs, itertools.cycle(self.clients), strict=False):
            # What was not saved is tried again: however long the outage, runs are left after it.
            while (
                not ended.is_set()
                and answers.aborts.get(run.id, "nothing saved") == "nothing saved"
            ):
                answers.aborts[run.id] = submit_abort(client, run.id)
                ended.wait(PAUSE)

    def wait_until_up(self) -> None:
        """Wait until each process is ready, answers pages and sends changes again."""
        connections[PROCESS_DATABASE].close()  # the test's own may have been lost, too
        for client, events in zip(self.clients, self.streams, strict=True):
            seen = len(events)
            wait_until(partial(self._is_up, client), processes.WAIT_TIMEOUT, INTERVAL)
            wait_until(lambda: "" in events[seen:], processes.WAIT_TIMEOUT, INTERVAL)  # noqa: B023

    def _is_up(self, client: httpx.Client) -> bool:
        return all(client.get(path).status_code == 200 for path in ("/readyz", *self.addresses))

    def assert_aborts_are_whole(self, answers: Answers) -> None:
        """Wait until all aborts have settled; fail if one is half-written, lost or doubled."""
        for run_id, answer in answers.aborts.items():
            abort = self._wait_until_settled(run_id)
            request_count = self.sandbox.abort_request_counts[run_id]
            if abort is None:
                assert answer in {"nothing saved", "doubtful"}, (run_id, answer)
                assert request_count == 0, (run_id, answer)
                continue
            assert answer in {"aborted", "saved", "doubtful"}, (run_id, answer)
            events = list(AbortEvent.objects.using(PROCESS_DATABASE).filter(abort=abort))
            types = [event.event_type for event in events]
            assert types.count(EventType.SENT) == abort.send_count
            assert request_count == 1, (types, answer)
            # Recorded as sent by a process that then could not send it in time.
            is_repeated = EventType.ADOPTED in types or EventType.UNKNOWN in types
            assert abort.send_count <= 1 + is_repeated, (types, answer)
            assert abort.outcome == "aborted", (types, answer)
            abort_invariants.assert_abort_is_consistent(
                abort, events, status="aborted", request_count=request_count
            )

    def _wait_until_settled(self, run_id: str) -> Abort | None:
        def find_settled() -> Abort | bool:
            aborts = Abort.objects.using(PROCESS_DATABASE).filter(run__run_id=run_id)
            abort = aborts.select_related("run").first()
            if abort is None or abort.settled_at is not None:
                return abort or True
            make_due(run_id)
            return False

        settled = wait_until(find_settled, processes.WAIT_TIMEOUT, INTERVAL)
        return settled if isinstance(settled, Abort) else None


def make_due(run_id: str) -> None:
    """Make a run due for a read, as if time had passed."""
    waiting = Run.objects.using(PROCESS_DATABASE).filter(
        run_id=run_id, next_detail_sync_at__gt=timezone.now()
    )
    waiting.update(next_detail_sync_at=timezone.now())


def _start_run(sandbox: Sandbox) -> SandboxRun:
    flow = sandbox.world.find_flow(*LEDGER)
    assert flow is not None
    run = sandbox.world.start_run(flow, sandbox.clock(), {})
    create_run(run.id)
    return run


def _is_down(client: httpx.Client, cause: OutageCause) -> bool:
    answer = client.get("/readyz")
    return (answer.status_code, answer.text) == (503, f"database: {cause}\n")


def submit_abort(client: httpx.Client, run_id: str) -> str:
    """Submit an abort; return what the answer says of it."""
    form = {"csrfmiddlewaretoken": token(client)}
    # Answered at the end of an outage or a pause.
    answer = client.post(abort_path(run_id), data=form, timeout=4 * processes.WAIT_TIMEOUT)
    if answer.status_code == 302:
        return "aborted"
    assert answer.status_code == 503, (answer.status_code, answer.text)
    return next(meaning for text, meaning in ANSWERS.items() if text in answer.text)


def outage_texts(answer: httpx.Response) -> set[str]:
    """Return what a page says of the database, with TIME for the time."""
    elements = LexborHTMLParser(answer.text).css("[data-reason], [data-database-outage] p")
    texts = {" ".join(element.text().split()) for element in elements}
    return {re.sub(r"since \d\d:\d\d:\d\d", "since TIME", text) for text in texts}


def database_states(process: RunningProcess) -> list[str]:
    """Return the state of the database after each line of a process's log about it."""
    lines = re.findall(
        r"database\.(up|down) .*?(?:cause=(\w+)|$)", process.log.read_text(), re.MULTILINE
    )
    return [cause or state for state, cause in lines]


def unexpected_log_lines(process: RunningProcess) -> list[str]:
    """Return the lines of a process's log that have nothing to do with runs or outages."""
    expected = r"\] ((abort|access|database|notify|process|pruning|run)\.|sync\.lead)"
    return [line for line in process.log.read_text().splitlines() if not re.search(expected, line)]


@contextlib.contextmanager
def outage_site(
    folder: Path, database: str, *, process_url: str = "", count: int = 1
) -> Iterator[OutageSite]:
    """Run `count` processes on an empty database, which they reach at `process_url` if given."""
    with contextlib.ExitStack() as stack:
        url, sandbox = stack.enter_context(upstream())
        sandbox.choices["abort-seconds"] = "0.2"
        variables = {
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": url,
            "LOG_LEVEL": "INFO",
        }
        processes.prepare_database(DATABASE_URL=database, **variables)
        stack.enter_context(connected_to_database(database))
        create_idle_stage()
        addresses = (*ADDRESSES, run_path(_start_run(sandbox).id))
        variables["DATABASE_URL"] = process_url or database
        parent = stack.enter_context(product_fork(**variables))
        serve = ["manage", "serve", "--port", "0"]
        starts = [processes.fork(*serve, folder=folder, parent=parent) for _ in range(count)]
        started = [stack.enter_context(start) for start in starts]
        clients = [process.sign_in("boss") for process in started]
        streams = [stack.enter_context(_followed_stream(client)) for client in clients]
        yield OutageSite(sandbox, started, clients, streams, addresses, folder, parent)


@contextlib.contextmanager
def _followed_stream(client: httpx.Client) -> Iterator[list[str]]:
    """Yield the growing list of the events of a client's stream, which must not end before."""
    events: list[str] = []
    with (
        ThreadPoolExecutor(1) as executor,
        client.stream("GET", "/live/?page=now", timeout=None) as answer,
    ):

        def follow() -> None:
            with contextlib.suppress(httpx.TransportError):
                events.extend(message.event for message in messages(answer))

        task = executor.submit(follow)
        try:
            yield events
            assert not task.done(), "the stream has ended"
        finally:
            connection = answer.extensions["network_stream"].get_extra_info("socket")
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _is_refused(client: httpx.Client, runs: Iterator[SandboxRun], answers: Answers) -> bool:
    """Submit an abort of the next run; return whether nothing was saved."""
    run = next(runs)
    answers.aborts[run.id] = submit_abort(client, run.id)
    return answers.aborts[run.id] == "nothing saved"


def endure(
    site: OutageSite, fault: contextlib.AbstractContextManager[None], cause: OutageCause
) -> Answers:
    """Let pages and aborts go on before, during and after a fault in which nothing can be saved.

    Return what they have got. Fail unless each process logs the outage, recovers by itself, and
    all aborts are whole.
    """
    runs = site.start_runs(MAX_ABORTS)
    with site.load() as answers:
        wait_until(lambda: len(answers.aborts) >= 3, processes.WAIT_TIMEOUT)
        with fault:
            for client in site.clients:
                wait_until(partial(_is_down, client, cause), processes.WAIT_TIMEOUT, INTERVAL)
            # On a full disk some may be saved: parts of its files are free.
            runs_left = iter(runs)
            for client in site.clients:
                wait_until(
                    partial(_is_refused, client, runs_left, answers), 2 * processes.WAIT_TIMEOUT
                )
                answers.texts |= outage_texts(client.get("/board/"))
                # A page that nobody has viewed yet, so that this view would be recorded.
                page = client.get(run_path(runs[-1].id))
                assert page.status_code == 200 or cause is OutageCause.NO_RESPONSE, page.text
        site.wait_until_up()
        before = len(answers.aborts)
        wait_until(lambda: len(answers.aborts) >= before + 4, processes.WAIT_TIMEOUT)
    site.assert_aborts_are_whole(answers)
    assert set(answers.pages) <= {200, 503}, answers.pages
    for process in site.processes:
        states = database_states(process)
        assert states[-1] == "up"
        assert all(state != following for state, following in itertools.pairwise(states)), states
        lines = unexpected_log_lines(process)
        assert lines == [], lines
    return answers
