"""What an event makes due, what a storm of them can spend, and when push is silent."""

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

from dashboard.models import Budget, CatalogueSweep, Pipeline, Project, Push, PushEvent, Run, Stage
from dashboard.sync import leases, mirror, webhook_events, webhook_status
from dashboard.sync.event_ids import NODES, mentioned
from dashboard.sync.webhook_events import Event
from tests.support.databases import without
from tests.support.flights import eventually
from tests.support.live import Live
from tests.support.world import T0, World, api_run, at

STARTED = "release-flow-template-run:start"
SOON = at(300)  # when every stage of these tests is due by itself
_ids = count()


def ring(data: object, now: datetime = T0, name: str = STARTED) -> None:
    webhook_events.heed(Event(name, data, f"event-{next(_ids)}"), now)


def place(project: str, pipeline: str = "checkout", name: str = "Production", **more: Any) -> Stage:
    """A stage that has been read a while ago and is due in five minutes."""
    of, _ = Project.objects.get_or_create(slug=project, defaults={"seen_at": T0})
    line, _ = Pipeline.objects.get_or_create(project=of, slug=pipeline, defaults={"seen_at": T0})
    usual = {"path": name.lower(), "has_flow": True, "next_sync_at": SOON, "synced_at": at(-200)}
    return Stage.objects.create(pipeline=line, name=name, **usual | more)


def due(now: datetime = T0) -> list[str]:
    """The stages that are due, as project/pipeline/Stage."""
    found = Stage.objects.filter(next_sync_at__lte=now).select_related("pipeline__project")
    return sorted(f"{s.pipeline.project.slug}/{s.pipeline.slug}/{s.name}" for s in found)


def spent(requests: int) -> None:
    """Let so many of the hour's requests be left for reading."""
    Budget.objects.create(limit=1000, remaining=100 + requests, resets_at=at(3600), seen_at=at(-1))


# --- which stages ------------------------------------------------------------------------------


@pytest.fixture
def shop(db: None) -> None:
    for pipeline in ("checkout", "search"):
        for name in ("Staging", "Production"):
            place("shop", pipeline, name)
    place("payments", "ledger")


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
        # What is not called a pipeline narrows nothing, though its id may look like one.
        ({"project": {"id": "shop"}, "service": {"id": "checkout"}}, ALL_OF_SHOP),
        ({"project": {"id": "shop"}, "pipeline": {"id": "65f0aa"}}, ALL_OF_SHOP),
        ({"project": {"id": "elsewhere"}}, []),
        ({}, [*["payments/ledger/Production"], *ALL_OF_SHOP]),
        (None, [*["payments/ledger/Production"], *ALL_OF_SHOP]),
        ([{"project": {"id": "payments"}}], ["payments/ledger/Production"]),
    ],
)
def test_an_event_makes_due_what_it_may_concern(
    shop: None, data: object, expected: list[str]
) -> None:
    ring(data)
    assert due() == expected


@pytest.mark.parametrize(
    "data",
    [
        {"run": {"id": "r1"}},
        {"releaseFlowRun": {"id": "r1"}, "project": {"id": "shop"}},
        {"whatever": ["r1"], "project": {"id": "shop"}},
    ],
)
def test_a_known_run_makes_its_stage_due_and_no_other(shop: None, data: object) -> None:
    stage = Stage.objects.get(pipeline__slug="search", name="Staging")
    mirror.runs(stage.pk, [api_run("r1")], asked_at=at(-9))
    ring(data)
    assert due() == ["shop/search/Staging"]


def test_a_run_that_has_concluded_makes_its_stage_due_as_well(shop: None) -> None:
    stage = Stage.objects.get(pipeline__slug="search", name="Staging")
    mirror.runs(stage.pk, [api_run("r1", status="success", concluded=True)], asked_at=at(-9))
    ring({"run": {"id": "r1"}})
    assert due() == ["shop/search/Staging"]


