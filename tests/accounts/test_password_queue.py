"""No network keeps others from having their passwords checked."""

import asyncio
import threading
from functools import partial

from pytest_django import Settings

from dashboard.accounts.authentication import password_queue
from dashboard.accounts.authentication.sign_in import Attempt
from dashboard.db.fair_queue import QueueFull

OFFICE = "192.0.2.1"
LONG = 60.0  # seconds: longer than any test


def test_break_glass_account_and_30_colleagues_get_in_beside_60_connections(
    settings: Settings,
) -> None:
    settings.BREAK_GLASS_ACCOUNT = "sealed"
    released, checked = threading.Event(), list[str]()

    async def sign_in(username: str, address: str) -> None:
        while True:
            try:
                attempt = Attempt(username, address)
                return await password_queue.run(attempt, partial(checked.append, username))
            except QueueFull:
                await asyncio.sleep(0)

    async def guess(address: str) -> None:
        while True:
            await sign_in("guessed", address)

    async def sign_in_all() -> None:
        holder = asyncio.create_task(
            password_queue.run(Attempt("", None), partial(released.wait, LONG))
        )
        await asyncio.sleep(0)
        strangers = [asyncio.create_task(guess(f"203.0.113.{number}")) for number in range(60)]
        await asyncio.sleep(0)
        people = [("sealed", "203.0.113.99"), *((f"user-{n}", OFFICE) for n in range(30))]
        sign_ins = [asyncio.create_task(sign_in(*person)) for person in people]
        await asyncio.sleep(0)
        released.set()
        async with asyncio.timeout(LONG):
            await asyncio.gather(holder, *sign_ins)
        for stranger in strangers:
            stranger.cancel()
        await asyncio.gather(*strangers, return_exceptions=True)

    asyncio.run(sign_in_all())
    assert checked[0] == "sealed"
    assert {f"user-{n}" for n in range(30)} <= set(checked)
