"""The world by itself: what happens in it, and that it happens again after a restart."""

import itertools
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.sandbox.api import NAME, STATUSES
from dashboard.sandbox.catalog import Flow
from dashboard.sandbox.forms import run_in_full, run_in_list, spaced
from dashboard.sandbox.history import Run
from dashboard.sandbox.spec import tree
from dashboard.sandbox.world import Busy, World
from tests.support.sandbox import NOW

HOUR = 3600
NODE_STATUSES = {
    *("waiting", "invalid", "failure", "retrying", "success", "aborted", "aborting"),
    *("skipped", "async_wait", "approval_wait", "unknown"),
}
TIMES = st.floats(min_value=1.7e9, max_value=2.2e9)
SEEDS = st.integers(min_value=0, max_value=1000)


def find(world: World, key: str) -> Flow:
    return next(flow for flow in world.flows() if flow.key == key)


def with_policy(world: World, *policies: str) -> list[Flow]:
    return [flow for flow in world.flows() if flow.policy in policies]


def snapshot(world: World, now: float, count: int = 60) -> list[dict[str, Any]]:
    return [
        run_in_full(world, run, now, spaced)
        for flow in world.flows()
        for run in itertools.islice(world.runs(flow, now), count)
    ]


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["spec"].get("steps", []):
        yield from nodes(child)


def in_flight(world: World, flow: Flow, now: float) -> list[Run]:
    return [run for run in world.runs(flow, now) if now < run.concluded]


# --- the same again --------------------------------------------------------------------------


def test_a_restart_finds_the_same_runs() -> None:
    assert snapshot(World(7), NOW) == snapshot(World(7), NOW)


def test_another_seed_has_other_runs() -> None:
    ids = {run["id"] for run in snapshot(World(7), NOW)}
    assert ids.isdisjoint(run["id"] for run in snapshot(World(8), NOW))


@pytest.mark.parametrize("seconds", [0, 600, 5 * HOUR + 7, 30 * HOUR])
@pytest.mark.parametrize("origin", [0, 1_700_000_123, int(NOW) + 5 * HOUR])
def test_the_same_happens_as_long_after_any_origin(origin: int, seconds: int) -> None:
    def happens(origin: int) -> list[tuple[Any, ...]]:
        world, now = World(5, opened=origin, origin=origin), origin + seconds
        return [
            (run.id, round(run.created - origin), world.status(run, now))
            for flow in world.flows()
            for run in itertools.islice(world.runs(flow, now), 20)
        ]

    assert happens(origin) == happens(1_500_000_000)


def test_a_world_that_has_been_watched_equals_one_that_has_not() -> None:
    watched = World(3)
    for hours in range(0, 100, 5):
        snapshot(watched, NOW + hours * HOUR, count=5)
    assert snapshot(watched, NOW + 100 * HOUR) == snapshot(World(3), NOW + 100 * HOUR)


def test_a_concluded_run_never_changes() -> None:
    world = World(2)
    flow = find(world, "shop/checkout/staging")
    before = {
        run.id: run_in_full(world, run, NOW, spaced)
        for run in world.runs(flow, NOW)
        if run.concluded <= NOW
    }
    later = NOW + 6 * HOUR
    after = {run.id: run_in_full(world, run, later, spaced) for run in world.runs(flow, later)}
    assert all(form == after[key] for key, form in before.items() if key in after)


# --- what happens ----------------------------------------------------------------------------


def test_all_run_and_node_statuses_occur_within_a_day() -> None:
    world = World(1)
    runs: set[str] = set()
    node_statuses: set[str] = set()
    for flow in world.flows():
        day = [run for run in world.runs(flow, NOW) if run.created > NOW - 24 * HOUR]
        for run in day:
            moments = [run.created, run.concluded + 1]
            if run.started is not None:
                life = world.life(run)
                length = run.concluded - run.started
                moments += [run.started + length * part / 6 for part in range(6)]
                if run.aborted is not None:
                    moments.append(run.aborted)
                if any(b.run_status == "retrying" for s in life.steps for b in s.beats):
                    moments += [run.started + b.at for s in life.steps for b in s.beats]
            for moment in moments:
                runs.add(world.status(run, moment))
                root = tree(run, world.life(run), moment)
                node_statuses |= {
                    node["response"]["status"] for node in nodes(root) if "response" in node
                }
    assert runs == set(STATUSES)
    assert node_statuses == NODE_STATUSES


def test_about_ten_runs_are_in_flight() -> None:
    world = World(1)
    counts = [
        sum(len(in_flight(world, flow, NOW + minutes * 60)) for flow in world.flows())
        for minutes in range(0, 24 * 60, 20)
    ]
    assert 8 <= sum(counts) / len(counts) <= 15
    assert min(counts) > 1


