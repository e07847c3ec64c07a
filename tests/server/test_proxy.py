"""The dashboard under a path prefix, behind a proxy with HTTPS."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest
from selectolax.lexbor import LexborHTMLParser

from tests.support import auth_proxy, processes
from tests.support.auth_proxy import ProxiedBrowser
from tests.support.live_runs import wait_until
from tests.support.processes import RunningProcess, run_manage
from tests.support.proxy import ProxyTransport

# One dashboard for all of them.
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("behind a proxy")]

SITE = "https://example.com"
HOME = f"{SITE}/releases"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProcess]:
    """A dashboard that knows its address only from BASE_URL."""
    folder = tmp_path_factory.mktemp("proxied")
    database = f"sqlite:///{folder / 'd.sqlite3'}"
    with run_manage(
        folder, "serve", "--port", "0", BASE_URL=HOME, DATABASE_URL=database
    ) as process:
        yield process


@pytest.fixture(params=["", "/releases"], ids=["whole addresses", "cut addresses"])
def client(dashboard: RunningProcess, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A client behind a proxy that forwards the full address, or removes the prefix."""
    transport = ProxyTransport(dashboard.base_url, removed_prefix=request.param)
    with httpx.Client(
        transport=transport, base_url=SITE, timeout=processes.WAIT_TIMEOUT
    ) as proxied:
        yield proxied


def csrf_token(page: httpx.Response) -> str:
    field = LexborHTMLParser(page.text).css_first("[name=csrfmiddlewaretoken]")
    assert field is not None, page.text
    return field.attributes["value"] or ""


def sign_in(client: httpx.Client, address: str = "/releases/") -> httpx.Response:
    """Open an address, sign in on the page it redirects to, and return the response."""
    page = client.get(address, follow_redirects=True)
    return client.post(
        page.url,
        data={
            "username": "manager",
            "password": "manager",
            "csrfmiddlewaretoken": csrf_token(page),
        },
        headers={"Origin": SITE, "Referer": str(page.url)},
    )


def abortable_run_address(client: httpx.Client) -> str:
    """Wait until a run that can be aborted was read, and return its address."""

    def find_run() -> str:
        page = LexborHTMLParser(client.get("/releases/").text)
        for row in page.css("[data-run]"):
            link = row.css_first("a.title")
            if row.css_first("[data-abort]") and link:
                return link.attributes["href"] or ""
        return ""

    return wait_until(find_run, processes.WAIT_TIMEOUT)


def test_sign_in_behind_proxy_returns_to_page(client: httpx.Client) -> None:
    address = "/releases/board/?a=b%2Fc&n=%C3%A9"
    redirect = client.get(address)
    assert redirect.status_code == 302
    assert redirect.headers["location"] == f"/releases/accounts/login/?next={quote(address)}"
    answer = sign_in(client, address)
    assert (answer.status_code, answer.headers["location"]) == (302, address)
    assert client.get(address).status_code == 200


def test_cookies_behind_proxy_are_limited_to_path_prefix(client: httpx.Client) -> None:
    answer = sign_in(client)
    headers = answer.headers.get_list("set-cookie")
    cookies = {
        re.split("[=]", header)[0]: header for header in headers if "Max-Age=0" not in header
    }
    assert set(cookies) == {"sessionid-releases", "csrftoken-releases"}
    assert all(
        "Path=/releases/;" in f"{header};" and "Secure" in header for header in cookies.values()
    )


@pytest.mark.slow
def test_links_behind_proxy_have_path_prefix_and_open(client: httpx.Client) -> None:
    sign_in(client)
    run = abortable_run_address(client)
    pending, visited = ["/releases/", "/releases/nothing/", run, f"{run}abort/"], set()
    while pending:
        page_address = pending.pop()
        answer = client.get(page_address, follow_redirects=True)
        assert answer.status_code == (404 if "nothing" in page_address else 200), page_address
        if not answer.headers["content-type"].startswith("text/html"):
            continue
        page = LexborHTMLParser(answer.text)
        for name in ("href", "src", "action", "hx-get", "hx-post", "hx-sse:connect"):
            for element in page.css("*"):
                if name not in element.attributes:
                    continue
                address = urljoin(str(answer.url), element.attributes[name])
                if address.startswith("data:") or "#" in address:
                    continue
                assert address.startswith(f"{HOME}/"), f"{page_address}: {name}={address}"
                path = urlsplit(address).path
                reading = name in {"href", "src", "hx-get"}
                # One of each kind, regardless of ids and filters.
                kind = re.sub(r"(?<=/runs/)[^/]+|(?<=/projects/)[^/]+/pipelines/[^/]+", "*", path)
                if reading and kind not in visited and len(visited) < 60:
                    visited.add(kind)
                    pending.append(address.removeprefix(SITE))
    assert {"/releases/board/", "/releases/health/", "/releases/static/live.js"} <= visited


