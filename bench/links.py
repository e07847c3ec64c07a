"""Links to runs that were never read: time until they open, and what invented ids cost.

    uv run bench/links.py            an hour
    uv run bench/links.py --quick    two minutes

Needs a PostgreSQL server (TEST_POSTGRES_URL, default: the local one as postgres), where it creates
and drops databases. Two `serve --no-sync` and a `sync` share a database of 180 stages, and a
sandbox with Northflank's rate limit that responds after 0.2 s. Prints a table, and exits with 1 if
a target is missed.
"""

import contextlib
import json
import logging
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg
from processes import (
    POSTGRES,
    ROOT,
    Browser,
    Response,
    Server,
    database,
    parse_options,
    scratch,
    serve_in_thread,
)
from tables import Table

sys.path.insert(0, str(ROOT))
from dashboard import sandbox
from dashboard.sandbox.catalog import ReleaseFlow
from dashboard.sandbox.errors import ApiError

LATENCY = "latency:0.2"
PIPELINES = 60
USERS = 10
FLOOD_SECONDS, QUICK_FLOOD_SECONDS = 3600, 60
LINK_INTERVAL = 5.0  # seconds between two invented ids of one user
RUN_PATH = re.compile(r"/projects/([^/]+)/pipelines/([^/]+)/release-flows/([^/]+)/runs/([^/]+)$")
REFRESH_SECONDS = re.compile(r'data-refresh="(\d+)"')
CREATE_STAGES = """
import json
from django.contrib.auth.models import User
from django.utils import timezone
from dashboard.models import Pipeline, Project, Stage
from dashboard.models.catalog import StageName
now = timezone.now()
for number in range({users}):
    User.objects.create_user(f"p{{number}}", password=f"p{{number}}")
for project_slug, slug in json.loads({pipelines!r}):
    defaults = {{"name": project_slug, "synced_at": now}}
    project, _ = Project.objects.get_or_create(slug=project_slug, defaults=defaults)
    pipeline = Pipeline.objects.create(project=project, slug=slug, name=slug, synced_at=now)
    for name in StageName:
        Stage.objects.create(pipeline=pipeline, name=name, next_sync_at=now)
"""
COUNT_UNREAD_STAGES = "SELECT count(*) FROM dashboard_stage WHERE synced_at IS NULL"
# By all ids and by one, in the last hour.
COUNT_SEARCH_READS = """
SELECT coalesce(sum(reads), 0), coalesce(max(reads), 0) FROM dashboard_readrequest
WHERE kind = 'search' AND requested_at > now() - interval '1 hour'
"""
COUNT_STALE_STAGES = """
SELECT count(DISTINCT stage.id) FROM dashboard_stage stage
JOIN dashboard_run run ON run.stage_id = stage.id AND run.in_flight
WHERE stage.fresh_until + interval '30 seconds' < now()
"""


@dataclass
class RequestLog:
    """ASGI application around the sandbox that counts the requests for single runs."""

    app: sandbox.Sandbox
    request_counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # by run id and place

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if match := RUN_PATH.search(scope["path"]):
            *place, run_id = match.groups()
            self.request_counts[run_id, "/".join(place).lower()] += 1
        await self.app(scope, receive, send)

    def list_flows(self) -> list[ReleaseFlow]:
        """Return the release flows of the first sixty pipelines."""
        pipelines = set(self.list_pipelines())
        return [
            flow
            for flow in self.app.world.list_flows()
            if (flow.project, flow.pipeline) in pipelines
        ]

    def list_pipelines(self) -> list[tuple[str, str]]:
        """Return project and pipeline of the first sixty pipelines."""
        pipelines = dict.fromkeys(
            (flow.project, flow.pipeline) for flow in self.app.world.list_flows()
        )
        return list(pipelines)[:PIPELINES]

    def start_run(self, stage: str) -> tuple[ReleaseFlow, str]:
        """Start a run in a stage of this name, if the policy allows it; return flow and id."""
        for flow in reversed(self.list_flows()):
            if flow.stage.lower() == stage:
                with contextlib.suppress(ApiError):
                    return flow, self.app.world.start_run(flow, self.app.clock(), {}).id
        raise SystemExit(f"No run can be started in {stage}.")


@contextlib.contextmanager
def serve_upstream() -> Iterator[tuple[str, RequestLog]]:
    """Serve a sandbox from this process."""
    options = sandbox.Options(scenario="100-pipelines", faults=[sandbox.parse_fault(LATENCY)])
    log = RequestLog(sandbox.Sandbox(options))
    with serve_in_thread(log) as url:
        yield url, log


