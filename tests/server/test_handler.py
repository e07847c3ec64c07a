"""The ASGI handler that asgi.py builds on Django's internals, over real HTTP."""

import contextlib
import gc
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest
from django.template.context import BaseContext

from dashboard.asgi import application
from dashboard.models import Abort
from dashboard.sandbox import parse_fault
from dashboard.web.components.data_age import DataAge
from dashboard.web.pages import search
from tests.support import factories, handler_views
from tests.support.html import HTMX
from tests.support.live import Live
from tests.support.live_runs import create_run_in_flight, submit_abort, wait_until
from tests.support.stream import open_stream

on_postgres = pytest.mark.skipif(
    django_settings.DATABASES["default"]["ENGINE"].endswith(".sqlite3"),
    reason="SQLite has no server that counts connections",
)


@pytest.fixture
def anonymous_browser(live: Live, settings: Any) -> Iterator[httpx.Client]:
    """A browser without a session, at a dashboard with the views of `handler_views` as well."""
    settings.ROOT_URLCONF = "tests.support.handler_views"
    handler_views.form_reads.clear()
    with httpx.Client(base_url=live.base_url, timeout=60) as browser:
        yield browser


def send_raw(live: Live, content: bytes) -> bytes:
    """Send bytes, and return everything received until the server closes the connection."""
    with socket.create_connection(host_and_port(live), timeout=60) as connection:
        connection.sendall(content)
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


def host_and_port(live: Live) -> tuple[str, int]:
    host, port = live.base_url.removeprefix("http://").split(":")
    return host, int(port)


# --- threads and connections -------------------------------------------------------------------


def test_handler_uses_limited_thread_pool(anonymous_browser: httpx.Client) -> None:
    with ThreadPoolExecutor(20) as executor:
        names = list(executor.map(lambda _: anonymous_browser.get("/thread/").text, range(100)))
    before = threading.active_count()
    assert len(set(names)) <= application.executor._max_workers
    assert all(name.startswith("django") for name in names)
    anonymous_browser.get("/thread/")
    assert threading.active_count() == before


@on_postgres
def test_handler_reuses_few_database_connections(live: Live, manager: User) -> None:
    client = live.sign_in("manager")

    def backend_pids() -> set[int]:
        with connection.cursor() as cursor:
            # Not PostgreSQL's own, such as an autovacuum worker, which comes and goes.
            cursor.execute(
                "SELECT pid FROM pg_stat_activity "
                "WHERE datname = current_database() AND backend_type = 'client backend'"
            )
            return {pid for (pid,) in cursor.fetchall()}

    def request_pages() -> None:
        with ThreadPoolExecutor(20) as executor:
            assert {
                answer.status_code for answer in executor.map(lambda _: client.get("/"), range(60))
            } == {200}

    request_pages()
    pids = backend_pids()
    request_pages()
    later_pids = backend_pids()
    # Ours, the handler's four, the listener's, and the loop's three, each of which connects at its
    # first work.
    assert pids <= later_pids
    assert len(later_pids) <= 1 + 4 + 1 + 3


def test_pages_respond_while_aborts_wait_for_northflank(live: Live, manager: User) -> None:
    # One more than there are threads: each further one is another write within the nine seconds.
    runs = [create_run_in_flight(live) for _ in range(application.executor._max_workers + 1)]
    live.sandbox.faults = [parse_fault("latency:9@/abort")]
    client, other_client = live.sign_in("manager"), live.sign_in("manager")
    other_client.get("/")
    with ThreadPoolExecutor(len(runs)) as executor:
        responses = [executor.submit(submit_abort, client, run) for run in runs]
        wait_until(lambda: Abort.objects.exclude(sent_at=None).count() == len(runs))
        for page in ("/", "/healthz", "/board/"):
            assert other_client.get(page).status_code == 200
        assert not any(response.done() for response in responses)
        assert {response.result().status_code for response in responses} == {200}
    assert Abort.objects.filter(state="accepted").count() == len(runs)
    assert set(live.sandbox.abort_request_counts.values()) == {1}


def test_pages_respond_while_sign_ins_wait_for_each_other(live: Live, manager: User) -> None:
    client, released = live.sign_in("manager"), threading.Event()
    application.sign_in_executor.submit(released.wait, 60)  # a slow sign-in
    try:
        with (
            ThreadPoolExecutor(10) as executor,
            httpx.Client(base_url=live.base_url, timeout=60) as stranger,
        ):
            sign_ins = [executor.submit(stranger.get, "/accounts/login/") for _ in range(10)]
            assert client.get("/").status_code == 200
            assert not any(sign_in.done() for sign_in in sign_ins)
            released.set()
            assert {sign_in.result().status_code for sign_in in sign_ins} == {200}
    finally:
        released.set()


