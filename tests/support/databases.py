"""Databases of other processes, and connections to them from this one."""

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import environ
import psycopg
from django.db import connection, connections
from django.utils import timezone

from dashboard.asgi import application
from dashboard.db import threads as db_threads
from dashboard.models import CatalogSync, Pipeline, Project, Run, Stage
from tests.support.live import WAIT_TIMEOUT, run_in_each_thread
from tests.support.services import POSTGRES

PROCESS_DATABASE = "process"  # the alias of this process's connection to such a database
LEDGER = ("payments", "ledger", "Staging")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Yield the URL of a PostgreSQL database that is dropped when the block ends."""
    name = f"dashboard_server_{os.getpid()}"
    with psycopg.connect(POSTGRES, autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name}")
        server.execute(f"CREATE DATABASE {name}")
        try:
            yield re.sub(r"/[^/]*$", f"/{name}", POSTGRES)
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def empty_database(vendor: str, folder: Path) -> Iterator[str]:
    """Yield the URL of an empty database: of SQLite in the folder, or of PostgreSQL."""
    if vendor == "sqlite":
        yield f"sqlite:///{folder / 'd.sqlite3'}"
    else:
        with postgres() as url:
            yield url


@contextlib.contextmanager
def connected_to_database(database: str) -> Iterator[None]:
    """Connect this process to the database, under the alias PROCESS_DATABASE."""
    database_settings = environ.Env.db_url_config(database)
    connections.settings[PROCESS_DATABASE] = {
        **connections.settings["default"],
        "OPTIONS": {},
        **database_settings,
    }
    try:
        yield
    finally:
        connections[PROCESS_DATABASE].close()
        del connections[PROCESS_DATABASE]
        del connections.settings[PROCESS_DATABASE]


@contextlib.contextmanager
def table_renamed(table: str) -> Iterator[None]:
    """Rename a table until the block ends, so that every query of it fails."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} RENAME TO elsewhere")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE elsewhere RENAME TO {table}")


@contextlib.contextmanager
def sqlite_folder_renamed() -> Iterator[None]:
    """Rename the folder of SQLite's file until the block ends."""
    folder = Path(connection.settings_dict["NAME"]).parent
    new_folder = folder.with_name(f"{folder.name}-elsewhere")
    pools = (application.executor, db_threads.executor, db_threads.abort_executor)
    # Rename it while all threads wait here: one that is opening the file would fail as if the disk
    # were broken, and leave its connection open.
    barrier = threading.Barrier(
        sum(pool._max_workers for pool in pools), action=partial(folder.rename, new_folder)
    )

    def close_after_rename() -> None:
        barrier.wait(WAIT_TIMEOUT)
        connections.close_all()  # open ones would keep working; new ones fail

    jobs = [pool.submit(close_after_rename) for pool in pools for _ in range(pool._max_workers)]
    try:
        for job in jobs:
            job.result()
        connection.close()
        yield
    finally:
        new_folder.rename(folder)


def create_idle_stage() -> None:
    """Create a stage and catalog that are not due, so that the sync reads only aborted runs."""
    now = timezone.now()
    far_future = now + timedelta(days=1000)
    failed = {"failures": 1}  # after a failure the next read keeps its time
    CatalogSync.objects.using(PROCESS_DATABASE).create(
        project=None, next_sync_at=far_future, **failed
    )
    project = Project.objects.using(PROCESS_DATABASE).create(slug=LEDGER[0], synced_at=now)
    pipeline = Pipeline.objects.using(PROCESS_DATABASE).create(
        project=project, slug=LEDGER[1], synced_at=now
    )
    Stage.objects.using(PROCESS_DATABASE).create(
        pipeline=pipeline, name=LEDGER[2], has_flow=True,
        flow_synced_at=now, synced_at=now, next_sync_at=far_future, **failed,
    )  # fmt: skip


def create_run(run_id: str) -> Run:
    """Create a run of that stage, as if it had just been read from Northflank."""
    now = timezone.now()
    return Run.objects.using(PROCESS_DATABASE).create(
        stage=Stage.objects.using(PROCESS_DATABASE).get(), run_id=run_id, status="pending",
        concluded=False, in_flight=True, created_at=now, first_synced_at=now, synced_at=now,
        status_since=now, version=0,
    )  # fmt: skip


def stage_path() -> str:
    """Return the path of the page of that stage."""
    project, pipeline, stage = (part.lower() for part in LEDGER)
    return f"/projects/{project}/pipelines/{pipeline}/release-flows/{stage}/"


def run_path(run_id: str) -> str:
    """Return the path of the page of a run of that stage."""
    return f"{stage_path()}runs/{run_id}/"


def abort_path(run_id: str) -> str:
    """Return the path of the abort page of a run of that stage."""
    return f"{run_path(run_id)}abort/"


@contextlib.contextmanager
def wrap_statements(*pools: ThreadPoolExecutor, wrapper: Callable[..., Any]) -> Iterator[None]:
    """Call `wrapper` around each statement of these pools' threads until the block ends.

    As `connection.execute_wrapper` does for one connection, without the statements that open it.
    """

    def install() -> None:
        connection.ensure_connection()
        connection.execute_wrappers.append(wrapper)

    for pool in pools:
        run_in_each_thread(pool, install)
    try:
        yield
    finally:
        for pool in pools:
            run_in_each_thread(pool, lambda: connection.execute_wrappers.remove(wrapper))


@contextlib.contextmanager
def counting_statements(*pools: ThreadPoolExecutor) -> Iterator[list[str]]:
    """Yield a list that grows by each statement which a thread of these pools executes.

    Without those that open a connection.
    """
    statements: list[str] = []

    def record(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        statements.append(sql)
        return execute(sql, *rest)

    with wrap_statements(*pools, wrapper=record):
        yield statements


def query_database(database: str, sql: str) -> list[tuple[Any, ...]]:
    """Return the rows of a statement in the database of a URL."""
    if database.startswith("sqlite"):
        file = database.removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return connection.execute(sql).fetchall()
    with psycopg.connect(database) as server:
        return server.execute(sql).fetchall()  # type: ignore[call-overload, no-any-return]
