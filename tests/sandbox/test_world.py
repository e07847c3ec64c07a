"""The world by itself: its runs, and the same runs after a restart."""

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dashboard.sandbox.api import STATUSES
from dashboard.sandbox.catalog import ReleaseFlow
from dashboard.sandbox.choices import DEFAULTS
from dashboard.sandbox.errors import ApiError
from dashboard.sandbox.runs import Run
from dashboard.sandbox.serializers import (
    format_time,
    serialize_run_detail,
    serialize_steps,
)
from dashboard.sandbox.world import World
from tests.support.sandbox import NOW

HOUR = 3600
NODE_STATUSES = {
    *("waiting", "invalid", "failure", "retrying", "success", "aborted", "aborting"),
    *("skipped", "async_wait", "approval_wait", "unknown"),
}
TIMES = st.floats(min_value=1.7e9, max_value=2.2e9)
SEEDS = st.integers(min_value=0, max_value=1000)


def find(world: World, key: str) -> ReleaseFlow:
    return next(flow for flow in world.list_flows() if flow.key == key)


def with_policy(world: World, *policies: str) -> list[ReleaseFlow]:
    return [flow for flow in world.list_flows() if flow.concurrency_policy in policies]


def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node["spec"].get("steps", []):
        yield from nodes(child)


def in_flight(world: World, flow: ReleaseFlow, now: float) -> list[Run]:
    return [run for run in world.list_runs(flow, now) if now < run.concluded_at]


# --- the same again --------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0, 5 * HOUR + 7])
@pytest.mark.parametrize("origin", [0, int(NOW) + 5 * HOUR])
def test_world_at_same_offset_from_any_origin_has_the_same_runs(origin: int, seconds: int) -> None:
    def run_states(origin: int) -> list[tuple[Any, ...]]:
        world, now = World(5, opened_at=origin, origin=origin), origin + seconds
        return [
            (run.id, round(run.created_at - origin), run.status(now))
            for flow in world.list_flows()
            for run in itertools.islice(world.list_runs(flow, now), 20)
        ]

    assert run_states(origin) == run_states(1_500_000_000)


# --- what happens ----------------------------------------------------------------------------


@pytest.mark.slow
def test_run_and_step_statuses_all_occur_within_a_day() -> None:
    world = World(1, opened_at=NOW)
    runs: set[str] = set()
    node_statuses: set[str] = set()
    for flow in world.list_flows():
        day = [run for run in world.list_runs(flow, NOW) if run.created_at > NOW - 24 * HOUR]
        for run in day:
            moments = [run.created_at, run.concluded_at + 1]
            if run.started_at is not None:
                duration = run.concluded_at - run.started_at
                moments += [run.started_at + duration * part / 6 for part in range(6)]
                if run.aborted_at is not None:
                    moments.append(run.aborted_at)
                retries = [retry for step in run.script.steps for retry in step.retries]
                moments += [run.started_at + failed_at for failed_at, _ in retries]
            for moment in moments:
                runs.add(run.status(moment))
                root = serialize_steps(run, moment, {})
                node_statuses |= {
                    node["response"]["status"] for node in nodes(root) if "response" in node
                }
    assert runs == set(STATUSES)
    assert node_statuses == NODE_STATUSES


@settings(deadline=None, max_examples=30)
@given(SEEDS, TIMES)
def test_world_at_any_time_has_a_stuck_production_run(seed: int, now: float) -> None:
    world = World(seed, opened_at=now)
    runs = in_flight(world, find(world, "payments/ledger/production"), now)
    assert any(run.started_at and now - run.started_at > 1500 for run in runs)


def test_runs_queue_behind_stuck_run() -> None:
    world = World(1, opened_at=NOW)
    flow = find(world, "shop/checkout/production")
    most = Counter(
        run.status(now)
        for now in (NOW + minutes * 60 for minutes in range(0, 180, 10))
        for run in in_flight(world, flow, now)
    )
    assert most["queued"] > most["pending"]


def test_run_secrets_all_have_the_marker() -> None:
    world = World(1, opened_at=NOW)
    flow = find(world, "payments/billing-api/production")
    run = serialize_run_detail(next(world.list_runs(flow, NOW)), NOW, DEFAULTS)
    assert run["arguments"]["DB_PASSWORD"].startswith("s3cr3t-")
    assert run["triggers"][1]["spec"]["token"].startswith("s3cr3t-")
    assert run["refs"]["build"]["pullSecret"].startswith("s3cr3t-")
    message = run["spec"]["spec"]["steps"][-1]
    assert "s3cr3t-" in message["spec"]["spec"]["webhookUrl"]


