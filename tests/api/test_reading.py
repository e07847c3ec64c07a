"""What is in flight, and how one run stands, as machines read it."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from dashboard.aborts import messages as abort_messages
from dashboard.models import CatalogueSweep, Stage
from dashboard.models.api_tokens import Scope
from dashboard.runs import acknowledgements
from tests.support import factories
from tests.support.api import Machine, failed


@pytest.fixture
def reader(machine: Machine, viewer: User) -> httpx.Client:
    return machine(viewer, scope=Scope.READ)


@pytest.fixture
def stage(transactional_db: None) -> Stage:
    return factories.stage("Staging")


def ids(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [run["run_id"] for run in answer.json()["runs"]]


def test_nothing_in_flight_is_an_empty_list(reader: httpx.Client) -> None:
    answer = reader.get("/api/runs/").json()
    assert (answer["runs"], answer["next"]) == ([], None)


def test_what_was_not_looked_at_is_told_beside_the_list(reader: httpx.Client, stage: Stage) -> None:
    factories.stage("Development", synced_at=None, promised_at=None)
    answer = reader.get("/api/runs/").json()
    assert answer["complete"] is False
    sentence = "Incomplete: 1 of 2 stages not read yet, all of Staging read."
    assert answer["coverage"] == {
        "stages": 2,
        "unread": 1,
        "failing": 0,
        "unlisted": 0,
        "seconds_left": None,  # no worker reads
        "sentence": sentence,
    }


def test_a_list_is_complete_where_all_that_was_asked_for_is_known(
    reader: httpx.Client, stage: Stage
) -> None:
    factories.stage("Development", synced_at=None, promised_at=None)
    answer = reader.get("/api/runs/?stage=staging").json()
    assert (answer["complete"], answer["coverage"]["stages"]) == (True, 1)


def test_a_project_is_complete_whatever_others_wait_for(reader: httpx.Client, stage: Stage) -> None:
    other = factories.project("other")
    CatalogueSweep.objects.create(project=other, next_at=timezone.now())
    assert reader.get("/api/runs/").json()["complete"] is False
    here = stage.pipeline.project.slug
    assert reader.get(f"/api/runs/?project={here}").json()["complete"] is True


def test_before_anything_was_read_no_list_is_complete(reader: httpx.Client) -> None:
    assert reader.get("/api/runs/").json()["complete"] is False


def test_a_run_is_told_as_the_mirror_has_it(reader: httpx.Client, stage: Stage) -> None:
    run = factories.run(stage, "r-1", name="Nightly", step="migrate", status="hibernating")
    [told] = reader.get("/api/runs/").json()["runs"]
    assert told == {
        "run_id": "r-1",
        "name": "Nightly",
        "project": "shop",
        "pipeline": "checkout",
        "stage": "Staging",
        "status": "hibernating",
        "concluded": False,
        "in_flight": True,
        "step": "migrate",
        "created_at": stamp(run.created_at),
        "started_at": stamp(run.started_at),
        "concluded_at": None,
        "seen_at": stamp(run.seen_at),
        "gone_at": None,
        "url": factories.address(run),
        "abort": None,
        "may_abort": False,
    }


def stamp(when: Any) -> str:
    return str(when.isoformat().replace("+00:00", "Z"))


def test_times_are_utc_whatever_the_dashboards_zone(
    reader: httpx.Client, stage: Stage, settings: Any
) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    run = factories.run(stage)
    assert reader.get("/api/runs/").json()["runs"][0]["seen_at"] == stamp(run.seen_at)


def test_an_address_is_whole_where_the_dashboards_own_is_known(
    reader: httpx.Client, stage: Stage, settings: Any
) -> None:
    settings.BASE_URL = "https://releases.example.com"
    run = factories.run(stage)
    factories.run(stage)
    said = reader.get("/api/runs/?limit=1").json()
    assert said["next"].startswith("https://releases.example.com/api/runs/?")
    told = reader.get(f"/api/runs/{run.run_id}/").json()
    assert told["url"] == f"https://releases.example.com{factories.address(run)}"


def test_what_has_concluded_or_is_gone_is_not_in_flight(reader: httpx.Client, stage: Stage) -> None:
    factories.run(stage, status="success")
    factories.run(stage, in_flight=False, gone_at=timezone.now())
    assert ids(reader.get("/api/runs/")) == []


def test_a_head_is_answered_like_a_get_without_its_body(reader: httpx.Client, stage: Stage) -> None:
    factories.run(stage, "r-1")
    for address in ("/api/runs/", "/api/runs/r-1/"):
        answer = reader.head(address)
        assert (answer.status_code, answer.content) == (200, b"")


def test_no_answer_is_kept(reader: httpx.Client, stage: Stage) -> None:
    factories.run(stage, "r-1")
    kept = {reader.get(f"/api/runs/{of}").headers["cache-control"] for of in ("", "r-1/", "r-2/")}
    assert kept == {"no-store"}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", {"a", "b", "c"}),
        ("project=shop", {"a", "b"}),
        ("project=payments", {"c"}),
        ("pipeline=checkout", {"a", "b"}),
        ("stage=Production", {"b", "c"}),
        ("stage=production", {"b", "c"}),
        ("status=waiting", {"b"}),
        ("project=shop&stage=production&status=waiting", {"b"}),
        ("project=&status=", {"a", "b", "c"}),
        ("project=unknown", set()),
        ("status=running%22", set()),
    ],
)
def test_the_list_is_narrowed_down(
    reader: httpx.Client, stage: Stage, query: str, found: set[str]
) -> None:
    factories.run(stage, "a")
    factories.run(factories.stage("Production"), "b", status="waiting")
    ledger = factories.pipeline("ledger", of=factories.project("payments"))
    factories.run(factories.stage("Production", of=ledger), "c")
    assert set(ids(reader.get(f"/api/runs/?{query}"))) == found


@pytest.mark.parametrize(
    "query",
    [
        "projet=shop", "project=shop&project=payments", "project=%00", "stage=Produktion",
        "limit=0", "limit=501", "limit=-1", "limit=ten", "limit=1e2", "limit=" + "9" * 5000,
        "limit=%D9%A3", "after=0", "after=x", "after=999", "after=" + "9" * 18, "page=2",
    ],
)  # fmt: skip
def test_a_parameter_that_makes_no_sense_is_refused(reader: httpx.Client, query: str) -> None:
    assert failed(reader.get(f"/api/runs/?{query}")) == (400, "bad_parameter")


def test_the_parts_of_a_list_are_the_whole_of_it(reader: httpx.Client, stage: Stage) -> None:
    now = timezone.now()
    for number in range(7):  # pairs of one time, which only their keys tell apart
        factories.run(stage, f"r-{number}", created_at=now - timedelta(seconds=number // 2))
    parts, address = [], "/api/runs/?limit=3&project=shop"
    while address:
        answer = reader.get(address)
        parts.append(ids(answer))
        address = answer.json()["next"]
    assert parts == [["r-1", "r-0", "r-3"], ["r-2", "r-5", "r-4"], ["r-6"]]


def test_a_part_goes_on_where_the_last_one_ended_though_its_last_run_has_concluded(
    reader: httpx.Client, stage: Stage
) -> None:
    now = timezone.now()
    runs = [
        factories.run(stage, f"r-{number}", created_at=now - timedelta(seconds=number))
        for number in range(3)
    ]
    first = reader.get("/api/runs/?limit=1").json()
    factories.change(runs[0], in_flight=False, concluded=True)
    assert ids(reader.get(first["next"])) == ["r-1"]


def test_the_latest_abort_is_told_with_the_run(
    reader: httpx.Client, stage: Stage, manager: User
) -> None:
    run = factories.run(stage)
    over = {"state": "not_sent", "settled_at": timezone.now(), "answer": "No connection."}
    factories.abort(run, manager, requested_at=timezone.now() - timedelta(hours=1), **over)
    factories.abort(run, manager, reason="Stuck", via="api", token_name="PagerDuty")
    [told] = reader.get("/api/runs/").json()["runs"]
    act = told["abort"]
    assert (act["state"], act["by"], act["reason"]) == ("accepted", "manager", "Stuck")
    assert (act["via"], act["token"]) == ("api", "PagerDuty")
    assert (act["outcome"], act["settled_at"]) == ("", None)
    assert act["sentence"] == abort_messages.of(run.aborts.latest("pk"), run).sentence


def test_a_hundred_runs_cost_as_many_queries_as_one(
    reader: httpx.Client, stage: Stage, manager: User, viewer: User
) -> None:
    from django.db import connection
    from django.test import RequestFactory
    from django.test.utils import CaptureQueriesContext

    from dashboard.web.api import views
    from tests.support.api import secret_of

    request = RequestFactory().get(
        "/api/runs/", headers={"Authorization": f"Bearer {secret_of(viewer)}"}
    )
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


def test_a_run_that_has_concluded_is_told_too(reader: httpx.Client, stage: Stage) -> None:
    factories.run(stage, "r-1", status="success")
    told = reader.get("/api/runs/r-1/").json()
    assert (told["status"], told["concluded"], told["aborts"]) == ("success", True, [])


def test_all_its_aborts_are_told_with_their_trails(
    reader: httpx.Client, stage: Stage, manager: User
) -> None:
    run = factories.run(stage, "r-1")
    over = {"state": "not_sent", "settled_at": timezone.now(), "answer": "No connection."}
    first = factories.abort(run, manager, requested_at=timezone.now() - timedelta(hours=1), **over)
    first.note("requested", timezone.now())
    first.note("not_sent", timezone.now(), detail="No connection.")
    second = factories.abort(run, manager)
    second.note("requested", timezone.now())
    told = reader.get("/api/runs/r-1/").json()
    assert [act["id"] for act in told["aborts"]] == [second.pk, first.pk]
    assert told["abort"]["id"] == second.pk
    assert [line["text"] for line in told["aborts"][1]["trail"]] == [
        "Requested by manager.",
        "Not sent: No connection.",
    ]


def test_an_unknown_run_is_not_found(reader: httpx.Client, stage: Stage) -> None:
    answer = reader.get("/api/runs/r-9/")
    assert failed(answer) == (404, "unknown_run")
    assert answer.json()["error"]["message"] == "No run “r-9” is known here."


@pytest.mark.parametrize("run_id", ["a/b", "..", "%2F", "é 日", "<b>", "x" * 255])
def test_a_strange_id_is_encoded_as_in_a_pages_address(
    reader: httpx.Client, stage: Stage, run_id: str
) -> None:
    from django.urls import reverse

    factories.run(stage, run_id)
    assert reader.get(reverse("api_run", args=[run_id])).json()["run_id"] == run_id


@pytest.mark.parametrize("address", ["%00", "a%2500", "%FF", "%ED%A0%80"])
def test_an_id_that_no_database_takes_is_not_found(reader: httpx.Client, address: str) -> None:
    assert failed(reader.get(f"/api/runs/{address}/"))[0] == 404


def test_an_id_in_several_places_is_told_with_all_of_them(
    reader: httpx.Client, stage: Stage
) -> None:
    for name in ("Staging", "Production"):
        factories.run(factories.stage(name), "r-1")
    answer = reader.get("/api/runs/r-1/")
    assert failed(answer) == (409, "ambiguous_run")
    place = {"project": "shop", "pipeline": "checkout"}
    assert answer.json()["places"] == [
        place | {"stage": "Production"},
        place | {"stage": "Staging"},
    ]


def test_a_place_chooses_among_several(reader: httpx.Client, stage: Stage) -> None:
    for name in ("Staging", "Production"):
        factories.run(factories.stage(name), "r-1", name=name)
    told = reader.get("/api/runs/r-1/?project=shop&pipeline=checkout&stage=staging").json()
    assert told["name"] == "Staging"
    assert failed(reader.get("/api/runs/r-1/?stage=development")) == (404, "unknown_run")


def test_looking_at_a_run_has_it_read_soon(reader: httpx.Client, stage: Stage) -> None:
    run = factories.run(stage, "r-1")
    reader.get("/api/runs/r-1/")
    run.refresh_from_db()
    assert run.watched_at is not None
    assert run.next_read_at is not None


def test_hostile_text_stays_text(reader: httpx.Client, stage: Stage) -> None:
    factories.run(stage, "r-1", name=factories.HOSTILE)
    assert reader.get("/api/runs/r-1/").json()["name"] == factories.HOSTILE


def test_who_looks_at_a_run_is_told(reader: httpx.Client, stage: Stage, viewer: User) -> None:
    run = factories.run(stage, "r-1", overdue=1)
    assert reader.get("/api/runs/r-1/").json()["looking"] == []
    acknowledgements.begin(run, viewer)
    [told] = reader.get("/api/runs/r-1/").json()["looking"]
    since = stamp(run.lookings.get().since)
    assert told == {"by": "viewer", "since": since, "until": None, "taken_over_by": ""}
    acknowledgements.stop(run, viewer)
    [told] = reader.get("/api/runs/r-1/").json()["looking"]
    assert told["until"] == stamp(run.lookings.get().until)