def test_a_project_may_be_known_by_its_name(shop: None) -> None:
    Project.objects.filter(slug="payments").update(name="The payments")
    ring({"project": {"id": "5f0c7c1e0d554f0e9a556f5b", "name": "The payments"}})
    assert due() == ["payments/ledger/Production"]


def test_a_stage_without_a_flow_is_left_alone(shop: None) -> None:
    place("shop", "checkout", "Development", has_flow=False)
    ring({"project": {"id": "shop"}})
    assert due() == ALL_OF_SHOP


def test_a_stage_named_by_an_event_is_asked_for_its_flow_again(shop: None) -> None:
    stage = place("shop", "checkout", "Development", has_flow=False, flow_seen_at=at(-9))
    ring({"pipeline": {"id": "checkout"}, "stage": "development"})
    stage.refresh_from_db()
    assert (stage.next_sync_at, stage.flow_seen_at) == (T0, None)


def test_a_stage_that_fails_keeps_its_rest(shop: None) -> None:
    Stage.objects.filter(name="Staging").update(failures=1)
    ring({"project": {"id": "shop"}})
    assert due() == ["shop/checkout/Production", "shop/search/Production"]


def test_a_gone_pipeline_is_left_alone(shop: None) -> None:
    Pipeline.objects.filter(slug="search").update(gone_at=T0)
    ring({"project": {"id": "shop"}})
    assert due() == SHOP


def test_a_stage_that_is_due_already_keeps_its_place(shop: None) -> None:
    Stage.objects.update(next_sync_at=at(-50))
    ring({"project": {"id": "shop"}})
    assert {s.next_sync_at for s in Stage.objects.all()} == {at(-50)}


def test_a_stage_that_is_due_is_read_before_others_once_it_is_rung(shop: None) -> None:
    Stage.objects.update(next_sync_at=at(-50), synced_at=at(-90))
    Stage.objects.filter(pipeline__slug="search", name="Staging").update(next_sync_at=at(-1))
    ring({"project": {"id": "shop"}, "pipeline": {"id": "search"}, "stage": "Staging"})
    (first,) = leases.stages(at(1), leases.plan(0.01, at(1)), 1)
    assert (first.pipeline.slug, first.name) == ("search", "Staging")


def test_a_stage_that_is_due_is_put_first_as_long_as_there_are_turns(db: None) -> None:
    many()
    Stage.objects.update(next_sync_at=at(-50), synced_at=at(-90))
    ring({"project": {"id": "shop"}})
    first = Stage.objects.filter(rung_at__gt=at(-90)).count()
    assert 0 < first <= webhook_events.IN_A_ROW // 2


# --- an event during a reading -----------------------------------------------------------------


def test_a_stage_that_is_rung_while_it_is_read_is_read_again(stage: Stage) -> None:
    plan = leases.plan(10.0, at(1))
    (claimed,) = leases.stages(at(1), plan, 4)
    ring({"project": {"id": "shop"}}, at(2))
    leases.release(claimed, at(3), plan)
    assert [s.pk for s in leases.stages(at(4), plan, 4)] == [stage.pk]


def test_a_stage_that_is_rung_while_it_fails_rests(stage: Stage) -> None:
    plan = leases.plan(10.0, at(1))
    (claimed,) = leases.stages(at(1), plan, 4)
    ring({"project": {"id": "shop"}}, at(2))
    Stage.objects.update(failures=1)
    leases.release(claimed, at(3), plan)
    assert leases.stages(at(4), plan, 4) == []


def test_a_stage_is_not_read_twice_at_once_for_an_event(stage: Stage) -> None:
    plan = leases.plan(10.0, at(1))
    leases.stages(at(1), plan, 4)
    ring({"project": {"id": "shop"}}, at(2))
    assert leases.stages(at(3), plan, 4) == []


