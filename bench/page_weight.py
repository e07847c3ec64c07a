"""Cost of a page in a real browser: bytes, requests, layout shifts, and time until rows show.

    uv run bench/page_weight.py [--quick]

Uses a dashboard with its sandbox and a Chromium ($CHROMIUM or `chromium`). Each page is opened with
an empty cache and again with a filled one, each time in a new tab of a signed-in user; transferred
bytes include headers. Then the page is left open and its requests are counted. Exits with 1 if a
target is missed.
"""

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import chromium
from playwright.sync_api import BrowserContext, Page
from processes import Browser, scratch, start_dashboard, start_upstream, wait_for
from tables import Table, format_quantiles, quantile

STAGE = "/projects/payments/pipelines/billing-api/release-flows/development/"
STREAM = "/live/"
KILOBYTE = 1024
# Records in the page, from its first byte: layout shifts without input, separately those after the
# first stream message, and the time of the first frame in which a run is visible.
RECORD_METRICS = """
window.metrics = { shift: 0, shiftAfterMessage: 0, firstRun: 0 };
let firstMessage = Infinity;
const recordMessage = () => { firstMessage = Math.min(firstMessage, performance.now()); };
document.addEventListener("htmx:sse:before:message", recordMessage, true);
new PerformanceObserver((list) => {
  for (const entry of list.getEntries())
    if (!entry.hadRecentInput)
      metrics[entry.startTime < firstMessage ? "shift" : "shiftAfterMessage"] += entry.value;
}).observe({ type: "layout-shift", buffered: true });
const recordFirstRun = () => {
  const row = document.querySelector("[data-run]");
  // A row that is laid out in one frame has been painted by the next.
  if (row?.getClientRects().length) requestAnimationFrame((time) => { metrics.firstRun = time; });
  else requestAnimationFrame(recordFirstRun);
};
requestAnimationFrame(recordFirstRun);
"""


@dataclass
class Visits:
    """Measurements of one page, opened many times."""

    first_run_ms: list[float] = field(default_factory=list)  # until the first run is visible
    kilobytes: list[float] = field(default_factory=list)
    request_counts: list[int] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    shifts_after_message: list[float] = field(default_factory=list)  # from the first message on
    longest_task_ms: list[float] = field(default_factory=list)


def visit_page(context: BrowserContext, url: str, visits: Visits, *, empty_cache: bool) -> None:
    """Open a page in a new tab, wait until it is idle, and add its cost to `visits`."""
    page = context.new_page()
    page.add_init_script(RECORD_METRICS)
    cdp = context.new_cdp_session(page)
    cdp.send("Network.enable")
    if empty_cache:
        cdp.send("Network.clearBrowserCache")
    byte_counts: list[float] = []
    cached_requests = set[str]()
    paths = dict[str, str]()  # by request id

    def record_request(event: dict[str, Any]) -> None:
        paths[event["requestId"]] = urlsplit(event["request"]["url"]).path

    def record_response(event: dict[str, Any]) -> None:
        path = paths.get(event["requestId"], "")
        if event["requestId"] not in cached_requests and path not in {STREAM, ""}:
            byte_counts.append(event["encodedDataLength"])

    cdp.on("Network.requestWillBeSent", record_request)
    cdp.on("Network.requestServedFromCache", lambda event: cached_requests.add(event["requestId"]))
    cdp.on("Network.loadingFinished", record_response)
    page.goto(url)
    page.wait_for_function("metrics.firstRun > 0", timeout=60_000)
    page.wait_for_timeout(1000)
    metrics = page.evaluate("metrics")
    page.close()
    visits.first_run_ms.append(metrics["firstRun"])
    visits.kilobytes.append(sum(byte_counts) / KILOBYTE)
    visits.request_counts.append(len(byte_counts))
    visits.shifts.append(metrics["shift"])
    visits.shifts_after_message.append(metrics["shiftAfterMessage"])


def measure_longest_task(context: BrowserContext, url: str) -> float:
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
        (event["pid"], event["tid"])
        for event in events
        if event["name"] == "ParseHTML" and event["args"].get("beginData", {}).get("url") == url
    )
    main_thread = parse_counts.most_common(1)[0][0]
    tasks: list[float] = [
        event.get("tdur", 0) / 1000
        for event in events
        if (event["pid"], event["tid"]) == main_thread and event["name"].endswith("RunTask")
    ]
    return max(tasks)


