"""Runs in flight, mirrored without a full sync, and users who request aborts."""

import contextlib
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from math import inf

import httpx
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from selectolax.lexbor import LexborHTMLParser

from dashboard.aborts import messages as abort_messages
from dashboard.aborts.reconcile import reconcile_open_aborts
from dashboard.models import Abort, Pipeline, Project, Run, Stage, append_only
from dashboard.northflank import NorthflankClient, RunDetail, WorkRef
from dashboard.sandbox import Options, parse_fault
from dashboard.sandbox.catalog import ReleaseFlow
from dashboard.sync import mirror
from dashboard.sync.run_reader import read_run
from dashboard.web.http import links
from tests.support.live import WAIT_TIMEOUT, Live, run_live, token

LEDGER = ("payments", "ledger", "Staging")
SEARCH = ("shop", "search", "Production")  # aborts there are slow or have no effect


MIN_SECONDS = 90  # for which a run with a condition lasts: some fail after two


def create_run_in_flight(
    live: Live,
    place: tuple[str, str, str] = LEDGER,
    *,
    condition: Callable[[float], bool] | None = None,
) -> Run:
    """Start a run in the sandbox and mirror it; `condition` tests a random number from its id."""
    run_id = start_run(live, place, condition)
    return mirror_run(live, place, run_id)


def start_run(
    live: Live, place: tuple[str, str, str], condition: Callable[[float], bool] | None = None
) -> str:
    now, world = live.sandbox.clock(), live.sandbox.world
    for _ in range(100):
        run_id = world.start_run(flow(live, place), now, {}).id
        chance = int(run_id[-6:], 16) / 0x1000000
        if condition is None:
            return run_id
        ends = {run.id: run.concluded_at for run in world.list_runs(flow(live, place), now)}
        if condition(chance) and ends[run_id] > now + MIN_SECONDS:
            return run_id
    raise AssertionError("no run met the condition")


def flow(live: Live, place: tuple[str, str, str]) -> ReleaseFlow:
    release_flow = live.sandbox.world.find_flow(*place)
    assert release_flow is not None
    return release_flow


def mirror_run(live: Live, place: tuple[str, str, str], run_id: str) -> Run:
    """Mirror one run in its current state in the sandbox."""
    detail = live.run(lambda: live.connection.client.get_run(*place, run_id))
    row = mirror.apply_detail(stage(place).pk, detail, requested_at=timezone.now())
    return Run.objects.with_stage().get(pk=row.pk)


@contextlib.contextmanager
def run_live_with_survivor() -> Iterator[tuple[Live, Run]]:
    """Serve the dashboard, with a run that waits for a job run that survives the run's abort."""
    place = ("shop", "survivor", "Production")
    options = Options(
        scenario="jobs-and-builds", rate_limit=100_000, opened_at=int(time.time()), history_hours=1
    )
    with run_live(options) as live:
        page = live.run(lambda: live.connection.client.list_runs(*place, concluded=False))
        yield live, mirror_run(live, place, page.items[-1].id)


def stage(place: tuple[str, str, str]) -> Stage:
    now = timezone.now()
    project, _ = Project.objects.get_or_create(slug=place[0], defaults={"synced_at": now})
    pipeline, _ = Pipeline.objects.get_or_create(
        project=project, slug=place[1], defaults={"synced_at": now}
    )
    row, _ = Stage.objects.get_or_create(
        pipeline=pipeline,
        name=place[2],
        defaults={
            "has_flow": True,
            "next_sync_at": now,
        },
    )
    return row


def waiting_run(live: Live, pipeline: str) -> Run:
    """Mirror the run that waits for a job run or build, of this pipeline of `jobs-and-builds`."""
    place = ("shop", pipeline, "Production")
    runs = live.sandbox.world.list_runs(flow(live, place), live.sandbox.clock())
    last_run = max(runs, key=lambda run: run.concluded_at)
    return mirror_run(live, place, last_run.id)


def remove_run(live: Live, run_id: str) -> None:
    """Remove a run from the sandbox's responses."""
    live.sandbox.faults = [parse_fault(f"404@/runs/{run_id}"), parse_fault(f"hidden:{run_id}")]


def abort_path(run: Run) -> str:
    return reverse("abort", args=[*links.stage_url_args(run.stage), run.run_id])


