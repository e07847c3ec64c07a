"""What a process keeps of the memory that it no longer uses."""

import subprocess
import sys

import pytest

# Texts like pages, with something that stays after each: twice, since glibc adapts after the first.
GROWTH = """
import resource
from pathlib import Path
from dashboard.server import memory

def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

memory.share_heap()
kept = []
before = resident_bytes()
for _ in range(2):
    texts = []
    for _ in range(100):
        texts.append("\\u2026" * 100_000)
        kept.append(bytes(3_000))
    del texts
    memory.return_unused()
print(resident_bytes() - before)
"""

# Prints how many heaps glibc has after 8 threads have used memory at the same time.
HEAPS = """
import ctypes, sys, threading
from dashboard.server import memory

if "shared" in sys.argv:
    memory.share_heap()
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_of_freed_pages_is_returned() -> None:
    result = subprocess.run(
        [sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True
    )
    assert int(result.stdout) < 5_000_000  # of 40 MB


@pytest.mark.parametrize(("arguments", "is_shared"), [(["shared"], True), ([], False)])
def test_threads_share_one_heap(arguments: list[str], is_shared: bool) -> None:
    result = subprocess.run(
        [sys.executable, "-c", HEAPS, *arguments], capture_output=True, text=True, check=True
    )
    assert (result.stdout.count("<heap ") == 1) is is_shared


def test_objects_of_the_start_are_no_longer_searched() -> None:
    script = """
import gc
from dashboard.server import memory

before = len(gc.get_objects())
memory.spare_collections()
print(gc.get_freeze_count() >= before * 0.9, gc.get_threshold()[0])
"""
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["True", "10000"]
