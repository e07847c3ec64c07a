"""A queue for one thread of its own, in which no group of callers keeps the others out."""

import asyncio
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from dashboard.db import threads as db_threads


class QueueFull(Exception):
    """The caller got no place in the queue, or lost it to another caller."""


class FairQueue:
    """Runs calls of the event loop on one thread, in the order of arrival.

    At most `places` callers wait. When all places are taken, the newest caller of the largest group
    makes room for a caller of a smaller group. At most `group_places` callers of a group wait: the
    next one takes the place of the oldest. One more place, first in line, is reserved.
    """

    def __init__(self, name: str, places: int, group_places: int | None = None) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._places, self._group_places = places, group_places
        self._waiting: dict[asyncio.Event, str] = {}  # group by turn, oldest first
        self._reserved: asyncio.Event | None = None
        self._running: asyncio.Event | None = None

    async def run[T](
        self, group: str, work: Callable[[], T], *, may_use_reserve: bool = False
    ) -> T:
        """Return the result of `work`, which may use the database; raise QueueFull if refused."""
        turn = asyncio.Event()
        if may_use_reserve and self._reserved is None:
            self._reserved = turn
        else:
            self._take_place(turn, group)
        self._start_next()
        try:
            await turn.wait()
            if self._running is not turn:
                raise QueueFull
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.executor, partial(db_threads.call, work))
        finally:
            self._leave(turn)

    def _take_place(self, turn: asyncio.Event, group: str) -> None:
        sizes = Counter(self._waiting.values())
        if sizes[group] == self._group_places:
            self._refuse(next(other for other in self._waiting if self._waiting[other] == group))
        elif len(self._waiting) == self._places:
            largest = max(sizes.values())
            if sizes[group] == largest:
                raise QueueFull
            newest_first = reversed(self._waiting)
            self._refuse(next(t for t in newest_first if sizes[self._waiting[t]] == largest))
        self._waiting[turn] = group

    def _refuse(self, turn: asyncio.Event) -> None:
        del self._waiting[turn]
        turn.set()

    def _start_next(self) -> None:
        if self._running is None and (turn := self._reserved or next(iter(self._waiting), None)):
            self._leave_line(turn)
            self._running = turn
            turn.set()

    def _leave(self, turn: asyncio.Event) -> None:
        self._leave_line(turn)  # a cancelled caller is still in it
        if self._running is turn:
            self._running = None
            self._start_next()

    def _leave_line(self, turn: asyncio.Event) -> None:
        self._waiting.pop(turn, None)
        if self._reserved is turn:
            self._reserved = None
