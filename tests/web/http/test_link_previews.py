"""Link previews show no data to strangers, and opening a URL changes nothing."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import httpx
import pytest
from django.apps import apps
from django.contrib.auth.models import Group, User
from django.urls import URLPattern, URLResolver, get_resolver

from dashboard.accounts import permissions
from dashboard.models import Abort, BulkAbort, Run, Session
from tests.support import factories, live_runs
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import WAIT_TIMEOUT, Live

SECRET = "Secret"  # part of the names of all that is mirrored
# What viewing a page writes, so that it is read more often.
WATCH_FIELDS = {"last_viewed_at", "watched_since", "next_sync_at", "next_detail_sync_at"}

BOTS = [
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Mozilla/5.0 SkypeUriPreview Preview/0.5 skype-url-preview@microsoft.com",
    "WhatsApp/2.23.20.0",
]


@pytest.fixture
def run(live: Live) -> Run:
    """A run in flight, mirrored, in a project and pipeline with secret names."""
    run = live_runs.create_run_in_flight(live)
    pipeline = run.stage.pipeline
    for row, name in ((pipeline.project, "Project"), (pipeline, "Pipeline"), (run, "Run")):
        type(row)._default_manager.filter(pk=row.pk).update(name=f"{SECRET} {name}")  # type: ignore[attr-defined]
    live.sandbox.requests.clear()
    return run


def routes(patterns: Iterable[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    for pattern in patterns:
        route = before + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from routes(pattern.url_patterns, route)
        else:
            yield route


def addresses(run: Run, batch: BulkAbort | None = None) -> list[str]:
    """One address for each URL pattern, with its parameters filled in."""
    stage = run.stage
    names = {
        "project_id": stage.pipeline.project.slug,
        "pipeline_id": stage.pipeline.slug,
        "stage_id": stage.path_segment,
        "run_id": run.run_id,
        "public_id": "1",
        "token": "1",
        "key": "1",
        "grant_key": "1",
        "token_key": "1",
        "pk": str(batch.pk) if batch else "1",
        "object_id": "1",
        "app_label": "dashboard",
        "content_type_id": "1",
        "url": "nothing",
    }
    result = []
    for route in routes(get_resolver().url_patterns):
        pattern = re.sub(r"\(\?P<(\w+)>[^)]*\)", r"<\1>", route)
        filled = re.sub(r"<(?:\w+:)?(\w+)>", lambda part: names[part[1]], pattern)
        result.append("/" + re.sub(r"[\^$]|\\Z", "", filled))
    return [*result, "/healthz", "/readyz", "/static/live.js", "/no/such/page/"]


def all_rows() -> dict[str, list[dict[str, Any]]]:
    """All rows of all tables, without what viewing a page may write."""
    return {
        model.__name__: [
            {name: value for name, value in row.items() if name not in WATCH_FIELDS}
            for row in model._default_manager.order_by("pk").values()
        ]
        for model in apps.get_models()
        if model is not Session
    }


def test_addresses_helper_covers_every_route(run: Run) -> None:
    covered = addresses(run)
    assert {
        factories.address(run),
        factories.address(run, "abort"),
        "/live/",
        "/aborts/bulk/new/",
    } <= {*covered}
    assert {"/admin/dashboard/abort/", "/api/runs/", f"/runs/{run.run_id}/"} <= {*covered}
    assert not [address for address in covered if re.search(r"[<>()^$]", address)]


@pytest.mark.slow
@pytest.mark.parametrize("bot", BOTS)
def test_every_address_without_session_shows_neutral_sign_in_page(
    bot: str, live: Live, run: Run
) -> None:
    with httpx.Client(
        base_url=live.base_url, headers={"User-Agent": bot}, timeout=WAIT_TIMEOUT
    ) as http_client:
        for address in addresses(run):
            answer = http_client.get(address, follow_redirects=True)
            assert SECRET not in answer.text, address
            assert SECRET not in str(answer.headers), address
            if answer.url.path != "/accounts/login/":
                continue
            html = parse_html(answer)
            assert text_of(select_one(html, "title")) == "Sign in · Release flows"
            texts = {
                meta.attributes.get("property") or meta.attributes.get("name"): meta
                for meta in html.css("meta[property], meta[name]")
            }
            assert texts["og:title"].attributes["content"] == "Release flows"
            assert texts["robots"].attributes["content"] == "noindex"
            assert set(texts) == {"viewport", "color-scheme", "robots", "og:title", "htmx-config"}
            for next_field in html.css("[name=next]"):
                next_field.decompose()
            assert run.run_id not in (html.html or ""), address
            assert answer.headers["Referrer-Policy"] == "same-origin"
    assert not live.sandbox.requests


@pytest.mark.slow
def test_every_page_without_session_redirects_to_sign_in(live: Live, run: Run) -> None:
    public = re.compile(r"/(healthz|readyz|static|hooks|api|accounts|admin|no)\b")
    for address in addresses(run):
        if public.match(address):
            continue
        for method in ("GET", "HEAD"):
            answer = httpx.request(method, live.base_url + address)
            assert answer.status_code == 302, (method, address)
            assert answer.headers["location"].startswith("/accounts/login/?next=")
            assert answer.content == b""


METHOD_OVERRIDE_HEADERS = [
    {},
    {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch", "X-Moz": "prefetch"},
    {"HX-Request": "true", "X-HTTP-Method-Override": "POST", "X-HTTP-Method": "DELETE"},
]


@pytest.mark.slow
@pytest.mark.parametrize("headers", METHOD_OVERRIDE_HEADERS, ids=["plain", "prefetch", "pretence"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_get_and_head_requests_change_nothing(
    method: str, headers: dict[str, str], live: Live, run: Run
) -> None:
    superuser = User.objects.create_superuser("boss", password="boss")
    permissions.ensure_default_group()
    superuser.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    client = live.sign_in("boss")
    before = all_rows()
    statuses = {}
    for address in addresses(run):
        query = "?pick=Stuck&run=1&confirm=yes&_method=POST&action=abort"
        with client.stream(method, address + query, headers=headers) as answer:
            statuses[address] = answer.status_code  # without waiting for a stream's messages
    assert all_rows() == before
    assert not Abort.objects.exists()
    assert {request_method for request_method, _ in live.sandbox.requests} <= {"GET"}
    assert [path for path, status in statuses.items() if status >= 500] == []
    assert statuses[factories.address(run, "abort")] == 200
    assert statuses["/accounts/logout/"] == 405
    assert client.get("/").status_code == 200  # and is still signed in
