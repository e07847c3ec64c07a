"""Fixtures for all tests, and a report of the tests that this machine could not run."""

import gc
import itertools
import os
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import hypothesis
import psycopg
import pytest
import structlog
from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection

from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.models import ChangeCounter
from dashboard.sync.webhooks import events as webhook_events
from dashboard.web.live import feed
from tests.support import evidence, table_cleanup
from tests.support import live as live_module
from tests.support.database_scope import depends_on_the_database
from tests.support.live import Live
from tests.support.services import (
    CHROMIUM,
    EXHAUSTIVE,
    FIREFOX,
    IN_CI,
    POSTGRES,
    POSTGRES_PROGRAMS,
)
from tests.support.strict_templates import strict_templates  # noqa: F401 - a fixture
from tests.support.world import LoggedEvents

# Machines differ in speed, which bench/ measures: no example fails for being slow. Each run tries
# other examples.
hypothesis.settings.register_profile(
    "tests",
    max_examples=100 if EXHAUSTIVE else 40,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")

# Prefix of the skip reason of tests that need something that is missing here.
SKIP_PREFIX = "not on this machine: "
# The number of slow tests that are left to CI.
LEFT_TO_CI = pytest.StashKey[int]()
# By test with the dashboard on a real port: further apart than the changes of one.
_first_versions = itertools.count(10_000, 10_000)


def _is_full_suite(config: pytest.Config) -> bool:
    """Return whether the whole suite was requested, not some files of it."""
    by_controller = getattr(config, "workerinput", {}).get("whole")
    return bool(by_controller or config.args_source is config.ArgsSource.TESTPATHS)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["whole"] = _is_full_suite(node.config)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """More workers than cores for the whole suite, as much of it waits; none for named files."""
    if not _is_full_suite(config):
        return 0
    return 2 * len(os.sched_getaffinity(0)) + 2


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        evidence.clear()


def _postgres_responds() -> bool:
    try:
        psycopg.connect(POSTGRES, connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True


def _record_left_to_ci(config: pytest.Config, count: int) -> None:
    config.stash[LEFT_TO_CI] = count
    if hasattr(config, "workeroutput"):
        config.workeroutput["left_to_ci"] = count


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    # Each worker collects all tests: the number is the same for all.
    if count := getattr(node, "workeroutput", {}).get("left_to_ci"):
        node.config.stash[LEFT_TO_CI] = count


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if connection.vendor == "postgresql" and _is_full_suite(config):
        deselected = [item for item in items if not depends_on_the_database(item)]
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if depends_on_the_database(item)]
    if not EXHAUSTIVE:
        variants = [item for item in items if item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=variants)
        items[:] = [item for item in items if item not in variants]
    if _is_full_suite(config) and not (IN_CI or EXHAUSTIVE):
        slow = {item for item in items if item.get_closest_marker("slow")}
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]
        _record_left_to_ci(config, len(slow))
    missing = {}
    is_firefox = "firefox" in config.getoption("browser", ())
    if not (FIREFOX if is_firefox else CHROMIUM):
        name = "Firefox" if is_firefox else "Chromium"
        missing["browser"] = f"{name} (set {name.upper()} to its path)"
    if not _postgres_responds():
        missing["postgres"] = "a PostgreSQL that answers (set TEST_POSTGRES_URL)"
    if POSTGRES_PROGRAMS is None:
        missing["postgres_programs"] = "PostgreSQL's programs (initdb, pg_ctl, pg_basebackup)"
    for item in items:
        for marker, service in missing.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=SKIP_PREFIX + service))
    for item in items:
        if "live" in getattr(item, "fixturenames", ()):
            item.add_marker("live")
    # Those that take longest, and mostly wait: the others run beside them, instead of before them.
    items.sort(key=lambda item: item.get_closest_marker("process") is None)


def pytest_collection_finish() -> None:
    # Thousands of tests stay in memory until the end: exclude them from garbage collection.
    gc.collect()
    gc.freeze()