def test_an_event_during_a_reading_makes_the_worker_ask_again(world: World) -> None:
    world.sync()
    Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1), history_page=None)
    Run.objects.update(next_read_at=None)
    stage = Stage.objects.get(pipeline__slug="ledger", name="Production")
    Stage.objects.filter(pk=stage.pk).update(next_sync_at=timezone.now())
    world.sandbox.requests.clear()

    async def read() -> None:
        await world.live.worker.tick()

    world.live.run(read)  # its question is under way, or has just been answered
    ring({"run": {"id": stage.runs.earliest("pk").run_id}}, timezone.now())
    world.live.sync(2)  # the first round may do no more than wait for it
    assert len([r for r in world.asked("/ledger/") if r.endswith("/production/runs")]) == 2


# --- storms ------------------------------------------------------------------------------------


def many(in_flight: int = 0) -> None:
    """A project with a hundred pipelines."""
    for number in range(100):
        stage = place("shop", f"p{number:02}", active_at=at(-number * 60))
        if number < in_flight:
            mirror.runs(stage.pk, [api_run(f"r{number}")], asked_at=at(-200))


def test_an_event_that_says_little_does_not_make_a_hundred_stages_due(db: None) -> None:
    many()
    ring({"project": {"id": "shop"}})
    assert due() == [f"shop/p{number:02}/Production" for number in range(10)]  # the last active


def test_what_it_leaves_open_is_spread_over_time(db: None) -> None:
    many()
    ring({"project": {"id": "shop"}})
    soon = Stage.objects.filter(next_sync_at__gt=T0, next_sync_at__lt=SOON)
    times = list(soon.order_by("next_sync_at").values_list("next_sync_at", flat=True))
    assert times == [at(32 * n) for n in (1, 2, 3)]  # 900 an hour: 4 s, half of it: 8, each 4th


def test_stages_in_flight_come_first(db: None) -> None:
    many()
    for number in (40, 70):
        stage = Stage.objects.get(pipeline__slug=f"p{number}")
        mirror.runs(stage.pk, [api_run(f"r{number}")], asked_at=at(-200))
    Push.objects.create(pk=1, paced_until=at(-16))  # two turns are left
    ring({"project": {"id": "shop"}})
    assert due() == ["shop/p40/Production", "shop/p70/Production"]


@pytest.mark.parametrize("in_flight", [0, 5, 60])
@pytest.mark.parametrize("requests", [900, 90, 0])
def test_a_storm_cannot_spend_the_hour(db: None, in_flight: int, requests: int) -> None:
    many(in_flight)
    spent(requests)
    read = 0
    for second in range(0, 600, 4):  # an event every four seconds for ten minutes
        now = at(second)
        ring({"project": {"id": "shop"}}, now)
        for stage in Stage.objects.filter(next_sync_at__lte=now):
            read += 1
            later = now + timedelta(hours=1)
            Stage.objects.filter(pk=stage.pk).update(synced_at=now, next_sync_at=later)
    # Those that were due by themselves, twenty in a row, and half of the even rate and an eighth.
    assert read - 100 <= 20 + requests / 6 * (0.5 + 0.125) + 5


UPDATED, ENDED = "release-flow-template-run:update", "release-flow-template-run:success"


def test_an_end_leaves_idle_stages_their_time(db: None) -> None:
    many(in_flight=2)
    ring({"project": {"id": "shop"}}, name=ENDED)
    assert due() == ["shop/p00/Production", "shop/p01/Production"]


def test_updates_that_say_little_leave_turns_for_starts_and_ends(db: None) -> None:
    many(in_flight=15)
    ring({"project": {"id": "shop"}}, name=UPDATED)
    assert len(due()) == 10
    ring({"project": {"id": "shop"}}, name=ENDED)
    assert len(due()) == 15


def test_an_update_that_says_which_run_is_heeded_to_the_last_turn(db: None) -> None:
    many(in_flight=1)
    Push.objects.create(pk=1, paced_until=at(-8))
    ring({"run": {"id": "r0"}}, name=UPDATED)
    assert due() == ["shop/p00/Production"]