def test_a_new_run_comes_about_every_half_minute() -> None:
    world = World(1)
    created = [run.created for flow in world.flows() for run in world.runs(flow, NOW)]
    assert 20 <= 72 * HOUR / len(created) <= 40


@settings(deadline=None, max_examples=30)
@given(SEEDS, TIMES)
def test_at_any_time_a_run_on_production_is_stuck(seed: int, now: float) -> None:
    world = World(seed)
    runs = in_flight(world, find(world, "payments/ledger/production"), now)
    assert any(run.started and now - run.started > 1500 for run in runs)


def test_runs_queue_behind_the_jam() -> None:
    world = World(1, opened=NOW)
    flow = find(world, "shop/checkout/production")
    most = Counter(
        world.status(run, now)
        for now in (NOW + minutes * 60 for minutes in range(0, 180, 10))
        for run in in_flight(world, flow, now)
    )
    assert most["queued"] > most["pending"]


@pytest.mark.parametrize("hours", [0, 6, 23, 50])
def test_a_jam_does_not_make_it_usual_to_wait(hours: int) -> None:
    world = World(1, opened=NOW)
    flow, now = find(world, "shop/checkout/production"), NOW + hours * HOUR
    ended = (run for run in world.runs(flow, now) if run.concluded <= now)
    good = (run for run in ended if run.outcome == "success")
    waits = [run.started - run.created for run in itertools.islice(good, 20) if run.started]
    assert len(waits) == 20
    assert median(waits) < 60


def test_names_are_hostile_in_one_flow_and_legal_elsewhere() -> None:
    world = World(1)
    names: dict[str, set[str]] = {flow.key: set() for flow in world.flows()}
    for flow in world.flows():
        for run in world.runs(flow, NOW):
            if name := run_in_list(world, run, NOW, spaced).get("name"):
                names[flow.key].add(name)
    hostile = names.pop("shop/storefront/staging")
    assert '<b>Hotfix</b> & "quotes"' in hostile
    assert max(map(len, hostile)) > 150
    assert all(NAME.fullmatch(name) for found in names.values() for name in found)


def test_every_kind_of_secret_carries_the_marker() -> None:
    world = World(1)
    flow = find(world, "payments/billing-api/production")
    run = run_in_full(world, next(world.runs(flow, NOW)), NOW, spaced)
    assert run["arguments"]["DB_PASSWORD"].startswith("s3cr3t-")
    assert run["triggers"][1]["spec"]["token"].startswith("s3cr3t-")
    assert run["refs"]["build"]["pullSecret"].startswith("s3cr3t-")
    message = run["spec"]["spec"]["steps"][-1]
    assert "s3cr3t-" in message["spec"]["spec"]["webhookUrl"]


# --- rules that always hold ------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(SEEDS, TIMES)
def test_the_fields_of_a_run_agree(seed: int, now: float) -> None:
    world = World(seed)
    for flow in world.flows():
        for run in itertools.islice(world.runs(flow, now), 12):
            form = run_in_full(world, run, now, spaced)
            assert form["concluded"] == ("concludedAt" in form)
            assert form["createdAt"] <= form.get("startedAt", form["createdAt"])
            assert form["createdAt"] <= form["updatedAt"] <= spaced(now)
            assert form.get("concludedAt", form["updatedAt"]) == form["updatedAt"]
            assert form["status"] in STATUSES
            for node in nodes(form["spec"]):
                response = node.get("response", {"status": "waiting"})
                assert response["status"] in NODE_STATUSES
                assert response.get("startTime", 0) <= response.get("endTime", now)
                if form["concluded"]:
                    assert "response" not in node or response["status"] not in {
                        *("waiting", "aborting", "retrying", "async_wait", "approval_wait"),
                    }


@settings(deadline=None, max_examples=12)
@given(
    SEEDS,
    st.sampled_from(["everyday", "stuck-production", "queue-pileup", "abort-hangs"]),
    TIMES,
    st.lists(st.tuples(st.booleans(), st.integers(0, 900)), max_size=8),
)
def test_one_run_at_a_time_whatever_is_started_and_aborted(
    seed: int, scenario: str, now: float, acts: list[tuple[bool, int]]
) -> None:
    world = World(seed, scenario, opened=now, abort_seconds=(2, 60))
    seen: dict[Flow, set[str]] = {}
    for is_abort, seconds in acts:
        now += seconds
        for flow in with_policy(world, "queue", "latest", "forbid"):
            if is_abort:
                for run in in_flight(world, flow, now)[:2]:
                    world.abort(flow, run.id, now)
            else:
                try:
                    world.start(flow, now, {})
                except Busy:
                    assert flow.policy == "forbid"
            ids = {run.id for run in world.runs(flow, now)}
            assert seen.get(flow, set()) <= ids
            seen[flow] = {run.id for run in itertools.islice(world.runs(flow, now), 20)}
    for flow in with_policy(world, "queue", "latest", "forbid"):
        runs = [r for r in world.runs(flow, now + 4 * HOUR) if r.started is not None]
        runs.sort(key=lambda run: run.started or 0)
        for first, second in itertools.pairwise(runs):
            assert first.concluded <= (second.started or 0)


