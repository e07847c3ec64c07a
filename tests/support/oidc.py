"""A dashboard that signs in through an OpenID provider, each as a process of its own."""

import contextlib
import itertools
import json
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from tests.support import live
from tests.support.html import parse_html, select_one, text_of
from tests.support.oidc_provider import CLIENT_ID, CLIENT_SECRET
from tests.support.processes import WAIT_TIMEOUT, fork, manage

ORIGIN = live.options().schedule_origin  # of all dashboards here: they may share a database
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Provider:
    """The provider: the claims of its users, and its faults."""

    base_url: str

    @property
    def issuer(self) -> str:
        return f"{self.base_url}/o"

    def control(self, **changes: Any) -> None:
        answer = httpx.put(f"{self.base_url}/control/", json=changes, timeout=WAIT_TIMEOUT)
        assert answer.status_code == 200, answer.text

    def reset(self) -> None:
        """End all faults."""
        self.control(id_token={}, answers={})

    def set_claims(self, username: str, **claims: Any) -> None:
        self.control(claims={username: claims})


@dataclass
class Dashboard:
    """The dashboard, with its provider."""

    base_url: str
    provider: Provider
    log: Path
    database_url: str

    def browser(self) -> "Browser":
        return Browser(self)

    @cached_property
    def administrator(self) -> "Browser":
        """The browser of a superuser."""
        browser = self.browser()
        browser.sign_in_with_password("admin")
        return browser

    def access_events(self, **filter: str) -> list[dict[str, Any]]:
        """The access log, newest first, as an administrator exports it."""
        answer = self.administrator.open(f"/access/export.json?{httpx.QueryParams(filter)}")
        events: list[dict[str, Any]] = json.loads(answer.text)
        return events

    def deactivate(self, username: str) -> None:
        """Deactivate an account under /people/."""
        page = self.administrator.open(f"/people/?q={username}")
        links = {text_of(a): a.attributes["href"] for a in parse_html(page).css("a.title")}
        page = self.administrator.open(links[username] or "")
        form = select_one(parse_html(page), "#settings + form")
        for box in form.css("input[type=checkbox]"):
            box.decompose()  # as unchecked
        assert self.administrator.submit(form, page).status_code == 303

    def close(self) -> None:
        if "administrator" in vars(self):
            self.administrator.close()


class Browser(httpx.Client):
    """A browser that follows what pages ask for, without running scripts."""

    def __init__(self, dashboard: Dashboard) -> None:
        # An address of its own, as behind a proxy: failures of one are not all recorded.
        number = next(_numbers)
        address = f"198.18.{number // 250}.{number % 250 + 1}"
        super().__init__(timeout=WAIT_TIMEOUT, verify=False, headers={"X-Forwarded-For": address})
        self.dashboard = dashboard

    def open(self, path: str) -> httpx.Response:
        return self.get(f"{self.dashboard.base_url}{path}", follow_redirects=True)

    def begin(self, path: str = "/") -> httpx.Response:
        """Open a page without a session, and press the button of the provider."""
        page = self.open(path)
        form = parse_html(page).css_first("form[action*='/accounts/oidc/']")
        assert form is not None, page.text
        return self.submit(form, page)

    def submit(self, form: Any, page: httpx.Response, **values: str) -> httpx.Response:
        fields = {
            field.attributes["name"]: field.attributes.get("value") or ""
            for field in form.css("input[name]:not([type=submit])")
        }
        address = page.url.join(form.attributes.get("action") or str(page.url))
        return self.post(address, data=fields | values)

    def authorise(self, forward: httpx.Response, username: str) -> str:
        """Follow the page that forwards to the provider, sign in and consent there.

        Return the address to which the provider sends the browser back.
        """
        page = self.get(forward_url(forward), follow_redirects=True)
        form = parse_html(page).css_first("form")
        assert form is not None, page.text
        if "/sign-in/" in str(page.url):
            answer = self.submit(form, page, username=username)
            page = self.get(page.url.join(answer.headers["location"]))
            form = parse_html(page).css_first("form")
            assert form is not None, page.text
        return str(self.submit(form, page, allow="Authorize").headers["location"])

    def sign_in(self, username: str, path: str = "/") -> httpx.Response:
        """Sign in through the provider; return the answer to the callback."""
        return self.get(self.authorise(self.begin(path), username))

    def sign_out(self) -> httpx.Response:
        page = self.open("/")
        return self.submit(select_one(parse_html(page), "#menu form"), page)

    def sign_in_with_password(self, name: str) -> None:
        page = self.open("/accounts/login/")
        form = parse_html(page).css("main form")[-1]
        answer = self.submit(form, page, username=name, password=name)
        assert answer.status_code == 302, answer.text


def forward_url(page: httpx.Response) -> str:
    """Return where a page forwards to at once."""
    assert page.status_code == 200, (page.status_code, page.text)
    refresh = parse_html(page).css_first("meta[http-equiv=refresh]")
    assert refresh is not None, page.text
    match = re.fullmatch(r"0; url=(.+)", refresh.attributes["content"] or "")
    assert match, refresh.html
    return match[1]


def assert_failed(
    answer: httpx.Response, status: int, reason: str, dashboard: Dashboard, detail: str
) -> None:
    """Assert that a page says why nobody is signed in, and that the access log has it."""
    assert (answer.status_code, answer.headers.get("location")) == (status, None), answer.text
    page = parse_html(answer)
    assert text_of(select_one(page, "h1")) == "Not signed in"
    assert reason in text_of(select_one(page, "[data-reason]"))
    link = select_one(page, ".next-links a").attributes["href"] or ""
    assert link.startswith("/accounts/login/")
    event = dashboard.access_events(kind="sign_in_failed")[0]
    assert event["detail"].startswith("OpenID Connect: ")
    assert detail in event["detail"]


def new_username() -> str:
    """Return a user name that no other test uses."""
    return f"ada{next(_numbers)}"


@contextlib.contextmanager
def run_provider(folder: Path) -> Iterator[Provider]:
    with fork("tests.support.oidc_provider", str(folder), folder=folder) as process:
        yield Provider(process.base_url)


def migrate(database_url: str, provider: Provider) -> None:
    """Create the tables of a dashboard with a provider."""
    result = manage(
        "migrate", "-v0", DATABASE_URL=database_url, OIDC_ISSUER=provider.issuer, OIDC_CLIENT_ID="x"
    )
    assert result.returncode == 0, result.stderr


@contextlib.contextmanager
def run_dashboard(folder: Path, provider: Provider, **variables: str) -> Iterator[Dashboard]:
    """Run a dashboard whose users sign in through the provider, with further settings."""
    environment = {
        "DATABASE_URL": f"sqlite:///{folder / 'dashboard.sqlite3'}",
        "LOG_LEVEL": "INFO",
        "OIDC_ISSUER": provider.issuer,
        "OIDC_CLIENT_ID": CLIENT_ID,
        "OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "BREAK_GLASS_ACCOUNT": "break-glass",
        **variables,
    }
    arguments = ("serve", "--port=0", f"--origin={ORIGIN}")
    with fork("manage", *arguments, folder=folder, **environment) as process:
        with contextlib.suppress(httpx.ConnectError):  # it may be gone
            provider.control(client=process.base_url)
        with contextlib.closing(
            Dashboard(process.base_url, provider, process.log, environment["DATABASE_URL"])
        ) as dashboard:
            yield dashboard
        process.end(signal.SIGTERM)  # not killed: what it executed is measured
