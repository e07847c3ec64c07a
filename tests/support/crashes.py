"""`manage.py` in a process that kills or stops itself at a given step of its first abort.

A step is just before each write to an abort's tables (the abort, its events, the run), and just
after each commit of such writes, counted from the abort's first write on. Steps are detected in the
SQL statements, so new steps in the product are included automatically. A process killed before a
commit leaves the same rows as one killed after the previous commit, so testing the commits is often
enough.
"""

import os
import re
import signal
import threading
from collections.abc import Callable
from typing import Any

from django.core.management import execute_from_command_line
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

KILL_STEP = "KILL_STEP"  # environment variable: "step 3", "commit 2"; 1 is the first; empty: never
KILL_SIGNAL = "KILL_SIGNAL"  # environment variable: "SIGSTOP"; default: "SIGKILL"

_WRITE = re.compile(r'(INSERT INTO|UPDATE) "dashboard_(abort|abortevent|run)"')
_FIRST_WRITE = re.compile(r'INSERT INTO "dashboard_abort"')


class KillSwitch:
    """Counts steps in all threads, and kills the process at the given one."""

    def __init__(self, step_number: int, *, commits_only: bool) -> None:
        self.remaining = step_number
        self.commits_only = commits_only
        self.has_begun = False
        self.lock = threading.Lock()

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if not (_WRITE.match(sql) and (self.has_begun or _FIRST_WRITE.match(sql))):
            return execute(sql, params, many, context)
        self.has_begun = True
        if not self.commits_only:
            self.step()
        result = execute(sql, params, many, context)
        connection: BaseDatabaseWrapper = context["connection"]
        if all(callback != self.step for _, callback, _ in connection.run_on_commit):
            transaction.on_commit(self.step)  # once per transaction
        return result

    def step(self) -> None:
        with self.lock:
            self.remaining -= 1
            if self.remaining == 0:
                os.kill(os.getpid(), signal.Signals[os.environ.get(KILL_SIGNAL, "SIGKILL")])


def main() -> None:
    unit, _, number = os.environ[KILL_STEP].partition(" ")
    kill_switch = KillSwitch(int(number or 0), commits_only=unit == "commit")

    def install_wrapper(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
        connection.execute_wrappers.append(kill_switch)

    connection_created.connect(install_wrapper)
    execute_from_command_line()


if __name__ == "__main__":
    main()
