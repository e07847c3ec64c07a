"""A short queue in front of the thread that checks passwords.

Hashing a password takes a fifth of a second of a core, by design. On the threads that serve pages,
a few strangers who guess would hold up everybody else. `hashlib` releases the GIL meanwhile, so
this thread leaves the rest of the machine to the pages.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from dashboard.db import threads as db_threads

CAPACITY = 30  # checks at once, the one in progress included: six seconds, which people wait
RETRY_SECONDS = 5  # until the queue will have moved on

executor = ThreadPoolExecutor(1, thread_name_prefix="password")
_places = threading.BoundedSemaphore(CAPACITY)


class QueueFull(Exception):
    """Too many passwords wait to be checked; try again in RETRY_SECONDS."""


def submit[**P, T](check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Queue `check` and return its future; raise QueueFull if CAPACITY of them wait or run."""
    if not _places.acquire(blocking=False):
        raise QueueFull
    future = executor.submit(partial(db_threads.call, check, *args, **kwargs))
    future.add_done_callback(lambda _: _places.release())
    return future
