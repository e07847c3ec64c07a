"""Two transactions at once, one of which waits for the rows that the other has locked."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from django.db import connection

from tests.support.live_runs import wait_until


def require_row_locks() -> None:
    """Skip the test on SQLite."""
    if connection.vendor != "postgresql":
        pytest.skip("SQLite writes one after another")


def is_anybody_waiting() -> bool:
    """Return whether a statement waits for another transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        [(count,)] = cursor.fetchall()
    return bool(count)


@contextmanager
def before_statement(start: str, action: Callable[[], object]) -> Iterator[None]:
    """Do `action` before the first statement that starts so, as another administrator would."""
    is_done = False

    def wrapper(execute: Callable[..., object], sql: str, *arguments: object) -> object:
        nonlocal is_done
        if not is_done and sql.startswith(start):
            is_done = True
            action()
        return execute(sql, *arguments)

    with connection.execute_wrapper(wrapper):
        yield
    assert is_done


@contextmanager
def do_beside[T](start: str, action: Callable[[], T]) -> Iterator[Future[T]]:
    """Do `action` in a thread, begun before the first statement of this one that starts so.

    This thread goes on once it is done, or waits for a row that this one has locked. Yield its
    future; it is done when the block has ended.
    """
    future: Future[T] = Future()

    def act() -> None:
        try:
            future.set_result(action())
        except Exception as error:
            future.set_exception(error)
        finally:
            connection.close()

    def begin() -> None:
        executor.submit(act)
        wait_until(lambda: future.done() or is_anybody_waiting())

    with ThreadPoolExecutor(1) as executor, before_statement(start, begin):
        yield future
