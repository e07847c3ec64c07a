"""`manage.py`, in a process that kills itself at a given step of the first abort that it makes.

A step is just before each write to what an abort changes (the act, its trail, the run), and just
after each commit of such writes, counted from the act's first line on. They are found by looking
at what is sent to the database, so a step that is added to the product is died at too. What dies
before a commit leaves the same as what dies after the one before: often commits are enough.
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

KILL_AT = "DIES_AT"  # in the environment: "step 3", "commit 2"; 1 is the first, empty: never

_WRITE = re.compile(r'(INSERT INTO|UPDATE) "dashboard_(abort|abortevent|run)"')
_FIRST = re.compile(r'INSERT INTO "dashboard_abort"')


class KillSwitch:
    """Counts steps, on whatever thread they are taken, and kills the process at one of them."""

    def __init__(self, at: int, *, commits_only: bool) -> None:
        self.left = at
        self.commits_only = commits_only
        self.begun = False
        self.one_by_one = threading.Lock()

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if not (_WRITE.match(sql) and (self.begun or _FIRST.match(sql))):
            return execute(sql, params, many, context)
        self.begun = True
        if not self.commits_only:
            self.step()
        result = execute(sql, params, many, context)
        using: BaseDatabaseWrapper = context["connection"]
        if all(after != self.step for _, after, _ in using.run_on_commit):
            transaction.on_commit(self.step)  # once a transaction
        return result

    def step(self) -> None:
        with self.one_by_one:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    what, _, number = os.environ[KILL_AT].partition(" ")
    fate = KillSwitch(int(number or 0), commits_only=what == "commit")

    def follow(*, connection: BaseDatabaseWrapper, **_: Any) -> None:
        connection.execute_wrappers.append(fate)

    connection_created.connect(follow)
    execute_from_command_line()


if __name__ == "__main__":
    main()