def test_run_behind_proxy_is_found_by_id_and_aborted_without_javascript(
    client: httpx.Client,
) -> None:
    sign_in(client)
    run = abortable_run_address(client)
    redirect = client.get(f"/releases/runs/{run.split('/')[-2]}/?from=alert")
    assert redirect.headers["location"] == f"{run}?from=alert"
    confirmation = client.get(f"{run}abort/")
    form = LexborHTMLParser(confirmation.text).css_first("main form")
    assert form is not None
    answer = client.post(
        form.attributes["action"] or "",
        data={"pick": "Stuck", "csrfmiddlewaretoken": csrf_token(confirmation)},
        headers={"Origin": SITE, "Referer": str(confirmation.url)},
    )
    assert (answer.status_code, answer.headers["location"]) == (302, run)
    page = client.get(run)
    assert LexborHTMLParser(page.text).css_first(".abort-details") is not None
    # The incident summary has the full address, once.
    assert f"{HOME}{run.removeprefix('/releases')}" in page.text
    assert "/releases/releases/" not in page.text


def test_stream_behind_proxy_contains_addresses_with_path_prefix(client: httpx.Client) -> None:
    sign_in(client)
    page = LexborHTMLParser(client.get(abortable_run_address(client)).text)
    stream_element = page.css_first("#stream")
    assert stream_element is not None
    stream_address = stream_element.attributes["hx-sse:connect"] or ""
    assert stream_address.startswith("/releases/live/?")
    # All changes so far come at once: rows rendered on another thread.
    full_replay = re.sub(r"since=[\d.]+", "since=0", stream_address)
    with client.stream("GET", full_replay) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        received = ""
        for chunk in stream.iter_text():
            received += chunk
            if "/pipelines/" in received:
                break
    assert 'href="/releases/projects/' in received
    assert 'href="/projects/' not in received


def test_http_request_redirects_to_https(dashboard: RunningProcess) -> None:
    answer = httpx.get(f"{dashboard.base_url}/releases/board/?a=b", headers={"Host": "example.com"})
    assert (answer.status_code, answer.headers["location"]) == (301, f"{HOME}/board/?a=b")


@pytest.mark.parametrize("path", ["/api/runs/", "/api/nothing", "/hooks/northflank/"])
def test_http_request_with_a_token_is_refused(path: str, dashboard: RunningProcess) -> None:
    """A redirect would let a client send its token unencrypted for ever."""
    answer = httpx.post(f"{dashboard.base_url}/releases{path}", headers={"Host": "example.com"})
    assert answer.status_code == 403
    assert "Use HTTPS" in answer.text


def test_http_request_for_a_project_called_api_redirects(dashboard: RunningProcess) -> None:
    address = f"{dashboard.base_url}/releases/projects/api/"
    assert httpx.get(address, headers={"Host": "example.com"}).status_code == 301


def test_health_endpoints_need_no_path_prefix(dashboard: RunningProcess) -> None:
    for path in ("/healthz", "/readyz", "/releases/healthz"):
        assert httpx.get(dashboard.base_url + path).status_code == 200


def test_sandbox_webhooks_behind_proxy_reach_dashboard(client: httpx.Client) -> None:
    sign_in(client)
    wait_until(
        lambda: "Received from Northflank" in client.get("/releases/health/").text,
        processes.WAIT_TIMEOUT,
    )


@pytest.mark.slow
def test_session_has_the_address_that_a_proxy_on_this_machine_forwards(
    client: httpx.Client,
) -> None:
    client.headers["X-Forwarded-For"] = "198.51.100.7"
    sign_in(client)
    assert "198.51.100.7" in client.get("/releases/account/").text


@pytest.mark.slow
def test_header_is_believed_by_the_peer_alone_whoever_may_name_clients(tmp_path: Path) -> None:
    variables = {
        "AUTH_PROXY_HEADER": auth_proxy.HEADER,
        "AUTH_PROXY_TRUSTED": auth_proxy.PROXY,
        "PASSWORD_SIGN_IN": "false",
        "BREAK_GLASS_ACCOUNT": "glass",
        "FORWARDED_ALLOW_IPS": "*",  # anybody's X-Forwarded-For is believed
        "DATABASE_URL": f"sqlite:///{tmp_path / 'd.sqlite3'}",
    }
    with run_manage(tmp_path, "serve", "--port", "0", **variables) as process:
        statuses = {}
        for peer, client in itertools.product(
            (auth_proxy.PROXY, auth_proxy.STRANGER), ("", auth_proxy.PROXY, auth_proxy.STRANGER)
        ):
            with ProxiedBrowser(process.base_url, "ada", peer=peer) as browser:
                answer = browser.get("/board/", headers={"X-Forwarded-For": client})
                statuses[peer, client] = answer.status_code
        log = process.log.read_text()
    assert statuses == {
        (peer, client): 200 if peer == auth_proxy.PROXY else 403 for peer, client in statuses
    }
    assert log.count("auth_proxy.refused") == 3
    assert f"peer={auth_proxy.STRANGER}" in log
    assert "break_glass.unusable" in log  # it has not been created
