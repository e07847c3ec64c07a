"""The hour's requests: what headers say, what is reserved, and a worker that keeps to it."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections
from django.utils import timezone
from pytest_django import Settings

from dashboard.models import Abort, Budget, Run, Stage
from dashboard.northflank import RateLimit
from dashboard.sandbox import parse_fault
from dashboard.sync import baselines
from dashboard.sync.stage_reader import A_READING
from dashboard.upstream import budget_store
from tests.support.world import LONG_AGO, T0, World, at, the_run


def said(remaining: int, *, limit: int = 1000, reset: float = 3000, now: float = 0) -> None:
    budget_store.record(RateLimit(limit, remaining, reset), at(now))


@pytest.mark.parametrize(
    ("reserve", "kept"),
    [("10%", 100), ("0", 0), ("250", 250), ("12.5%", 125), ("5000", 900), ("0%", 0)],
)
def test_the_reserve_is_a_number_or_a_share(settings: Settings, reserve: str, kept: int) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = reserve
    assert budget_store.reserve_of(1000) == kept


def test_a_reserve_leaves_something_to_read_with_in_whole_requests(settings: Settings) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "5000"
    kept = budget_store.reserve_of(1009)
    assert (kept, type(kept)) == (908, int)


def test_before_any_answer_the_documented_limit_is_assumed(db: None) -> None:
    assert budget_store.allowance(T0).requests == 900


def test_the_reserve_is_left_out_of_the_allowance(db: None) -> None:
    said(700)
    assert budget_store.allowance(at(1)).requests == 600


def test_a_reserve_that_is_touched_leaves_nothing_to_read_with(db: None) -> None:
    said(90)
    assert budget_store.allowance(at(1)).per_second == 0


def test_the_allowance_is_spread_until_the_window_ends(db: None) -> None:
    said(700, reset=600)
    Budget.objects.update(ours=300)
    assert budget_store.allowance(at(0)).per_second == 1


def test_what_others_seem_to_take_is_left_to_them(db: None) -> None:
    said(700, reset=600)
    Budget.objects.update(ours=0)  # so 300 in the 3000 seconds before were others'
    assert budget_store.allowance(at(0)).others == 60


def test_others_are_remembered_in_the_next_window(db: None) -> None:
    said(301, reset=1)  # all but one of 699 were others'
    said(999, reset=3600, now=2)
    assert budget_store.allowance(at(2)).others == pytest.approx(698, abs=2)


def test_each_answer_counts_as_one_of_ours(db: None) -> None:
    for number in range(5):
        said(999 - number, reset=3000)
    assert (Budget.objects.get().ours, budget_store.allowance(T0).others) == (5, 0)


def test_an_answer_without_headers_counts_as_one_of_ours(db: None) -> None:
    said(500)
    budget_store.record(None, at(1))
    assert (Budget.objects.get().ours, Budget.objects.get().remaining) == (2, 499)


def test_an_answer_without_headers_begins_nothing(db: None) -> None:
    budget_store.record(None, T0)
    assert not Budget.objects.exists()


def test_a_limit_that_drops_in_mid_window_is_kept_to_at_once(db: None) -> None:
    said(900)
    said(99, limit=200, now=1, reset=2999)
    assert budget_store.allowance(at(1)).requests == 79


def test_a_429_says_nothing_of_others(db: None) -> None:
    said(999, reset=3600)
    budget_store.refuse(60, at(1))
    said(999, reset=3600, now=3601)
    assert budget_store.allowance(at(3601)).others < 1


def test_a_row_that_can_not_be_made_is_told_at_once(db: None) -> None:
    """An IntegrityError that is no race was tried for ever."""

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if sql.startswith("INSERT"):
            raise IntegrityError("a constraint")
        return run(sql, *rest)

    with connection.execute_wrapper(execute), pytest.raises(IntegrityError, match="a constraint"):
        said(800)


def test_of_all_processes_one_tries_after_a_pause(db: None) -> None:
    said(985)
    budget_store.refuse(5, T0)
    assert not budget_store.take_probe(at(4))
    assert [budget_store.take_probe(at(6)) for _ in range(3)] == [True, False, False]
    assert budget_store.take_probe(at(27))


def test_before_anything_is_known_nothing_tries(db: None) -> None:
    assert not budget_store.take_probe(T0)


def test_processes_that_record_side_by_side_lose_nothing(transactional_db: None) -> None:
    together = threading.Barrier(4)

    def record(_: int) -> None:
        together.wait(10)
        try:
            for number in range(10):
                said(900 - number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(record, range(4)))
    assert Budget.objects.get().ours == 40


def test_answers_that_overtake_each_other_do_not_raise_what_remains(db: None) -> None:
    said(500)
    said(503, now=1, reset=2999)
    assert Budget.objects.get().remaining == 500


def test_a_new_window_is_full_again(db: None) -> None:
    said(5, reset=10)
    said(999, reset=3600, now=11)
    assert Budget.objects.get().remaining == 999


def test_a_window_that_ended_is_taken_for_full(db: None) -> None:
    said(5, reset=10)
    assert budget_store.allowance(at(11)).requests == 900


def test_a_window_that_began_early_is_believed(db: None) -> None:
    said(5, reset=1000)
    said(999, reset=3600, now=1)
    assert Budget.objects.get().remaining == 999


def test_a_changed_limit_is_believed(db: None) -> None:
    said(5)
    said(9000, limit=10_000)
    assert budget_store.allowance(at(1)).requests == 8000


def test_a_refusal_lasts_until_the_window_ends(db: None) -> None:
    said(0, reset=100)
    budget_store.refuse(None, at(1))
    assert budget_store.allowance(at(2)).refused_until == at(100)


def test_a_refusal_lasts_as_long_as_it_says(db: None) -> None:
    said(5, reset=100)
    budget_store.refuse(40, at(1))
    assert budget_store.allowance(at(2)).refused_until == at(41)


def test_a_refusal_that_says_nothing_lasts_a_minute(db: None) -> None:
    budget_store.refuse(None, at(0))
    assert budget_store.allowance(at(1)).refused_until == at(60)


def test_a_refusal_ends(db: None) -> None:
    budget_store.refuse(40, at(0))
    assert budget_store.allowance(at(41)).refused_until is None


def test_after_a_refusal_a_new_window_is_full(db: None) -> None:
    budget_store.refuse(40, at(0))
    assert budget_store.allowance(at(41)).requests == 900


def test_there_is_one_row_for_all(db: None) -> None:
    budget_store.refuse(None, at(0))
    said(500)
    assert Budget.objects.get().pk == 1  # so that of two that begin one fails


def test_whoever_is_second_to_begin_loses_nothing(db: None) -> None:
    first = False

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        nonlocal first
        result = run(sql, *rest)
        if sql.startswith("RELEASE") and not first:
            first = True
            said(900)  # another process, once this one has seen that there is no row
        return result

    with connection.execute_wrapper(execute):
        said(800)
    known = Budget.objects.get()
    assert (known.ours, known.remaining) == (2, 800)


def test_the_pace_leaves_the_reserve_of_the_limit_that_is_known(
    db: None, settings: Settings
) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "50%"
    said(2990, limit=3000, reset=3600)
    Budget.objects.update(ours=10, ahead=50)
    said(2989, limit=3000, reset=3580, now=20)
    # Of 2990 requests 1500 are kept: in twenty seconds reading catches up by so many.
    assert Budget.objects.get().ahead == pytest.approx(51 - 20 * 1490 / 3580)


def test_the_headers_are_kept(world: World) -> None:
    world.sync()
    assert Budget.objects.get().limit == 100_000


def test_without_headers_reading_goes_on(world: World) -> None:
    world.sandbox.choices["rate-limit-headers"] = "absent"
    world.sync()
    assert Run.objects.in_flight().exists()


def test_without_headers_nothing_is_made_up(world: World) -> None:
    world.sandbox.choices["rate-limit-headers"] = "absent"
    world.sync()
    assert not Budget.objects.exists()


def tight(world: World, limit: int) -> None:
    """Start a new window with that limit, and read as much as the worker likes, in no haste."""
    world.sandbox.window.limit = limit
    world.sandbox.window.opened = None
    for _ in range(20):
        Budget.objects.update(ahead=0)
        world.make_due()
        world.live.sync(1)


@pytest.mark.parametrize("limit", [40, 60, 75])
def test_reading_never_touches_the_reserve(everything: World, limit: int) -> None:
    tight(everything, limit)
    assert everything.sandbox.window.used <= limit - budget_store.reserve_of(limit)


@pytest.mark.parametrize("order", ["oldest-first", "shuffled"])
def test_walking_never_touches_the_reserve(everything: World, order: str) -> None:
    everything.restart(history_hours=72)  # lists of several pages
    everything.sandbox.choices["run-order"] = order
    tight(everything, 60)
    assert everything.sandbox.window.used <= 54


def test_most_of_the_allowance_is_used(everything: World) -> None:
    tight(everything, 60)
    assert everything.sandbox.window.used >= 40


def test_a_backlog_does_not_spend_the_hour_at_once(everything: World) -> None:
    everything.sync()
    everything.sandbox.window.limit = 120
    everything.sandbox.window.opened = None
    Budget.objects.all().delete()
    everything.make_due()
    everything.live.sync(1)
    # The slack of 12, and what the hands had begun meanwhile.
    assert 12 <= everything.sandbox.window.used <= 12 + 4 * A_READING


def test_first_reads_may_be_ahead_of_the_even_rate(everything: World) -> None:
    everything.sandbox.window.limit = 120
    everything.sync()
    assert everything.sandbox.window.used > 12 + 4 * A_READING
    assert not Stage.objects.filter(synced_at=None).exists()
    assert budget_store.allowance(timezone.now()).ahead < 12 + 4 * A_READING


def test_a_new_installation_shows_runs_at_once(everything: World) -> None:
    everything.sandbox.window.limit = 1000
    everything.sync()
    assert Run.objects.in_flight().exists()


def test_what_is_in_flight_is_read_while_a_backlog_waits(world: World) -> None:
    run_id = world.start()
    world.sync()
    world.make_due()
    limit = Budget.objects.get().limit
    Budget.objects.update(ahead=limit * 0.15, seen_at=timezone.now())
    world.sandbox.requests.clear()
    world.live.sync(1)
    read = {request.split("/runs")[0] for request in world.asked("/runs")}
    flying = set(Stage.objects.filter(runs__in_flight=True).values_list("pk", flat=True))
    assert len(read) == len(flying) < Stage.objects.count()
    assert the_run(run_id).stage_id in flying


def test_a_larger_reserve_is_honoured(everything: World, settings: Settings) -> None:
    settings.NORTHFLANK_REQUEST_RESERVE = "50%"
    tight(everything, 60)
    assert everything.sandbox.window.used <= 30


def test_the_worker_rests_once_the_allowance_is_spent(everything: World) -> None:
    tight(everything, 60)
    before = everything.sandbox.window.used
    everything.make_due()
    everything.live.sync(2)
    assert everything.sandbox.window.used == before


def test_an_aborting_run_is_read_from_the_reserve(world: World) -> None:
    run_id = world.start()
    world.sync()
    tight(world, 40)
    Run.objects.filter(run_id=run_id).update(next_read_at=LONG_AGO)
    Abort.objects.create(
        run=Run.objects.get(run_id=run_id), state="accepted", username="ana",
        requested_at=LONG_AGO, claimed_at=LONG_AGO, sent_at=LONG_AGO,
    )  # fmt: skip
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert [request for request in world.asked("/runs/") if request.endswith(run_id)]


def test_a_run_that_somebody_else_aborted_is_not_read_from_the_reserve(world: World) -> None:
    run_id = world.start()
    world.sync()
    tight(world, 40)
    Run.objects.filter(run_id=run_id).update(status="aborting", next_read_at=LONG_AGO)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert not world.asked("/runs/")


@pytest.mark.parametrize(("requests", "may"), [(5, True), (0, True), (-49, True), (-50, False)])
def test_the_last_half_of_the_reserve_is_for_sending_aborts(requests: int, may: bool) -> None:
    assert budget_store.Allowance(requests, 60, reserve=100).may_follow is may


def test_a_watched_run_is_not_read_from_the_reserve(world: World) -> None:
    run_id = world.start()
    world.sync()
    tight(world, 40)
    Run.objects.filter(run_id=run_id).update(next_read_at=LONG_AGO)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert not world.asked("/runs/")


def test_a_detail_for_what_is_usual_is_not_read_from_the_reserve(world: World) -> None:
    world.sync()
    baselines.book(LONG_AGO, timedelta())
    due = Run.objects.get(baselines.BOOKED)
    tight(world, 40)
    Run.objects.filter(pk=due.pk).update(next_read_at=LONG_AGO, detail_seen_at=None)
    world.sandbox.requests.clear()
    world.live.sync(1)
    assert not world.asked("/runs/")


def refused(world: World) -> None:
    world.sync()
    world.sandbox.faults = [parse_fault("rate-limited*1")]
    world.make_due()
    Run.objects.update(next_read_at=None)
    world.live.sync(1)
    world.sandbox.requests.clear()
    world.make_due()
    world.live.sync(2)


def test_a_429_stops_reading(world: World) -> None:
    refused(world)
    assert not world.sandbox.requests


def test_a_429_keeps_what_was_mirrored(world: World) -> None:
    refused(world)
    assert Run.objects.in_flight().exists()


@pytest.mark.parametrize("body", ["error", "text", "no-wrapper"])
def test_a_429_may_have_any_body(world: World, body: str) -> None:
    world.sandbox.choices["429-body"] = body
    refused(world)
    assert not world.sandbox.requests


def test_reading_starts_again_in_the_new_window(world: World) -> None:
    refused(world)
    passed = timezone.now() - timedelta(seconds=1)
    Budget.objects.update(refused_until=passed, resets_at=passed)
    world.sandbox.window.opened = None
    Stage.objects.update(next_sync_at=LONG_AGO)
    world.live.sync(1)
    assert world.sandbox.requests


def burst_limited(world: World) -> None:
    """Have one request refused for five seconds, with nearly all of the hour's left."""
    world.sync()
    left = world.sandbox.window.limit - world.sandbox.window.used
    world.sandbox.faults = [parse_fault("too-fast:5*1")]
    world.make_due()
    Run.objects.update(next_read_at=None)
    world.live.sync(1)
    world.sandbox.requests.clear()
    assert Budget.objects.get().remaining > 0.9 * left


