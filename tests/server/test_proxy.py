"""The dashboard under a path prefix, behind a proxy with HTTPS."""

import re
from collections.abc import Iterator
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest
from selectolax.lexbor import LexborHTMLParser

from tests.support import processes
from tests.support.live_runs import wait_until
from tests.support.processes import Running, running
from tests.support.proxy import ProxyTransport

# One dashboard for all of them.
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("behind a proxy")]

SITE = "https://example.com"
HOME = f"{SITE}/releases"


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A dashboard to which BASE_URL is all that was said of where it lies."""
    folder = tmp_path_factory.mktemp("proxied")
    database = f"sqlite:///{folder / 'd.sqlite3'}"
    with running(folder, "serve", "--port", "0", BASE_URL=HOME, DATABASE_URL=database) as process:
        yield process


@pytest.fixture(params=["", "/releases"], ids=["whole addresses", "cut addresses"])
def person(dashboard: Running, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """A browser behind a proxy that passes the whole address on, or cuts the prefix off."""
    transport = ProxyTransport(dashboard.base_url, cuts=request.param)
    with httpx.Client(transport=transport, base_url=SITE, timeout=processes.PATIENCE) as person:
        yield person


def csrf_token(page: httpx.Response) -> str:
    field = LexborHTMLParser(page.text).css_first("[name=csrfmiddlewaretoken]")
    assert field is not None, page.text
    return field.attributes["value"] or ""


def sign_in(person: httpx.Client, wanted: str = "/releases/") -> httpx.Response:
    """Open an address, be led to the sign-in page, and answer what came of signing in."""
    page = person.get(wanted, follow_redirects=True)
    return person.post(
        page.url,
        data={
            "username": "manager",
            "password": "manager",
            "csrfmiddlewaretoken": csrf_token(page),
        },
        headers={"Origin": SITE, "Referer": str(page.url)},
    )


def abortable_run_address(person: httpx.Client) -> str:
    """The address of a run that can be aborted, once one was read."""

    def look() -> str:
        page = LexborHTMLParser(person.get("/releases/").text)
        for row in page.css("[data-run]"):
            link = row.css_first("a.title")
            if row.css_first("[data-abort]") and link:
                return link.attributes["href"] or ""
        return ""

    return wait_until(look, processes.PATIENCE)


def test_sign_in_behind_proxy_returns_to_page(person: httpx.Client) -> None:
    wanted = "/releases/board/?a=b%2Fc&n=%C3%A9"
    asked = person.get(wanted)
    assert asked.status_code == 302
    assert asked.headers["location"] == f"/releases/accounts/login/?next={quote(wanted)}"
    answer = sign_in(person, wanted)
    assert (answer.status_code, answer.headers["location"]) == (302, wanted)
    assert person.get(wanted).status_code == 200


def test_cookies_behind_proxy_are_limited_to_path_prefix(person: httpx.Client) -> None:
    answer = sign_in(person)
    set_ = answer.headers.get_list("set-cookie")
    told = {re.split("[=]", one)[0]: one for one in set_ if "Max-Age=0" not in one}
    assert set(told) == {"sessionid-releases", "csrftoken-releases"}
    assert all("Path=/releases/;" in f"{one};" and "Secure" in one for one in told.values())


def test_links_behind_proxy_have_path_prefix_and_open(person: httpx.Client) -> None:
    sign_in(person)
    run = abortable_run_address(person)
    to_do, seen = ["/releases/", "/releases/nothing/", run, f"{run}abort/"], set()
    while to_do:
        here = to_do.pop()
        answer = person.get(here, follow_redirects=True)
        assert answer.status_code == (404 if "nothing" in here else 200), here
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
                assert address.startswith(f"{HOME}/"), f"{here}: {name}={address}"
                path = urlsplit(address).path
                reading = name in {"href", "src", "hx-get"}
                # One of each kind, whatever its ids and filters.
                kind = re.sub(r"(?<=/runs/)[^/]+|(?<=/projects/)[^/]+/pipelines/[^/]+", "*", path)
                if reading and kind not in seen and len(seen) < 60:
                    seen.add(kind)
                    to_do.append(address.removeprefix(SITE))
    assert {"/releases/board/", "/releases/status/", "/releases/static/live.js"} <= seen


def test_address_without_slash_redirects_with_path_prefix(person: httpx.Client) -> None:
    answer = person.get("/releases/board")
    assert (answer.status_code, answer.headers["location"]) == (301, "/releases/board/")


def test_run_behind_proxy_is_found_by_id_and_aborted_without_javascript(
    person: httpx.Client,
) -> None:
    sign_in(person)
    run = abortable_run_address(person)
    found = person.get(f"/releases/runs/{run.split('/')[-2]}/?from=alert")
    assert found.headers["location"] == f"{run}?from=alert"
    question = person.get(f"{run}abort/")
    form = LexborHTMLParser(question.text).css_first("main form")
    assert form is not None
    answer = person.post(
        form.attributes["action"] or "",
        data={"pick": "Stuck", "csrfmiddlewaretoken": csrf_token(question)},
        headers={"Origin": SITE, "Referer": str(question.url)},
    )
    assert (answer.status_code, answer.headers["location"]) == (302, run)
    page = person.get(run)
    assert LexborHTMLParser(page.text).css_first(".abort-details") is not None
    # The text to hand over has the whole address, once.
    assert f"{HOME}{run.removeprefix('/releases')}" in page.text
    assert "/releases/releases/" not in page.text


def test_stream_behind_proxy_contains_addresses_with_path_prefix(person: httpx.Client) -> None:
    sign_in(person)
    page = LexborHTMLParser(person.get(abortable_run_address(person)).text)
    connect = page.css_first("#stream")
    assert connect is not None
    where = connect.attributes["hx-sse:connect"] or ""
    assert where.startswith("/releases/live/?")
    # All that has changed since ever comes at once: rows rendered on another thread.
    since_ever = re.sub(r"since=\d+", "since=0", where)
    with person.stream("GET", since_ever) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = ""
        for part in stream.iter_text():
            told += part
            if "/pipelines/" in told:
                break
    assert 'href="/releases/projects/' in told
    assert 'href="/projects/' not in told


def test_http_request_redirects_to_https(dashboard: Running) -> None:
    answer = httpx.get(f"{dashboard.base_url}/releases/board/?a=b", headers={"Host": "example.com"})
    assert (answer.status_code, answer.headers["location"]) == (301, f"{HOME}/board/?a=b")


def test_health_endpoints_need_no_path_prefix(dashboard: Running) -> None:
    for path in ("/healthz", "/readyz", "/releases/healthz"):
        assert httpx.get(dashboard.base_url + path).status_code == 200


def test_sandbox_webhooks_behind_proxy_reach_dashboard(person: httpx.Client) -> None:
    sign_in(person)
    wait_until(lambda: "Last event" in person.get("/releases/status/").text, processes.PATIENCE)
