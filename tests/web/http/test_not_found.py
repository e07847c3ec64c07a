"""404 pages: they name the missing object and link onward."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from dashboard.models import Grant, Run, Stage
from tests.support import factories
from tests.support.html import HTMX, parse_html, select_one, text_of
from tests.support.live import Live

REMOVED_AT = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("/projects/nope/", "Project “nope” not found."),
        ("/projects/shop/pipelines/nope/", "Pipeline “nope” not found in project “shop”."),
        (
            "/projects/shop/pipelines/checkout/release-flows/nope/",
            "Stage “nope” of pipeline “checkout” not found in project “shop”.",
        ),
        (
            "/projects/nope/pipelines/checkout/release-flows/production/runs/r-1/",
            "Stage “production” of pipeline “checkout” not found in project “nope”.",
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


@pytest.fixture
def newer_run_elsewhere(run: Run) -> Run:
    """A newer run with the id of `run`, in another project."""
    other = factories.pipeline("other", parent=factories.project("zoo", name="City Zoo"))
    created_at = run.created_at + timedelta(minutes=1)
    return factories.run(factories.stage("Staging", parent=other), "r-1", created_at=created_at)


@pytest.mark.parametrize(
    "location",
    [
        "project=shop&pipeline=checkout&stage=production",
        "project=Shop&pipeline=CHECKOUT&stage=Production",
        "project=%20shop&pipeline=checkout%20&stage=%09production",
        "project=shop&from=alert",
        "pipeline=checkout",
        "stage=production",
    ],
)
def test_run_id_address_with_location_redirects_to_the_run_there(
    location: str, run: Run, newer_run_elsewhere: Run, operator_client: Client
) -> None:
    answer = operator_client.get(f"/runs/r-1/?{location}")
    assert answer["Location"] == f"{factories.address(run)}?{location}"
    assert other_location(operator_client, answer["Location"]) == ""


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("project=shop&stage=test", "shop / test"),  # the part that matches
        ("project=nope&pipeline=<b>&stage=x", "nope / <b> / x"),
    ],
)
def test_run_found_elsewhere_than_the_address_says_has_a_notice(
    location: str, place: str, run: Run, operator_client: Client
) -> None:
    answer = operator_client.get(f"/runs/r-1/?{location}")
    assert answer["Location"] == f"{factories.address(run)}?{quote(location, safe='=&')}"
    notice = f"The address of run “r-1” names another location: {place}."
    assert other_location(operator_client, answer["Location"]) == notice
    assert other_location(operator_client, answer["Location"]) == ""  # once


def test_not_found_page_does_not_link_to_hidden_run(
    stage: Stage, newer_run_elsewhere: Run, run: Run, client: Client, viewer: User
) -> None:
    Grant.objects.all().delete()
    factories.grant("view", "shop only", viewer, project=factories.project())
    client.force_login(viewer)
    address = factories.address(run)
    run.delete()
    make_unreadable(stage, "release flow")
    hidden = client.get(address)
    newer_run_elsewhere.delete()
    missing = client.get(address)
    assert hidden.status_code == missing.status_code == 404
    pages = [select_one(parse_html(answer), "main").html for answer in (hidden, missing)]
    assert pages[0] == pages[1]


def make_unreadable(stage: Stage, kind: str) -> None:
    """Remove a stage's pipeline or project, or record that it has no release flow."""
    pipeline = stage.pipeline
    if kind == "release flow":
        Stage.objects.filter(pk=stage.pk).update(has_flow=False, flow_synced_at=timezone.now())
    else:
        removed = pipeline if kind == "pipeline" else pipeline.project
        removed.removed_at = REMOVED_AT
        removed.save()


def other_location(client: Client, address: str) -> str:
    """Return the notice of a run's page that the address has named another location."""
    return text_of(select_one(parse_html(client.get(address)), "#notices"))


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
        assert "was removed from Northflank" in text_of(notice)
        assert select_one(notice, "time").attributes["datetime"] == "2026-03-02T08:00:00+00:00"


def test_unknown_run_of_removed_pipeline_is_not_requested(live: Live, viewer: User) -> None:
    stage = factories.stage()
    type(stage.pipeline)._default_manager.update(removed_at=REMOVED_AT)
    answer = live.sign_in("viewer").get(f"{factories.address(stage)}runs/r-9/")
    assert answer.status_code == 404
    assert text_of(select_one(parse_html(answer), "[data-reason]")) == (
        "Run “r-9” not found in Checkout / Production."
        " Pipeline “Checkout” was removed from Northflank."
    )
    assert not live.sandbox.requests


@pytest.mark.slow
def test_run_search_during_outage_returns_404_with_reason(live: Live, viewer: User) -> None:
    from dashboard.sandbox import parse_fault

    live.sync()
    run = Run.objects.with_stage().filter(in_flight=True).first()
    assert run is not None
    run.run_id = "made-up"
    live.sandbox.faults = [parse_fault("500")]
    with live.ticking():
        answer = live.sign_in("viewer").get(factories.address(run))
    assert answer.status_code == 404
    reason = text_of(select_one(parse_html(answer), "[data-reason]"))
    # Unreachable, if another read has failed before.
    assert "The search on Northflank failed" in reason or "No updates from Northflank" in reason
