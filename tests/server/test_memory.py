"""The heap of a process with many threads."""

import subprocess
import sys

import pytest

# Prints how many heaps glibc has after 8 threads have used memory at the same time.
PROGRAM = """
import ctypes, sys, threading
from dashboard.server.memory import limit_heap

if "limited" in sys.argv:
    limit_heap()
together = threading.Barrier(8)

def work():
    blocks = [bytearray(100_000) for _ in range(10)]
    together.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
stream = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stream)
libc.fflush(stream)
"""


@pytest.mark.parametrize(("arguments", "is_limited"), [(["limited"], True), ([], False)])
def test_threads_share_one_heap_once_it_is_limited(arguments: list[str], is_limited: bool) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=True
    )
    assert (result.stdout.count("<heap ") == 1) is is_limited
