"""Callers wait in line for one thread, and no group of them keeps the others out."""

import asyncio
import threading

import pytest

from dashboard.db.fair_queue import FairQueue, QueueFull

LONG = 60.0  # seconds: longer than any test


def call(queue: FairQueue, calls: str) -> tuple[str, str]:
    """Make these calls while the queue's thread is held; return those that ran, and those refused.

    The first letter of a call is its group; `!` lets it use the reserve, `-` cancels an earlier
    call.
    """
    released, ran = threading.Event(), list[str]()
    tasks: dict[str, asyncio.Task[None]] = {}

    async def call_all() -> list[str]:
        holder = asyncio.create_task(queue.run("", lambda: released.wait(LONG)))
        await asyncio.sleep(0)
        for name in calls.split():
            if name.startswith("-"):
                tasks.pop(name[1:]).cancel()
            else:
                work = queue.run(
                    name[0], lambda name=name: ran.append(name), may_use_reserve="!" in name
                )
                tasks[name] = asyncio.create_task(work)
            await asyncio.sleep(0)
        released.set()
        async with asyncio.timeout(LONG):
            await holder
            results = await asyncio.gather(*tasks.values(), return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), QueueFull}
        return [name for name, result in zip(tasks, results, strict=True) if result]

    refused = asyncio.run(call_all())
    return " ".join(ran), " ".join(refused)


def test_calls_run_in_the_order_of_arrival() -> None:
    assert call(FairQueue("test", 4), "a1 b1 a2 c1") == ("a1 b1 a2 c1", "")


def test_group_may_take_all_places() -> None:
    assert call(FairQueue("test", 3), "a1 a2 a3 a4") == ("a1 a2 a3", "a4")


def test_newest_call_of_the_largest_group_makes_room_for_a_smaller_group() -> None:
    assert call(FairQueue("test", 4), "b1 a1 a2 a3 c1") == ("b1 a1 a2 c1", "a3")


def test_group_that_is_as_large_as_the_largest_is_refused() -> None:
    assert call(FairQueue("test", 4), "a1 a2 b1 b2 b3") == ("a1 a2 b1 b2", "b3")


def test_next_call_of_a_group_takes_the_place_of_its_oldest() -> None:
    queue = FairQueue("test", 4, group_places=2)
    assert call(queue, "a1 a2 b1 a3 a4") == ("b1 a3 a4", "a1 a2")


def test_reserved_call_is_first_beside_the_places() -> None:
    assert call(FairQueue("test", 2), "a1 a2 b1!") == ("b1! a1 a2", "")


def test_second_call_that_may_use_the_reserve_needs_a_place() -> None:
    assert call(FairQueue("test", 2), "a1! a2! a3! a4! b1!") == ("a1! a2! b1!", "a3! a4!")


@pytest.mark.parametrize("call_of_a", ["a1", "a1!"])
def test_cancelled_call_leaves_its_place(call_of_a: str) -> None:
    queue = FairQueue("test", 1)
    assert call(queue, f"{call_of_a} -{call_of_a} b1 b2!") == ("b2! b1", "")


def test_queue_goes_on_after_an_error_and_a_cancelled_call() -> None:
    queue, released = FairQueue("test", 1), threading.Event()

    async def fail_and_cancel() -> None:
        with pytest.raises(ZeroDivisionError):
            await queue.run("a", lambda: 1 // 0)
        running = asyncio.create_task(queue.run("a", lambda: released.wait(LONG)))
        await asyncio.sleep(0)
        running.cancel()
        released.set()

    asyncio.run(fail_and_cancel())
    assert call(queue, "a1") == ("a1", "")