@contextlib.contextmanager
def start_dashboards() -> Iterator[tuple[list[Server], RequestLog, dict[str, str]]]:
    """Start three processes on a new database with 180 stages; return when these have been read."""
    with scratch() as bench, database(POSTGRES) as url, serve_upstream() as (base_url, log):
        settings = {
            "DATABASE_URL": url,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": base_url,
            "NORTHFLANK_PROJECTS": ",".join({project for project, _ in log.list_pipelines()}),
        }
        bench.manage("migrate", "-v0", **settings)
        script = CREATE_STAGES.format(users=USERS, pipelines=json.dumps(log.list_pipelines()))
        bench.manage("shell", "--no-imports", "--command", script, **settings)
        servers = [bench.start("serve", "--no-sync", "--port", "0", **settings) for _ in range(2)]
        with bench.log.open("ab") as log_file:
            sync = subprocess.Popen(
                [sys.executable, "manage.py", "sync"],
                cwd=ROOT, env=bench.environment(settings), stdout=log_file, stderr=log_file,
            )  # fmt: skip
        try:
            while count(settings, COUNT_UNREAD_STAGES)[0]:
                time.sleep(1)
            yield servers, log, settings
        finally:
            sync.kill()
            sync.wait()


def count(settings: dict[str, str], query: str) -> tuple[int, ...]:
    """Return the only row of a query."""
    with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as connection:
        rows = connection.execute(query).fetchall()
    return tuple(int(value) for value in rows[0])


def sign_in_user(server: Server, number: int) -> Browser:
    browser = Browser(server.url)
    browser.sign_in(f"p{number}")
    return browser


def fetch_page(browser: Browser, address: str) -> Response:
    browser.http.close()  # the server closes idle connections
    return browser.request(address)


def follow_refreshes(browser: Browser, address: str, timeout: float = 60) -> tuple[float, int]:
    """Open an address and refresh its page until the run is found, for at most `timeout` seconds.

    Return the seconds and the final status; 0 after the timeout.
    """
    started_at = time.monotonic()
    while True:
        response = fetch_page(browser, address)
        if response.status == 302:
            address = response.headers["Location"]
        elif (match := REFRESH_SECONDS.search(response.text)) and (
            'data-page="run_search"' in response.text
        ):
            if time.monotonic() - started_at > timeout:
                return time.monotonic() - started_at, 0
            time.sleep(int(match[1]))
        else:
            return time.monotonic() - started_at, response.status


def build_link(flow: ReleaseFlow, run_id: str) -> str:
    """Return a link with the run's whole place."""
    return f"/runs/{run_id}/?project={flow.project}&pipeline={flow.pipeline}&stage={flow.stage}"


def measure_link(table: Table, name: str, browser: Browser, log: RequestLog) -> None:
    """Open a run that was never read by its whole location."""
    seconds, status = follow_refreshes(browser, build_link(*log.start_run("development")))
    is_in_time = status == 200 and seconds <= 2
    table.add(name, f"{seconds:.1f} s", target="<= 2 s", met=is_in_time)


def measure_search(table: Table, browser: Browser, log: RequestLog) -> None:
    """Open a run that was never read by its id alone.

    In Production: with more than 130 stages, some of the others are read as planned.
    """
    _, run_id = log.start_run("production")
    seconds, status = follow_refreshes(browser, f"/runs/{run_id}/")
    is_in_time = status == 200 and seconds <= 30
    name = "by its id alone, in Production"
    table.add(name, f"{seconds:.1f} s", target="<= 30 s", met=is_in_time)


def measure_flood(
    table: Table,
    browsers: list[Browser],
    log: RequestLog,
    settings: dict[str, str],
    flood_seconds: float,
) -> None:
    """Let all users open links to invented runs, one after another, and look again at each."""
    deadline = time.monotonic() + flood_seconds

    def open_invented_links(number: int) -> int:
        index = 0
        while time.monotonic() < deadline:
            for _ in range(2):
                fetch_page(browsers[number], f"/runs/invented-{number}-{index}/")
                time.sleep(LINK_INTERVAL / 2)
            index += 1
        return index

    stale_counts = []
    with ThreadPoolExecutor(USERS) as executor:
        results = executor.map(open_invented_links, range(USERS))
        while time.monotonic() < deadline:
            stale_counts.append(count(settings, COUNT_STALE_STAGES)[0])
            time.sleep(1)
        ids = sum(results)  # raises the threads' errors
    minutes = round(flood_seconds / 60)
    worst = max(stale_counts)
    name = f"{ids} invented ids of {USERS} users in {minutes} min: stages in flight read late"
    table.add(name, str(worst), target="0", met=not worst)
    total, most = count(settings, COUNT_SEARCH_READS)
    table.add("reads for all of them", str(total), target="<= 300", met=total <= 300)
    table.add("reads for one of them", str(most), target="<= 130", met=most <= 130)
    details = sum(times for key, times in log.request_counts.items() if "invented" in key[0])
    table.add("requests for single runs", str(details), target="0", met=not details)


def main() -> None:
    """Measure, print, and exit with 1 if a target is missed."""
    options = parse_options(__doc__ or "", quick="a flood of a minute")
    logging.disable()  # the sandbox's server logs every broken connection
    table = Table()
    with start_dashboards() as (servers, log, settings):
        browsers = [sign_in_user(servers[number % 2], number) for number in range(USERS)]
        measure_link(table, "whole location", browsers[0], log)
        measure_search(table, browsers[0], log)
        flood_seconds = QUICK_FLOOD_SECONDS if options.quick else FLOOD_SECONDS
        measure_flood(table, browsers, log, settings, flood_seconds)
        measure_link(table, "whole location afterwards", browsers[1], log)
    table.show()
    sys.exit(bool(table.missed))


if __name__ == "__main__":
    main()
