"""pytest plugin of `make mutants`: a database that is migrated once, and quick tests first.

Loaded by [tool.mutmut] in pyproject.toml. mutmut forks a process for each mutant, in its own copy
of this repository, from one that has imported the tests; first it runs all tests without a mutant.
"""

import gc
import os
import shutil
import sys
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import hypothesis
import pytest
from django.core.management import call_command
from django.db import connection
from mutmut.state import state
from pytest_django import DjangoDbBlocker

REPOSITORY_COPY = Path(__file__).resolve().parents[2]
MIGRATED = REPOSITORY_COPY / "migrated.sqlite3"
# Seconds of a mutant's quickest tests after which it counts as survived. A mutant that only slow
# tests detect is reported too late to somebody who is changing a rule.
WAIT_TIMEOUT = 15

# Any counterexample will do, and each mutant gets the same examples.
hypothesis.settings.register_profile(
    "mutants",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
    derandomize=True,
    database=None,
)


def _mutant() -> str:
    """Return the name of this process's mutant; empty: the tests run without one."""
    name = os.environ["MUTANT_UNDER_TEST"]
    return name if "__mutmut_" in name else ""


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    from tests.support import live  # once Django is set up

    gc.freeze()  # pytest collects garbage at its end: exclude what is imported by now
    config.pluginmanager.register(_Database())  # last, so that its fixture overrides others
    if _mutant():
        live.WAIT_TIMEOUT = 10  # seconds; a test that hangs because of a mutant hangs until then


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = [item for item in items if _slow(item, _mutant())]
    config.hook.pytest_deselected(items=slow)
    items[:] = [item for item in items if item not in slow]
    durations = state().duration_by_test
    # Tests that empty the database come last, since they delete rows created by migrations.
    items.sort(
        key=lambda item: ("transactional_db" in item.fixturenames, durations.get(item.nodeid, 0))
    )
    if _mutant():
        total_durations = list(accumulate(durations.get(item.nodeid, 0) for item in items))
        cutoff = bisect_right(total_durations, WAIT_TIMEOUT)
        config.hook.pytest_deselected(items=items[cutoff:])
        del items[cutoff:]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    # mutmut runs against a mutant the tests that have called its function. A function whose result
    # is cached would be called by the first test alone.
    if not _mutant():
        for module in [
            module for name, module in sys.modules.items() if name.startswith("dashboard.")
        ]:
            for value in vars(module).values():
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


# Modules whose rules are tested with open requests, mostly on a live server.
LIVE_TESTED = ("dashboard.aborts.", "dashboard.sync.mirror.")


def _slow(item: pytest.Item, mutant: str) -> bool:
    """Return whether a test is slow and no stricter about a rule than the rule's own tests."""
    if "live" not in item.fixturenames:
        return False
    if not item.nodeid.startswith("tests/aborts/"):
        return True
    return bool(mutant) and not mutant.startswith(LIVE_TESTED)


class _Database:
    @pytest.fixture(scope="session")
    def django_db_setup(
        self, django_test_environment: None, django_db_blocker: DjangoDbBlocker
    ) -> Iterator[None]:
        database = REPOSITORY_COPY / f"{os.getpid()}.sqlite3"
        connection.settings_dict["NAME"] = str(database)
        with django_db_blocker.unblock():
            if _mutant():
                shutil.copy(MIGRATED, database)
            else:
                call_command("migrate", verbosity=0)
                connection.close()  # so that the file contains all data
                shutil.copy(database, MIGRATED)
        yield
        with django_db_blocker.unblock():
            connection.close()
        for path in REPOSITORY_COPY.glob(f"{database.name}*"):
            path.unlink()
