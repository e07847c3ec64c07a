"""How many rows each query visits, and a database to grow between two measurements."""

import contextlib
import functools
import itertools
import json
import re
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.utils import timezone

from dashboard.db import postgresql
from dashboard.models import (
    AccessEvent,
    ChangeCounter,
    FailureCounter,
    Pipeline,
    Project,
    RightsChange,
    Run,
    Session,
    Stage,
)
from dashboard.models.accounts.rights_changes import SubjectKind
from dashboard.models.catalog import StageName
from tests.support import factories

PRODUCT = Path(__file__).resolve().parents[2] / "dashboard"
PIPELINES_PER_PROJECT = 10
STAGES_WITH_RUNS = 10
IN_FLIGHT = 12
STEPS_PER_ROW = 10  # of SQLite's virtual machine, about; each call takes longer than ten steps
_ABORTED_EVERY, _FAILED_EVERY = 40, 20  # among the runs that have ended, the newest first
_AGE = timedelta(minutes=20)  # between two runs: 72 end in a day, whatever the history

_LATEST_VERSION = 1_000_000

type Visits = Counter[tuple[str, str]]  # by the function of the product and the statement


@contextlib.contextmanager
def counting_visits() -> Iterator[Visits]:
    """Count what each statement visits: rows on PostgreSQL, steps of the virtual machine on SQLite.

    Both are repeatable; steps are counted in tens, which is about a row. In a transaction only.
    """
    visits: Visits = Counter()
    count = _count_rows if connection.vendor == "postgresql" else _count_steps
    with contextlib.ExitStack() as stack:
        wrapper = stack.enter_context(count(visits))
        stack.enter_context(connection.execute_wrapper(wrapper))
        yield visits


@contextlib.contextmanager
def _count_steps(visits: Visits) -> Iterator[Callable[..., Any]]:
    connection.ensure_connection()
    raw: sqlite3.Connection = connection.connection
    latest = [("", "")]  # rows are fetched after the statement has begun

    def step() -> int:
        visits[latest[0]] += STEPS_PER_ROW
        return 0

    def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        latest[0] = _key(sql)
        return run(sql, params, many, context)

    raw.set_progress_handler(step, STEPS_PER_ROW)
    try:
        yield execute
    finally:
        raw.set_progress_handler(None, 1)