def test_only_one_run_waits_in_a_flow_that_runs_the_latest() -> None:
    world = World(1)
    flow = find(world, "shop/storefront/development")
    for minutes in range(0, 600, 3):
        now = NOW + minutes * 60
        waiting = [r for r in in_flight(world, flow, now) if world.status(r, now) == "queued"]
        assert len(waiting) <= 1


# --- aborts and starts -----------------------------------------------------------------------


def test_an_abort_ends_the_run_after_its_seconds() -> None:
    world = World(1, abort_seconds=(3, 3))
    flow = find(world, "payments/ledger/production")
    stuck = in_flight(world, flow, NOW)[-1]
    aborting = world.abort(flow, stuck.id, NOW)
    assert aborting
    assert world.status(aborting, NOW) == "aborting"
    assert world.status(aborting, NOW + 2.9) == "aborting"
    assert world.status(aborting, NOW + 3) == "aborted"


def test_an_abort_leaves_no_node_open() -> None:
    world = World(1, abort_seconds=(3, 3))
    flow = find(world, "payments/ledger/production")
    run = world.abort(flow, in_flight(world, flow, NOW)[-1].id, NOW)
    assert run

    def statuses(now: float) -> set[str]:
        root = tree(run, world.life(run), now)
        return {node["response"]["status"] for node in nodes(root) if "response" in node}

    assert statuses(NOW) == {"success", "aborting"}
    assert statuses(NOW + 3) == {"success", "aborted"}


def test_an_abort_lets_the_queue_move_up() -> None:
    world = World(1, opened=NOW, abort_seconds=(3, 3))
    flow = find(world, "shop/checkout/production")
    now = next(
        now
        for now in (NOW + minutes * 60 for minutes in range(400))
        if len(in_flight(world, flow, now)) >= 2
        and world.status(in_flight(world, flow, now)[-2], now) == "queued"
    )
    jam, behind = in_flight(world, flow, now)[-1], in_flight(world, flow, now)[-2]
    world.abort(flow, jam.id, now)
    moved = world.run(flow, behind.id, now)
    assert moved
    assert moved.started == now + 3


def test_aborting_a_queued_run_means_that_it_never_starts() -> None:
    world = World(1)
    flow = find(world, "shop/checkout/production")
    world.start(flow, NOW, {})
    last = world.start(flow, NOW, {})
    aborted = world.abort(flow, last.id, NOW)
    assert aborted
    assert aborted.started is None
    assert world.status(aborted, NOW + 10) == "aborted"


def test_stubborn_runs_take_minutes_or_end_in_their_own_way() -> None:
    world = World(1)
    flow = find(world, "shop/search/production")
    ends: set[str] = set()
    slowest = 0.0
    for hours in range(60):
        now = NOW + hours * HOUR
        run = world.start(flow, now, {})
        aborted = world.abort(flow, run.id, now + 10)
        assert aborted
        ends.add(aborted.outcome)
        slowest = max(slowest, aborted.concluded - now)
    assert ends == {"aborted", "success", "failure"}
    assert slowest > 240


def test_runs_started_after_a_restart_have_new_ids() -> None:
    first, second = World(1), World(1)
    flow = "payments/billing-api/development"
    one = first.start(find(first, flow), NOW, {})
    two = second.start(find(second, flow), NOW + 1, {})
    assert one.id != two.id


def test_a_flow_that_forbids_refuses_while_a_run_is_in_flight() -> None:
    world = World(1)
    flow = find(world, "payments/billing-api/staging")
    now = next(n for n in range(int(NOW), int(NOW) + 9999) if not in_flight(world, flow, n))
    world.start(flow, now, {})
    with pytest.raises(Busy):
        world.start(flow, now + 1, {})


def test_old_runs_are_forgotten() -> None:
    world = World(1)
    flow = find(world, "payments/billing-api/development")
    counts = [len(list(world.runs(flow, NOW + days * 24 * HOUR))) for days in range(0, 30, 3)]
    assert max(counts) - min(counts) <= 2
    assert max(counts) > 300
