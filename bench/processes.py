"""Real processes to measure: a dashboard, a sandbox as its upstream, and a user's browser."""

import argparse
import contextlib
import gzip
import http.client
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import uvicorn
import uvloop

ROOT = Path(__file__).resolve().parent.parent
# For those benchmarks that need a server.
POSTGRES = os.environ.get("TEST_POSTGRES_URL") or "postgres://postgres@127.0.0.1:5432/postgres"
TIMEOUT = 60.0  # seconds until a measurement gives up
TICKS = os.sysconf("SC_CLK_TCK")
MAKE_MANAGER = """
from django.contrib.auth.models import Group, User
ada = User.objects.create_user("ada", password="ada")
ada.groups.add(Group.objects.get(name="Release managers"))
"""


def parse_options(description: str, quick: str) -> argparse.Namespace:
    """Return the options `quick`, described by `quick`, and `postgres`, the address of a server."""
    return options_parser(description, quick).parse_args()


def options_parser(description: str, quick: str) -> argparse.ArgumentParser:
    """Return a parser of these two options, for more to be added."""
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--postgres", default="", help="a server, as postgres://…/database")
    return parser


@dataclass
class Response:
    """A response, and its duration in milliseconds."""

    status: int
    headers: http.client.HTTPMessage
    text: str
    ms: float


