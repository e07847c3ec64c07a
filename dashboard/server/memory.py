"""Memory of a process with many threads."""

import contextlib
import ctypes

# Parameters of mallopt(3), in glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_ARENA_MAX = -8
_TRIM_THRESHOLD = 128 * 1024  # bytes


def limit_heap() -> None:
    """Have all threads share one heap, which returns free memory to the system.

    By default glibc gives each thread a heap of its own and keeps what was freed: 7 MB more for a
    dashboard with sync and sandbox. Python's threads take turns, so they hardly compete for one
    heap. To be called before there are threads; without glibc it does nothing.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