def test_an_exact_event_is_heeded_at_once_after_a_storm_has_ended(db: None) -> None:
    many(in_flight=20)
    for second in range(100):
        ring({"project": {"id": "shop"}}, at(second))
    Stage.objects.update(next_sync_at=at(9999), synced_at=at(280))
    ring({"pipeline": {"id": "p99"}}, at(300))
    assert due(at(300)) == ["shop/p99/Production"]


def test_a_quiet_time_saves_no_more_than_twenty_turns(db: None) -> None:
    many(in_flight=60)
    Push.objects.create(pk=1, paced_until=at(-100_000))
    ring({"project": {"id": "shop"}})
    assert len(due()) == 20


# --- what is unknown ---------------------------------------------------------------------------


@pytest.fixture
def sweep(shop: None) -> CatalogueSweep:
    return CatalogueSweep.objects.create(project=None, next_at=at(200), swept_at=at(-400))


def test_an_unknown_project_has_the_projects_listed(sweep: CatalogueSweep) -> None:
    ring({"project": {"id": "new"}})
    sweep.refresh_from_db()
    assert sweep.next_at == T0


def test_a_list_that_has_just_been_begun_is_not_begun_again(sweep: CatalogueSweep) -> None:
    CatalogueSweep.objects.update(next_at=at(110))  # claimed ten seconds ago
    ring({"project": {"id": "new"}})
    sweep.refresh_from_db()
    assert sweep.next_at == at(110)


def test_a_list_that_fails_keeps_its_rest(sweep: CatalogueSweep) -> None:
    CatalogueSweep.objects.update(failures=2)
    ring({"project": {"id": "new"}})
    sweep.refresh_from_db()
    assert sweep.next_at == at(200)


def test_a_project_that_is_not_shown_costs_nothing(
    sweep: CatalogueSweep, settings: Settings
) -> None:
    settings.NORTHFLANK_PROJECTS = ["shop"]
    ring({"project": {"id": "new"}})
    sweep.refresh_from_db()
    assert (sweep.next_at, due()) == (at(200), [])


def test_an_unknown_pipeline_has_its_projects_pipelines_listed(sweep: CatalogueSweep) -> None:
    shop = Project.objects.get(slug="shop")
    of_shop = CatalogueSweep.objects.create(project=shop, next_at=at(200))
    ring({"project": {"id": "shop"}, "pipeline": {"id": "new"}})
    of_shop.refresh_from_db()
    sweep.refresh_from_db()
    assert (of_shop.next_at, sweep.next_at) == (T0, at(200))


# --- once --------------------------------------------------------------------------------------


def test_events_are_forgotten_after_a_day(db: None) -> None:
    webhook_events.heed(Event("x", {}, "old"), T0)
    webhook_events.heed(Event("x", {}, "new"), T0 + timedelta(days=1, seconds=1))
    assert PushEvent.objects.count() == 1


def test_forgetting_is_bounded(db: None) -> None:
    PushEvent.objects.bulk_create(
        PushEvent(digest=f"{number}", heard_at=at(-100_000)) for number in range(250)
    )
    webhook_events.heed(Event("x", {}, "new"), T0)
    assert PushEvent.objects.count() == 151


def test_an_event_that_cannot_be_kept_leaves_nothing_behind(
    shop: None, transactional_db: None
) -> None:
    with without("dashboard_stage"), pytest.raises(DatabaseError):
        webhook_events.heed(Event(STARTED, {}, "e"), T0)
    assert (PushEvent.objects.count(), Push.objects.get().events) == (0, 0)


