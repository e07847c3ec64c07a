"""Short queues in front of the threads that check passwords.

Hashing a password takes a fifth of a second of a core, by design. On the threads that serve pages,
a few strangers who guess would hold up everybody else. `hashlib` releases the GIL meanwhile, so
these threads leave the rest of the machine to the pages.

Each queue has one thread, so that however many strangers guess, known browsers and the break-glass
account wait for their own kind only.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from dashboard.db import threads as db_threads

CAPACITY = 30  # checks at once, the one in progress included: six seconds, which people wait
RETRY_SECONDS = 5  # until the queue will have moved on


class QueueFull(Exception):
    """Too many passwords wait to be checked; try again in RETRY_SECONDS."""


class PasswordQueue:
    """Runs checks one after another on a thread of its own, with its own database connection."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="password")
        self.length = 0  # checks that wait or run
        self._lock = threading.Lock()

    def submit[**P, T](self, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue `check` and return its future; raise QueueFull if CAPACITY of them wait or run."""
        with self._lock:
            if self.length >= CAPACITY:
                raise QueueFull
            self.length += 1
        future = self.executor.submit(partial(db_threads.call, check, *args, **kwargs))
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[Any]) -> None:
        with self._lock:
            self.length -= 1


new_browsers = PasswordQueue()
known_browsers = PasswordQueue()  # and administrators who set a password
break_glass = PasswordQueue()