def test_a_429_of_five_seconds_stops_reading_for_five_seconds(world: World) -> None:
    burst_limited(world)
    known = Budget.objects.get()
    assert known.refused_until is not None
    assert timedelta() < known.refused_until - timezone.now() < timedelta(seconds=6)
    world.make_due()
    world.live.sync(2)
    assert not world.sandbox.requests


def test_after_a_429_and_its_pause_one_request_tries_and_all_go_on(world: World) -> None:
    burst_limited(world)
    Budget.objects.update(refused_until=timezone.now())
    world.make_due()

    async def tick() -> None:
        await world.live.worker.tick()
        begun.append(len(world.live.worker.under_way))
        await world.live.worker.idle()

    begun: list[int] = []
    world.live.run(tick)
    world.live.run(tick)
    assert begun[0] == 1
    assert begun[1] > 1
    known = Budget.objects.get()
    assert (known.refusals, known.refused_until, known.probe_until) == (0, None, None)


def test_trouble_with_the_rate_is_told(world: World, said: Callable[[str], list[object]]) -> None:
    refused(world)
    assert len(said("northflank.trouble")) == 1


def test_a_run_in_flight_stays_so_while_nothing_is_read(world: World) -> None:
    run_id = world.start()
    refused(world)
    assert the_run(run_id).in_flight
