"""Memory that is no longer used, returned to the system.

By default glibc has a heap for each thread, and keeps in it what was freed between what lives
longer, such as rendered pages: a server with 200 viewers needed a third more after five minutes. To
return large pieces at once (M_MMAP_THRESHOLD) would make pages a fifth slower. Other C libraries
than glibc have none of these functions.
"""

import asyncio
import ctypes
import gc
from typing import Any

INTERVAL = 60.0  # seconds
_M_ARENA_MAX = -8  # of mallopt, from glibc's malloc.h

_libc: Any = ctypes.CDLL(None)


def share_heap() -> None:
    """Have one heap for all threads that start later; Python's take turns anyway."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


async def keep_returning(interval: float = INTERVAL) -> None:
    """Return unused memory now, and every `interval` seconds: it takes some milliseconds."""
    gc.collect()  # the models of migrations
    while True:
        return_unused()
        await asyncio.sleep(interval)


def return_unused() -> None:
    """Return all freed memory that has a whole page to itself."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
