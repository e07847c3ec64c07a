"""Processes behind a proxy are restarted one after another, under load, with aborts under way.

    uv run bench/rolling_restart.py [--quick] [--proxy caddy|nginx]

Two `serve --no-sync` and two `sync` on PostgreSQL (TEST_POSTGRES_URL, default: the local one as
postgres, where a database is created and dropped), behind Caddy with deploy/Caddyfile or behind
nginx; the sandbox is a process of its own, and takes two seconds for each abort. Exits with 1 if a
request failed that a browser would not repeat, an abort was lost or sent twice, a stream was away
for more than 5 s, or nothing was read for more than 20 s.
"""

import argparse
import contextlib
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import uvicorn
from processes import (
    MAKE_MANAGER,
    POSTGRES,
    ROOT,
    Bench,
    Browser,
    Server,
    database,
    options_parser,
    scratch,
    wait_for,
)
from restart_load import STREAMS, Load
from tables import Table

MAX_AWAY, MAX_UNREAD = 5.0, 20.0  # targets, in seconds
SETTLE = 4.0  # seconds between two restarts
NGINX = """
daemon off; pid {folder}/pid; error_log stderr; events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream dashboard {{ ip_hash; {servers} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://dashboard;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_read_timeout 60s;
        }}
    }}
}}
"""


# --- The sandbox: this file again, in a process of its own ----------------------------------------


def serve_sandbox() -> None:
    """Serve a sandbox, and at /counts how often each run was aborted and how long none was read."""
    sys.path.insert(0, str(ROOT))
    from dashboard import sandbox

    options = sandbox.Options(
        rate_limit=1_000_000, faults=[sandbox.parse_fault("latency:2@/abort")]
    )
    app = sandbox.Sandbox(options)
    listener = socket.create_server(("127.0.0.1", 0))
    unread = {"since": time.monotonic(), "longest": 0.0}

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].endswith("/runs"):
            now = time.monotonic()
            unread.update(since=now, longest=max(unread["longest"], now - unread["since"]))
        if scope["path"] != "/counts":
            await app(scope, receive, send)
            return
        body = json.dumps({"aborts": app.abort_request_counts, "unread": unread["longest"]})
        unread["longest"] = 0.0
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body.encode()})

    print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    config = uvicorn.Config(counted, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


# --- The site -------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def spawn(bench: Bench, command: list[str], variables: dict[str, str]) -> Server:
    """Start a program that has no address to print."""
    started = time.perf_counter()
    with bench.log.open("ab") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log)
    server = Server(process, "", started)
    bench.running.append(server)
    return server


class Site:
    """The four processes and their proxy."""

    def __init__(self, bench: Bench, settings: dict[str, str], proxy: str) -> None:
        self.bench, self.settings = bench, settings
        self.ports = {"web 1": free_port(), "web 2": free_port()}
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        addresses = [f"127.0.0.1:{port}" for port in self.ports.values()]
        self.servers = {name: self.start(name) for name in ("web 1", "web 2", "sync 1", "sync 2")}
        if proxy == "nginx":
            servers = " ".join(f"server {address} fail_timeout=1s;" for address in addresses)
            config = bench.folder / "nginx.conf"
            config.write_text(NGINX.format(folder=bench.folder, servers=servers, port=port))
            command = ["nginx", "-c", str(config)]
        else:
            command = ["caddy", "run", "--adapter", "caddyfile", "--config", "deploy/Caddyfile"]
        variables = {
            "SITE_ADDRESS": self.url,
            "HTTP_ADDRESS": f"http://127.0.0.1:{free_port()}",  # not 80
            "UPSTREAMS": " ".join(addresses),
            "XDG_DATA_HOME": str(bench.folder),
        }
        self.proxy = spawn(bench, command, {**os.environ, **variables})
        for name in self.ports:
            self.wait_until_ready(name)
        wait_for(lambda: is_ready(port), "the proxy answers", 0.1)

    def start(self, name: str) -> Server:
        command = ["sync"]
        if name in self.ports:
            command = ["serve", "--no-sync", "--port", str(self.ports[name])]
        program = [sys.executable, "manage.py", *command, "--migrate"]
        return spawn(self.bench, program, self.bench.environment(self.settings))

    def restart(self, name: str) -> float:
        """Stop a process by SIGTERM and start it again; return the seconds that it took to stop."""
        server = self.servers[name]
        started = time.monotonic()
        self.bench.stop(server)
        seconds = time.monotonic() - started
        assert server.process.returncode == 0, f"{name} ended with {server.process.returncode}"
        self.servers[name] = self.start(name)
        self.wait_until_ready(name)
        return seconds

    def wait_until_ready(self, name: str) -> None:
        if name in self.ports:
            wait_for(lambda: is_ready(self.ports[name]), f"{name} is ready", 0.05)