def _missing_services(terminalreporter: pytest.TerminalReporter) -> Counter[str]:
    """Return the services missing on this machine, with the number of tests that need each."""
    skipped = (report.longrepr for report in terminalreporter.stats.get("skipped", ()))
    reasons = (reason[2] for reason in skipped if isinstance(reason, tuple))
    return Counter(reason.partition(SKIP_PREFIX)[2] for reason in reasons if SKIP_PREFIX in reason)


def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if IN_CI and session.exitstatus == 0 and reporter and _missing_services(reporter):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for service, tests in _missing_services(terminalreporter).items():
        terminalreporter.section("NOT RUN", red=IN_CI, yellow=not IN_CI)
        consequence = " In CI that is a failure." if IN_CI else ""
        terminalreporter.line(f"{tests} tests did not run, for want of {service}.{consequence}")
    if left_out := terminalreporter.config.stash.get(LEFT_TO_CI, 0):
        terminalreporter.section("LEFT TO CI", yellow=True)
        terminalreporter.line(f"{left_out} slow tests did not run; `make test-all` runs all tests.")
    if terminalreporter.stats.get("failed") and evidence.FOLDER.exists():
        terminalreporter.line(f"Pages and logs of failed tests: {evidence.FOLDER}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    evidence.clear_sources()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    # In the phase that failed, before the teardown of fixtures removes the evidence.
    report = yield
    if report.failed:
        evidence.collect(item.nodeid, report.longreprtext)
    return report


@pytest.fixture(scope="session", autouse=True)
def _table_cleanup() -> None:
    table_cleanup.replace_flush()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _process_state() -> None:
    # The process's own clock: forget that of PostgreSQL, which an earlier test measured.
    db_threads.set_clock_offset(timedelta())
    db_health.mark_available()  # an earlier test may have ended before the next probe was due
    webhook_events.handled.clear()


@pytest.fixture(autouse=True)
def _empty_cache() -> None:
    # Rows are cached under primary keys, which restart with each test.
    cache.clear()


@pytest.fixture
def manager(db: None) -> User:
    """A user who may abort."""
    from dashboard.accounts import permissions

    permissions.ensure_default_group()
    user = User.objects.create_user("manager", password="manager")
    user.groups.add(permissions.Group.objects.get(name=permissions.RELEASE_MANAGERS))
    return user


@pytest.fixture
def viewer(db: None) -> User:
    """A user who may only view."""
    return User.objects.create_user("viewer", password="viewer")


@pytest.fixture
def poll_interval() -> float:
    """Seconds between two polls of the live dashboard's broadcaster."""
    return feed.POLL_INTERVAL


@pytest.fixture
def heartbeat_interval() -> float:
    """Seconds without a message after which the live dashboard's streams send a heartbeat."""
    return feed.HEARTBEAT_INTERVAL


@pytest.fixture
def scenario() -> str:
    """The scenario of the live dashboard's sandbox."""
    return "everyday"


@pytest.fixture
def live(
    transactional_db: None, scenario: str, poll_interval: float, heartbeat_interval: float
) -> Iterator[Live]:
    """The dashboard and a sandbox on real ports; see tests/support/live.py."""
    # The process keeps finished pages for seconds, by version: no test takes those of another.
    first_version = next(_first_versions)
    ChangeCounter.objects.update_or_create(pk=1, defaults={"value": first_version})
    with live_module.run_live(
        replace(live_module.options(), scenario=scenario),
        poll_interval=poll_interval,
        heartbeat_interval=heartbeat_interval,
    ) as dashboard:
        yield dashboard


@pytest.fixture
def closing_connections(transactional_db: None) -> Iterator[None]:
    """At the end, the database threads' connections are closed: they would keep the database."""
    yield
    for pool in (db_threads.executor, db_threads.abort_executor):
        live_module.close_connections(pool)


@pytest.fixture
def logged_events(caplog: pytest.LogCaptureFixture) -> LoggedEvents:
    """Return a function that lists the log lines of one event."""
    caplog.set_level("INFO")
    structlog.get_logger("dashboard")

    def find_lines(event: str) -> list[dict[str, Any]]:
        events = [record.msg for record in caplog.records if isinstance(record.msg, dict)]
        return [line for line in events if line["event"] == event]

    return find_lines