@contextlib.contextmanager
def _count_rows(visits: Visits) -> Iterator[Callable[..., Any]]:
    planned_once: set[str] = set()

    def execute(run: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(("SELECT", "UPDATE", "DELETE", "WITH", "(")):
            visits[_key(sql)] += _visited_rows(sql, params, is_generic=sql in planned_once)
        return run(sql, params, many, context)

    def fetch(sql: str, _parameters: Any) -> None:
        planned_once.add(sql)  # outside a transaction

    # What an index can find: a table of 600 rows may be read whole, which proves nothing. A plan
    # that needs what is off seems so expensive that PostgreSQL compiles it for a second: no `jit`.
    options = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit")
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {option} = off" for option in options))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgresql, "fetch", fetch)
        yield execute


def _visited_rows(sql: str, params: Any, *, is_generic: bool) -> int:
    connection.ensure_connection()
    # The statement is run twice, so the first run must leave nothing behind.
    undone = contextlib.nullcontext() if sql.startswith("SELECT") else transaction.atomic()
    with undone, connection.connection.cursor() as cursor:
        statement = sql
        if is_generic:
            numbers = itertools.count(1)
            numbered = re.sub("%s", lambda _: f"${next(numbers)}", sql).replace("%%", "%")
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            cursor.execute(f"PREPARE planned AS {numbered}")
            values = f"({', '.join(['%s'] * len(params))})" if params else ""
            statement = f"EXECUTE planned{values}"
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", params)
        (plan,) = cursor.fetchone()
        if is_generic:
            cursor.execute("DEALLOCATE planned")
        if not sql.startswith("SELECT"):
            transaction.set_rollback(True)
    plan = plan if isinstance(plan, list) else json.loads(plan)
    return round(_scanned_rows(plan[0]["Plan"]))


def _scanned_rows(node: dict[str, Any]) -> float:
    """Return the rows that the scans of a plan have read, those that they left out included.

    A bitmap of an index is counted with the rows that are then read from the table.
    """
    own = 0.0
    if "Scan" in node["Node Type"] and node["Node Type"] != "Bitmap Index Scan":
        removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
        rows = node["Actual Rows"] + sum(node.get(name, 0) for name in removed)
        own = rows * node["Actual Loops"]
    return own + sum(_scanned_rows(child) for child in node.get("Plans", ()))


def _key(sql: str) -> tuple[str, str]:
    """Return the function of the product that runs a statement, and the statement without lists."""
    place, frame = "", sys._getframe()
    while frame is not None:
        module = _module(frame.f_code.co_filename)
        if module and module != "db/prepared":  # which runs the statements of others
            place = f"{module}:{frame.f_code.co_name}"
            break
        frame = frame.f_back  # type: ignore[assignment]
    return place, re.sub(r"\((%s(, )?)+\)", "(…)", sql)


@functools.cache
def _module(file: str) -> str:
    """Return the path of a file of the product without its suffix; of others nothing."""
    path = Path(file)
    return str(path.relative_to(PRODUCT).with_suffix("")) if path.is_relative_to(PRODUCT) else ""


def create_stages(count: int) -> None:
    """Create stages until there are this many: three a pipeline, thirty a project."""
    now = timezone.now()
    first = Stage.objects.count()
    for number in range(first // 3, count // 3):
        project = Project.objects.get_or_create(
            slug=f"project-{number // PIPELINES_PER_PROJECT}", defaults={"synced_at": now}
        )[0]
        pipeline = Pipeline.objects.create(
            project=project, slug=f"pipeline-{number}", name=f"Pipeline {number}", synced_at=now
        )
        for name in StageName.values:
            # None gets old while it is measured.
            fresh_until = now + timedelta(days=1)
            factories.stage(name, pipeline, flow_synced_at=now, fresh_until=fresh_until)
    _analyze()


def create_runs(count: int, by: User) -> None:
    """Create runs until there are this many, older than those there are; most are in one stage.

    The first runs are in flight; of the newest, some were aborted by `by`.
    """
    now = timezone.now()
    first = Run.objects.count()
    busy, *others = Stage.objects.order_by("pk")[:STAGES_WITH_RUNS]
    if not first:
        with transaction.atomic():
            ChangeCounter.take(_LATEST_VERSION)
    factories.insert_copies(
        Run(name="Release", synced_at=now),
        (
            _run_fields(number, busy if number % 4 else others[number % len(others)], now)
            for number in range(first, count)
        ),
    )
    for run in Run.objects.filter(status="aborted").order_by("pk")[: 0 if first else 30]:
        ended = {"requested_at": run.created_at, "settled_at": run.ended_at, "outcome": "aborted"}
        factories.abort(run, by, "concluded", **ended)
    factories.search_texts()
    factories.day_sums()
    _analyze()


def create_access_events(count: int, by: User) -> None:
    """Create access events, changes of rights, sessions and counters; few are of `by`.

    Afterwards there are `count` of each.
    """
    now = timezone.now()
    numbers = range(AccessEvent.objects.count(), count)
    other = User.objects.get_or_create(username="somebody")[0]
    kinds = {0: "sign_in_failed", 5: "break_glass"}
    factories.insert_copies(
        AccessEvent(occurred_at=now),
        (
            {
                "kind": kinds.get(number % 10, "signed_in"),
                "user_id": (who := other if number % _FAILED_EVERY else by).pk,
                "username": who.username,
            }
            for number in numbers
        ),
    )
    factories.insert_copies(
        RightsChange(occurred_at=now, subject_kind=SubjectKind.ACCOUNT),
        (
            {
                "subject_key": (who := other if number % _FAILED_EVERY else by).pk,
                "subject": who.username,
            }
            for number in numbers
        ),
    )
    later = now + timedelta(days=1)
    factories.insert_copies(
        Session(created_at=now, last_used_at=now, ends_at=later, expire_date=later),
        (
            {"session_key": f"key-{number}", "user_id": (other if number % 2 else by).pk}
            for number in numbers
        ),
    )
    factories.insert_copies(
        FailureCounter(drained_at=later), ({"key": f"key-{number}"} for number in numbers)
    )
    _analyze()


def _run_fields(number: int, stage: Stage, now: datetime) -> dict[str, Any]:
    created_at = now - number * _AGE
    is_in_flight = number < IN_FLIGHT
    status = (
        "running" if is_in_flight
        else "aborted" if number % _ABORTED_EVERY == 1
        else "failure" if number % _FAILED_EVERY == 3
        else "success"
    )  # fmt: skip
    return {
        "stage_id": stage.pk, "run_id": f"run-{number}", "name": f"Release {number}",
        "status": status, "concluded": not is_in_flight, "in_flight": is_in_flight,
        "created_at": created_at, "started_at": created_at,
        "concluded_at": None if is_in_flight else created_at + _AGE / 2,
        "first_synced_at": created_at, "status_since": created_at, "detail_synced_at": created_at,
        "version": _LATEST_VERSION - number,
    }  # fmt: skip


def compact_tables() -> None:
    """Remove dead rows from PostgreSQL's tables and indexes. Not in a transaction."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        # By name: a VACUUM FULL of all would lock the catalogs that the server's databases share.
        cursor.execute(f"VACUUM FULL {', '.join(map(connection.ops.quote_name, tables))}")


def _analyze() -> None:
    """Have PostgreSQL update its statistics, as it does by itself; SQLite has none."""
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
