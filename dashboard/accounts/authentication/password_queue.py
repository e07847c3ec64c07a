"""Passwords are checked one after another, on a thread of their own.

Hashing a password takes a fifth of a second of a core, by design. On the threads that serve pages,
a few strangers who guess would hold up everybody else. `hashlib` releases the GIL meanwhile, so
this thread leaves the rest of the machine to the pages. Attempts queue by network, so that no
network keeps the others out. The break-glass account has a place of its own.
"""

from collections.abc import Callable

from dashboard.accounts.authentication import break_glass, throttle
from dashboard.accounts.authentication.sign_in import Attempt
from dashboard.db.fair_queue import FairQueue

CAPACITY = 30  # waiting checks: six seconds, which people wait
RETRY_SECONDS = 5  # until the queue will have moved on
IPV4_PREFIX = 24  # bits

queue = FairQueue("password", CAPACITY)


async def run[T](attempt: Attempt, check: Callable[[], T]) -> T:
    """Return the result of `check`, which waits for its turn; raise QueueFull if refused."""
    return await queue.run(
        throttle.network(attempt.client_address, ipv4_prefix=IPV4_PREFIX),
        check,
        may_use_reserve=break_glass.is_name(attempt.username),
    )
