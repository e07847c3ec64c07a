"""Memory that is no longer used, returned to the system."""

import ctypes

# The parameters of mallopt, from glibc's malloc.h, and their values. A rendered page takes up to
# 250 KB for a moment. By default, each thread keeps such memory, with what lives longer in between:
# a server with 200 viewers needed a third more after five minutes.
_TRIM_THRESHOLD = (-1, 128 * 1024)
_MMAP_THRESHOLD = (-3, 64 * 1024)  # more than this is mapped, and unmapped when it is freed
_ARENA_MAX = (-8, 1)


def return_unused() -> None:
    """Return large pieces of memory as soon as they are freed, here and in threads started later.

    On glibc; other C libraries have no such parameters.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in (_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX):
            mallopt(parameter, value)
