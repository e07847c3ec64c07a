"""Links to runs that were never read: time until they open, and cost of invented ids.

    uv run bench/links.py

Needs a PostgreSQL server (TEST_POSTGRES_URL, default: the local one as postgres), where it creates
and drops databases. Two `serve --no-sync` share a database of 180 unread stages, and a sandbox with
Northflank's rate limit that answers after 0.2 s. Prints a table, and exits with 1 if a target is
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
from running import ROOT, Answer, Bench, Browser, Server, scratch, serve_in_thread
from tables import Table
from workers import database

sys.path.insert(0, str(ROOT))
from dashboard import sandbox
from dashboard.sandbox.catalog import ReleaseFlow

LATENCY = "latency:0.2"
PIPELINES = 60
PEOPLE, IDS = 10, 100
LATER = 60  # seconds since its start in which reads are checked
RUN = re.compile(r"/projects/([^/]+)/pipelines/([^/]+)/release-flows/([^/]+)/runs/([^/]+)$")
REFRESH = re.compile(r'data-refresh="(\d+)"')
SEED = """
import json
from django.contrib.auth.models import User
from django.utils import timezone
from dashboard.models import Pipeline, Project, Stage
from dashboard.models.catalog import StageName
now = timezone.now()
for number in range({people}):
    User.objects.create_user(f"p{{number}}", password=f"p{{number}}")
for project, pipeline in json.loads({places!r}):
    named = {{"name": project, "synced_at": now}}
    of, _ = Project.objects.get_or_create(slug=project, defaults=named)
    made = Pipeline.objects.create(project=of, slug=pipeline, name=pipeline, synced_at=now)
    for name in StageName:
        Stage.objects.create(pipeline=made, name=name, next_sync_at=now)
"""
LATE = """
SELECT count(DISTINCT stage.id) FROM dashboard_stage stage
JOIN dashboard_run run ON run.stage_id = stage.id AND run.in_flight
WHERE stage.fresh_until + interval '30 seconds' < now()
"""


@dataclass
class Log:
    """ASGI application around the sandbox that logs requests for single runs."""

    app: Any
    request_counts: Counter[tuple[str, str]] = field(default_factory=Counter)  # run id and location

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if match := RUN.search(scope["path"]):
            *place, run = match.groups()
            self.request_counts[run, "/".join(place).lower()] += 1
        await self.app(scope, receive, send)

    @property
    def box(self) -> sandbox.Sandbox:
        state: sandbox.Sandbox = self.app.state.sandbox
        return state

    def flows(self) -> list[ReleaseFlow]:
        """The release flows of the first sixty pipelines."""
        chosen = set(self.pipelines())
        return [
            flow for flow in self.box.world.list_flows() if (flow.project, flow.pipeline) in chosen
        ]

    def pipelines(self) -> list[tuple[str, str]]:
        places = dict.fromkeys(
            (flow.project, flow.pipeline) for flow in self.box.world.list_flows()
        )
        return list(places)[:PIPELINES]

    def start(self, flow: ReleaseFlow) -> str:
        return self.box.world.start_run(flow, self.box.clock(), {}).id


@contextlib.contextmanager
def upstream() -> Iterator[tuple[str, Log]]:
    """Serve a sandbox from this process."""
    options = sandbox.Options(scenario="100-pipelines", faults=[sandbox.parse_fault(LATENCY)])
    log = Log(sandbox.create_app(options))
    with serve_in_thread(log) as url:
        yield url, log


@contextlib.contextmanager
def dashboards() -> Iterator[tuple[Bench, list[Server], Log, dict[str, str]]]:
    """Start two processes on a new database with 180 unread stages and a new rate limit window."""
    with scratch() as bench, database() as url, upstream() as (base_url, log):
        settings = {
            "DATABASE_URL": url,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": base_url,
            "NORTHFLANK_PROJECTS": ",".join({project for project, _ in log.pipelines()}),
        }
        bench.manage("migrate", "-v0", **settings)
        seed = SEED.format(people=PEOPLE, places=json.dumps(log.pipelines()))
        bench.manage("shell", "--no-imports", "--command", seed, **settings)
        servers = [bench.start("serve", "--no-sync", "--port", "0", **settings) for _ in range(2)]
        yield bench, servers, log, settings


def person(server: Server, number: int) -> Browser:
    browser = Browser(server.url)
    browser.sign_in(f"p{number}")
    return browser


def fetch(browser: Browser, address: str) -> Answer:
    browser.http.close()  # the server closes idle connections
    return browser.ask(address)


def follow(browser: Browser, address: str, patience: float = 60) -> tuple[float, int]:
    """Open an address and follow its page's refreshes; return seconds and final status."""
    started_at = time.monotonic()
    while True:
        answer = fetch(browser, address)
        if answer.status == 302:
            address = answer.headers["Location"]
        elif (refresh := REFRESH.search(answer.text)) and 'data-page="run_lookup"' in answer.text:
            if time.monotonic() - started_at > patience:
                return time.monotonic() - started_at, 0
            time.sleep(int(refresh[1]))
        else:
            return time.monotonic() - started_at, answer.status


