"""Memory that is no longer used: how often it is searched for, and its return to the system.

By default glibc has a heap for each thread, and keeps in it what was freed between what lives
longer, such as rendered pages: a server with 200 viewers needed a third more after five minutes.
Larger pieces are mapped, and returned at once; to do so with pages would make cached ones a quarter
slower. Other C libraries than glibc have none of these functions.
"""

import asyncio
import ctypes
import gc
from typing import Any

INTERVAL = 10.0  # seconds
# The parameters of mallopt, from glibc's malloc.h, and their values.
_ARENA_MAX = (-8, 1)
_TRIM_THRESHOLD = (-1, 1024 * 1024)
_MMAP_THRESHOLD = (-3, 1024 * 1024)  # fixed: else one answer of 20 MB raises it to as much

_OBJECTS_PER_COLLECTION = 10_000  # created and not freed since the last one; Python's: 2,000

_libc: Any = ctypes.CDLL(None)


def share_heap() -> None:
    """Have one heap for all threads that start later; Python's take turns anyway."""
    if hasattr(_libc, "mallopt"):
        for parameter, value in (_ARENA_MAX, _TRIM_THRESHOLD, _MMAP_THRESHOLD):
            _libc.mallopt(parameter, value)


def spare_collections() -> None:
    """Let Python look for unreachable objects less often, and not among those of the start.

    Looking for them took 5 % of a page's time, although an answered request leaves none.
    """
    gc.collect()  # such as the models of migrations
    gc.freeze()
    gc.set_threshold(_OBJECTS_PER_COLLECTION)


async def keep_returning(interval: float = INTERVAL) -> None:
    """Return unused memory every `interval` seconds, which takes some milliseconds."""
    while True:
        await asyncio.sleep(interval)
        return_unused()


def return_unused() -> None:
    """Return all freed memory that has a whole page to itself."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
