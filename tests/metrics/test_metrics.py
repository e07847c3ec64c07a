"""What /metrics tells, by the parsers of its two formats, and what it counts for ever."""

import threading
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse_text

from dashboard.aborts.request import AbortRequest, request_abort
from dashboard.db.threads import now
from dashboard.metrics import collector
from dashboard.models import MetricCounter, Pipeline, Run, Stage
from dashboard.models.abort_lifecycle import EventType
from dashboard.models.bulk_aborts import Via
from dashboard.models.counters import CounterName, increment, observe, store
from dashboard.northflank import Call
from dashboard.sync import pruning
from dashboard.upstream import budget_store
from dashboard.web.http.responses.deferred import Deferred
from tests.support import factories
from tests.support.live import Live
from tests.support.world import ENDED, FAILED, api_run, at, mirror_list

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
PLACE = {"project": "shop", "pipeline": "checkout", "stage": "Production"}


def samples(accept: str = "") -> dict[str, list[tuple[dict[str, str], float]]]:
    """Return the labels and values of all samples, by their name."""
    body, _ = collector.render(accept, 3)
    families: Iterable[Any] = (parse_open if accept else parse_text)(body.decode())
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def value(name: str, **labels: str) -> float:
    """Return the value of the one sample that has these labels."""
    [found] = [value for has, value in samples()[name] if labels.items() <= has.items()]
    return found


def end_run(stage: Stage, run_id: str = "r1", **fields: Any) -> None:
    """Read a run in flight, and then its end."""
    mirror_list(stage, api_run(run_id))
    mirror_list(stage, api_run(run_id, **ENDED | fields), requested_at=6)


@pytest.fixture
def stage(db: None) -> Stage:
    return factories.stage(synced_at=at(-30), fresh_until=at(60))


def test_both_formats_have_the_same_samples(stage: Stage) -> None:
    end_run(stage)
    mirror_list(stage, api_run("r2"), requested_at=7)
    text, openmetrics = samples(), samples(OPENMETRICS)
    for found in (text, openmetrics):
        del found["releaseflow_scrape_duration_seconds"]
    assert text == openmetrics
    assert collector.render("", 0)[1].startswith("text/plain; version=0.0.4")
    assert collector.render(OPENMETRICS, 0)[1].startswith("application/openmetrics-text")


def test_ended_run_is_counted_and_measured_once(stage: Stage) -> None:
    end_run(stage, **FAILED)
    mirror_list(stage, api_run(**FAILED, name="Renamed"), requested_at=7)
    assert value("releaseflow_runs_concluded_total", **PLACE) == 1
    assert value("releaseflow_runs_failed_total", **PLACE) == 1
    assert value("releaseflow_runs_aborted_total", **PLACE) == 0
    errors = {"cicd_pipeline_name": "shop/checkout", "error_type": "failure"}
    assert value("cicd_pipeline_run_errors_total", **errors) == 1
    duration = "cicd_pipeline_run_duration_seconds"
    assert value(f"{duration}_sum", cicd_pipeline_result="failure") == 55
    assert value(f"{duration}_bucket", le="60.0", cicd_pipeline_run_state="executing") == 1
    assert value(f"{duration}_count", deployment_environment_name="production") == 1


def test_only_ends_that_are_news_are_counted(stage: Stage) -> None:
    mirror_list(stage, api_run("old", **FAILED | {"concluded_at": at(-40)}))  # before the last read
    assert value("releaseflow_runs_failed_total") == 0
    mirror_list(stage, api_run("new", **FAILED), requested_at=6)  # started and ended between two
    assert value("releaseflow_runs_failed_total") == 1
    Stage.objects.update(synced_at=None)
    mirror_list(stage, api_run("first-read", **FAILED), requested_at=7)
    assert value("releaseflow_runs_failed_total") == 1


def test_counters_are_the_same_after_pruning(stage: Stage) -> None:
    for number in range(pruning.LATEST_RUNS + 1):
        end_run(stage, f"r{number}", **FAILED)
    names = ("releaseflow_runs_concluded_total", "cicd_pipeline_run_duration_seconds_bucket")
    before = [samples()[name] for name in names]
    for _ in pruning.prune(now() + timedelta(days=1000)):
        pass
    assert Run.objects.count() == pruning.LATEST_RUNS
    assert [samples()[name] for name in names] == before