def hint(flow: ReleaseFlow, run: str) -> str:
    return f"/runs/{run}/?project={flow.project}&pipeline={flow.pipeline}&stage={flow.stage}"


def links(table: Table) -> None:
    with dashboards() as (_bench, servers, log, _settings):
        ada = person(servers[0], 0)
        flows = log.flows()
        flow = next(
            candidate for candidate in reversed(flows) if candidate.stage.lower() == "development"
        )
        seconds, status = follow(ada, hint(flows[0], log.start(flows[0])))
        is_in_time = status == 200 and seconds <= 2
        table.add("whole location", f"{seconds:.1f} s", target="<= 2 s", met=is_in_time)
        run = log.start(flow)
        seconds, status = follow(ada, f"/runs/{run}/")
        request_count = sum(
            count for (id_, _place), count in log.request_counts.items() if id_ == run
        )
        is_in_time = status == 200 and seconds <= 30
        name = f"by its id alone, in the last of 180 stages ({request_count} asked)"
        table.add(name, f"{seconds:.1f} s", target="<= 30 s", met=is_in_time)


def flood(table: Table) -> None:
    """Let users open links to invented runs while a worker reads."""
    with dashboards() as (bench, servers, log, settings):
        late: list[int] = []
        people = [[person(server, number) for server in servers] for number in range(PEOPLE)]
        with bench.log.open("ab") as out:
            sync = subprocess.Popen(
                [sys.executable, "manage.py", "sync"],
                cwd=ROOT, env=bench.environment(settings), stdout=out, stderr=out,
            )  # fmt: skip
        try:
            time.sleep(20)  # some stages are read and have a planned next read

            def open_all(number: int) -> None:
                for index in range(number, IDS, PEOPLE):
                    for browser in (*people[number], people[number][0]):
                        fetch(browser, f"/runs/made-up-{index}/")

            with ThreadPoolExecutor(PEOPLE) as executor:
                flooding = executor.map(open_all, range(PEOPLE))
                with psycopg.connect(settings["DATABASE_URL"], autocommit=True) as connection:
                    until = time.monotonic() + LATER
                    while time.monotonic() < until:
                        late.extend(chain.from_iterable(connection.execute(LATE)))
                        time.sleep(1)
                list(flooding)
            made_up = {
                key: n for key, n in log.request_counts.items() if key[0].startswith("made-up")
            }
            cost = sum(made_up.values())
            name = "stages with runs in flight past their promise"
            table.add(name, str(max(late)), target="0", met=not max(late))
            name = f"{IDS} made-up ids, {PEOPLE} people, two processes, each three times"
            table.add(name, f"{cost} requests", target="<= 200", met=cost <= 200)
            twice = sum(n > 1 for n in made_up.values())
            table.add("stages asked twice for one id", str(twice), target="0", met=not twice)
            flow = log.flows()[-1]
            seconds, status = follow(people[0][1], hint(flow, log.start(flow)))
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
    links(table)
    flood(table)
    table.show()
    sys.exit(bool(table.missed))


if __name__ == "__main__":
    main()
