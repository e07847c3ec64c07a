"""Ports for servers that bind them later, or again after an outage."""

import contextlib
import itertools
import os
import random
import socket

# Below 32768, from where on Linux gives out ports by itself: to connections, and to the other
# workers of pytest, which bind port 0 all the time. In between a port that is not bound yet, or not
# at the moment, would be theirs.
FIRST_PORT, PORTS_PER_WORKER, MAX_WORKERS = 20_000, 200, 60


def _ports_of_this_worker() -> list[int]:
    """Return the ports that no other worker uses, in an order of their own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = FIRST_PORT + worker % MAX_WORKERS * PORTS_PER_WORKER
    ports = list(range(first, first + PORTS_PER_WORKER))
    # A second pytest on this machine has workers of the same names. pytest-randomly gives `random`
    # the same seed in all of them.
    random.SystemRandom().shuffle(ports)
    return ports


_ports = itertools.cycle(_ports_of_this_worker())  # one after the other: none is given out twice


def free_port() -> int:
    """Return a port on which nothing listens, and which stays free until this worker binds it."""
    for port in itertools.islice(_ports, PORTS_PER_WORKER):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
