"""A page and an abort of a signed-in user while attackers guess passwords.

    uv run bench/password_guessing.py [--quick]

A real dashboard on SQLite uses a sandbox that responds to an abort after 0.2 s. Another process
holds 50 connections, each of which posts wrong passwords as fast as it gets responses: first from
one address for one account, which is soon throttled; then each time from another address for
another account, so that no attempt is. Meanwhile a release manager requests Now, aborts runs, and
signs in with a known browser. Exits with 1 if a target is missed. Two minutes.
"""

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from processes import Browser, Upstream, scratch, start_dashboard, start_upstream, wait_for
from tables import Table, format_quantiles, quantile

CONNECTIONS = 50
ABORT_LATENCY = 0.2  # seconds until the sandbox responds to an abort
PAGE_TARGET, ABORT_TARGET = 200, 500  # milliseconds, p95
# Stages that allow any number of concurrent runs.
STAGES = [
    "projects/payments/pipelines/billing-api/release-flows/development",
    "projects/shop/pipelines/search/release-flows/development",
    "projects/payments/pipelines/ledger/release-flows/staging",
    "projects/identity/pipelines/auth-gateway/release-flows/development",
]
CSRF_TOKEN = "0123456789abcdefghijABCDEFGHIJkl"


# --- Attackers, in a process of their own ---------------------------------------------------------


async def post_guesses(host: str, port: int, many_accounts: bool, statuses: Counter[str]) -> None:
    """Post wrong passwords until cancelled; count the responses by status."""
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(host, port)
            while True:
                number = statuses.total() if many_accounts else 0
                name = f"guess-{number}" if many_accounts else "ada"
                address = f"10.{number // 65536 % 256}.{number // 256 % 256}.{number % 256}"
                body = f"username={name}&password=wrong&csrfmiddlewaretoken={CSRF_TOKEN}"
                writer.write(
                    f"POST /accounts/login/ HTTP/1.1\r\nHost: {host}:{port}\r\n"
                    f"X-Forwarded-For: {address}\r\nCookie: csrftoken={CSRF_TOKEN}\r\n"
                    "Content-Type: application/x-www-form-urlencoded\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                head = await reader.readuntil(b"\r\n\r\n")
                statuses[head.split(b" ", 2)[1].decode()] += 1
                length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
                if length is None:  # chunked: a new connection is simpler than to decode it
                    writer.close()
                    break
                await reader.readexactly(int(length[1]))


async def guess_until_closed(url: str, many_accounts: bool) -> None:
    """Guess on all connections until standard input ends, then print the counts as JSON."""
    host, port = urlsplit(url).netloc.split(":")
    statuses: Counter[str] = Counter()
    tasks = [
        asyncio.create_task(post_guesses(host, int(port), many_accounts, statuses))
        for _ in range(CONNECTIONS)
    ]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(statuses))


@contextlib.contextmanager
def guess_meanwhile(url: str, *, many_accounts: bool) -> Iterator[Counter[str]]:
    """Guess passwords; the yielded counter has the responses by status at the end."""
    statuses: Counter[str] = Counter()
    command = [
        sys.executable,
        __file__,
        "--guess",
        url,
        *(["--many-accounts"] if many_accounts else []),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        time.sleep(8 if not many_accounts else 3)  # until the one account is throttled
        yield statuses
        output, _ = process.communicate()
    statuses.update(json.loads(output))


# --- Users ----------------------------------------------------------------------------------------


def start_runs(upstream: Upstream, client: Browser, count: int) -> list[str]:
    """Start runs at the sandbox; return their addresses once the dashboard lists them."""
    upstream.connect()
    addresses = []
    for number in range(count):
        stage = STAGES[number % len(STAGES)]
        data, _ = upstream.post(f"/v1/{stage}/runs")
        addresses.append(f"/{stage}/runs/{data['id']}/")
    wait_for(
        lambda: all(address in client.request("/").text for address in addresses),
        "the runs on Now",
        0.5,
    )
    return addresses


def measure(
    table: Table, situation: str, client: Browser, runs: list[str], pages: int, *, has_target: bool
) -> None:
    """Request pages and abort the runs in turn; add both figures to the table."""
    client.http.close()  # the server closes idle connections
    page_times, abort_times = [], []
    pages_per_abort = max(pages // len(runs), 1)
    for number in range(pages):
        response = client.request("/")
        assert response.status == 200, response.status
        page_times.append(response.ms)
        if number % pages_per_abort == 0 and runs:
            response = client.request(
                f"{runs.pop()}abort/", {"reason": "bench"}, {"HX-Request": "true"}
            )
            assert response.status == 200, response.text
            abort_times.append(response.ms)
    for name, times, target in (
        (f"Now, {situation} ({len(page_times)} requests)", page_times, PAGE_TARGET),
        (f"… an abort ({len(abort_times)} runs)", abort_times, ABORT_TARGET),
    ):
        met = quantile(0.95, times) < target if has_target else None
        table.add(
            name,
            format_quantiles(times),
            target=f"p95 < {target} ms" if has_target else "",
            met=met,
        )


def measure_sign_ins(table: Table, browser: Browser, times: int) -> None:
    """Sign a known browser out and in; add the duration of signing in to the table."""
    browser.http.close()
    figures = []
    for _ in range(times):
        browser.request("/accounts/logout/", {})
        browser.request("/accounts/login/")
        response = browser.request("/accounts/login/", {"username": "ada", "password": "ada"})
        figures.append(response.ms if response.status == 302 else float("inf"))
    worst = max(figures)
    table.add(
        f"… signing in with a known browser ({times} times)",
        format_quantiles(figures),
        target="succeeds, < 10 s",
        met=worst < 10_000,
    )


def measure_all(table: Table, quick: bool) -> None:
    run_count, pages, sign_ins = (8, 60, 2) if quick else (24, 240, 5)
    fault = f"latency:{ABORT_LATENCY}@/abort"
    with scratch() as bench:
        upstream = start_upstream(bench, "--fault", fault, "--choice", "abort-seconds=0.5")
        server, client = start_dashboard(bench, upstream)
        known_browser = Browser(server.url)
        known_browser.sign_in("ada")
        runs = start_runs(upstream, client, 3 * run_count)
        time.sleep(5)  # everything was read once
        run_groups = [runs[n::3] for n in range(3)]
        measure(table, "nobody guesses", client, run_groups[0], pages, has_target=False)
        for many_accounts, throttling in (
            (False, "one account, throttled"),
            (True, "never throttled"),
        ):
            with guess_meanwhile(server.url, many_accounts=many_accounts) as statuses:
                situation = f"{CONNECTIONS} connections guess, {throttling}"
                measure(table, situation, client, run_groups.pop(), pages, has_target=True)
                measure_sign_ins(table, known_browser, sign_ins)
            table.add("… responses to the attackers", repr(dict(statuses)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests and aborts")
    parser.add_argument("--guess", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--many-accounts", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.guess:
        asyncio.run(guess_until_closed(options.guess, options.many_accounts))
        return
    table = Table()
    measure_all(table, options.quick)
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