def test_of_the_same_event_at_once_one_is_heeded(transactional_db: None) -> None:
    hands, rounds = 4, 10
    together = threading.Barrier(hands)

    def work(_: int) -> None:
        try:
            for number in range(rounds):
                together.wait(10)
                webhook_events.heed(Event("x", {}, f"same-{number}"), T0)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(hands) as pool:
        list(pool.map(work, range(hands)))
    row = Push.objects.get()
    assert (row.events, row.duplicates) == (hands * rounds, (hands - 1) * rounds)
    assert PushEvent.objects.count() == rounds


@pytest.mark.skipif(
    "sqlite" in django_settings.DATABASES["default"]["ENGINE"],
    reason="SQLite lets one write at a time anyway",
)
def test_a_duplicate_waits_for_the_first_to_be_kept(transactional_db: None) -> None:
    from django.db import transaction

    Push.objects.create(pk=1)
    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            webhook_events.heed(Event("x", {}, "same"), T0)

            def again() -> None:
                try:
                    webhook_events.heed(Event("x", {}, "same"), T0)
                finally:
                    connections.close_all()

            waiting = other.submit(again)
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
        waiting.result(10)
    assert (Push.objects.get().events, Push.objects.get().duplicates) == (2, 1)


@pytest.mark.skipif(
    "sqlite" in django_settings.DATABASES["default"]["ENGINE"],
    reason="SQLite locks no rows",
)
@pytest.mark.parametrize("other", ["an event", "a plan", "a sign of life"])
def test_whoever_writes_several_stages_takes_them_in_one_order(
    transactional_db: None, other: str
) -> None:
    from django.db import transaction

    later = place("shop", "checkout", synced_at=at(-500))
    first = place("shop", "search", synced_at=at(-900))
    assert later.pk < first.pk  # an event would begin with the one read longest ago
    for stage in (later, first):
        mirror.runs(stage.pk, [api_run(f"of-{stage.pk}")], asked_at=at(-1))
    # Where a row lies says nothing of its key.
    for stage in (first, later):
        Stage.objects.filter(pk=stage.pk).update(
            next_sync_at=SOON, claimed_until=None if other != "a sign of life" else SOON
        )
    writes = {
        "an event": lambda: ring({"project": {"id": "shop"}}),
        "a plan": lambda: leases.plan(10.0, T0),
        "a sign of life": lambda: leases.renew([first.pk, later.pk], T0),
    }

    def write() -> None:
        try:
            writes[other]()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            Stage.objects.filter(pk=later.pk).update(watched_at=T0)
            writing = pool.submit(write)
            with pytest.raises(TimeoutError):
                writing.result(0.5)
            Stage.objects.filter(pk=first.pk).update(watched_at=T0)  # or there is a deadlock
        writing.result(10)


# --- any data ----------------------------------------------------------------------------------

anything = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(anything)
def test_any_data_is_read_without_a_mishap(data: object) -> None:
    for text in mentioned(data).anything:
        text.encode()  # what the database is asked for
        assert "\x00" not in text
        assert len(text) <= 255


def test_only_so_much_of_an_event_is_looked_at() -> None:
    said = mentioned({"a": [str(number) for number in range(10_000)]})
    assert len(said.anything) < NODES


def test_what_lies_on_top_is_seen_however_much_lies_below() -> None:
    filler = {f"k{number}": [["x"] * 100] for number in range(100)}
    assert mentioned(filler | {"project": {"id": "shop"}}).projects == {"shop"}


# --- is push alive? ----------------------------------------------------------------------------


@pytest.fixture
def set_up(settings: Settings) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = ["x" * 20]


def test_without_a_secret_push_is_not_set_up(settings: Settings, db: None) -> None:
    settings.NORTHFLANK_WEBHOOK_SECRET = []
    state = webhook_status.state(T0)
    assert (state.set_up, state.alive, "not set up" in state.sentence) == (False, False, True)


def test_before_the_first_event_push_is_not_alive(set_up: None, db: None) -> None:
    state = webhook_status.state(T0)
    assert (state.heard_at, state.alive, "nothing has come" in state.sentence) == (
        None, False, True,
    )  # fmt: skip


