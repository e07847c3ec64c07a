"""Fill in, once after the start, what a version that did not know of it has left."""

import asyncio
from collections.abc import Callable, Iterator

from dashboard.db import threads as db_threads


class Repair:
    """A chore of the sync worker: goes once through `batches`, which yields pauses in seconds."""

    def __init__(self, batches: Callable[[], Iterator[float]]) -> None:
        self._batches = batches
        self._is_done = False

    async def __call__(self, _: object) -> None:
        if self._is_done:
            return
        batches = self._batches()
        while True:
            pause = await db_threads.run_in_db_thread(next, batches, None)
            if pause is None:
                self._is_done = True
                return
            await asyncio.sleep(pause)
