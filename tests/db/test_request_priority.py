"""Background database work waits while requests are answered."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from dashboard.db import threads as db_threads
from dashboard.db.request_priority import RequestPriority

LONG = 60.0  # seconds: longer than any test


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def order_beside_an_answer(
    priority: RequestPriority,
    pool: ThreadPoolExecutor,
    background: Callable[[Callable[[], None]], Coroutine[Any, Any, None]],
    *,
    patience: float = 0.05,
) -> list[str]:
    """Start an answer, then `background`, which calls its argument; return the order of their ends.

    The answer ends when `background` has, or after `patience` seconds.
    """
    order: list[str] = []
    released = threading.Event()

    def answer() -> None:
        released.wait(LONG)
        order.append("answer")

    async def run_both() -> None:
        async with asyncio.timeout(LONG), asyncio.TaskGroup() as group:
            group.create_task(priority.run(pool, answer))
            await asyncio.sleep(0)  # it has started
            work = group.create_task(background(lambda: order.append("background")))
            await asyncio.wait({work}, timeout=patience)
            released.set()

    asyncio.run(run_both())
    return order


def test_background_work_waits_for_the_end_of_an_answer(pool: ThreadPoolExecutor) -> None:
    priority = RequestPriority(max_wait=LONG, pause=0)

    async def wait(work: Callable[[], None]) -> None:
        await priority.wait()
        work()

    assert order_beside_an_answer(priority, pool, wait) == ["answer", "background"]


def test_background_work_waits_for_a_limited_time(pool: ThreadPoolExecutor) -> None:
    priority = RequestPriority(max_wait=0.002, pause=0)
    released = threading.Event()

    async def run_both() -> None:
        answer = asyncio.create_task(priority.run(pool, lambda: released.wait(LONG)))
        await asyncio.sleep(0)
        try:
            async with asyncio.timeout(LONG / 2):
                await priority.wait()
            assert not answer.done()
        finally:
            released.set()
        assert await answer

    asyncio.run(run_both())


@pytest.mark.parametrize(("pause", "is_pending"), [(LONG, True), (0, False)])
def test_background_work_waits_between_two_parts_of_an_answer(
    pause: float, is_pending: bool, pool: ThreadPoolExecutor
) -> None:
    priority = RequestPriority(max_wait=LONG, pause=pause)

    async def is_waiting() -> bool:
        await priority.run(pool, lambda: None)
        waiting = asyncio.create_task(priority.wait())
        await asyncio.wait({waiting}, timeout=0.05)
        return waiting.cancel()

    assert asyncio.run(is_waiting()) is is_pending


def test_background_work_does_not_wait_without_a_request() -> None:
    waiting = RequestPriority(max_wait=LONG, pause=LONG).wait()
    with pytest.raises(StopIteration):
        waiting.send(None)


def test_answer_that_failed_is_not_waited_for(pool: ThreadPoolExecutor) -> None:
    priority = RequestPriority(max_wait=LONG, pause=0)

    def fail() -> None:
        raise LookupError("a view has failed")

    async def fail_and_wait() -> None:
        with pytest.raises(LookupError):
            await priority.run(pool, fail)
        async with asyncio.timeout(LONG / 2):
            await priority.wait()

    asyncio.run(fail_and_wait())


@pytest.mark.django_db(transaction=True)
def test_database_work_of_the_event_loop_waits_for_answers(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    priority = RequestPriority(max_wait=LONG, pause=0)
    monkeypatch.setattr(db_threads, "request_priority", priority)
    order = order_beside_an_answer(priority, pool, db_threads.run_in_db_thread)
    assert order == ["answer", "background"]


@pytest.mark.django_db(transaction=True)
def test_writes_of_an_abort_do_not_wait(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    priority = RequestPriority(max_wait=LONG, pause=0)
    monkeypatch.setattr(db_threads, "request_priority", priority)
    order = order_beside_an_answer(
        priority, pool, db_threads.retry_during_outage, patience=LONG / 2
    )
    assert order == ["background", "answer"]