@pytest.fixture
def held_searches() -> Iterator[threading.Event]:
    """Let all searches wait until the event is set."""
    released = threading.Event()
    search.queue.executor.submit(released.wait, 60)
    yield released
    released.set()


def test_pages_respond_while_searches_wait_for_each_other(
    live: Live, manager: User, held_searches: threading.Event
) -> None:
    client = live.sign_in("manager")
    with ThreadPoolExecutor(3) as executor:
        searches = [executor.submit(client.get, "/search/?q=shop") for _ in range(3)]
        wait_until(lambda: len(search.queue._waiting) == 2)
        assert client.get("/").status_code == 200
        assert not any(answer.done() for answer in searches)
        held_searches.set()
        assert {answer.result().status_code for answer in searches} == {200}


def test_third_waiting_search_of_an_account_gets_429(
    live: Live, manager: User, viewer: User, held_searches: threading.Event
) -> None:
    client, other = live.sign_in("manager"), live.sign_in("viewer")
    with ThreadPoolExecutor(5) as executor:
        searches = [executor.submit(client.get, "/search/?q=shop") for _ in range(4)]
        # Not beside them: if the other account's search had the thread, all four would wait.
        refused = next(as_completed(searches)).result()
        searches.append(executor.submit(other.get, "/search/?q=shop"))
        held_searches.set()
        statuses = sorted(answer.result().status_code for answer in searches)
    assert statuses == [200, 200, 200, 200, 429]
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "2")
    assert refused.text == "Too many searches at the same time. Try again in 2 s."


# --- waiting -----------------------------------------------------------------------------------


def test_form_is_readable_before_and_after_the_wait(anonymous_browser: httpx.Client) -> None:
    assert anonymous_browser.post("/wait/well/", data={"word": "käse"}).text == "done käse"
    assert handler_views.form_reads == ["käse", "käse"]


def test_waiting_view_response_has_headers_cookies_and_policy(
    anonymous_browser: httpx.Client,
) -> None:
    answer = anonymous_browser.post("/wait/well/", data={"word": "x"})
    assert answer.status_code == 200
    assert answer.headers["x-waited"] == "yes"
    assert answer.cookies["waited"] == "yes"
    assert "default-src 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(("end", "status"), [("elsewhere", 303), ("missing", 404)])
def test_waiting_view_response_may_have_any_status(
    anonymous_browser: httpx.Client, end: str, status: int
) -> None:
    answer = anonymous_browser.post(f"/wait/{end}/")
    assert answer.status_code == status
    assert answer.headers.get("location") == ("/elsewhere/" if status == 303 else None)


def test_outage_after_the_wait_tells_what_was_saved_after_it(
    anonymous_browser: httpx.Client,
) -> None:
    answer = anonymous_browser.post("/wait/saved/")
    assert answer.status_code == 503
    assert "Your request was saved before the outage" in answer.text


@pytest.mark.parametrize(
    ("address", "reason"),
    [("/wait/broken/", "the awaited work has failed"), ("/broken/", "a view has failed")],
)
def test_view_error_returns_500_page_and_is_logged(
    anonymous_browser: httpx.Client, caplog: pytest.LogCaptureFixture, address: str, reason: str
) -> None:
    answer = anonymous_browser.post(address)
    assert answer.status_code == 500
    assert "Internal error" in answer.text
    assert reason not in answer.text
    assert "content-security-policy" in answer.headers
    assert reason in caplog.text
    assert anonymous_browser.get("/thread/").status_code == 200


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["/static/live.js", "/accounts/login/", "/healthz"])
def test_head_request_returns_get_headers_without_body(
    anonymous_browser: httpx.Client, address: str
) -> None:
    headers = {"Accept-Encoding": "identity"}
    get, head = (
        anonymous_browser.get(address, headers=headers),
        anonymous_browser.head(address, headers=headers),
    )
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"]


# --- bad requests ------------------------------------------------------------------------------


def test_body_over_limit_is_rejected(anonymous_browser: httpx.Client) -> None:
    answer = anonymous_browser.post("/size/", data={"word": "x" * 3_000_000})
    assert answer.status_code in {400, 413}


def test_form_with_too_many_fields_is_rejected(anonymous_browser: httpx.Client) -> None:
    fields = {f"field-{number}": "x" for number in range(1001)}
    assert anonymous_browser.post("/size/", data=fields).status_code == 400
    assert anonymous_browser.post("/size/", data=dict(list(fields.items())[:999])).text == "0"