def test_events_about_other_things_do_not_make_it_alive(set_up: None, db: None) -> None:
    ring({}, name="build:start")
    state = webhook_status.state(at(1))
    assert (state.heard_at, state.alive) == (T0, False)
    assert "none about release flows" in state.sentence


def test_it_stays_alive_as_long_as_nothing_happens(set_up: None, db: None) -> None:
    ring({})
    assert webhook_status.alive(T0 + timedelta(days=30))


def runs(stage: Stage, **fields: Any) -> None:
    mirror.runs(stage.pk, [api_run(**fields)], asked_at=T0)


def test_a_start_that_no_event_announced_makes_it_silent(set_up: None, stage: Stage) -> None:
    ring({}, T0)
    runs(stage, created_at=at(200))
    state = webhook_status.state(at(300))
    assert (state.alive, state.missed_at) == (False, at(200))
    assert "silent" in state.sentence


@pytest.mark.parametrize(("status", "silent"), [("failure", True), ("skipped", False)])
def test_an_end_that_should_have_been_announced_makes_it_silent(
    set_up: None, stage: Stage, status: str, silent: bool
) -> None:
    ring({}, T0)
    runs(stage, status=status, concluded=True, created_at=at(-50), concluded_at=at(200))
    assert webhook_status.alive(at(300)) is not silent


def test_a_change_is_given_a_minute_to_be_announced(set_up: None, stage: Stage) -> None:
    ring({}, T0)
    runs(stage, created_at=at(200))
    assert (webhook_status.alive(at(259)), webhook_status.alive(at(260))) == (True, False)


def test_an_event_that_comes_again_makes_it_alive_again(set_up: None, stage: Stage) -> None:
    ring({}, T0)
    runs(stage, created_at=at(200))
    ring({}, at(400))
    assert webhook_status.alive(at(401))


# --- the whole loop ----------------------------------------------------------------------------


@pytest.fixture
def connected(live: Live, settings: Settings) -> Callable[..., None]:
    """Have the live sandbox ring at the live dashboard."""

    def connect(body: str = "project") -> None:
        settings.NORTHFLANK_PROJECTS = ["payments"]
        settings.NORTHFLANK_WEBHOOK_SECRET = ["a secret of this test"]
        live.sandbox.choices["webhook-body"] = body
        live.sync()
        Stage.objects.update(next_sync_at=timezone.now() + timedelta(hours=1), history_page=None)
        live.sandbox.webhooks.connect(f"{live.base_url}/hooks/northflank/", "a secret of this test")
        eventually(lambda: live.sandbox.webhooks.last_look)  # it knows what was there before

    return connect


@pytest.mark.parametrize("body", ["project", "ids", "empty"])
def test_a_run_that_starts_upstream_announces_itself(
    live: Live, connected: Callable[..., None], body: str
) -> None:
    connected(body)
    flow = live.sandbox.world.flow("payments", "ledger", "staging")
    assert flow is not None
    run_id = live.sandbox.world.start(flow, live.sandbox.clock(), {}).id

    def seen() -> bool:
        live.sync(1)
        return Run.objects.filter(run_id=run_id).exists()

    eventually(seen)
    assert Push.objects.get().rung_at is not None


def test_a_run_that_concludes_upstream_announces_itself(
    live: Live, connected: Callable[..., None]
) -> None:
    connected("ids")
    run = Run.objects.in_flight().filter(stage__pipeline__slug="ledger").earliest("pk")
    flow = live.sandbox.world.flow("payments", "ledger", run.stage.name)
    assert flow is not None
    live.sandbox.world.abort(flow, run.run_id, live.sandbox.clock(), at_once=True)

    def concluded() -> bool:
        live.sync(1)
        return Run.objects.filter(pk=run.pk, status="aborted").exists()

    eventually(concluded)
