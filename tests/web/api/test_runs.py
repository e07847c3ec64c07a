"""Runs in flight and single runs in the API."""

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.models import CatalogSync, Grant, Stage
from dashboard.models.accounts.api_tokens import Scope
from dashboard.runs import acknowledgements
from dashboard.runs.overdue import OverdueReason
from tests.support import factories
from tests.support.api import CreateApiClient, error_status_and_code


@pytest.fixture
def read_only_api_client(api_client: CreateApiClient, viewer: User) -> httpx.Client:
    return api_client(viewer, scope=Scope.READ)


@pytest.fixture
def stage(transactional_db: None) -> Stage:
    return factories.stage("Staging")


def run_ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [run["run_id"] for run in answer.json()["runs"]]


def test_runs_without_runs_in_flight_returns_empty_list(read_only_api_client: httpx.Client) -> None:
    answer = read_only_api_client.get("/api/runs/").json()
    assert (answer["runs"], answer["next"]) == ([], None)


def test_runs_with_unread_stage_reports_incomplete_coverage(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    factories.stage("Development", synced_at=None, fresh_until=None)
    answer = read_only_api_client.get("/api/runs/").json()
    assert answer["complete"] is False
    sentence = "Incomplete: 1 of 2 stages not read yet, Staging complete."
    assert answer["coverage"] == {
        "stages": 2,
        "unread": 1,
        "failing": 0,
        "unlisted": 0,
        "message": sentence,
    }


def test_runs_filtered_to_listed_project_is_complete(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    other = factories.project("other")
    CatalogSync.objects.create(project=other, next_sync_at=timezone.now())
    assert read_only_api_client.get("/api/runs/").json()["complete"] is False
    slug = stage.pipeline.project.slug
    assert read_only_api_client.get(f"/api/runs/?project={slug}").json()["complete"] is True


def test_runs_returns_all_run_fields(read_only_api_client: httpx.Client, stage: Stage) -> None:
    steps = {"step": "migrate", "step_number": 2, "step_count": 3}
    run = factories.run(stage, "r-1", name="Nightly", status="hibernating", **steps)
    [run_body] = read_only_api_client.get("/api/runs/").json()["runs"]
    assert run_body == {
        "run_id": "r-1",
        "name": "Nightly",
        "project": "shop",
        "pipeline": "checkout",
        "stage": "Staging",
        "status": "hibernating",
        "concluded": False,
        "in_flight": True,
        "step": "migrate",
        "step_number": 2,
        "step_count": 3,
        "failed_step": None,
        "failure": None,
        "overdue": None,
        "needs_attention": False,
        "created_at": format_utc(run.created_at),
        "started_at": format_utc(run.started_at),
        "concluded_at": None,
        "synced_at": format_utc(run.synced_at),
        "removed_at": None,
        "url": factories.address(run),
        "abort": None,
        "may_abort": False,
    }


@pytest.mark.parametrize(
    ("severity", "reason", "overdue"),
    [
        (1, OverdueReason.QUEUE, {"severity": "warning", "reason": "queue"}),
        (2, OverdueReason.NO_PROGRESS, {"severity": "critical", "reason": "no_progress"}),
        (2, OverdueReason.LAST_ATTEMPT, {"severity": "critical", "reason": "last_attempt"}),
    ],
)
def test_overdue_run_has_severity_and_reason(
    read_only_api_client: httpx.Client,
    stage: Stage,
    severity: int,
    reason: str,
    overdue: dict[str, str],
) -> None:
    factories.run(stage, "r-1", overdue_severity=severity, overdue_reason=reason)
    [listed] = read_only_api_client.get("/api/runs/").json()["runs"]
    assert listed["overdue"] == overdue
    assert listed["needs_attention"] is bool(overdue)
    assert read_only_api_client.get("/api/runs/r-1/").json()["overdue"] == overdue


def format_utc(time: Any) -> str:
    return str(time.isoformat().replace("+00:00", "Z"))


def test_times_in_texts_are_utc_with_date_and_zone(
    read_only_api_client: httpx.Client, stage: Stage, manager: User, settings: Any
) -> None:
    settings.TIME_ZONE = "Europe/Berlin"
    sent_at = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
    factories.abort(factories.run(stage, "r-1"), manager, state="requested", sent_at=sent_at)
    body = read_only_api_client.get("/api/runs/r-1/").json()
    texts = body["abort"]["message"], body["aborts"][0]["message"]
    assert texts == (
        "Abort sent at 2026-01-31 23:30:00 UTC; waiting for Northflank’s response.",
    ) * 2  # fmt: skip


def test_urls_are_absolute_with_base_url(
    read_only_api_client: httpx.Client, stage: Stage, settings: Any
) -> None:
    settings.BASE_URL = "https://releases.example.com"
    run = factories.run(stage)
    factories.run(stage)
    list_body = read_only_api_client.get("/api/runs/?limit=1").json()
    assert list_body["next"].startswith("https://releases.example.com/api/runs/?")
    run_body = read_only_api_client.get(f"/api/runs/{run.run_id}/").json()
    assert run_body["url"] == f"https://releases.example.com{factories.address(run)}"


def test_runs_excludes_concluded_and_removed_runs(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    factories.run(stage, status="success")
    factories.run(stage, in_flight=False, removed_at=timezone.now())
    assert run_ids(read_only_api_client.get("/api/runs/")) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"a", "b", "c"}),
        ("project=shop", {"a", "b"}),
        ("project=payments", {"c"}),
        ("pipeline=checkout", {"a", "b"}),
        ("stage=Production", {"b", "c"}),
        ("stage=production", {"b", "c"}),
        ("status=waiting", {"b"}),
        ("project=shop&stage=production&status=waiting", {"b"}),
        ("status=running%22", set()),
    ],
)
def test_runs_filters_by_project_pipeline_stage_and_status(
    read_only_api_client: httpx.Client, stage: Stage, query: str, expected: set[str]
) -> None:
    factories.run(stage, "a")
    factories.run(factories.stage("Production"), "b", status="waiting")
    ledger = factories.pipeline("ledger", parent=factories.project("payments"))
    factories.run(factories.stage("Production", parent=ledger), "c")
    assert set(run_ids(read_only_api_client.get(f"/api/runs/?{query}"))) == expected


