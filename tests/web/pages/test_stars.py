"""Stars of pipelines and projects, and Now and the board with these alone."""

import pytest
from django.contrib.auth.models import User
from django.test import Client
from pytest_django import Settings

from dashboard.models import Pipeline, Star
from tests.support import factories
from tests.support.html import HTMX, GetPage, parse_html, select_one, text_of


@pytest.fixture
def pipelines(db: None) -> list[Pipeline]:
    """Three in two projects, each with a run in flight."""
    pipelines = [
        factories.pipeline(slug, parent=factories.project(project))
        for slug, project in (("cart", "shop"), ("search", "shop"), ("ledger", "payments"))
    ]
    for pipeline in pipelines:
        factories.run(factories.stage(parent=pipeline), f"r-{pipeline.slug}")
    return pipelines


def listed(client: Client, address: str) -> list[str]:
    """The pipelines of the board, or the runs of Now, as a browser gets them."""
    response = client.get(address, headers={"Accept-Encoding": "identity"})
    html = parse_html(response)
    runs = [row.attributes["data-run"] or "" for row in html.css("[data-run]")]
    return sorted(runs or [text_of(link).casefold() for link in html.css(".board th a bdi")])


def test_star_filters_now_and_board_of_its_user_alone(
    pipelines: list[Pipeline], operator_client: Client, viewer: User, settings: Settings
) -> None:
    settings.READ_ONLY = True
    cart, _search, ledger = pipelines
    answer = operator_client.post("/stars/", {"star": f"pipeline-{cart.pk}", "next": "/board/?q=c"})
    assert (answer.status_code, answer.headers["Location"]) == (303, "/board/?q=c")
    operator_client.post("/stars/", {"star": f"project-{ledger.project_id}"})
    assert listed(operator_client, "/board/?mine=1") == ["cart", "ledger"]
    assert listed(operator_client, "/?mine=1") == ["r-cart", "r-ledger"]
    assert listed(operator_client, "/") == ["r-cart", "r-ledger", "r-search"]
    other = Client()
    other.force_login(viewer)
    assert listed(other, "/?mine=1") == listed(other, "/board/?mine=1") == []


def test_star_can_be_set_twice_and_removed(
    pipelines: list[Pipeline], operator_client: Client
) -> None:
    name = f"pipeline-{pipelines[0].pk}"
    for _ in range(2):
        operator_client.post("/stars/", {"star": name})
    assert Star.objects.count() == 1
    operator_client.post("/stars/", {"unstar": name})
    assert Star.objects.count() == 0


def test_star_by_htmx_answers_with_the_button_to_remove_it(
    pipelines: list[Pipeline], operator_client: Client
) -> None:
    name = f"pipeline-{pipelines[0].pk}"
    answer = operator_client.post("/stars/", {"star": name}, headers=HTMX)
    button = select_one(parse_html(answer), "hx-partial button")
    assert (button.attributes["name"], button.attributes["value"]) == ("unstar", name)


@pytest.mark.parametrize("name", ["", "pipeline", "pipeline-x", "pipeline-0", "run-1", "project-"])
def test_star_of_nothing_is_not_found(name: str, operator_client: Client) -> None:
    assert operator_client.post("/stars/", {"star": name}).status_code == 404


def test_star_leads_to_no_other_site(pipelines: list[Pipeline], operator_client: Client) -> None:
    form = {"star": f"pipeline-{pipelines[0].pk}", "next": "https://example.com/"}
    assert operator_client.post("/stars/", form).headers["Location"] == "/board/"


@pytest.mark.usefixtures("pipelines")
@pytest.mark.parametrize("address", ["/?mine=1", "/board/?mine=1"])
def test_page_of_user_without_stars_says_where_to_star(address: str, get_page: GetPage) -> None:
    text = text_of(get_page(address).css(".empty-state p")[0])
    assert text == "You have no starred pipelines: star them on the board."
