"""The search page: what it shows to whom, and where an id or an address that is submitted leads."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from dashboard.models import CatalogSync, Grant, ReadRequest, Run, Stage
from tests.support import factories
from tests.support.deferred import finish
from tests.support.html import parse_html, select_one, text_of

UNREAD = "9718c451-ec9e-566e-9d0b-533cd77d4c6a"
TYPED = {"HX-Request": "true"}
NORTHFLANK = "https://app.northflank.com/t/acme/project/shop"


def get(client: Client, text: str, **headers: str) -> Any:
    factories.search_texts()
    return finish(client.get("/search/", {"q": text}, headers=headers))


def test_runs_pipelines_and_projects_are_listed(viewer_client: Client, run: Run) -> None:
    other = factories.run(run.stage, status="success", name="nightly build")
    html = parse_html(get(viewer_client, "NIGHTLY"))
    rows = [row.attributes["data-run"] for row in html.css("tr[data-run]")]
    assert rows == [run.run_id, other.run_id]
    assert text_of(select_one(html, "#count")) == "2 runs"
    places = select_one(parse_html(get(viewer_client, "checkout")), "#live ul")
    assert text_of(places) == "Checkout Shop"
    links = parse_html(get(viewer_client, "shop")).css("#live ul a")
    addresses = [link.attributes["href"] for link in links]
    assert addresses == [factories.address(run.stage.pipeline), "/projects/shop/"]


@pytest.mark.usefixtures("run")
def test_page_says_that_there_are_more(
    viewer_client: Client, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dashboard.web.pages.search.MAX_RUNS", 1)
    monkeypatch.setattr("dashboard.web.pages.search.MAX_PLACES", 1)
    factories.run(stage)
    factories.pipeline("other")
    html = parse_html(get(viewer_client, "shop"))
    assert len(html.css("tr[data-run]")) == 1
    assert "There are more" in text_of(select_one(html, "#count"))
    assert html.css("#live ul a")[-1].attributes["href"] == "/board/?q=shop"


@pytest.mark.parametrize("text", ["", "  ", "\u0301"])
@pytest.mark.usefixtures("run")
def test_without_a_text_there_is_a_hint_alone(viewer_client: Client, text: str) -> None:
    html = parse_html(get(viewer_client, text))
    assert html.css("[data-hint]")
    assert not html.css("#live :is(h2, .empty-state)")


@pytest.mark.usefixtures("run")
def test_what_may_not_be_viewed_is_neither_found_nor_opened(
    viewer_client: Client, viewer: User
) -> None:
    Grant.objects.all().delete()
    factories.grant("view", "some", viewer, project=factories.project("else"))
    for text in ("nightly", "checkout", "shop", "r-1"):
        html = parse_html(get(viewer_client, text))
        assert html.css(".empty-state")
        assert "Checkout" not in text_of(html)


@pytest.mark.usefixtures("run")
def test_incomplete_search_is_said(viewer_client: Client, run: Run) -> None:
    CatalogSync.objects.create(next_sync_at=run.created_at)
    factories.stage("Staging", synced_at=None)
    html = parse_html(get(viewer_client, "nothing"))
    assert html.css("[data-incomplete]")
    assert select_one(html, ".empty-state").attributes["data-empty"] == "cannot_see"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("r-1", "/runs/r-1/"),
        (UNREAD, f"/runs/{UNREAD}/"),
        (f" {UNREAD.upper()} ", f"/runs/{UNREAD}/"),
        (f"{NORTHFLANK}/runs/{UNREAD}", f"/runs/{UNREAD}/?project=shop"),
        (f"{NORTHFLANK}?{'x' * 300}&run={UNREAD}#x", f"/runs/{UNREAD}/?project=shop"),
        (
            "http://x/projects/a/pipelines/b/release-flows/c/runs/r%2D2#steps",
            "/runs/r-2/?project=a&pipeline=b&stage=c",
        ),
    ],
)
@pytest.mark.usefixtures("run")
def test_id_or_address_that_is_submitted_leads_to_the_run(
    viewer_client: Client, text: str, address: str
) -> None:
    answer = get(viewer_client, text)
    assert (answer.status_code, answer["Location"]) == (302, address)
    assert get(viewer_client, text, **TYPED).status_code == 200
    assert not ReadRequest.objects.exists()


@pytest.mark.parametrize("text", [NORTHFLANK, "http://[", "https://", "r-2", "x" * 500, "a\0b"])
@pytest.mark.usefixtures("run")
def test_other_texts_are_searched(viewer_client: Client, text: str) -> None:
    assert get(viewer_client, text).status_code == 200


def test_typing_gets_the_live_region_alone(viewer_client: Client, run: Run) -> None:
    html = parse_html(get(viewer_client, "nightly", **TYPED))
    assert not html.css("main, form")
    assert select_one(html, "#live").attributes["hx-get"] == "/search/?q=nightly"


@pytest.mark.usefixtures("db")
def test_long_text_is_cut_with_a_warning(viewer_client: Client) -> None:
    html = parse_html(get(viewer_client, "x" * 500))
    assert html.css("#live .inline-notice")
