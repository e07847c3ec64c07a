"""From an alert to an aborted run, with the real things: Prometheus, Alertmanager and Chromium.

    uv run bench/loop.py

Starts a dashboard whose sandbox plays `stuck-production`, and Debian's `prometheus` and
`prometheus-alertmanager` with the files of deploy/monitoring/. The alert about the stuck run comes
to a receiver here; its `dashboard_url`, opened signed out, has to lead through the sign-in to that
run, and an abort there has to resolve the alert. In a copy of the files each `for` is as many
seconds as it has minutes, and Prometheus scrapes and evaluates each second. Prints a line a step;
exits with 1 where the loop breaks, or if a file names a metric that the dashboard lacks.
"""

import contextlib
import json
import queue
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import chromium
from playwright.sync_api import Page
from processes import ROOT, scratch

FILES = ROOT / "deploy" / "monitoring"
STUCK = {"project": "shop", "pipeline": "checkout", "stage": "Production"}
STUCK_RUN = "Basket totals 4719"
PATIENCE = 300.0  # seconds for an alert: all stages are read first
TOKEN = "only-for-the-loop"
PROMETHEUS = f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: [addresses.yaml, rules.yaml, alerts.yaml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ["ALERTMANAGER"]}}]}}]}}
scrape_configs:
  - job_name: releaseflow
    authorization: {{credentials: {TOKEN}}}
    static_configs: [{{targets: ["DASHBOARD"]}}]
"""
ALERTMANAGER = """
route: {receiver: loop, group_by: ["..."], group_wait: 0s, group_interval: 1s}
receivers: [{name: loop, webhook_configs: [{url: RECEIVER}]}]
"""


@dataclass
class Receiver:
    """An address for Alertmanager's notifications, and the alerts that came."""

    url: str
    alerts: "queue.Queue[dict[str, Any]]"

    def wait_for(self, status: str, labels: dict[str, str]) -> dict[str, Any]:
        """Return the next alert that has this status and these labels."""
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(queue.Empty):
            while (remaining := deadline - time.monotonic()) > 0:
                alert = self.alerts.get(timeout=remaining)
                if alert["status"] == status and labels.items() <= alert["labels"].items():
                    return alert
        raise SystemExit(f"No alert was {status} within {PATIENCE:.0f} s: {labels}")


@contextlib.contextmanager
def receive() -> Iterator[Receiver]:
    """Listen for notifications until the block ends."""
    alerts: queue.Queue[dict[str, Any]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            for alert in body["alerts"]:
                alerts.put(alert)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Say nothing: standard error is for errors."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Receiver(f"http://127.0.0.1:{server.server_port}", alerts)
        server.shutdown()


def free_address() -> str:
    """Return an address of this machine on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"127.0.0.1:{sock.getsockname()[1]}"


@contextlib.contextmanager
def run_program(folder: Path, *command: str) -> Iterator[None]:
    """Run a program in `folder`, with its output in a file there, until the block ends."""
    if not shutil.which(command[0]):
        raise SystemExit(f"{command[0]} was not found: apt-get install {command[0]}")
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def run_monitoring(folder: Path, dashboard: str, receiver: str) -> Iterator[str]:
    """Run Alertmanager, and Prometheus with the shipped rules; yield the address of the latter."""
    prometheus, alertmanager = free_address(), free_address()
    for name in ("addresses", "rules", "alerts"):
        text = (FILES / f"{name}.yaml").read_text()
        text = re.sub(r"\bfor: (\d+)m", r"for: \1s", text)
        (folder / f"{name}.yaml").write_text(
            text.replace("https://releases.example.com", dashboard)
        )
    text = PROMETHEUS.replace("ALERTMANAGER", alertmanager)
    text = text.replace("DASHBOARD", dashboard.removeprefix("http://"))
    (folder / "prometheus.yml").write_text(text)
    (folder / "alertmanager.yml").write_text(ALERTMANAGER.replace("RECEIVER", receiver))
    with (
        run_program(
            folder,
            *("prometheus-alertmanager", f"--web.listen-address={alertmanager}"),
            *("--config.file=alertmanager.yml", "--storage.path=alertmanager"),
            "--cluster.listen-address=",
        ),
        run_program(
            folder,
            *("prometheus", f"--web.listen-address={prometheus}"),
            *("--config.file=prometheus.yml", "--storage.tsdb.path=tsdb"),
        ),
    ):
        yield f"http://{prometheus}"


def get(url: str) -> Any:
    """Return the data of a response of Prometheus."""
    with urlopen(url, timeout=10) as response:
        return json.load(response)["data"]


def verify_names(prometheus: str) -> int:
    """Evaluate the expressions of grafana.json, and return their number.

    Raise HTTPError if one is invalid, SystemExit if a file names a metric that nobody reports.
    """
    panels = json.loads((FILES / "grafana.json").read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    for expression in expressions:
        query = re.sub(r"\$(project|pipeline|stage)", ".*", expression)
        get(f"{prometheus}/api/v1/query?{urlencode({'query': query})}")
    texts = "".join(
        (FILES / name).read_text() for name in ("alerts.yaml", "rules.yaml", "grafana.json")
    )
    names = set(re.findall(r"\b(?:releaseflow|cicd)_\w+(?=[{)\[,])", texts))
    reported = get(f"{prometheus}/api/v1/metadata").keys() | {"releaseflow_addresses"}
    if unknown := {re.sub("_(total|bucket)$", "", name) for name in names} - set(reported):
        raise SystemExit(f"No metrics of the dashboard: {', '.join(sorted(unknown))}")
    return len(expressions)


def abort_stuck_run(page: Page, url: str, log: Callable[[str], None]) -> None:
    """Open an alert's link signed out, sign in, and abort the one run that it leads to."""
    page.goto(url)
    page.get_by_label("Password").wait_for()
    log(f"opened signed out: {page.url}")
    chromium.sign_in(page, "manager")
    page.wait_for_url(url)
    rows = page.locator("tr[data-run]")
    rows.first.wait_for()
    if rows.count() != 1:
        raise SystemExit(f"The link leads to {rows.count()} runs: {url}")
    rows.locator("a.title", has_text=STUCK_RUN).click()
    page.locator("section.run [data-abort]").first.wait_for()
    log(f"signed in: {page.url}")
    page.locator("section.run [data-abort]").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Stuck").click()
    dialog.get_by_role("button", name="Abort run").click()
    log("abort requested")
    page.locator('section.run[data-status="aborted"]').wait_for()
    log("aborted, as the page says")


def main() -> None:
    start = time.monotonic()

    def log(text: str) -> None:
        print(f"{time.monotonic() - start:6.1f} s  {text}", flush=True)

    with scratch() as bench, receive() as receiver, chromium.launch() as browser:
        serve = "serve", "--port", "0", "--scenario", "stuck-production"
        dashboard = bench.start(*serve, METRICS_TOKEN=TOKEN).url
        with run_monitoring(bench.folder, dashboard, receiver.url) as prometheus:
            log("dashboard, Prometheus and Alertmanager are started")
            alert = receiver.wait_for("firing", STUCK)
            name, annotations = alert["labels"]["alertname"], alert["annotations"]
            log(f"fired: {name}, {annotations['summary']}: {annotations['description']}")
            abort_stuck_run(browser.new_page(), annotations["dashboard_url"], log)
            receiver.wait_for("resolved", alert["labels"])
            log(f"resolved: {name}")
            log(f"valid, and of known metrics: {verify_names(prometheus)} expressions of Grafana")


if __name__ == "__main__":
    main()
