"""The board's filter: which pipelines an address asks for, and what is said of nonsense."""

import string

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from dashboard.models import Pipeline, Project, Stage
from dashboard.web.components.board_cells import BoardFilter
from tests.support import factories
from tests.support.html import See, one, words


@pytest.fixture
def pipelines(db: None) -> list[Pipeline]:
    """One that rests, one with a run in flight, one whose latest run failed, one overdue."""
    made = []
    for slug, project, fields in (
        ("calm", "shop", {"status": "success", "concluded": True, "in_flight": False}),
        ("busy", "shop", {"status": "running"}),
        ("broken", "payments", {"status": "failure", "concluded": True, "in_flight": False}),
        ("late", "payments", {"status": "running", "overdue": 1, "overdue_why": "run"}),
    ):
        of = factories.pipeline(slug, of=factories.project(project))
        factories.run(factories.stage(of=of), f"r-{slug}", **fields)
        made.append(of)
    return made


def shown(html: LexborHTMLParser) -> set[str]:
    return {words(link).casefold() for link in html.css(".board tbody th a")}


@pytest.mark.usefixtures("pipelines")
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"calm", "busy", "broken", "late"}),
        ("?show=flight", {"busy", "late"}),
        ("?show=attention", {"broken", "late"}),
        ("?q=shop", {"calm", "busy"}),
        ("?q=SHOP+bus", {"busy"}),
        ("?q=payments&show=flight", {"late"}),
        ("?q=shop&show=attention", set()),
    ],
)
def test_the_address_says_which_pipelines_are_shown(
    query: str, expected: set[str], see: See
) -> None:
    html = see(f"/board/{query}")
    assert shown(html) == expected
    assert one(html, "#live").attributes["hx-get"] == f"/board/{query}"


@pytest.mark.usefixtures("pipelines")
def test_a_stage_that_cannot_be_read_needs_attention(see: See) -> None:
    Stage.objects.filter(pipeline__slug="calm").update(error="x", error_message="No access.")
    assert shown(see("/board/?show=attention")) == {"calm", "broken", "late"}


@pytest.mark.usefixtures("pipelines")
def test_an_abort_that_takes_too_long_needs_attention_and_is_marked(see: See) -> None:
    stage = Stage.objects.get(pipeline__slug="calm")
    factories.run(stage, status="aborting", aborting_level=2)
    html = see("/board/?show=attention")
    assert shown(html) == {"calm", "broken", "late"}
    assert words(one(html, f"#stage-{stage.pk} .late")) == "Abort overdue"


@pytest.mark.usefixtures("pipelines")
def test_where_nothing_matches_it_says_so_and_leads_back(see: See) -> None:
    html = see("/board/?q=nowhere")
    assert one(html, ".nothing").attributes["data-empty"] == "nothing_matches"
    assert one(html, ".nothing a").attributes["href"] == "/board/"


@pytest.mark.usefixtures("pipelines")
def test_a_choice_keeps_the_text_and_the_form_the_choice(see: See) -> None:
    html = see("/board/?q=shop&show=flight")
    assert [link.attributes["href"] for link in html.css(".choices a")] == [
        "?q=shop",
        "?q=shop&show=flight",
        "?q=shop&show=attention",
    ]
    assert words(one(html, ".choices [aria-current]")) == "In flight"
    assert one(html, "form.filter [name=show]").attributes["value"] == "flight"
    assert one(html, "form.filter [name=q]").attributes["value"] == "shop"


@pytest.mark.usefixtures("pipelines")
def test_nonsense_is_said_and_shows_all(see: See) -> None:
    html = see("/board/?show=nothing")
    assert len(shown(html)) == 4
    assert "There is no choice “nothing”" in words(html)
    assert "Only the first 200 characters" in words(see(f"/board/?q={'x' * 300}"))


@pytest.mark.usefixtures("pipelines")
@pytest.mark.parametrize("query", ["?q=%00", "?q=%FF", "?show=%00&q=%22%3E%3Cb%3E", "?q=shop&q=x"])
def test_no_address_breaks_it(query: str, at_desk: Client) -> None:
    assert at_desk.get(f"/board/{query}").status_code == 200


WORDS = st.text(string.ascii_letters + " ", max_size=12)


@given(before=WORDS, name=st.text(min_size=1, max_size=30), after=WORDS)
def test_a_name_finds_its_pipeline(before: str, name: str, after: str) -> None:
    of = Pipeline(name=f"{before}{name}{after}", project=Project(name="Payments"))
    assert BoardFilter(name, "").names(of)
    assert BoardFilter(f"payments {name}", "").names(of)
