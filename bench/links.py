"""Links to runs that were never read: time until they open, and requests for invented ids.

    uv run bench/links.py

Needs a PostgreSQL server (TEST_POSTGRES_URL, default: the local one as postgres), where it creates
and drops databases. Two `serve --no-sync` share a database of 180 unread stages, and a sandbox with
Northflank's rate limit that responds after 0.2 s. Prints a table, and exits with 1 if a target is
missed.
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
from itertools import chain
from typing import Any

import psycopg
from processes import (
    POSTGRES,
    ROOT,
    Bench,
    Browser,
    Response,
    Server,
    database,
    scratch,
    serve_in_thread,
)
from tables import Table

sys.path.insert(0, str(ROOT))
from dashboard import sandbox
from dashboard.sandbox.catalog import ReleaseFlow

LATENCY = "latency:0.2"
PIPELINES = 60
USERS, INVENTED_IDS = 10, 100
CHECK_SECONDS = 60  # of the flood, in which the planned reads are checked
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

    def start_run(self, flow: ReleaseFlow) -> str:
        """Start a run; return its id."""
        return self.app.world.start_run(flow, self.app.clock(), {}).id


@contextlib.contextmanager
def serve_upstream() -> Iterator[tuple[str, RequestLog]]:
    """Serve a sandbox from this process."""
    options = sandbox.Options(scenario="100-pipelines", faults=[sandbox.parse_fault(LATENCY)])
    log = RequestLog(sandbox.Sandbox(options))
    with serve_in_thread(log) as url:
        yield url, log


@contextlib.contextmanager
def start_dashboards() -> Iterator[tuple[Bench, list[Server], RequestLog, dict[str, str]]]:
    """Start two processes on a new database with 180 unread stages and a new rate limit window."""
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
        yield bench, servers, log, settings


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
            'data-page="run_lookup"' in response.text
        ):
            if time.monotonic() - started_at > timeout:
                return time.monotonic() - started_at, 0
            time.sleep(int(match[1]))
        else:
            return time.monotonic() - started_at, response.status


def build_link(flow: ReleaseFlow, run_id: str) -> str:
    """Return a link with the run's whole place."""
    return f"/runs/{run_id}/?project={flow.project}&pipeline={flow.pipeline}&stage={flow.stage}"


def measure_links(table: Table) -> None:
    """Open a run that was never read by its place, and another one by its id alone."""
    with start_dashboards() as (_bench, servers, log, _settings):
        browser = sign_in_user(servers[0], 0)
        flows = log.list_flows()
        seconds, status = follow_refreshes(browser, build_link(flows[0], log.start_run(flows[0])))
        is_in_time = status == 200 and seconds <= 2
        table.add("whole location", f"{seconds:.1f} s", target="<= 2 s", met=is_in_time)
        last_flow = next(flow for flow in reversed(flows) if flow.stage.lower() == "development")
        run_id = log.start_run(last_flow)
        seconds, status = follow_refreshes(browser, f"/runs/{run_id}/")
        request_count = sum(count for key, count in log.request_counts.items() if key[0] == run_id)
        is_in_time = status == 200 and seconds <= 30
        name = f"by its id alone, in the last of 180 stages ({request_count} requests)"
        table.add(name, f"{seconds:.1f} s", target="<= 30 s", met=is_in_time)


def measure_flood(table: Table) -> None:
    """Let users open links to invented runs while a sync worker reads."""
    with start_dashboards() as (bench, servers, log, settings):
        stale_counts: list[int] = []
        browsers = [[sign_in_user(server, number) for server in servers] for number in range(USERS)]
        with bench.log.open("ab") as log_file:
            sync = subprocess.Popen(
                [sys.executable, "manage.py", "sync"],
                cwd=ROOT, env=bench.environment(settings), stdout=log_file, stderr=log_file,
            )  # fmt: skip
        try:
            time.sleep(20)  # some stages are read and have a planned next read

            def open_invented_links(number: int) -> None:
                for index in range(number, INVENTED_IDS, USERS):
                    for browser in (*browsers[number], browsers[number][0]):
                        fetch_page(browser, f"/runs/invented-{index}/")

            with ThreadPoolExecutor(USERS) as executor:
                results = executor.map(open_invented_links, range(USERS))
                with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as connection:
                    deadline = time.monotonic() + CHECK_SECONDS
                    while time.monotonic() < deadline:
                        rows = connection.execute(COUNT_STALE_STAGES)
                        stale_counts.extend(chain.from_iterable(rows))
                        time.sleep(1)
                list(results)  # raises the threads' errors
            request_counts = [
                count for key, count in log.request_counts.items() if key[0].startswith("invented")
            ]
            worst = max(stale_counts)
            name = "stages with runs in flight read later than planned"
            table.add(name, str(worst), target="0", met=not worst)
            total = sum(request_counts)
            name = f"{INVENTED_IDS} invented ids, {USERS} users, two processes, each three times"
            table.add(name, f"{total} requests", target="<= 200", met=total <= 200)
            repeated = sum(count > 1 for count in request_counts)
            name = "stages requested twice for one id"
            table.add(name, str(repeated), target="0", met=not repeated)
            flow = log.list_flows()[-1]
            link = build_link(flow, log.start_run(flow))
            seconds, status = follow_refreshes(browsers[0][1], link)
            is_in_time = status == 200 and seconds <= 2
            table.add(
                "whole location afterwards", f"{seconds:.1f} s", target="<= 2 s", met=is_in_time
            )
        finally:
            sync.kill()
            sync.wait()


def main() -> None:
    """Measure, print, and exit with 1 if a target is missed."""
    logging.disable()  # the sandbox's server logs every broken connection
    table = Table()
    measure_links(table)
    measure_flood(table)
    table.show()
    sys.exit(bool(table.missed))


if __name__ == "__main__":
    main()