def is_ready(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with contextlib.suppress(OSError):
        link.request("GET", "/readyz")
        return link.getresponse().status == 200
    return False


@contextlib.contextmanager
def start_sandbox() -> Iterator[str]:
    command = [sys.executable, __file__, "--sandbox"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


def restart_all(site: Site, load: Load, rounds: int) -> list[float]:
    """Restart each process in turn; return the seconds that each took to stop."""
    seconds = []
    for name in list(site.servers) * rounds:
        wait_for(lambda: len(load.open_streams) == STREAMS, "all streams are open", 0.05)
        time.sleep(SETTLE)
        wait_for(lambda: len(load.aborts_under_way) > 2, "aborts are under way")
        time.sleep(random.uniform(0, 0.5))
        seconds.append(site.restart(name))
        print(f"  {name}: stopped in {seconds[-1]:.1f} s", file=sys.stderr)
    wait_for(lambda: len(load.open_streams) == STREAMS, "all streams are open", 0.05)
    time.sleep(SETTLE)
    return seconds


def report(options: argparse.Namespace, load: Load, stops: list[float], counts: Any) -> Table:
    table = Table()
    failed, times = len(load.failures), [counts["aborts"].get(run, 0) for run in load.aborted]
    table.add("proxy", options.proxy)
    table.add("restarts; longest until stopped", f"{len(stops)}; {max(stops):.1f} s")
    table.add(f"requests failed, of {load.requests}", str(failed), target="0", met=not failed)
    lost, doubled = times.count(0), sum(count > 1 for count in counts["aborts"].values())
    table.add(f"accepted aborts lost, of {len(times)}", str(lost), target="0", met=not lost)
    table.add("aborts sent twice", str(doubled), target="0", met=not doubled)
    away = max(load.away)
    table.add(
        f"longest until a stream was back, of {len(load.away)}",
        f"{away:.1f} s", target=f"<= {MAX_AWAY:.0f} s", met=away <= MAX_AWAY,
    )  # fmt: skip
    unread = counts["unread"]
    table.add(
        "longest time without a read",
        f"{unread:.1f} s", target=f"<= {MAX_UNREAD:.0f} s", met=unread <= MAX_UNREAD,
    )  # fmt: skip
    return table


def main() -> None:
    """Measure, print, and exit with 1 if a target is missed."""
    parser = options_parser(__doc__ or "", quick="each process once instead of three times")
    parser.add_argument("--proxy", choices=["caddy", "nginx"], default="caddy")
    options = parser.parse_args()
    with scratch() as bench, database(POSTGRES) as url, start_sandbox() as upstream:
        settings = {
            "DATABASE_URL": url,
            "NORTHFLANK_API_TOKEN": "sandbox",
            "NORTHFLANK_API_BASE_URL": upstream,
        }
        site = Site(bench, settings, options.proxy)
        bench.manage("shell", "--no-imports", "--command", MAKE_MANAGER, **settings)
        browser = Browser(site.url)
        browser.sign_in("ada")
        load = Load(site.url, browser.cookies, upstream, url)
        with psycopg.connect(url, autocommit=True) as link:
            stages = "SELECT count(*) > 20 FROM dashboard_stage WHERE synced_at IS NOT NULL"
            wait_for(lambda: link.execute(stages).fetchone() == (True,), "stages are read", 0.1)
            httpx.get(f"{upstream}/counts")  # from now on
            load.start()
            stops = restart_all(site, load, rounds=1 if options.quick else 3)
            load.is_over.set()
            for thread in load.threads:
                thread.join(60)
            unsettled = "SELECT count(*) FROM dashboard_abort WHERE settled_at IS NULL"
            wait_for(lambda: link.execute(unsettled).fetchone() == (0,), "all aborts ended", 0.1)
        table = report(options, load, stops, httpx.get(f"{upstream}/counts").json())
    table.show()
    print(*load.failures[:10], sep="\n")
    sys.exit(1 if table.missed else 0)


if __name__ == "__main__":
    if "--sandbox" in sys.argv:
        serve_sandbox()
    else:
        main()
