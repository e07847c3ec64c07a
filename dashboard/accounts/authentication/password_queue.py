"""A short queue in front of the one thread that checks passwords.

Hashing a password takes half a second of a core, by design. On the threads that serve pages, a few
strangers who guess would hold up everybody else. `hashlib` releases the GIL meanwhile, so this
thread leaves the rest of the machine to the pages.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from dashboard.db import threads as db_threads

THREADS = 1  # a machine may have two cores; more than one person signs in at once rarely
CAPACITY = 4  # checks at once, the one in progress included: two seconds
RESERVED_CAPACITY = 4  # further ones, for known browsers and administrators
RETRY_SECONDS = 5  # until the queue will have moved on


class QueueFull(Exception):
    """Too many passwords wait to be checked; try again in RETRY_SECONDS."""


class PasswordQueue:
    """Runs checks one after another on a thread of its own, with its own database connection."""

    def __init__(self) -> None:
        self.executor = ThreadPoolExecutor(THREADS, thread_name_prefix="password")
        self.length = 0  # checks that wait or run
        self._lock = threading.Lock()

    def submit[**P, T](
        self, is_reserved: bool, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Queue `check` and return its future; raise QueueFull if there is no place for it.

        With `is_reserved`, the reserved places count, too.
        """
        capacity = CAPACITY + RESERVED_CAPACITY if is_reserved else CAPACITY
        with self._lock:
            if self.length >= capacity:
                raise QueueFull
            self.length += 1
        future = self.executor.submit(partial(db_threads.call, check, *args, **kwargs))
        future.add_done_callback(self._leave)
        return future

    def _leave(self, _: Future[Any]) -> None:
        with self._lock:
            self.length -= 1


queue = PasswordQueue()
