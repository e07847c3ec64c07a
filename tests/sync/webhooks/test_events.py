"""Webhook events: the reads they make due, the cost of a storm, and a webhook without events."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import count
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db import DatabaseError, connections
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from dashboard.models import (
    CatalogSync,
    Pipeline,
    Project,
    Run,
    Stage,
    WebhookStats,
)
from dashboard.sync import mirror, read_plan
from dashboard.sync.due import find_stages, record_stage
from dashboard.sync.plan import Plan
from dashboard.sync.read_plan import ReadPlan
from dashboard.sync.webhooks import events as webhook_events
from dashboard.sync.webhooks import status as webhook_status
from dashboard.sync.webhooks.events import MAX_NODES, Event, extract_event_ids
from tests.support.databases import table_renamed
from tests.support.live import Live
from tests.support.live_runs import wait_until
from tests.support.world import T0, api_run, at

STARTED = "release-flow-template-run:start"
SOON = at(300)  # when every stage of these tests is due without an event
_ids = count()


def send_event(data: object, now: datetime = T0, name: str = STARTED) -> None:
    webhook_events.handle_event(Event(name, data, f"event-{next(_ids)}"), now)


def create_stage(
    project: str, pipeline: str = "checkout", name: str = "Production", **fields: Any
) -> Stage:
    """A stage that was read some time ago and is due in five minutes."""
    project_row, _ = Project.objects.get_or_create(slug=project, defaults={"synced_at": T0})
    pipeline_row, _ = Pipeline.objects.get_or_create(
        project=project_row, slug=pipeline, defaults={"synced_at": T0}
    )
    defaults = {
        "has_flow": True,
        "next_sync_at": SOON,
        "synced_at": at(-200),
    }
    return Stage.objects.create(pipeline=pipeline_row, name=name, **defaults | fields)


def due(now: datetime = T0) -> list[str]:
    """The stages that are due, as project/pipeline/Stage."""
    stages = Stage.objects.filter(next_sync_at__lte=now).select_related("pipeline__project")
    return sorted(
        f"{stage.pipeline.project.slug}/{stage.pipeline.slug}/{stage.name}" for stage in stages
    )


# --- which stages ------------------------------------------------------------------------------


@pytest.fixture
def shop(db: None) -> None:
    for pipeline in ("checkout", "search"):
        for name in ("Staging", "Production"):
            create_stage("shop", pipeline, name)
    create_stage("payments", "ledger")


SHOP = ["shop/checkout/Production", "shop/checkout/Staging"]
ALL_OF_SHOP = [*SHOP, "shop/search/Production", "shop/search/Staging"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"project": {"id": "shop"}}, ALL_OF_SHOP),
        ({"projectId": "shop"}, ALL_OF_SHOP),
        ({"project": "shop"}, ALL_OF_SHOP),
        ({"project": {"id": "shop"}, "pipeline": {"id": "checkout"}}, SHOP),
        ({"project": {"id": "shop"}, "pipelineId": "checkout"}, SHOP),
        ({"release": {"pipeline": {"slug": "checkout"}}}, SHOP),
        ({"pipeline": {"id": "checkout"}, "stage": "production"}, SHOP[:1]),
        ({"pipeline": {"id": "checkout", "stage": {"name": "Production"}}}, SHOP[:1]),
        ({"project": {"id": "shop"}, "stage": "Staging"}, [ALL_OF_SHOP[1], ALL_OF_SHOP[3]]),
        ({"project": {"id": "shop"}, "stage": "no-such-stage"}, ALL_OF_SHOP),
        # Only fields named pipeline select one, whatever the ids look like.
        ({"project": {"id": "shop"}, "service": {"id": "checkout"}}, ALL_OF_SHOP),
        ({"project": {"id": "shop"}, "pipeline": {"id": "65f0aa"}}, ALL_OF_SHOP),
        ({"project": {"id": "elsewhere"}}, []),
        ({"project": {"id": "elsewhere"}, "stage": "production"}, []),
        ({"project": {"id": "elsewhere"}, "pipeline": {"id": "new"}}, []),
        ({"project": {"id": "5f0c7c1e"}, "pipeline": {"id": "checkout"}}, SHOP),
        (
            {"project": {"id": "payments"}, "pipeline": {"id": "checkout"}},
            ["payments/ledger/Production"],
        ),
        ({}, [*["payments/ledger/Production"], *ALL_OF_SHOP]),
        (None, [*["payments/ledger/Production"], *ALL_OF_SHOP]),
        ([{"project": {"id": "payments"}}], ["payments/ledger/Production"]),
    ],
)
def test_event_makes_matching_stages_due(shop: None, data: object, expected: list[str]) -> None:
    send_event(data)
    assert due() == expected


@pytest.mark.parametrize(
    "data",
    [
        {"run": {"id": "r1"}},
        {"releaseFlowRun": {"id": "r1"}, "project": {"id": "shop"}},
        {"whatever": ["r1"], "project": {"id": "shop"}},
    ],
)
def test_event_of_known_run_makes_only_its_stage_due(shop: None, data: object) -> None:
    stage = Stage.objects.get(pipeline__slug="search", name="Staging")
    mirror.apply_runs(stage.pk, [api_run("r1")], requested_at=at(-9))
    send_event(data)
    assert due() == ["shop/search/Staging"]


def test_event_of_concluded_run_makes_its_stage_due(shop: None) -> None:
    stage = Stage.objects.get(pipeline__slug="search", name="Staging")
    mirror.apply_runs(
        stage.pk, [api_run("r1", status="success", concluded=True)], requested_at=at(-9)
    )
    send_event({"run": {"id": "r1"}})
    assert due() == ["shop/search/Staging"]


def test_event_with_project_name_makes_its_stages_due(shop: None) -> None:
    Project.objects.filter(slug="payments").update(name="The payments")
    send_event({"project": {"id": "5f0c7c1e0d554f0e9a556f5b", "name": "The payments"}})
    assert due() == ["payments/ledger/Production"]


def test_event_does_not_make_stage_without_flow_due(shop: None) -> None:
    create_stage("shop", "checkout", "Development", has_flow=False)
    send_event({"project": {"id": "shop"}})
    assert due() == ALL_OF_SHOP


def test_event_naming_stage_without_flow_makes_its_flow_due(shop: None) -> None:
    stage = create_stage("shop", "checkout", "Development", has_flow=False, flow_synced_at=at(-9))
    send_event({"pipeline": {"id": "checkout"}, "stage": "development"})
    stage.refresh_from_db()
    assert (stage.next_sync_at, stage.flow_synced_at) == (T0, None)


def test_event_does_not_end_back_off_of_failing_stage(shop: None) -> None:
    Stage.objects.filter(name="Staging").update(failures=1)
    send_event({"project": {"id": "shop"}})
    assert due() == ["shop/checkout/Production", "shop/search/Production"]


def test_event_does_not_make_removed_pipeline_due(shop: None) -> None:
    Pipeline.objects.filter(slug="search").update(removed_at=T0)
    send_event({"project": {"id": "shop"}})
    assert due() == SHOP


# --- an event during a reading -----------------------------------------------------------------


def test_event_during_read_makes_stage_due_again(stage: Stage) -> None:
    (found,) = find_stages(at(1), 4)
    send_event({"project": {"id": "shop"}}, at(2))
    record_stage(found, at(3), ReadPlan(Plan(1.0, 300.0), {}), started_at=at(1))
    assert find_stages(at(7), 4) == []  # nor one read after the other
    assert [stage.pk for stage in find_stages(at(8), 4)] == [stage.pk]


# --- storms ------------------------------------------------------------------------------------


def create_hundred_pipelines(in_flight: int = 0) -> None:
    """A project with a hundred pipelines."""
    for number in range(100):
        stage = create_stage("shop", f"p{number:02}", last_run_change_at=at(-number * 60))
        if number < in_flight:
            mirror.apply_runs(stage.pk, [api_run(f"r{number}")], requested_at=at(-200))


def test_vague_event_makes_only_ten_stages_due(db: None) -> None:
    create_hundred_pipelines()
    send_event({"project": {"id": "shop"}})
    assert due() == [f"shop/p{number:02}/Production" for number in range(10)]  # the latest changed


def test_vague_event_makes_all_stages_in_flight_due(db: None) -> None:
    create_hundred_pipelines(in_flight=20)
    send_event({"project": {"id": "shop"}})
    assert due() == [f"shop/p{number:02}/Production" for number in range(30)]


def test_update_makes_a_stage_due_only_if_no_other_may_be_meant(db: None) -> None:
    create_hundred_pipelines(in_flight=2)
    send_event({"project": {"id": "shop"}}, name=UPDATED)
    assert due() == []
    send_event({"pipeline": {"id": "p01"}}, name=UPDATED)
    assert due() == ["shop/p01/Production"]


UPDATED, ENDED = "release-flow-template-run:update", "release-flow-template-run:success"


def test_end_event_makes_only_stages_in_flight_due(db: None) -> None:
    create_hundred_pipelines(in_flight=2)
    send_event({"project": {"id": "shop"}}, name=ENDED)
    assert due() == ["shop/p00/Production", "shop/p01/Production"]


# --- unknown objects ---------------------------------------------------------------------------


@pytest.fixture
def catalog_list(shop: None) -> CatalogSync:
    return CatalogSync.objects.create(project=None, next_sync_at=at(200), synced_at=at(-400))


def test_event_of_unknown_project_makes_project_list_due(catalog_list: CatalogSync) -> None:
    send_event({"project": {"id": "new"}})
    catalog_list.refresh_from_db()
    assert catalog_list.next_sync_at == T0


def test_event_of_unknown_project_keeps_back_off_of_project_list(catalog_list: CatalogSync) -> None:
    CatalogSync.objects.update(failures=2)
    send_event({"project": {"id": "new"}})
    catalog_list.refresh_from_db()
    assert catalog_list.next_sync_at == at(200)


def test_event_of_project_outside_setting_is_ignored(
    catalog_list: CatalogSync, settings: Settings
) -> None:
    settings.NORTHFLANK_PROJECTS = ["shop"]
    send_event({"project": {"id": "new"}})
    catalog_list.refresh_from_db()
    assert (catalog_list.next_sync_at, due()) == (at(200), [])


def test_event_of_unknown_pipeline_makes_pipeline_list_due(catalog_list: CatalogSync) -> None:
    shop = Project.objects.get(slug="shop")
    of_shop = CatalogSync.objects.create(project=shop, next_sync_at=at(200))
    send_event({"project": {"id": "shop"}, "pipeline": {"id": "new"}})
    of_shop.refresh_from_db()
    catalog_list.refresh_from_db()
    assert (of_shop.next_sync_at, catalog_list.next_sync_at) == (T0, at(200))


# --- counted -----------------------------------------------------------------------------------


def test_event_that_fails_to_store_is_rolled_back(shop: None, transactional_db: None) -> None:
    with table_renamed("dashboard_stage"), pytest.raises(DatabaseError):
        webhook_events.handle_event(Event(STARTED, {}, "e"), T0)
    assert WebhookStats.objects.get().event_count == 0


def test_repeats_of_an_event_cost_one_read_in_fifteen_seconds(stage: Stage) -> None:
    Stage.objects.update(next_sync_at=SOON)
    mirror.apply_runs(stage.pk, [api_run("r1")], requested_at=T0)

    def next_read(now: datetime, name: str, event_id: str) -> datetime:
        Stage.objects.filter(next_sync_at__lte=now).update(next_sync_at=SOON)  # as if it was read
        webhook_events.handle_event(Event(name, {"run": {"id": "r1"}}, event_id), now)
        return Stage.objects.get().next_sync_at

    assert next_read(at(0), STARTED, "a") == at(0)
    assert next_read(at(1), STARTED, "a") == at(15)
    assert next_read(at(14), STARTED, "b") == at(15)  # the same run and type
    assert next_read(at(14.5), "release-flow-template-run:success", "c") == at(14.5)
    assert next_read(at(15), STARTED, "a") == at(15)
    assert WebhookStats.objects.get().event_count == 5


def test_event_that_could_not_be_stored_is_no_repeat_when_it_is_sent_again(
    shop: None, transactional_db: None
) -> None:
    event = Event(STARTED, {"project": {"id": "payments"}}, "a")
    with table_renamed("dashboard_stage"), pytest.raises(DatabaseError):
        webhook_events.handle_event(event, T0)
    webhook_events.handle_event(event, at(1))
    assert due(at(1)) == ["payments/ledger/Production"]


def test_concurrent_events_are_all_counted(transactional_db: None) -> None:
    thread_count, rounds = 4, 10
    barrier = threading.Barrier(thread_count)

    def work(_: int) -> None:
        try:
            for number in range(rounds):
                barrier.wait(10)
                webhook_events.handle_event(Event("x", {}, f"e-{number}"), T0)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(thread_count) as pool:
        list(pool.map(work, range(thread_count)))
    assert WebhookStats.objects.get().event_count == thread_count * rounds


@pytest.mark.skipif(
    django_settings.DATABASES["default"]["ENGINE"].endswith(".sqlite3"),
    reason="SQLite locks no rows",
)
@pytest.mark.parametrize("writer", ["an event", "a plan"])
def test_concurrent_writers_of_stages_do_not_deadlock(transactional_db: None, writer: str) -> None:
    from django.db import transaction

    later = create_stage("shop", "checkout", synced_at=at(-500))
    first = create_stage("shop", "search", synced_at=at(-900))
    assert later.pk < first.pk  # an event starts with the stage read longest ago
    for stage in (later, first):
        mirror.apply_runs(stage.pk, [api_run(f"of-{stage.pk}")], requested_at=at(-1))
    # A row's position is independent of its key.
    for stage in (first, later):
        Stage.objects.filter(pk=stage.pk).update(next_sync_at=SOON)
    writes = {
        "an event": lambda: send_event({"project": {"id": "shop"}}),
        "a plan": lambda: read_plan.make_plan(10.0, T0, {}),
    }

    def write() -> None:
        try:
            writes[writer]()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Stage.objects.filter(pk=later.pk).update(last_viewed_at=T0)
            writing = pool.submit(write)
            with pytest.raises(TimeoutError):
                writing.result(0.5)
            Stage.objects.filter(pk=first.pk).update(last_viewed_at=T0)  # or there is a deadlock
        writing.result(10)


# --- any data ----------------------------------------------------------------------------------

any_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=30,
)


@pytest.mark.slow
@given(any_json)
def test_event_ids_of_any_data_are_storable(data: object) -> None:
    for text in extract_event_ids(data).candidates:
        text.encode()  # as in a query
        assert "\x00" not in text
        assert len(text) <= 255


def test_event_ids_are_limited_in_number() -> None:
    ids = extract_event_ids({"a": [str(number) for number in range(10_000)]})
    assert len(ids.candidates) < MAX_NODES


def test_event_ids_at_top_level_are_found_in_large_event() -> None:
    filler = {f"k{number}": [["x"] * 100] for number in range(100)}
    assert extract_event_ids(filler | {"project": {"id": "shop"}}).projects == {"shop"}


# --- webhook status ----------------------------------------------------------------------------


@pytest.fixture
def configured_webhook(settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = ["x" * 20]


def test_webhook_status_without_secret_is_not_set_up(settings: Settings, db: None) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    state = webhook_status.load(T0)
    assert (state.is_configured, state.is_alive, "not configured" in state.message) == (
        False,
        False,
        True,
    )


def test_webhook_status_before_first_event_is_not_alive(configured_webhook: None, db: None) -> None:
    state = webhook_status.load(T0)
    assert (state.stats.last_event_at, state.is_alive, "no event has arrived" in state.message) == (
        None, False, True,
    )  # fmt: skip


def test_webhook_status_with_only_other_events_is_not_alive(
    configured_webhook: None, db: None
) -> None:
    send_event({}, name="build:start")
    state = webhook_status.load(at(1))
    assert (state.stats.last_event_at, state.is_alive) == (T0, False)
    assert "none about release flows" in state.message


def mirror_started_run(stage: Stage, **fields: Any) -> None:
    mirror.apply_runs(stage.pk, [api_run(**fields)], requested_at=T0)


def test_webhook_status_after_start_without_event_is_silent(
    configured_webhook: None, stage: Stage
) -> None:
    send_event({}, T0)
    mirror_started_run(stage, started_at=at(200))
    state = webhook_status.load(at(300))
    assert (state.is_alive, state.missed_event_at) == (False, at(200))
    assert "may be broken" in state.message


@pytest.mark.parametrize("status", ["queued", "pending"])
def test_webhook_status_after_run_that_has_not_started_is_alive(
    configured_webhook: None, stage: Stage, status: str
) -> None:
    send_event({}, T0)
    mirror_started_run(stage, status=status, created_at=at(200), started_at=None)
    assert webhook_status.load(at(300)).is_alive


def test_webhook_status_of_queued_run_is_silent_only_from_its_start(
    configured_webhook: None, stage: Stage
) -> None:
    send_event({}, T0)
    mirror_started_run(stage, created_at=at(70), started_at=at(200))
    assert (webhook_status.load(at(259)).is_alive, webhook_status.load(at(260)).is_alive) == (
        True,
        False,
    )


def test_webhook_status_after_new_event_is_alive(configured_webhook: None, stage: Stage) -> None:
    send_event({}, T0)
    mirror_started_run(stage, started_at=at(200))
    send_event({}, at(400))
    assert webhook_status.load(at(401)).is_alive


# --- with the sandbox --------------------------------------------------------------------------


@pytest.fixture
def connect_webhooks(live: Live, settings: Settings) -> Callable[..., None]:
    """Return a function that sends the sandbox's webhooks to the live dashboard."""

    def connect(body: str = "project") -> None:
        settings.NORTHFLANK_PROJECTS = ["payments"]
        settings.NORTHFLANK_WEBHOOK_SECRET = ["a secret of this test"]
        live.sandbox.choices["webhook-body"] = body
        live.sync()
        Stage.objects.update(
            next_sync_at=timezone.now() + timedelta(hours=1), next_history_page=None
        )
        live.sandbox.webhooks.subscribe(
            f"{live.base_url}/hooks/northflank/", "a secret of this test"
        )
        wait_until(
            lambda: live.sandbox.webhooks.last_statuses
        )  # it has recorded the earlier statuses

    return connect


