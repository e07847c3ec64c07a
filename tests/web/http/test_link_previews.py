"""Link previews show no data to strangers."""

import re
from collections.abc import Iterable, Iterator

import httpx
import pytest
from django.urls import URLPattern, URLResolver, get_resolver

from dashboard.models import Run
from tests.support import factories, live_runs
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import WAIT_TIMEOUT, Live

SECRET = "Secret"  # part of the names of all that is mirrored

BOT = "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"


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


def addresses(run: Run) -> list[str]:
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
        "pk": "1",
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
def test_every_address_without_session_shows_neutral_sign_in_page(live: Live, run: Run) -> None:
    with httpx.Client(
        base_url=live.base_url, headers={"User-Agent": BOT}, timeout=WAIT_TIMEOUT
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