@pytest.mark.parametrize(
    "query",
    [
        "projet=shop", "project=shop&project=payments", "project=%00", "stage=Produktion",
        "limit=0", "limit=501", "limit=-1", "limit=ten", "limit=1.5", "limit=" + "9" * 5000,
        "limit=%D9%A3", "after=0", "after=x", "after=999", "after=" + "9" * 18, "page=2",
        "project=", "pipeline=", "stage=", "status=", "limit=", "after=", "project=shop&stage=",
        "q=", "q=%20", "q=%CC%81",
    ],
)  # fmt: skip
def test_runs_with_invalid_parameter_returns_400(
    read_only_api_client: httpx.Client, query: str
) -> None:
    assert error_status_and_code(read_only_api_client.get(f"/api/runs/?{query}")) == (
        400,
        "bad_parameter",
    )


def test_runs_are_searched_for_each_word_of_a_text(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    for name in ("Größe 1", "Größe 2"):
        factories.run(stage, name, name=name)
    factories.run(stage, "ended", name="Größe 1", status="success")
    factories.search_texts()
    assert run_ids(read_only_api_client.get("/api/runs/?q=CHECKOUT+grosse+1")) == ["Größe 1"]
    assert run_ids(read_only_api_client.get("/api/runs/?q=nothing")) == []


def test_more_parameters_than_django_reads_returns_400(read_only_api_client: httpx.Client) -> None:
    for address in ("/api/runs/", "/api/runs/r-1/"):
        answer = read_only_api_client.get(f"{address}?{'project=shop&' * 1001}")
        assert error_status_and_code(answer) == (400, "bad_parameter")


def test_runs_of_hidden_place_is_answered_like_unknown_place(
    read_only_api_client: httpx.Client, stage: Stage, viewer: User
) -> None:
    Grant.objects.all().delete()
    shop = stage.pipeline.project
    factories.grant("view", "On-call", viewer, project=shop, stage="Staging")
    factories.stage("Production")
    ledger = factories.pipeline("ledger", parent=factories.project("payments"))
    factories.stage("Staging", parent=ledger)
    answers = {
        query: read_only_api_client.get(f"/api/runs/?{query}")
        for query in (
            "project=shpo", "pipeline=chekout", "project=shop&pipeline=chekout",  # unknown
            "project=payments", "pipeline=ledger", "project=shop&stage=production",  # hidden
            "project=shop&pipeline=ledger",  # both, but not together
        )
    }  # fmt: skip
    for query, answer in answers.items():
        assert error_status_and_code(answer) == (400, "bad_parameter"), query
    assert len({answer.text for answer in answers.values()}) == 1


def test_runs_of_place_that_may_not_be_listed_yet_is_incomplete(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    CatalogSync.objects.create(project=factories.project("new"), next_sync_at=timezone.now())
    unlisted = ["project=new", "pipeline=ledger", "project=new&pipeline=ledger"]
    for query in unlisted:
        answer = read_only_api_client.get(f"/api/runs/?{query}")
        assert (run_ids(answer), answer.json()["complete"]) == ([], False), query
    answer = read_only_api_client.get("/api/runs/?project=shop&pipeline=ledger")
    assert error_status_and_code(answer) == (400, "bad_parameter")
    CatalogSync.objects.create(next_sync_at=timezone.now())  # the list of projects
    for query in (*unlisted, "project=other"):
        answer = read_only_api_client.get(f"/api/runs/?{query}")
        assert (run_ids(answer), answer.json()["complete"]) == ([], False), query


def test_runs_pages_contain_each_run_once(read_only_api_client: httpx.Client, stage: Stage) -> None:
    now = timezone.now()
    for number in range(7):  # pairs of one time, which only their keys tell apart
        factories.run(stage, f"r-{number}", created_at=now - timedelta(seconds=number // 2))
    parts, address = [], "/api/runs/?limit=3&project=shop"
    while address:
        answer = read_only_api_client.get(address)
        parts.append(run_ids(answer))
        address = answer.json()["next"]
    assert parts == [["r-1", "r-0", "r-3"], ["r-2", "r-5", "r-4"], ["r-6"]]


def test_runs_next_page_after_last_run_concluded_continues(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    now = timezone.now()
    runs = [
        factories.run(stage, f"r-{number}", created_at=now - timedelta(seconds=number))
        for number in range(3)
    ]
    first = read_only_api_client.get("/api/runs/?limit=1").json()
    factories.change(runs[0], in_flight=False, concluded=True)
    assert run_ids(read_only_api_client.get(first["next"])) == ["r-1"]


def test_runs_with_100_runs_needs_as_many_queries_as_one(
    read_only_api_client: httpx.Client, stage: Stage, manager: User, viewer: User
) -> None:
    from django.db import connection
    from django.test import RequestFactory
    from django.test.utils import CaptureQueriesContext

    from dashboard.web.api import views
    from tests.support.api import create_token_secret

    request = RequestFactory().get(
        "/api/runs/", headers={"Authorization": f"Bearer {create_token_secret(viewer)}"}
    )
    views.runs(request)  # the first use of a token is recorded
    counts = []
    for number in (1, 99):
        for _ in range(number):
            factories.abort(factories.run(stage), manager)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            answer = views.runs(RequestFactory().get("/api/runs/", headers=request.headers))
        assert answer.status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- one run -----------------------------------------------------------------------------------


def test_run_returns_all_aborts_with_timelines(
    read_only_api_client: httpx.Client, stage: Stage, manager: User
) -> None:
    run = factories.run(stage, "r-1")
    end_fields = {"state": "not_sent", "settled_at": timezone.now(), "response": "No connection."}
    first = factories.abort(
        run, manager, requested_at=timezone.now() - timedelta(hours=1), **end_fields
    )
    first.add_event("requested", timezone.now())
    first.add_event("not_sent", timezone.now(), detail="No connection.")
    second = factories.abort(run, manager)
    second.add_event("requested", timezone.now())
    body = read_only_api_client.get("/api/runs/r-1/").json()
    assert [abort_body["id"] for abort_body in body["aborts"]] == [second.pk, first.pk]
    assert body["abort"]["id"] == second.pk
    assert [line["text"] for line in body["aborts"][1]["timeline"]] == [
        "Requested by manager.",
        "Not sent: No connection.",
    ]


def test_run_returns_what_its_abort_has_left_running_with_its_aborts(
    read_only_api_client: httpx.Client, stage: Stage, manager: User
) -> None:
    run = factories.run(stage, "r-1", status="aborted", steps=factories.steps_naming("j1"))
    of_run = factories.abort(run, manager, settled_at=timezone.now())
    of_work = factories.abort(run, manager, work=factories.work(run))
    body = read_only_api_client.get("/api/runs/r-1/").json()
    [left] = body["left_running"]
    found = {name: left[name] for name in ("kind", "id", "name", "status", "running", "error")}
    assert found == {
        "kind": "job_run", "id": "j1", "name": "migrate-j1", "status": "RUNNING", "running": True,
        "error": "",
    }  # fmt: skip
    assert [abort["id"] for abort in left["aborts"]] == [of_work.pk]
    assert [abort["id"] for abort in body["aborts"]] == [of_run.pk]


def test_run_that_is_unknown_returns_404(read_only_api_client: httpx.Client, stage: Stage) -> None:
    answer = read_only_api_client.get("/api/runs/r-9/")
    assert error_status_and_code(answer) == (404, "unknown_run")
    assert answer.json()["error"]["message"] == "Run “r-9” not found."


@pytest.mark.parametrize("address", ["%00", "a%2500", "%FF", "%ED%A0%80"])
def test_run_with_invalid_id_returns_404(read_only_api_client: httpx.Client, address: str) -> None:
    assert error_status_and_code(read_only_api_client.get(f"/api/runs/{address}/"))[0] == 404


def test_run_with_ambiguous_id_returns_409_with_places(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    for name in ("Staging", "Production"):
        factories.run(factories.stage(name), "r-1")
    answer = read_only_api_client.get("/api/runs/r-1/")
    assert error_status_and_code(answer) == (409, "ambiguous_run")
    place = {"project": "shop", "pipeline": "checkout"}
    assert answer.json()["places"] == [
        place | {"stage": "Production"},
        place | {"stage": "Staging"},
    ]


def test_run_with_ambiguous_id_and_stage_parameters_is_returned(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    for name in ("Staging", "Production"):
        factories.run(factories.stage(name), "r-1", name=name)
    body = read_only_api_client.get(
        "/api/runs/r-1/?project=shop&pipeline=checkout&stage=staging"
    ).json()
    assert body["name"] == "Staging"
    assert error_status_and_code(read_only_api_client.get("/api/runs/r-1/?stage=development")) == (
        404,
        "unknown_run",
    )


def test_run_request_marks_run_watched_and_schedules_read(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    run = factories.run(stage, "r-1")
    read_only_api_client.get("/api/runs/r-1/")
    run.refresh_from_db()
    assert run.last_viewed_at is not None
    assert run.next_detail_sync_at is not None


def test_run_with_hostile_name_is_returned_unchanged(
    read_only_api_client: httpx.Client, stage: Stage
) -> None:
    factories.run(stage, "r-1", name=factories.HOSTILE)
    assert read_only_api_client.get("/api/runs/r-1/").json()["name"] == factories.HOSTILE


@pytest.mark.parametrize(
    ("names", "releases", "or_more"),
    [("1.4 1.5 1.6", 2, False), ("1.4 1.5 ? 1.6", 2, True), ("1.3", None, False)],
)
def test_run_says_how_far_its_stage_is_behind(
    read_only_api_client: httpx.Client, names: str, releases: int | None, *, or_more: bool
) -> None:
    production, staging = factories.stage("Production"), factories.stage("Staging")
    ends = [timezone.now() - timedelta(minutes=minutes) for minutes in range(90, 20, -10)]
    for name, end in zip(names.split(), ends, strict=False):
        factories.run(staging, name=name.strip("?"), status="success", concluded_at=end)
    factories.run(production, name="1.4", status="success")
    factories.run(production, "r-1")
    behind = read_only_api_client.get("/api/runs/r-1/").json()["behind"]
    assert behind == {"stage": "Staging", "releases": releases, "or_more": or_more}


def test_run_in_a_stage_that_is_not_behind_says_so(
    read_only_api_client: httpx.Client,
) -> None:
    production, staging = factories.stage("Production"), factories.stage("Staging")
    for stage, run_id in ((staging, "r-1"), (production, "r-2")):
        factories.run(stage, run_id, name="1.4", status="success")
        assert read_only_api_client.get(f"/api/runs/{run_id}/").json()["behind"] is None


def test_run_returns_acknowledgements(
    read_only_api_client: httpx.Client, stage: Stage, viewer: User
) -> None:
    run = factories.run(stage, "r-1", overdue_severity=1)
    assert read_only_api_client.get("/api/runs/r-1/").json()["acknowledgements"] == []
    acknowledgements.acknowledge(run, viewer)
    [acknowledgement] = read_only_api_client.get("/api/runs/r-1/").json()["acknowledgements"]
    since = format_utc(run.acknowledgements.get().acknowledged_at)
    assert acknowledgement == {
        "username": "viewer",
        "acknowledged_at": since,
        "ended_at": None,
        "taken_over_by": "",
    }
    acknowledgements.hand_back(run, viewer)
    [acknowledgement] = read_only_api_client.get("/api/runs/r-1/").json()["acknowledgements"]
    assert acknowledgement["ended_at"] == format_utc(run.acknowledgements.get().ended_at)


def test_failed_run_has_step_and_error(read_only_api_client: httpx.Client, stage: Stage) -> None:
    cause = {"failed_step": "migrate", "failed_step_error": "relation exists"}
    factories.run(stage, "r-1", status="failure", **cause)
    run_body = read_only_api_client.get("/api/runs/r-1/").json()
    assert (run_body["failed_step"], run_body["failure"]) == ("migrate", "relation exists")