def test_run_id_is_an_exemplar_and_no_label(stage: Stage) -> None:
    end_run(stage, 'r"1')
    end_run(stage, "x" * 200)  # longer than an exemplar may be
    families = parse_open(collector.render(OPENMETRICS, 0)[0].decode())
    found = [sample for family in families for sample in family.samples]
    assert all("run_id" not in sample.labels for sample in found)
    assert [sample.exemplar for sample in found if sample.exemplar] == []
    end_run(stage, "r2")
    families = parse_open(collector.render(OPENMETRICS, 0)[0].decode())
    exemplars = [s.exemplar for family in families for s in family.samples if s.exemplar]
    assert [(exemplar.labels, exemplar.value) for exemplar in exemplars] == [
        ({"run_id": "r2"}, 55.0)
    ]
    assert b'run_id="r' not in collector.render("", 0)[0]


@pytest.mark.parametrize("slug", ['quo"te', "two\nlines", "back\\slash", "x" * 200, "ü{}=,#"])
def test_any_name_is_escaped(stage: Stage, slug: str) -> None:
    Pipeline.objects.update(slug=slug)
    end_run(stage)
    for accept in ("", OPENMETRICS):
        found = samples(accept)
        [(labels, _)] = found["releaseflow_runs_concluded_total"]
        assert labels["pipeline"] == slug
        [(labels, _)] = found["cicd_pipeline_run_duration_seconds_count"]
        assert labels["cicd_pipeline_name"] == f"shop/{slug}"


def test_removed_stage_vanishes(stage: Stage) -> None:
    end_run(stage)
    mirror_list(stage, api_run("r2"), requested_at=7)
    name = "releaseflow_data_read_timestamp_seconds"
    assert value(name, **PLACE) == at(-30).timestamp()
    Pipeline.objects.update(removed_at=now())
    assert all("project" not in labels for found in samples().values() for labels, _ in found)


def test_runs_in_flight_by_status_and_mark(stage: Stage) -> None:
    created_at = at(-500)
    factories.run(stage, status="queued", created_at=created_at)
    factories.run(stage, overdue_severity=1)
    factories.run(stage, overdue_severity=2)
    factories.run(stage, removed_at=now())
    assert value("releaseflow_runs_in_flight", **PLACE, status="running") == 2
    assert value("releaseflow_runs_overdue", **PLACE, mark="overdue") == 1
    assert value("releaseflow_runs_overdue", **PLACE, mark="far") == 1
    oldest = "releaseflow_oldest_run_created_timestamp_seconds"
    assert value(oldest, status="queued") == created_at.timestamp()
    active = {"cicd_pipeline_name": "shop/checkout", "deployment_environment_name": "production"}
    assert value("cicd_pipeline_run_active", **active, cicd_pipeline_run_state="pending") == 1
    assert value("cicd_pipeline_run_active", **active, cicd_pipeline_run_state="executing") == 2


def test_aborts_are_counted_by_way_until_they_settle(stage: Stage, admin_user: User) -> None:
    run = factories.run(stage)
    abort = request_abort(run, AbortRequest(admin_user, "stuck", via=Via.API)).abort
    way = PLACE | {"way": "api"}
    assert value("releaseflow_aborts_requested_total", **way) == 1
    assert value("releaseflow_aborts_failed_total", **way) == 0
    assert value("releaseflow_aborts_under_way", **PLACE) == 1
    oldest = value("releaseflow_oldest_abort_requested_timestamp_seconds", **PLACE)
    assert oldest == pytest.approx(abort.requested_at.timestamp(), abs=0.001)
    abort.apply(EventType.REFUSED, now(), "No.")
    assert value("releaseflow_aborts_failed_total", **way) == 1
    error = {"cicd_system_component": "abort", "error_type": "refused"}
    assert value("cicd_system_errors_total", **error) == 1
    assert "releaseflow_aborts_under_way" not in samples()
    run.refresh_from_db()
    second = request_abort(run, AbortRequest(admin_user, "stuck")).abort
    second.apply(EventType.ACCEPTED, now())
    second.apply(EventType.CONCLUDED, second.requested_at + timedelta(seconds=10), "aborted")
    assert value("releaseflow_abort_duration_seconds_bucket", le="15.0") == 1
    assert value("releaseflow_abort_duration_seconds_sum") == 10


def test_each_request_to_northflank_is_counted(db: None) -> None:
    budget_store.record_calls(
        [
            Call("GET", "GET run", 200, 0.2, None),
            Call("GET", "GET run", 503, 3, None),
            Call("GET", "GET run", None, 15, None),
        ]
    )
    assert value("releaseflow_upstream_requests_total", call="GET run") == 3
    failed = "releaseflow_upstream_requests_failed_total"
    assert value(failed, call="GET run", cause="http_503") == 1
    assert value(failed, call="GET run", cause="no_response") == 1
    duration = "releaseflow_upstream_request_duration_seconds"
    assert value(f"{duration}_bucket", le="0.25") == 1
    assert value(f"{duration}_bucket", le="+Inf") == 3