def submit_abort(
    client: httpx.Client, run: Run, *, htmx: bool = True, reason: str = "Stuck"
) -> httpx.Response:
    """Submit the abort form, by htmx or as a browser without JavaScript."""
    headers = {"HX-Request": "true"} if htmx else {}
    return client.post(
        abort_path(run),
        data={"csrfmiddlewaretoken": token(client), "reason": reason},
        headers=headers,
        timeout=WAIT_TIMEOUT,
    )


def notice_text(answer: httpx.Response) -> str:
    """Return the text of the page-wide notice in a response."""
    assert answer.status_code == 200, answer.text
    notice = LexborHTMLParser(answer.text).css_first(".notice p")
    assert notice is not None, answer.text
    return " ".join(notice.text().split())


def abort_message(abort: Abort | None = None) -> str:
    row = abort or Abort.objects.get()
    return abort_messages.describe(row, Run.objects.get(pk=row.run_id)).plain_text


def advance_time(live: Live, seconds: float) -> None:
    """Advance the sandbox's clock by `seconds`; the dashboard's clock does not change."""
    previous_clock = live.sandbox.clock
    live.sandbox.clock = lambda: previous_clock() + seconds


def read(live: Live, run: Run) -> Run:
    """Read this run and reconcile open aborts, as a worker does."""
    row = Run.objects.with_stage().get(pk=run.pk)
    live.run(lambda: read_run(live.connection, row))
    reconcile(live)
    return Run.objects.get(pk=run.pk)


def reconcile(live: Live) -> None:
    live.run(lambda: reconcile_open_aborts(live.connection))


def restart_resend_delay(abort: Abort) -> None:
    """Restart the one-second delay before an uncertain abort is resent, 0.9 seconds from now.

    On a slow machine the delay may otherwise pass between the response and the next reconcile.
    """
    with append_only_disabled():
        start = timezone.now() + timedelta(seconds=0.9)
        Abort.objects.filter(pk=abort.pk).update(claimed_at=start)


def backdate_abort(abort: Abort, **fields: float) -> None:
    """Move times of an abort into the past by the given seconds."""
    times = {
        name: getattr(abort, name) - timedelta(seconds=seconds) for name, seconds in fields.items()
    }
    with append_only_disabled():
        Abort.every.filter(pk=abort.pk).update(**times)


@contextlib.contextmanager
def append_only_disabled() -> Iterator[None]:
    """Allow writes that the database refuses otherwise, such as an abort of long ago."""
    append_only.drop_triggers(connection)
    try:
        yield
    finally:
        append_only.install_triggers(connection)


def shorten_upstream_timeout(live: Live, seconds: float = 0.4) -> None:
    """Let the dashboard wait only `seconds` for an abort that the sandbox leaves unanswered.

    Other requests keep their timeout, and so do aborts without such a fault: a busy machine may
    take longer than `seconds` to answer them.
    """

    class Client(NorthflankClient):
        async def abort_run(self, *path: str, deadline: float | None = None) -> RunDetail:
            return await super().abort_run(*path, deadline=shorten(deadline))

        async def abort_work(
            self, project_id: str, ref: WorkRef, *, deadline: float | None = None
        ) -> None:
            await super().abort_work(project_id, ref, deadline=shorten(deadline))

    def shorten(deadline: float | None) -> float | None:
        if not any(fault.name in {"reset", "reset-after"} for fault in live.sandbox.faults):
            return deadline
        return min(inf if deadline is None else deadline, time.monotonic() + seconds)

    client = Client(
        live.sandbox.options.token,
        base_url=live.upstream_url,
        on_call=live.connection.unrecorded_calls.append,
    )
    replace_client(live, client)


def replace_client(live: Live, client: NorthflankClient) -> None:
    """Replace the dashboard's Northflank client."""
    live.run(live.connection.client.aclose)
    live.connection.client = client


def wait_until[T](
    condition: Callable[[], T], seconds: float = WAIT_TIMEOUT, interval: float = 0.02
) -> T:
    """Return the result of `condition`, tried each `interval`, once it is true.

    Fail after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(interval)
    return result


def ago(seconds: float) -> datetime:
    return timezone.now() - timedelta(seconds=seconds)
