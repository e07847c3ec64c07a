"""404 pages: they name the missing object and link onward."""

from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Run
from tests.support import factories
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/projects/nope/pipelines/checkout/", "Project “nope” not found."),
        ("/projects/shop/pipelines/nope/", "Pipeline “nope” not found in project “shop”."),
        (
            "/projects/shop/pipelines/checkout/release-flows/nope/",
            "Pipeline “Checkout” has no stage “nope”.",
        ),
        (
            "/projects/nope/pipelines/checkout/release-flows/production/runs/r-1/",
            "Project “nope” not found.",
        ),
        (
            "/projects/shop/pipelines/checkout/release-flows/production/runs/r-9/abort/",
            "Run “r-9” not found in Checkout / Production.",
        ),
        ("/no/such/page/", "This page does not exist."),
    ],
)
def test_not_found_page_names_missing_object_and_links_onward(
    address: str, sentence: str, run: Run, operator_client: Client
) -> None:
    answer = operator_client.get(address)
    html = parse_html(answer)
    assert answer.status_code == 404
    assert text_of(select_one(html, "[data-reason]")).startswith(sentence)
    next_links = [link.attributes["href"] or "" for link in html.css(".next-links a")]
    assert next_links
    assert {operator_client.get(link).status_code for link in next_links} == {200}


def test_stage_address_is_case_insensitive(run: Run, operator_client: Client) -> None:
    for name in ("production", "Production", "PRODUCTION"):
        address = f"/projects/shop/pipelines/checkout/release-flows/{name}/"
        assert operator_client.get(address).status_code == 200


def test_run_id_address_redirects_to_run_keeping_query_string(
    run: Run, operator_client: Client
) -> None:
    answer = operator_client.get("/runs/r-1/?from=alert&x=a%2Fb")
    assert answer.status_code == 302
    assert answer["Location"] == f"{factories.address(run)}?from=alert&x=a%2Fb"


def test_run_id_address_with_two_matches_redirects_to_newest(
    run: Run, operator_client: Client
) -> None:
    newer = factories.run(factories.stage("Staging"), "r-1", created_at=timezone.now())
    assert operator_client.get("/runs/r-1/")["Location"] == factories.address(newer)


REMOVED_AT = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["run", "pipeline", "project"])
def test_removed_object_page_shows_notice_with_removal_time(
    kind: str, run: Run, operator_client: Client
) -> None:
    pipeline = run.stage.pipeline
    removed = {"run": run, "pipeline": pipeline, "project": pipeline.project}[kind]
    pages = [factories.address(run)]
    if kind != "run":
        pages += [factories.address(run.stage), factories.address(pipeline)]
    tags = {}
    for page in pages:
        answer = operator_client.get(page)
        assert parse_html(answer).css("[data-removed]") == []
        tags[page] = operator_client.get(page, headers=HTMX)["HX-PTag"]
    type(removed)._default_manager.filter(pk=removed.pk).update(removed_at=REMOVED_AT)
    for page in pages:
        answer = operator_client.get(page, headers=HTMX | {"HX-PTag": tags[page]})
        assert answer.status_code == 200  # and not 304: an open page shows it too
        notice = select_one(parse_html(answer), "[data-removed]")
        assert text_of(notice).startswith("Northflank no longer")
        assert select_one(notice, "time").attributes["datetime"] == "2026-03-02T08:00:00+00:00"


def test_unknown_run_of_removed_pipeline_is_not_requested(live: Live, viewer: User) -> None:
    stage = factories.stage()
    type(stage.pipeline)._default_manager.update(removed_at=REMOVED_AT)
    answer = live.sign_in("viewer").get(f"{factories.address(stage)}runs/r-9/")
    assert answer.status_code == 404
    assert text_of(select_one(parse_html(answer), "[data-reason]")) == (
        "Run “r-9” not found in Checkout / Production."
        " Northflank no longer lists pipeline “Checkout”."
    )
    assert not live.sandbox.requests


def test_unsynced_run_is_requested_from_northflank_once(live: Live, viewer: User) -> None:
    live.sync()
    run = Run.objects.with_stage().filter(in_flight=True).first()
    assert run is not None
    address = factories.address(run)
    run.delete()
    live.sandbox.requests.clear()
    client = live.sign_in("viewer")
    for _ in range(3):
        assert client.get(address).status_code == 200
    assert Run.objects.filter(run_id=run.run_id).exists()
    requests = [path for _, path in live.sandbox.requests if run.run_id in path]
    assert requests == [f"/v1{address.removesuffix('/')}"]


def test_run_unknown_to_northflank_returns_404_and_is_requested_once(
    live: Live, viewer: User
) -> None:
    live.sync()
    run = Run.objects.with_stage().filter(in_flight=True).first()
    assert run is not None
    run.run_id = "made-up"
    live.sandbox.requests.clear()
    client = live.sign_in("viewer")
    for _ in range(3):
        answer = client.get(factories.address(run))
        assert answer.status_code == 404
        assert "Not found on Northflank either." in text_of(
            select_one(parse_html(answer), "[data-reason]")
        )
    assert len([path for _, path in live.sandbox.requests if "made-up" in path]) == 1


def test_run_lookup_during_outage_returns_404_with_reason(live: Live, viewer: User) -> None:
    from dashboard.sandbox import parse_fault

    live.sync()
    run = Run.objects.with_stage().filter(in_flight=True).first()
    assert run is not None
    run.run_id = "made-up"
    live.sandbox.faults = [parse_fault("500")]
    answer = live.sign_in("viewer").get(factories.address(run))
    assert answer.status_code == 404
    assert "Lookup on Northflank failed" in text_of(select_one(parse_html(answer), "[data-reason]"))