def test_up_needs_a_leader_whose_rounds_end(stage: Stage) -> None:
    assert value("releaseflow_up") == 0
    ended_at = now() - timedelta(seconds=10)
    lead = factories.leader(renewed_at=now(), round_ended_at=ended_at)
    assert value("releaseflow_up") == 1
    name = "releaseflow_sync_round_timestamp_seconds"
    assert value(name) == pytest.approx(ended_at.timestamp(), abs=0.001)
    lead.delete()
    factories.leader(renewed_at=now(), round_ended_at=now())
    factories.upstream_error("Gone.")
    assert value("releaseflow_up") == 0


def test_plan_is_told_by_stage_name(stage: Stage) -> None:
    factories.stage("Production", factories.pipeline("other"), synced_at=at(0), fresh_until=at(20))
    name = "releaseflow_fresh_until_timestamp_seconds"
    assert value(name, stage="Production") == at(20).timestamp()
    assert value("releaseflow_new_runs_within_seconds", stage="Production") == pytest.approx(90)


def test_increments_of_one_counter_add_up_in_one_statement(
    db: None, django_assert_num_queries: Any
) -> None:
    rows = [increment(CounterName.SYSTEM_ERRORS, "sync", "timeout") for _ in range(3)]
    with django_assert_num_queries(1):
        store([*rows, *observe(CounterName.ABORT_DURATION, -5)])
    store([increment(CounterName.SYSTEM_ERRORS, "sync", "timeout", by=0.5)])
    assert MetricCounter.objects.get(name=CounterName.SYSTEM_ERRORS).value == 3.5
    assert {row.value for row in MetricCounter.objects.filter(name=CounterName.ABORT_DURATION)} == {
        0.0,
        1.0,
    }


def test_increments_of_an_undone_transaction_do_not_count(db: None) -> None:
    with transaction.atomic():
        store([increment(CounterName.SYSTEM_ERRORS, "sync", "timeout")])
        transaction.set_rollback(True)
    assert not MetricCounter.objects.exists()


def test_concurrent_increments_lose_nothing(transactional_db: None) -> None:
    def count(names: list[str]) -> None:
        for _ in range(20):
            store([increment(CounterName.SYSTEM_ERRORS, "sync", name) for name in names])
        connection.close()

    # In both orders: they must not wait for each other.
    threads = [threading.Thread(target=count, args=(names,)) for names in (["a", "b"], ["b", "a"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.value for row in MetricCounter.objects.all()] == [40, 40]


# --- who may read them -------------------------------------------------------------------------


def answer(client: Client, **headers: str) -> int | str:
    found: Any = client.get("/metrics", headers=headers)
    return "metrics" if isinstance(found, Deferred) else found.status_code


def test_metrics_are_off_by_default(admin_client: Client) -> None:
    assert answer(admin_client) == 404


def test_token_is_required_once_it_is_set(client: Client, db: None, settings: Any) -> None:
    settings.METRICS_TOKEN = "t" * 32
    assert answer(client) == 401
    assert answer(client, authorization=f"Bearer {'u' * 32}") == 401
    assert answer(client, authorization=f"Basic {'t' * 32}") == 401
    assert answer(client, authorization="Bearer ü") == 401
    assert answer(client, authorization=f"bearer {'t' * 32}", host="10.1.2.3:8000") == "metrics"
    assert client.post("/metrics").status_code == 405


def test_address_is_required_once_it_is_set(client: Client, db: None, settings: Any) -> None:
    settings.METRICS_ALLOW = ["10.0.0.0/8", "::1"]
    assert answer(client) == 403
    settings.METRICS_ALLOW = ["127.0.0.0/8"]
    assert answer(client) == "metrics"
    settings.METRICS_TOKEN = "t" * 32
    assert answer(client) == 401


def test_metrics_over_http(live: Live, settings: Any) -> None:
    settings.METRICS_ALLOW = ["127.0.0.1"]
    live.sync(1)
    reply = httpx.get(f"{live.base_url}/metrics", headers={"Accept": OPENMETRICS})
    assert reply.status_code == 200
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text")
    names = {family.name for family in parse_open(reply.text)}
    assert "releaseflow_upstream_requests" in names
