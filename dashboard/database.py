"""The way from the event loop to the database: a few threads that keep their connections."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from django.db import close_old_connections

# The loop's own work (sync, aborts); pages have the handler's threads. SQLite gets slower with
# more threads, not faster, and one is enough to keep up with a thousand answers an hour.
_threads = ThreadPoolExecutor(2, thread_name_prefix="database")


async def in_database[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run the synchronous `work` on a database thread and return what it returns."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(_threads, partial(_fresh, work, *args, **kwargs))


def _fresh[**P, T](work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    # Drops a connection that the database server has closed, as Django does for each request.
    close_old_connections()
    return work(*args, **kwargs)
