"""What is not there: a page that says what was looked for and leads on."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Run
from tests.support import factories
from tests.support.html import HTMX, one, parsed, words
from tests.support.live import Live


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/projects/nope/pipelines/checkout/", "No project “nope” is known here."),
        ("/projects/shop/pipelines/nope/", "No pipeline “nope” is known in project “shop”."),
        (
            "/projects/shop/pipelines/checkout/release-flows/nope/",
            "Pipeline “Checkout” has no stage “nope”.",
        ),
        (
            "/projects/nope/pipelines/checkout/release-flows/production/runs/r-1/",
            "No project “nope” is known here.",
        ),
        (
            "/projects/shop/pipelines/checkout/release-flows/production/runs/r-9/abort/",
            "No run “r-9” is known in Checkout / Production.",
        ),
        ("/no/such/page/", "There is no page at this address."),
    ],
)
def test_the_page_says_what_was_looked_for_and_leads_on(
    address: str, sentence: str, run: Run, at_desk: Client
) -> None:
    answer = at_desk.get(address)
    html = parsed(answer)
    assert answer.status_code == 404
    assert words(one(html, "[data-why]")).startswith(sentence)
    onward = [link.attributes["href"] or "" for link in html.css(".onward a")]
    assert onward
    assert {at_desk.get(link).status_code for link in onward} == {200}


def test_a_stage_is_found_in_any_spelling(run: Run, at_desk: Client) -> None:
    for name in ("production", "Production", "PRODUCTION"):
        address = f"/projects/shop/pipelines/checkout/release-flows/{name}/"
        assert at_desk.get(address).status_code == 200


def test_a_run_is_found_by_its_id_alone_query_string_and_all(run: Run, at_desk: Client) -> None:
    answer = at_desk.get("/runs/r-1/?from=alert&x=a%2Fb")
    assert answer.status_code == 302
    assert answer["Location"] == f"{factories.address(run)}?from=alert&x=a%2Fb"


def test_the_newest_of_two_runs_with_one_id_is_meant(run: Run, at_desk: Client) -> None:
    newer = factories.run(factories.stage("Staging"), "r-1", created_at=timezone.now())
    assert at_desk.get("/runs/r-1/")["Location"] == factories.address(newer)


NOTICED = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize("what", ["run", "pipeline", "project"])
def test_what_is_gone_is_shown_with_since_when(what: str, run: Run, at_desk: Client) -> None:
    pipeline = run.stage.pipeline
    gone = {"run": run, "pipeline": pipeline, "project": pipeline.project}[what]
    pages = [factories.address(run)]
    if what != "run":
        pages += [factories.address(run.stage), factories.address(pipeline)]
    tags = {}
    for page in pages:
        answer = at_desk.get(page)
        assert parsed(answer).css("[data-gone]") == []
        tags[page] = at_desk.get(page, headers=HTMX)["HX-PTag"]
    type(gone)._default_manager.filter(pk=gone.pk).update(gone_at=NOTICED)
    for page in pages:
        answer = at_desk.get(page, headers=HTMX | {"HX-PTag": tags[page]})
        assert answer.status_code == 200  # and not 304: an open page hears of it too
        notice = one(parsed(answer), "[data-gone]")
        assert words(notice).startswith("Northflank no longer")
        assert one(notice, "time").attributes["datetime"] == "2026-03-02T08:00:00+00:00"


def test_a_run_of_a_place_that_is_gone_is_not_asked_for(live: Live, viewer: User) -> None:
    stage = factories.stage()
    type(stage.pipeline)._default_manager.update(gone_at=NOTICED)
    answer = live.person("viewer").get(f"{factories.address(stage)}runs/r-9/")
    assert answer.status_code == 404
    assert words(one(parsed(answer), "[data-why]")) == (
        "No run “r-9” is known in Checkout / Production."
        " Northflank no longer lists pipeline “Checkout”."
    )
    assert not live.sandbox.requests


def test_a_run_that_was_never_seen_is_asked_for_once(live: Live, viewer: User) -> None:
    live.sync()
    run = Run.objects.with_place().filter(in_flight=True).first()
    assert run is not None
    address = factories.address(run)
    run.delete()
    live.sandbox.requests.clear()
    person = live.person("viewer")
    for _ in range(3):
        assert person.get(address).status_code == 200
    assert Run.objects.filter(run_id=run.run_id).exists()
    asked = [path for _, path in live.sandbox.requests if run.run_id in path]
    assert asked == [f"/v1{address.removesuffix('/')}"]


def test_a_run_that_northflank_does_not_know_either_is_a_404(live: Live, viewer: User) -> None:
    live.sync()
    run = Run.objects.with_place().filter(in_flight=True).first()
    assert run is not None
    run.run_id = "made-up"
    live.sandbox.requests.clear()
    person = live.person("viewer")
    for _ in range(3):
        answer = person.get(factories.address(run))
        assert answer.status_code == 404
        assert "Northflank does not know it either." in words(one(parsed(answer), "[data-why]"))
    assert len([path for _, path in live.sandbox.requests if "made-up" in path]) == 1


def test_a_run_that_cannot_be_asked_for_is_a_404_that_says_why(live: Live, viewer: User) -> None:
    from dashboard.sandbox import parse_fault

    live.sync()
    run = Run.objects.with_place().filter(in_flight=True).first()
    assert run is not None
    run.run_id = "made-up"
    live.sandbox.faults = [parse_fault("500")]
    answer = live.person("viewer").get(factories.address(run))
    assert answer.status_code == 404
    assert "Northflank could not be asked for it" in words(one(parsed(answer), "[data-why]"))