class Browser:
    """One kept-alive connection with cookies; uses as little CPU as possible."""

    def __init__(self, url: str, own_address: str = "127.0.0.1") -> None:
        self.host, self.source = urlsplit(url).netloc, (own_address, 0)
        self.http = http.client.HTTPConnection(self.host, None, TIMEOUT, self.source)
        self.cookies: dict[str, str] = {}

    def request(
        self, path: str, form: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> Response:
        """GET, or POST a form."""
        all_headers = {
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
            "Accept-Encoding": "gzip",
            **(headers or {}),
        }
        body = None
        if form is not None:
            body = urlencode({"csrfmiddlewaretoken": self.cookies["csrftoken"], **form}).encode()
            all_headers["Content-Type"] = "application/x-www-form-urlencoded"
        started = time.perf_counter()
        self.http.request("GET" if body is None else "POST", path, body, all_headers)
        response = self.http.getresponse()
        raw = response.read()
        ms = (time.perf_counter() - started) * 1000
        for line in response.headers.get_all("Set-Cookie") or []:
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        if response.headers.get("Content-Encoding") == "gzip":
            raw = gzip.decompress(raw)
        return Response(response.status, response.headers, raw.decode(), ms)

    def sign_in(self, name: str) -> None:
        """Sign in; each account's password is its name."""
        self.request("/accounts/login/")
        response = self.request("/accounts/login/", {"username": name, "password": name})
        assert response.status == 302, f"{name} could not sign in: {response.status}"

    def new_connection(self) -> "Browser":
        """Return another connection of the same session."""
        browser = Browser(f"http://{self.host}")
        browser.cookies = dict(self.cookies)
        return browser


@dataclass
class Server:
    """A started process, and the port it listens on."""

    process: subprocess.Popen[bytes]
    url: str
    started: float  # of time.perf_counter

    def cpu_ms(self) -> float:
        """Return the CPU time of all its threads so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * 1000 / TICKS

    def memory_mb(self) -> tuple[float, float]:
        """Return the resident memory: RSS, and PSS (shared pages counted in parts)."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        rss, pss = (re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE) for name in ("Rss", "Pss"))
        assert rss is not None
        assert pss is not None
        return int(rss[1]) / 1024, int(pss[1]) / 1024


@dataclass
class Bench:
    """A scratch directory with one database; processes started in it end with it."""

    folder: Path
    log: Path = field(init=False)
    running: list[Server] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = self.folder / "log"

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        # A developer's own .env must not affect the measurement: set every variable.
        example = (ROOT / ".env.example").read_text().splitlines()
        unset = {line.partition("=")[0]: "" for line in example if line[:1].isupper()}
        return {
            **os.environ,
            **unset,
            "DATABASE_URL": f"sqlite:///{self.database}",
            "SECRET_KEY": "only-for-the-bench-" + "x" * 40,
            "LOG_LEVEL": "WARNING",
            **settings,
        }

    @property
    def database(self) -> Path:
        return self.folder / "bench.sqlite3"

    def manage(self, *command: str, **settings: str) -> None:
        """Run a management command to its end."""
        subprocess.run(
            [sys.executable, "manage.py", *command],
            cwd=ROOT,
            env=self.environment(settings),
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def start(self, *command: str, **settings: str) -> Server:
        """Start a server; return when it has printed its address."""
        started = time.perf_counter()
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", *command],
                cwd=ROOT,
                env=self.environment(settings),
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout
        match = re.search(r"http://[\d.]+:\d+", process.stdout.readline().decode())
        if match is None:
            raise SystemExit(f"{' '.join(command)} did not start:\n{self.log.read_text()[-2000:]}")
        server = Server(process, match[0], started)
        self.running.append(server)
        return server

    def stop(self, server: Server) -> None:
        server.process.terminate()
        server.process.wait(TIMEOUT)
        if server.process.stdout:
            server.process.stdout.close()
        self.running.remove(server)


@contextlib.contextmanager
def scratch() -> Iterator[Bench]:
    """Yield a bench, and remove it afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="dashboard-bench-"))
    bench = Bench(folder)
    try:
        yield bench
    finally:
        for server in list(bench.running):
            bench.stop(server)
        shutil.rmtree(folder)


@contextlib.contextmanager
def database(server: str) -> Iterator[str]:
    """Create a database on a PostgreSQL server, and drop it at the end."""
    if not server:
        yield ""
        return
    import psycopg

    name = f"dashboard_bench_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as link:
        link.execute(f"CREATE DATABASE {name}")
        try:
            yield f"{server.rpartition('/')[0]}/{name}"
        finally:
            link.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def local_django(server: str, checkout: Path = ROOT) -> Iterator[None]:
    """Set up the settings of a checkout in this process, with a scratch database.

    On SQLite if `server`, the address of a PostgreSQL database, is empty.
    """
    sys.path.insert(0, str(checkout))
    with scratch() as bench, database(server) as url:
        settings = {"NORTHFLANK_API_TOKEN": "sandbox", "LOG_LEVEL": "ERROR"}
        if url:
            settings["DATABASE_URL"] = url
        os.environ.update(bench.environment(settings))
        os.environ["DJANGO_SETTINGS_MODULE"] = "dashboard.settings"
        yield


def database_version() -> str:
    """Return name and version of the database of this process's settings."""
    from django.db import connection

    if connection.vendor == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    return f"PostgreSQL {connection.pg_version}"  # type: ignore[attr-defined]


@dataclass
class Upstream:
    """A sandbox in its own process, and a direct connection to it."""

    server: Server
    port: int
    http: http.client.HTTPConnection

    def connect(self) -> None:
        """Open a new connection: the server closes one that was idle for some seconds."""
        self.http.close()
        self.http.connect()

    def post(self, path: str) -> tuple[dict[str, object], float]:
        """POST, and return the answer's data and the milliseconds it took."""
        started = time.perf_counter()
        self.http.request("POST", path, b"{}", {"Authorization": "Bearer sandbox"})
        response = self.http.getresponse()
        body = response.read()
        ms = (time.perf_counter() - started) * 1000
        assert response.status == 200, f"POST {path}: {response.status} {body[:200]!r}"
        return json.loads(body)["data"], ms


def start_upstream(bench: Bench, *options: str) -> Upstream:
    """Start a sandbox without an effective rate limit: the sync reads as often as it can."""
    server = bench.start("sandbox", "--port", "0", "--rate-limit", "1000000", *options)
    port = urlsplit(server.url).port
    assert port
    return Upstream(server, port, http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT))


def start_dashboard(
    bench: Bench, upstream: Upstream, port: int = 0, **settings: str
) -> tuple[Server, Browser]:
    """Start a dashboard that reads `upstream`, and sign in a release manager."""
    all_settings = {
        **settings,
        "NORTHFLANK_API_TOKEN": "sandbox",
        "NORTHFLANK_API_BASE_URL": f"http://127.0.0.1:{upstream.port}",
    }
    server = bench.start("serve", "--port", str(port), **all_settings)
    bench.manage("shell", "--no-imports", "--command", MAKE_MANAGER, **all_settings)
    browser = Browser(server.url)
    browser.sign_in("ada")
    return server, browser


def wait_for[T](condition: Callable[[], T], description: str, interval: float = 0.01) -> T:
    """Return the first true value of `condition`."""
    deadline = time.monotonic() + TIMEOUT
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"Gave up after {TIMEOUT:.0f} s: {description}")
        time.sleep(interval)
    return result


@contextlib.contextmanager
def serve_in_thread(app: Any) -> Iterator[str]:
    """Serve an ASGI application on `serve`'s event loop; yield the URL.

    asyncio's own loop would add 40 ms to each answer on a connection kept alive.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
        )
    )
    thread = threading.Thread(
        target=lambda: uvloop.run(server._serve(sockets=[listener])), daemon=True
    )
    thread.start()
    wait_for(lambda: server.started, "the sandbox listens")
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        listener.close()
