"""Time from a press of “Abort run” to the badge, in a real browser.

    uv run bench/abort_button.py [--quick]

Uses a sandbox that answers an abort after 50 ms and is read as often as the sync can, a dashboard,
and a Chromium ($CHROMIUM or `chromium`) with a stage's page. The page itself measures, from its
click event to the change of the run's badge. Exits with 1 if the target is missed.
"""

import argparse
import contextlib
import sys
from collections.abc import Iterator

import chromium
from playwright.sync_api import Page
from processes import Upstream, scratch, start_dashboard, start_upstream
from tables import Table, format_quantiles, quantile

UPSTREAM_MS, TARGET_MS = 50, 90
FLOW_PATH = "/projects/payments/pipelines/billing-api/release-flows/development/"

# `msToBadge` resolves to the milliseconds from the next click to the badge of the run's abort.
OBSERVE_BADGE = """id => {
  const row = () => document.querySelector(`[data-run="${id}"]`);
  window.msToBadge = new Promise((resolve, reject) => {
    setTimeout(reject, 10_000, new Error("no badge in 10 s"));
    document.addEventListener("click", event => {
      const observer = new MutationObserver(() => {
        if (row()?.dataset.status !== "aborting") return;
        observer.disconnect();
        resolve(performance.now() - event.timeStamp);
      });
      observer.observe(document.body, {subtree: true, childList: true, attributes: true});
    }, {capture: true, once: true});
  });
}"""


@contextlib.contextmanager
def open_stage_page(url: str) -> Iterator[Page]:
    """Open the stage's page of the dashboard at `url` in Chromium, signed in as a manager."""
    with chromium.launch() as browser:
        page = browser.new_page()
        page.goto(url + FLOW_PATH)
        chromium.sign_in(page, "ada")
        page.locator("[data-run]").first.wait_for(timeout=60_000)
        yield page


def measure_abort(page: Page, upstream: Upstream) -> float:
    """Start a run and abort it in the page's dialog; return the milliseconds until its badge."""
    upstream.connect()
    run, _ms = upstream.post(f"/v1{FLOW_PATH}runs")
    row = page.locator(f'[data-run="{run["id"]}"][data-status="running"]')
    for _ in range(60):  # an open page only announces a new run
        page.reload()
        if row.count():
            break
        page.wait_for_timeout(500)
    else:
        raise SystemExit("Gave up after 30 s: the run is on the stage's page.")
    row.locator("[data-abort]").click()
    dialog = page.get_by_role("dialog")
    button = dialog.get_by_role("button", name="Abort run")
    button.wait_for()
    page.evaluate(OBSERVE_BADGE, run["id"])
    button.click()
    milliseconds: float = page.evaluate("msToBadge")
    return milliseconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a quarter of the aborts")
    times = 10 if parser.parse_args().quick else 40
    with scratch() as bench:
        upstream = start_upstream(
            bench,
            "--fault",
            f"latency:{UPSTREAM_MS / 1000}@/abort",
            "--choice",
            "abort-seconds=0.5",
        )
        server, _ = start_dashboard(bench, upstream)
        with open_stage_page(server.url) as page:
            milliseconds = [measure_abort(page, upstream) for _ in range(times)]
    table = Table()
    table.add(
        f"press to badge, Northflank's {UPSTREAM_MS} ms included ({times} runs)",
        format_quantiles(milliseconds),
        target=f"p50 <= {TARGET_MS} ms",
        met=quantile(0.5, milliseconds) <= TARGET_MS,
    )
    table.show()
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    main()
