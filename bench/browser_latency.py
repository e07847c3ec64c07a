"""Time until a change upstream shows in a real browser, with webhooks and without.

    uv run bench/browser_latency.py [--quick]

Uses a sandbox, a dashboard and a Chromium ($CHROMIUM or `chromium`). Runs are started and aborted
directly at the sandbox; measured is the time from the run's status `aborted` to the badge, with
Northflank's limit of 1,000 requests an hour. Exits with 1 if a target is missed.
"""

import argparse
import socket
import sys
import time

from playwright.sync_api import Page
from running import Upstream, scratch, start_dashboard, start_upstream
from stage_in_browser import FLOW, stage_page
from tables import Table, p, spread

TAKES = 0.5  # seconds from an accepted abort to `aborted` in the sandbox
SECRET = "only-for-the-bench"


def changes(page: Page, upstream: Upstream, times: int) -> list[float]:
    """Abort runs upstream; return the milliseconds until the page shows it."""
    ages = []
    for _ in range(times):
        upstream.connect()
        run, _ms = upstream.post(f"/v1{FLOW}runs")
        row = page.locator(f'[data-run="{run["id"]}"]')
        for _ in range(60):  # a new run is announced, and shown on request
            if row.count():
                break
            time.sleep(1)
            page.reload()
        row.wait_for()
        time.sleep(1)
        upstream.connect()
        upstream.post(f"/v1{FLOW}runs/{run['id']}/abort")
        start_time = time.perf_counter() + TAKES
        page.locator(f'[data-run="{run["id"]}"][data-status="aborted"]').wait_for(timeout=120_000)
        ages.append((time.perf_counter() - start_time) * 1000)
    return ages


def measure(*, body: str, times: int) -> list[float]:
    """Measure with webhooks of one kind (`ids`, `project`), or without."""
    with scratch() as bench, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        webhook = [
            "--webhook", f"http://127.0.0.1:{port}/hooks/northflank/",
            "--webhook-secret", SECRET,
            "--choice", f"webhook-body={body}",
        ]  # fmt: skip
        upstream = start_upstream(
            bench,
            *("--rate-limit", "1000", "--choice", f"abort-seconds={TAKES}"),
            *(webhook if body else ()),
        )
        secret = SECRET if body else ""
        server, _ = start_dashboard(bench, upstream, port=port, NORTHFLANK_WEBHOOK_SECRET=secret)
        with stage_page(server.url) as page:
            return changes(page, upstream, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the changes")
    times = 5 if parser.parse_args().quick else 20
    table = Table()
    with_ids = measure(body="ids", times=times)
    met = p(0.95, with_ids) < 1000
    table.add("webhooks that name the run", spread(with_ids), target="p95 < 1 s", met=met)
    table.add("webhooks that name only the project", spread(measure(body="project", times=times)))
    table.add("no webhooks", spread(measure(body="", times=times)))
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