def count_requests(page: Page, seconds: float) -> Counter[str]:
    """Leave a page open for some seconds; return its requests meanwhile, by path."""
    page.wait_for_timeout(3000)  # it has opened its stream
    paths = Counter[str]()
    page.on("request", lambda request: paths.update([urlsplit(request.url).path]))
    page.wait_for_timeout(seconds * 1000)
    return paths


def add_figures(table: Table, name: str, cold: Visits, warm: Visits, *, target: int) -> None:
    """Add a page's figures; `target` is in milliseconds until the first run is visible."""
    heaviest, most_requests = max(cold.kilobytes), max(cold.request_counts) + 1
    table.add(
        f"{name}, empty cache: transferred, without the stream",
        f"{heaviest:.1f} KB", target="<= 50 KB", met=heaviest <= 50,
    )  # fmt: skip
    table.add(
        "… requests, including the stream",
        str(most_requests), target="<= 10", met=most_requests <= 10,
    )  # fmt: skip
    table.add(
        "… first run visible",
        format_quantiles(cold.first_run_ms),
        target=f"p50 <= {target} ms", met=quantile(0.5, cold.first_run_ms) <= target,
    )  # fmt: skip
    table.add("… filled cache: transferred", f"{max(warm.kilobytes):.1f} KB")
    table.add(
        "… first run visible",
        format_quantiles(warm.first_run_ms),
        target=f"p50 <= {target} ms", met=quantile(0.5, warm.first_run_ms) <= target,
    )  # fmt: skip
    shift = max(cold.shifts + warm.shifts)
    table.add("… layout shift, worst visit", f"{shift:.4f}", target="0", met=shift < 0.001)
    shift_after_message = max(cold.shifts_after_message + warm.shifts_after_message)
    table.add("… layout shift by a change meanwhile", f"{shift_after_message:.4f}")
    longest = warm.longest_task_ms
    table.add(
        "… longest task, CPU time",
        f"p50 {quantile(0.5, longest):.0f}, worst {max(longest):.0f} ms",
        target="< 50 ms", met=max(longest) < 50,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer visits, shorter waits")
    quick = parser.parse_args().quick
    visit_count, trace_count, open_seconds = (4, 3, 20.0) if quick else (15, 9, 90.0)
    table = Table()
    with scratch() as bench, chromium.launch() as launched:
        server, browser = start_dashboard(bench, start_upstream(bench))
        wait_for(
            lambda: "data-run=" in browser.request(STAGE).text, "the stage has runs", interval=0.5
        )
        run = wait_for(lambda: _find_run(browser), "a run is in flight", interval=0.5)
        context = launched.new_context(viewport={"width": 1440, "height": 900})
        page = context.new_page()
        page.goto(server.url)
        chromium.sign_in(page, "ada")
        page.locator("h1").wait_for()
        page.close()
        time.sleep(5)  # everything was read once
        pages = (("Now", "/", 300), ("Stage, 100 rows", STAGE, 250), ("Run", run, 250))
        for name, path, target in pages:
            cold, warm = Visits(), Visits()
            for _ in range(visit_count):
                visit_page(context, server.url + path, cold, empty_cache=True)
                visit_page(context, server.url + path, warm, empty_cache=False)
            warm.longest_task_ms = [
                measure_longest_task(context, server.url + path) for _ in range(trace_count)
            ]
            add_figures(table, name, cold, warm, target=target)
        page = context.new_page()
        page.goto(f"{server.url}/aborts/")
        paths = count_requests(page, open_seconds)
        request_count = paths.total() - paths[STREAM]
        table.add(
            f"A page left open for {open_seconds:.0f} s: requests beside its stream",
            f"{request_count} {dict(paths)}", target="0", met=request_count == 0,
        )  # fmt: skip
    table.show()
    sys.exit(1 if table.missed else 0)


def _find_run(browser: Browser) -> str:
    """Return the path of the first run of Now, or "" if there is none."""
    return browser.request("/").text.partition('class="title" href="')[2].partition('"')[0]


if __name__ == "__main__":
    main()
