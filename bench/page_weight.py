"""Cost of a page in a real browser: bytes, requests, layout shifts, and time until rows show.

    uv run bench/page_weight.py [--quick]

Uses a dashboard with its sandbox and a Chromium ($CHROMIUM or `chromium`). Each page is opened with
an empty cache and again with a filled one, each time in a new tab of a signed-in user; transferred
bytes include headers. Then the page is left open and its requests are counted. Exits with 1 if a
target is missed.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, Page, sync_playwright
from running import scratch, start_dashboard, start_upstream, wait_for
from tables import Table, p, spread

STAGE = "/projects/payments/pipelines/billing-api/release-flows/development/"
STREAM = "/live/"
KILOBYTE = 1024
# Recorded in the page from its first byte: layout shifts without input, separately those that come
# with a change of a run, and the first frame in which a run is visible.
NOTES = """
window.notes = { shift: 0, news: 0, rows: 0 };
let newsAt = Infinity;
const hears = () => { newsAt = Math.min(newsAt, performance.now()); };
document.addEventListener("htmx:sse:before:message", hears, true);
new PerformanceObserver((list) => {
  for (const entry of list.getEntries())
    if (!entry.hadRecentInput) notes[entry.startTime < newsAt ? "shift" : "news"] += entry.value;
}).observe({ type: "layout-shift", buffered: true });
const look = () => {
  const row = document.querySelector("[data-run]");
  // What is there in one frame has been painted by the next.
  if (row?.getClientRects().length) requestAnimationFrame((at) => { notes.rows = at; });
  else requestAnimationFrame(look);
};
requestAnimationFrame(look);
"""


@dataclass
class Visits:
    """Measurements of one page, opened many times."""

    rows: list[float] = field(default_factory=list)  # milliseconds until the first run is visible
    kilobytes: list[float] = field(default_factory=list)
    requests: list[float] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    news: list[float] = field(default_factory=list)  # layout shifts after a change of a run
    longest: list[float] = field(default_factory=list)  # milliseconds, see longest_task


def visit(context: BrowserContext, url: str, *, empty_cache: bool, to: Visits) -> None:
    """Open a page in a new tab, wait until it is idle, and record its cost."""
    page = context.new_page()
    page.add_init_script(NOTES)
    wire = context.new_cdp_session(page)
    wire.send("Network.enable")
    if empty_cache:
        wire.send("Network.clearBrowserCache")
    paths = Counter[str]()
    byte_counts: list[float] = []
    cached = set[str]()
    addresses = dict[str, str]()

    def sent(event: dict[str, Any]) -> None:
        addresses[event["requestId"]] = urlsplit(event["request"]["url"]).path

    def ended(event: dict[str, Any]) -> None:
        path = addresses.get(event["requestId"], "")
        if event["requestId"] in cached or path == STREAM or not path:
            return
        paths[path] += 1
        byte_counts.append(event["encodedDataLength"])

    wire.on("Network.requestWillBeSent", sent)
    wire.on("Network.requestServedFromCache", lambda event: cached.add(event["requestId"]))
    wire.on("Network.loadingFinished", ended)
    page.goto(url)
    page.wait_for_function("notes.rows > 0", timeout=60_000)
    page.wait_for_timeout(1000)
    notes = page.evaluate("notes")
    page.close()
    to.rows.append(notes["rows"])
    to.kilobytes.append(sum(byte_counts) / KILOBYTE)
    to.requests.append(paths.total())
    to.shifts.append(notes["shift"])
    to.news.append(notes["news"])


def longest_task(context: BrowserContext, url: str) -> float:
    """Open a page; return the milliseconds of CPU time of the longest task of its main thread.

    CPU time, because other load on the machine makes any task long.
    """
    page, browser = context.new_page(), context.browser
    assert browser is not None
    browser.start_tracing(page=page, categories=["toplevel", "devtools.timeline"])
    page.goto(url)
    page.wait_for_timeout(2500)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    page.close()
    # Exclude Chromium's own pages.
    parse_counts = Counter(
        (e["pid"], e["tid"])
        for e in events
        if e["name"] == "ParseHTML" and e["args"].get("beginData", {}).get("url") == url
    )
    main_thread = parse_counts.most_common(1)[0][0]
    tasks = [
        e.get("tdur", 0) / 1000
        for e in events
        if (e["pid"], e["tid"]) == main_thread and e["name"].endswith("RunTask")
    ]
    return max(tasks)


def left_open(page: Page, seconds: float) -> Counter[str]:
    """Leave a page open; return its requests meanwhile, by path."""
    page.wait_for_timeout(3000)  # it has opened its stream
    paths = Counter[str]()
    page.on("request", lambda request: paths.update([urlsplit(request.url).path]))
    page.wait_for_timeout(seconds * 1000)
    return paths


def report(table: Table, name: str, cold: Visits, warm: Visits, *, target: int) -> None:
    """Add a page's figures; `target` is in milliseconds until the first run is visible."""
    heaviest, most = max(cold.kilobytes), max(cold.requests)
    table.add(
        f"{name}, empty cache: transferred, without the stream",
        f"{heaviest:.1f} KB", target="<= 50 KB", met=heaviest <= 50,
    )  # fmt: skip
    table.add(
        "… requests, including the stream", f"{most + 1:.0f}", target="<= 10", met=most + 1 <= 10
    )
    table.add(
        "… first run visible",
        spread(cold.rows),
        target=f"p50 <= {target} ms", met=p(0.5, cold.rows) <= target,
    )  # fmt: skip
    table.add("… filled cache: transferred", f"{max(warm.kilobytes):.1f} KB")
    table.add(
        "… first run visible",
        spread(warm.rows),
        target=f"p50 <= {target} ms", met=p(0.5, warm.rows) <= target,
    )  # fmt: skip
    shift = max(cold.shifts + warm.shifts)
    table.add("… layout shift, worst visit", f"{shift:.4f}", target="0", met=shift < 0.001)
    table.add("… layout shift by a change meanwhile", f"{max(cold.news + warm.news):.4f}")
    longest = warm.longest
    table.add(
        "… longest task, CPU time",
        f"p50 {p(0.5, longest):.0f}, worst {max(longest):.0f} ms",
        target="< 50 ms", met=max(longest) < 50,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer visits, shorter waits")
    quick = parser.parse_args().quick
    visits, traces, rest = (4, 3, 20.0) if quick else (15, 9, 90.0)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        raise SystemExit("No Chromium was found: set CHROMIUM to its path.")
    table = Table()
    with scratch() as bench, sync_playwright() as playwright:
        server, browser = start_dashboard(bench, start_upstream(bench))
        wait_for(lambda: "data-run=" in browser.ask(STAGE).text, "the stage has runs", every=0.5)
        run = wait_for(_a_run(browser.ask), "a run is in flight", every=0.5)
        chrome = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = chrome.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(server.url)
        page.get_by_label("Name").fill("ada")
        page.get_by_label("Password").fill("ada")
        page.get_by_role("button", name="Sign in").click()
        page.locator("h1").wait_for()
        page.close()
        time.sleep(5)  # everything was read once
        pages = (("Now", "/", 300), ("Stage, 100 rows", STAGE, 250), ("Run", run, 250))
        for name, path, target in pages:
            cold, warm = Visits(), Visits()
            for _ in range(visits):
                visit(context, server.url + path, empty_cache=True, to=cold)
                visit(context, server.url + path, empty_cache=False, to=warm)
            warm.longest = [longest_task(context, server.url + path) for _ in range(traces)]
            report(table, name, cold, warm, target=target)
        page = context.new_page()
        page.goto(f"{server.url}/aborts/")
        paths = left_open(page, rest)
        request_count = paths.total() - paths[STREAM]
        table.add(
            f"A page left open for {rest:.0f} s: requests beside its stream",
            f"{request_count} {dict(paths)}", target="0", met=request_count == 0,
        )  # fmt: skip
        chrome.close()
    table.show()
    sys.exit(1 if table.missed else 0)


def _a_run(ask: Callable[[str], Any]) -> Callable[[], str]:
    def look() -> str:
        row = ask("/").text.partition('class="title" href="')[2]
        return row.partition('"')[0]

    return look


if __name__ == "__main__":
    main()
