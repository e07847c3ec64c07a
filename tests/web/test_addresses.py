"""Ids in URLs: any text stays one path segment, and is decoded to the same text."""

from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.test.utils import override_script_prefix
from django.urls import resolve, reverse
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Pipeline, Project, Stage
from dashboard.web.components.runs import run_row
from dashboard.web.http import links
from tests.support import factories
from tests.support.html import parse_html, select_one
from tests.support.live import Live

UNUSUAL_IDS = [
    "a/b", "/", "//", ".", "..", "...", "../..", "%", "%2F", "%252F", "a b", " ", "+", "a+b",
    "a?b=c#d",     "é", "日本語", "👩‍🚀", "\u202etxt.exe", "<b>&amp;\"'", "a;b,c", "a\\b", "a\nb",
    "{}", "a:b@c", "runs", "abort", "x" * 255,
]  # fmt: skip


@pytest.mark.parametrize("run_id", UNUSUAL_IDS)
def test_run_id_round_trips_through_url(run_id: str) -> None:
    from urllib.parse import unquote

    address = reverse("run", args=["p", "q", "production", run_id])
    assert resolve(unquote(address)).kwargs["run_id"] == run_id
    assert "/../" not in address
    assert "/./" not in address


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_round_trips_through_url(run_id: str) -> None:
    from urllib.parse import unquote

    match = resolve(unquote(reverse("abort", args=[run_id, run_id, "production", run_id])))
    assert match.url_name == "abort"
    assert set(match.kwargs.values()) == {run_id, "production"}


@given(st.sampled_from([*UNUSUAL_IDS, "0"]) | st.text(st.characters(exclude_categories=["Cs"])))
def test_paths_of_stage_and_run_are_those_that_django_reverses(id: str) -> None:
    project = Project(slug=id or "0")
    stage = Stage(name="Production", pipeline=Pipeline(project=project, slug=id or "0"))
    stage_args = [project.slug, project.slug, "production"]
    urls = links.stage_urls(stage)
    assert urls.pipeline == reverse("pipeline", args=stage_args[:2])
    assert urls.page == reverse("stage", args=stage_args)
    assert list(urls.of_run(project.slug)) == [
        reverse(name, args=[*stage_args, project.slug])
        for name in ("run", "abort", "acknowledge", "dismiss")
    ]


def test_paths_of_run_follow_the_path_prefix(stage: Stage) -> None:
    without_prefix = links.stage_urls(stage).of_run("1").page
    with override_script_prefix("/dashboard/"):
        assert links.stage_urls(stage).of_run("1").page == f"/dashboard{without_prefix}"


@given(st.text(min_size=1), st.text(min_size=1))
def test_dom_id_is_safe_and_unique_per_run(run_id: str, other_run_id: str) -> None:
    ids = {
        run_row.dom_id(run_id.encode(errors="replace").decode())
        for run_id in (run_id, other_run_id)
    }
    assert all(name.isascii() and name.replace("-", "").replace("_", "").isalnum() for name in ids)
    same = run_id.encode(errors="replace") == other_run_id.encode(errors="replace")
    assert (len(ids) == 1) is same


@pytest.mark.parametrize("run_id", UNUSUAL_IDS[::3])
def test_run_page_with_unusual_id_opens(run_id: str, stage: Stage, operator_client: Client) -> None:
    run = factories.run(stage, run_id)
    answer = operator_client.get(factories.address(run))
    assert answer.status_code == 200
    assert select_one(parse_html(answer), "[data-run]").attributes["data-run"] == run_id.replace(
        "\r", ""
    )


@pytest.mark.slow
def test_run_links_with_unusual_ids_open_their_run_over_http(live: Live, viewer: User) -> None:
    stage = factories.stage(parent=factories.pipeline("c/d", parent=factories.project("../x y")))
    for run_id in UNUSUAL_IDS:
        factories.run(stage, run_id)
    client = live.sign_in("viewer")
    html = parse_html(client.get(factories.address(stage)))
    links = {
        row.attributes["data-run"]: select_one(row, "a.title").attributes["href"] or ""
        for row in html.css("[data-run]")
    }
    assert set(links) == set(UNUSUAL_IDS)
    for run_id, address in links.items():
        answer = client.get(address)
        assert answer.status_code == 200, run_id
        assert select_one(parse_html(answer), "[data-run]").attributes["data-run"] == run_id
        redirect = client.get(reverse("run_search", args=[run_id]))
        assert urlsplit(redirect.headers["location"]).path == address


@pytest.mark.parametrize("address", ["/runs/a%00b/", "/projects/%00/pipelines/x/"])
def test_address_with_null_character_returns_404(address: str, operator_client: Client) -> None:
    assert operator_client.get(address).status_code == 404


@pytest.mark.parametrize("address", ["/runs/%ED%A0%80/", "/runs/%FF/", "/runs/%/", "/runs/%zz/"])
def test_address_with_invalid_utf8_returns_404(address: str, operator_client: Client) -> None:
    assert operator_client.get(address).status_code == 404


def test_invalid_address_over_http_returns_404(live: Live, viewer: User) -> None:
    client = live.sign_in("viewer")
    for address in ("/runs/%00/", "/runs/%ED%A0%80/", "/runs/%FF/", "/runs/%25%30%30/", "/%2e%2e/"):
        assert client.get(address).status_code == 404, address