# --- rules that always hold ------------------------------------------------------------------


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(SEEDS, TIMES)
def test_run_fields_are_consistent(seed: int, now: float) -> None:
    world = World(seed, opened_at=now)
    for flow in world.list_flows():
        for run in itertools.islice(world.list_runs(flow, now), 12):
            payload = serialize_run_detail(run, now, DEFAULTS)
            assert payload["concluded"] == ("concludedAt" in payload)
            assert payload["createdAt"] <= payload.get("startedAt", payload["createdAt"])
            assert payload["createdAt"] <= payload["updatedAt"] <= format_time(now, "space")
            assert payload.get("concludedAt", payload["updatedAt"]) == payload["updatedAt"]
            assert payload["status"] in STATUSES
            for node in nodes(payload["spec"]):
                response = node.get("response", {"status": "waiting"})
                assert response["status"] in NODE_STATUSES
                assert response.get("startTime", 0) <= response.get("endTime", now)
                if payload["concluded"]:
                    assert "response" not in node or response["status"] not in {
                        *("waiting", "aborting", "retrying", "async_wait", "approval_wait"),
                    }


@pytest.mark.slow
@settings(deadline=None, max_examples=12)
@given(
    SEEDS,
    st.sampled_from(["everyday", "stuck-production", "queue-pileup", "abort-hangs"]),
    TIMES,
    st.lists(st.tuples(st.booleans(), st.integers(0, 900)), max_size=8),
)
def test_runs_of_queued_flow_never_overlap(
    seed: int, scenario: str, now: float, actions: list[tuple[bool, int]]
) -> None:
    world = World(seed, scenario, opened_at=now)
    seen_ids: dict[ReleaseFlow, set[str]] = {}
    for is_abort, seconds in actions:
        now += seconds
        for flow in with_policy(world, "queue", "latest", "forbid"):
            if is_abort:
                for run in in_flight(world, flow, now)[:2]:
                    world.abort_run(flow, run.id, now, 60)
            else:
                try:
                    world.start_run(flow, now, {})
                except ApiError:
                    assert flow.concurrency_policy == "forbid"
            ids = {run.id for run in world.list_runs(flow, now)}
            assert seen_ids.get(flow, set()) <= ids
            seen_ids[flow] = {run.id for run in itertools.islice(world.list_runs(flow, now), 20)}
    for flow in with_policy(world, "queue", "latest", "forbid"):
        runs = [r for r in world.list_runs(flow, now + 4 * HOUR) if r.started_at is not None]
        runs.sort(key=lambda run: run.started_at or 0)
        for first, second in itertools.pairwise(runs):
            assert first.concluded_at <= (second.started_at or 0)


# --- aborts and starts -----------------------------------------------------------------------


def test_abort_ends_run_after_its_seconds() -> None:
    world = World(1, opened_at=NOW)
    flow = find(world, "payments/ledger/production")
    stuck = in_flight(world, flow, NOW)[-1]
    aborting = world.abort_run(flow, stuck.id, NOW, 3)
    assert aborting
    assert aborting.status(NOW) == "aborting"
    assert aborting.status(NOW + 2.9) == "aborting"
    assert aborting.status(NOW + 3) == "aborted"


def test_abort_of_stubborn_run_takes_minutes_or_ends_otherwise() -> None:
    world = World(1, opened_at=NOW)
    flow = find(world, "shop/search/production")
    outcomes: set[str] = set()
    slowest = 0.0
    for hours in range(60):
        now = NOW + hours * HOUR
        run = world.start_run(flow, now, {})
        aborted = world.abort_run(flow, run.id, now + 10)
        assert aborted
        outcomes.add(aborted.outcome)
        slowest = max(slowest, aborted.concluded_at - now)
    assert outcomes == {"aborted", "success", "failure"}
    assert slowest > 240


def test_old_runs_are_dropped() -> None:
    world = World(1, opened_at=NOW)
    flow = find(world, "payments/billing-api/development")
    counts = [len(list(world.list_runs(flow, NOW + days * 24 * HOUR))) for days in range(0, 30, 3)]
    assert max(counts) - min(counts) <= 2
    assert max(counts) > 300
