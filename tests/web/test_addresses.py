"""Ids are any text: in an address they stay one segment, and come back as they were."""

from urllib.parse import urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import resolve, reverse
from hypothesis import given
from hypothesis import strategies as st

from dashboard.models import Stage
from dashboard.web.components import run_row
from tests.support import factories
from tests.support.html import one, parsed
from tests.support.live import Live

STRANGE = [
    "a/b", "/", "//", ".", "..", "...", "../..", "%", "%2F", "%252F", "a b", " ", "+", "a+b",
    "a?b=c#d",     "é", "日本語", "👩‍🚀", "\u202etxt.exe", "<b>&amp;\"'", "a;b,c", "a\\b", "a\nb",
    "{}", "a:b@c", "runs", "abort", "x" * 255,
]  # fmt: skip


@pytest.mark.parametrize("run_id", STRANGE)
def test_an_id_comes_back_from_its_address(run_id: str) -> None:
    from urllib.parse import unquote

    address = reverse("run", args=["p", "q", "production", run_id])
    assert resolve(unquote(address)).kwargs["run"] == run_id
    assert "/../" not in address
    assert "/./" not in address


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
def test_any_text_comes_back_from_its_address(run_id: str) -> None:
    from urllib.parse import unquote

    match = resolve(unquote(reverse("abort", args=[run_id, run_id, "production", run_id])))
    assert match.url_name == "abort"
    assert set(match.kwargs.values()) == {run_id, "production"}


@given(st.text(min_size=1), st.text(min_size=1))
def test_element_ids_are_safe_and_tell_runs_apart(one_id: str, other_id: str) -> None:
    ids = {
        run_row.dom_id(run_id.encode(errors="replace").decode()) for run_id in (one_id, other_id)
    }
    assert all(name.isascii() and name.replace("-", "").replace("_", "").isalnum() for name in ids)
    same = one_id.encode(errors="replace") == other_id.encode(errors="replace")
    assert (len(ids) == 1) is same


@pytest.mark.parametrize("run_id", STRANGE)
def test_a_page_opens_at_its_id(run_id: str, stage: Stage, at_desk: Client) -> None:
    run = factories.run(stage, run_id)
    answer = at_desk.get(factories.address(run))
    assert answer.status_code == 200
    assert one(parsed(answer), "[data-run]").attributes["data-run"] == run_id.replace("\r", "")


def test_over_http_every_link_leads_to_its_own_run(live: Live, viewer: User) -> None:
    stage = factories.stage(of=factories.pipeline("c/d", of=factories.project("../x y")))
    for run_id in STRANGE:
        factories.run(stage, run_id)
    person = live.person("viewer")
    listed = parsed(person.get(factories.address(stage)))
    shown = {
        row.attributes["data-run"]: one(row, "a.title").attributes["href"] or ""
        for row in listed.css("[data-run]")
    }
    assert set(shown) == set(STRANGE)
    for run_id, address in shown.items():
        answer = person.get(address)
        assert answer.status_code == 200, run_id
        assert one(parsed(answer), "[data-run]").attributes["data-run"] == run_id
        found = person.get(reverse("find_run", args=[run_id]))
        assert urlsplit(found.headers["location"]).path == address


@pytest.mark.parametrize("place", ["/runs/a%00b/", "/projects/%00/pipelines/x/"])
def test_an_id_that_no_database_takes_is_a_404(place: str, at_desk: Client) -> None:
    assert at_desk.get(place).status_code == 404


@pytest.mark.parametrize("place", ["/runs/%ED%A0%80/", "/runs/%FF/", "/runs/%/", "/runs/%zz/"])
def test_an_address_that_is_no_text_is_a_404(place: str, at_desk: Client) -> None:
    assert at_desk.get(place).status_code == 404


def test_over_http_nonsense_in_an_address_is_a_404(live: Live, viewer: User) -> None:
    person = live.person("viewer")
    for place in ("/runs/%00/", "/runs/%ED%A0%80/", "/runs/%FF/", "/runs/%25%30%30/", "/%2e%2e/"):
        assert person.get(place).status_code == 404, place
