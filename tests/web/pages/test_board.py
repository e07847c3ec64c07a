"""The board's filter: the selected pipelines, and warnings about invalid parameters."""

import string
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Pipeline, Project, Stage
from dashboard.web.components.runs.board_cells import BoardFilter
from tests.support import factories
from tests.support.html import GetPage, select_one, text_of


@pytest.fixture
def pipelines_in_each_state(db: None) -> list[Pipeline]:
    """At rest, with a run in flight, latest run failed long ago and just now, overdue."""
    failure = {"status": "failure", "concluded": True, "in_flight": False}
    pipelines = []
    for slug, project, fields in (
        ("calm", "shop", {"status": "success", "concluded": True, "in_flight": False}),
        ("busy", "shop", {"status": "running"}),
        ("broken", "payments", failure | {"concluded_at": timezone.now() - timedelta(hours=2)}),
        ("just-broken", "payments", failure | {"concluded_at": timezone.now()}),
        ("late", "payments", {"status": "running", "overdue_severity": 1, "overdue_reason": "run"}),
    ):
        pipeline = factories.pipeline(slug, parent=factories.project(project))
        factories.run(factories.stage(parent=pipeline), f"r-{slug}", **fields)
        pipelines.append(pipeline)
    return pipelines


def listed_pipelines(html: LexborHTMLParser) -> set[str]:
    return {text_of(link).casefold() for link in html.css(".board tbody th a")}


@pytest.mark.usefixtures("pipelines_in_each_state")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"calm", "busy", "broken", "just-broken", "late"}),
        ("?show=flight", {"busy", "late"}),
        ("?show=attention", {"just-broken", "late"}),
        ("?q=shop", {"calm", "busy"}),
        ("?q=SHOP+bus", {"busy"}),
        ("?q=payments&show=flight", {"late"}),
        ("?q=shop&show=attention", set()),
    ],
)
def test_board_query_filters_pipelines(query: str, expected: set[str], get_page: GetPage) -> None:
    html = get_page(f"/board/{query}")
    assert listed_pipelines(html) == expected
    assert select_one(html, "#live").attributes["hx-get"] == f"/board/{query}"


@pytest.mark.usefixtures("pipelines_in_each_state")
def test_board_attention_filter_includes_and_marks_overdue_abort(get_page: GetPage) -> None:
    stage = Stage.objects.get(pipeline__slug="calm")
    factories.run(stage, status="aborting", abort_severity=2)
    html = get_page("/board/?show=attention")
    assert listed_pipelines(html) == {"calm", "just-broken", "late"}
    assert text_of(select_one(html, f"#stage-{stage.pk} .overdue")) == "Abort overdue"


@pytest.mark.usefixtures("pipelines_in_each_state")
def test_board_without_match_links_to_whole_board(get_page: GetPage) -> None:
    html = get_page("/board/?q=nowhere")
    assert select_one(html, ".empty-state").attributes["data-empty"] == "nothing_matches"
    assert select_one(html, ".empty-state a").attributes["href"] == "/board/"


@pytest.mark.usefixtures("pipelines_in_each_state")
def test_board_filter_links_and_form_keep_each_other(get_page: GetPage) -> None:
    html = get_page("/board/?q=shop&show=flight")
    assert [link.attributes["href"] for link in html.css(".choices a")] == [
        "?q=shop",
        "?q=shop&show=flight",
        "?q=shop&show=attention",
    ]
    assert text_of(select_one(html, ".choices [aria-current]")) == "In flight"
    assert select_one(html, "form.filter [name=show]").attributes["value"] == "flight"
    assert select_one(html, "form.filter [name=q]").attributes["value"] == "shop"


@pytest.mark.usefixtures("pipelines_in_each_state")
def test_board_with_invalid_filter_reports_it_and_lists_all(get_page: GetPage) -> None:
    html = get_page("/board/?show=nothing")
    assert len(listed_pipelines(html)) == 5
    assert "Unknown filter “nothing”" in text_of(html)
    assert "Only the first 200 characters" in text_of(get_page(f"/board/?q={'x' * 300}"))


@pytest.mark.usefixtures("pipelines_in_each_state")
@pytest.mark.parametrize("query", ["?q=%00", "?q=%FF", "?show=%00&q=%22%3E%3Cb%3E", "?q=shop&q=x"])
def test_board_with_odd_query_returns_200(query: str, operator_client: Client) -> None:
    assert operator_client.get(f"/board/{query}").status_code == 200


WORDS = st.text(string.ascii_letters + " ", max_size=12)


@given(before=WORDS, name=st.text(min_size=1, max_size=30), after=WORDS)
def test_board_filter_matches_any_part_of_pipeline_name(before: str, name: str, after: str) -> None:
    pipeline = Pipeline(name=f"{before}{name}{after}", project=Project(name="Payments"))
    assert BoardFilter(name, "").matches_name(pipeline)
    assert BoardFilter(f"payments {name}", "").matches_name(pipeline)
