"""Time until a change upstream is visible in a real browser, with webhooks and without.

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
from processes import Upstream, scratch, start_dashboard, start_upstream
from stage_in_browser import FLOW_PATH, open_stage_page
from tables import Table, format_quantiles, quantile

ABORT_SECONDS = 0.5  # from an accepted abort to `aborted` in the sandbox
SECRET = "only-for-the-bench"


def measure_changes(page: Page, upstream: Upstream, repetitions: int) -> list[float]:
    """Abort runs upstream; return the milliseconds until the page shows each run as aborted."""
    latencies = []
    for _ in range(repetitions):
        upstream.connect()
        run, _ms = upstream.post(f"/v1{FLOW_PATH}runs")
        row = page.locator(f'[data-run="{run["id"]}"]')
        for _ in range(60):  # a new run is announced, and shown on request
            if row.count():
                break
            time.sleep(1)
            page.reload()
        row.wait_for()
        time.sleep(1)
        upstream.connect()
        upstream.post(f"/v1{FLOW_PATH}runs/{run['id']}/abort")
        aborted_at = time.perf_counter() + ABORT_SECONDS
        page.locator(f'[data-run="{run["id"]}"][data-status="aborted"]').wait_for(timeout=120_000)
        latencies.append((time.perf_counter() - aborted_at) * 1000)
    return latencies


def measure(*, webhook_body: str, repetitions: int) -> list[float]:
    """Measure with webhooks of one kind (`ids`, `project`), or without (empty)."""
    with scratch() as bench, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        listener.close()
        webhook_options = [
            "--webhook", f"http://127.0.0.1:{port}/hooks/northflank/",
            "--webhook-secret", SECRET,
            "--choice", f"webhook-body={webhook_body}",
        ]  # fmt: skip
        upstream = start_upstream(
            bench,
            *("--rate-limit", "1000", "--choice", f"abort-seconds={ABORT_SECONDS}"),
            *(webhook_options if webhook_body else ()),
        )
        secret = SECRET if webhook_body else ""
        server, _ = start_dashboard(bench, upstream, port=port, NORTHFLANK_WEBHOOK_SECRET=secret)
        with open_stage_page(server.url) as page:
            return measure_changes(page, upstream, repetitions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the changes")
    repetitions = 5 if parser.parse_args().quick else 20
    table = Table()
    for label, webhook_body in (
        ("webhooks that name the run", "ids"),
        ("webhooks that name only the project", "project"),
        ("no webhooks", ""),
    ):
        latencies = measure(webhook_body=webhook_body, repetitions=repetitions)
        has_target = webhook_body == "ids"
        table.add(
            label,
            format_quantiles(latencies),
            target="p95 < 1 s" if has_target else "",
            met=quantile(0.95, latencies) < 1000 if has_target else None,
        )
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