def test_chunked_body_over_limit_is_rejected(anonymous_browser: httpx.Client) -> None:
    answer = anonymous_browser.post(
        "/size/",
        content=iter([b"word=", *[b"x" * 100_000] * 30]),
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code in {400, 413}


@pytest.mark.parametrize("address", ["/healthz", "/accounts/login/"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "0" * 5000},
        {"Content-Type": "a/b;" + "x" * 20_000},
        {"Content-Type": "a/b; x*=bogus''%41"},
        {"Content-Type": "a/b; x*=idna''%41"},
        {"Content-Type": "multipart/form-data; boundary=b; charset=hex"},
    ],
    ids=["length", "long", "unknown_encoding", "failing_encoding", "charset"],
)
def test_invalid_header_is_rejected_with_one_line(
    live: Live, caplog: pytest.LogCaptureFixture, address: str, headers: dict[str, str]
) -> None:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    answer = send_raw(
        live,
        f"POST {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{lines}\r\n".encode(),
    )
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert caplog.messages == [f"Bad Request: {address}"]
    assert b"content-security-policy" in answer


@pytest.mark.parametrize(
    ("address", "headers", "kind", "text"),
    [
        ("/accounts/login/", {}, "text/html; charset=utf-8", "<h1>Request too large</h1>"),
        ("/accounts/login/", HTMX, "text/plain; charset=utf-8", "Request too large."),
        ("/hooks/northflank/", {}, "text/plain; charset=utf-8", "Request too large."),
        ("/api/runs/", {}, "application/json", '"code":"too_large"'),
    ],
    ids=["page", "htmx", "webhook", "api"],
)
def test_body_over_limit_is_refused_in_the_form_of_the_address_with_one_line(
    live: Live,
    caplog: pytest.LogCaptureFixture,
    address: str,
    headers: dict[str, str],
    kind: str,
    text: str,
) -> None:
    answer = httpx.post(f"{live.base_url}{address}", content=b"x" * 70_000, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (413, kind)
    assert text in answer.text
    assert "content-security-policy" in answer.headers
    assert caplog.messages == [f"Content Too Large: {address}"]


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
    ],
)
def test_invalid_http_request_returns_400(live: Live, line: bytes) -> None:
    assert send_raw(live, line).startswith(b"HTTP/1.1 400")


def test_websocket_scope_is_rejected(live: Live) -> None:
    with pytest.raises(ValueError, match="not websocket"):
        live.run(lambda: application({"type": "websocket"}, None, None))  # type: ignore[arg-type]


# --- disconnects -------------------------------------------------------------------------------


def test_disconnect_during_request_body_logs_no_error(
    anonymous_browser: httpx.Client, live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with socket.create_connection(host_and_port(live)) as line:
            line.sendall(
                b"POST /size/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nword=x"
            )
    assert anonymous_browser.get("/thread/").status_code == 200
    assert not [r for r in caplog.records if r.levelname in {"ERROR", "CRITICAL"}]


def test_disconnect_before_response_logs_no_error(
    anonymous_browser: httpx.Client, live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        with socket.create_connection(host_and_port(live)) as line:
            line.sendall(
                b"POST /wait/well/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 6\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n\r\nword=x"
            )
    assert anonymous_browser.get("/thread/").status_code == 200
    assert not [r for r in caplog.records if r.levelname in {"ERROR", "CRITICAL"}]


def test_stream_ends_on_disconnect_and_holds_no_thread(anonymous_browser: httpx.Client) -> None:
    with contextlib.ExitStack() as stack:
        readers = [
            stack.enter_context(anonymous_browser.stream("GET", "/stream/")) for _ in range(6)
        ]
        texts = [reader.iter_text() for reader in readers]
        assert all(next(text).startswith(": tick") for text in texts)
        assert len(handler_views.streams_open) == 6  # more than there are threads
        assert anonymous_browser.get("/thread/").status_code == 200
    wait_until(lambda: not handler_views.streams_open)


# --- memory ---------------------------------------------------------------------------------------


@pytest.fixture
def unreachable() -> Iterator[list[Any]]:
    """What only refers to itself, so that Python has to search for it."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


@pytest.mark.slow
@pytest.mark.usefixtures("manager")
def test_answered_request_and_its_page_are_freed_at_once(
    live: Live, unreachable: list[Any]
) -> None:
    run = factories.run(factories.stage())
    places = [factories.address(run.stage), factories.address(run)]
    client = live.sign_in("manager")
    with open_stream(client):
        pass
    for path in ("/", "/board/", "/health/", "/aborts/", *places):
        assert client.get(path).status_code == 200

    gc.collect()

    kinds = (HttpRequest, BaseContext, DataAge)
    assert not [item for item in unreachable if isinstance(item, kinds)]