@pytest.mark.slow
@pytest.mark.parametrize("body", ["project", "ids", "empty"])
def test_started_run_is_read_after_webhook_event(
    live: Live, connect_webhooks: Callable[..., None], body: str
) -> None:
    connect_webhooks(body)
    flow = live.sandbox.world.find_flow("payments", "ledger", "staging")
    assert flow is not None
    run_id = live.sandbox.world.start_run(flow, live.sandbox.clock(), {}).id

    def is_mirrored() -> bool:
        live.sync(1)
        return Run.objects.filter(run_id=run_id).exists()

    wait_until(is_mirrored, 30)  # the run starts some seconds after its creation
    assert WebhookStats.objects.get().last_release_event_at is not None


def test_concluded_run_is_read_after_webhook_event(
    live: Live, connect_webhooks: Callable[..., None]
) -> None:
    connect_webhooks("ids")
    run = Run.objects.in_flight().filter(stage__pipeline__slug="ledger").earliest("pk")
    flow = live.sandbox.world.find_flow("payments", "ledger", run.stage.name)
    assert flow is not None
    live.sandbox.world.abort_run(flow, run.run_id, live.sandbox.clock(), seconds=0)

    def concluded() -> bool:
        live.sync(1)
        return Run.objects.filter(pk=run.pk, status="aborted").exists()

    wait_until(concluded)
