"""Pages, aborts and sign-ins while attackers guess passwords.

    uv run bench/password_guessing.py [--quick]

A real dashboard on SQLite uses a sandbox that responds to an abort after 0.2 s. Another process
holds 50 connections, each of which posts wrong passwords as fast as it gets responses: first from
one address for one account, which is soon throttled; then each time from another address for
another account, so that no attempt is. Meanwhile a release manager requests Now and aborts runs.
Then 30 people sign in within 3 s, each with the right password, and five beside 24 connections that
guess from ever new addresses. At last 60 connections guess from one network, and beside them the
break-glass account signs in, then 30 people behind one address. Exits with 1 if a target is missed.
Four minutes.
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
from concurrent.futures import ThreadPoolExecutor
from itertools import count, repeat
from urllib.parse import urlsplit

from processes import (
    Bench,
    Browser,
    Upstream,
    scratch,
    start_dashboard,
    start_upstream,
    wait_for,
)
from tables import Table, format_quantiles, quantile

CONNECTIONS = 50
PEOPLE, PEOPLE_SECONDS = 30, 3  # who sign in at once, and within which time
GIVE_UP = 180  # seconds after which a person does not try again
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
EVER_NEW = "guess-{}"  # a name for each guess, each from another address
ONE_NETWORK = "stranger-{}"  # a name for each connection
BREAK_GLASS = f"person-{PEOPLE}"
MAKE_PEOPLE = f"""
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import User
password = make_password("people")
names = [f"person-{{n}}" for n in range({PEOPLE} + 1)]
User.objects.bulk_create(User(username=name, password=password) for name in names)
"""


# --- Attackers, in a process of their own ---------------------------------------------------------


async def post_guesses(
    host: str, port: int, name: str, numbers: Iterator[int], statuses: Counter[str]
) -> None:
    """Post wrong passwords until cancelled; count the responses by status.

    Each guess has the next number, in the name if that has a place for it, and as its address.
    """
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection(host, port)
            while True:
                number = next(numbers)
                address = f"10.{number // 65536 % 256}.{number // 256 % 256}.{number % 256}"
                body = (
                    f"username={name.format(number)}&password=wrong"
                    f"&csrfmiddlewaretoken={CSRF_TOKEN}"
                )
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


async def guess_until_closed(url: str, name: str, connections: int) -> None:
    """Guess on all connections until standard input ends, then print the counts as JSON."""
    host, port = urlsplit(url).netloc.split(":")
    statuses: Counter[str] = Counter()
    ever_new = count()
    tasks = [
        asyncio.create_task(
            post_guesses(
                host, int(port), name, ever_new if name == EVER_NEW else repeat(own), statuses
            )
        )
        for own in range(connections)
    ]
    await asyncio.to_thread(sys.stdin.read)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    print(json.dumps(statuses))


@contextlib.contextmanager
def guess_meanwhile(
    url: str, name: str, connections: int = CONNECTIONS, *, seconds: float
) -> Iterator[Counter[str]]:
    """Guess passwords of `name`, for `seconds` alone; the counter has the statuses at the end.

    Each connection has an address of its own, or with EVER_NEW each guess.
    """
    statuses: Counter[str] = Counter()
    command = [sys.executable, __file__, "--guess", url, name, str(connections)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        time.sleep(seconds)
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


def sign_in_newcomer(url: str, name: str) -> tuple[float, int]:
    """Sign in; return the seconds until in, and how often it was refused.

    It tries again when the page says so; infinite seconds if not in after GIVE_UP.
    """
    browser, started, refusals = Browser(url), time.monotonic(), 0
    while time.monotonic() < started + GIVE_UP:
        browser.http.close()
        browser.request("/accounts/login/")
        answer = browser.request("/accounts/login/", {"username": name, "password": "people"})
        if answer.status == 302:
            return time.monotonic() - started, refusals
        refusals += 1
        time.sleep(float(answer.headers["Retry-After"]))
    return float("inf"), refusals


def measure_newcomers(
    table: Table, situation: str, url: str, names: list[str], within: float, target: float
) -> None:
    """Sign people in, evenly over `within` seconds; add the slowest."""

    def sign_in(number: int) -> tuple[float, int]:
        time.sleep(within * number / len(names))
        return sign_in_newcomer(url, names[number])

    with ThreadPoolExecutor(len(names)) as executor:
        results = list(executor.map(sign_in, range(len(names))))
    worst, refused = max(results)[0], sum(refusals > 0 for _, refusals in results)
    table.add(
        f"{situation}: the slowest of {len(names)} is in",
        f"{worst:.1f} s, {refused} refused at first",
        target=f"< {target:.0f} s",
        met=worst < target,
    )


def measure_first_sign_ins(table: Table, bench: Bench, url: str) -> None:
    """Sign in, alone and beside guessers."""
    bench.manage("shell", "--no-imports", "--command", MAKE_PEOPLE, NORTHFLANK_API_TOKEN="sandbox")
    people = [f"person-{number}" for number in range(PEOPLE)]
    sign_in_newcomer(url, people[0])  # in once the passwords of a flood before have been checked
    situation = f"{PEOPLE} people sign in within {PEOPLE_SECONDS} s"
    measure_newcomers(table, situation, url, people, PEOPLE_SECONDS, target=10)
    with guess_meanwhile(url, EVER_NEW, 24, seconds=5):
        situation = "24 connections guess, never throttled"
        measure_newcomers(table, situation, url, people[:5], 20, target=10)
    with guess_meanwhile(url, ONE_NETWORK, 60, seconds=8):
        situation = "60 connections guess from one network, break-glass"
        measure_newcomers(table, situation, url, [BREAK_GLASS], 0, target=2)
        situation = f"… {PEOPLE} people behind one address"
        measure_newcomers(table, situation, url, people, PEOPLE_SECONDS, target=60)


def measure_all(table: Table, quick: bool) -> None:
    run_count, pages = (8, 60) if quick else (24, 240)
    fault = f"latency:{ABORT_LATENCY}@/abort"
    with scratch() as bench:
        upstream = start_upstream(bench, "--fault", fault, "--choice", "abort-seconds=0.5")
        server, client = start_dashboard(bench, upstream, BREAK_GLASS_ACCOUNT=BREAK_GLASS)
        runs = start_runs(upstream, client, 3 * run_count)
        time.sleep(5)  # everything was read once
        run_groups = [runs[n::3] for n in range(3)]
        measure(table, "nobody guesses", client, run_groups[0], pages, has_target=False)
        for name, throttling, seconds in (
            ("ada", "one account, throttled", 8),  # seconds until it is
            (EVER_NEW, "never throttled", 3),
        ):
            with guess_meanwhile(server.url, name, seconds=seconds) as statuses:
                situation = f"{CONNECTIONS} connections guess, {throttling}"
                measure(table, situation, client, run_groups.pop(), pages, has_target=True)
            table.add("… responses to the attackers", repr(dict(statuses)))
        measure_first_sign_ins(table, bench, server.url)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests and aborts")
    parser.add_argument("--guess", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.guess:
        url, name, connections = options.guess
        asyncio.run(guess_until_closed(url, name, int(connections)))
        return
    table = Table()
    measure_all(table, options.quick)
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
