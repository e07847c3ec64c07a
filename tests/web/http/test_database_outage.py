"""Database outages: pages keep their content, no form is sent twice, and everything resumes."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from dashboard.db import health as db_health
from dashboard.db import threads as db_threads
from dashboard.db.health import OutageCause
from dashboard.models import Abort, Project, Run, Session
from dashboard.sync import watchers
from dashboard.web.http import database_outage, links
from dashboard.web.http.database_outage import WriteOutcome, WriteTracker
from dashboard.web.live.changes import OUTAGE_EVENT
from tests.support import factories
from tests.support.databases import sqlite_folder_renamed, table_renamed
from tests.support.html import parse_html, select_one, text_of
from tests.support.live import Live
from tests.support.live_runs import abort_path, ago, create_run_in_flight, submit_abort, wait_until
from tests.support.sessions import age_last_use, session_key
from tests.support.stream import open_stream

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="a file that is locked")
on_postgres = pytest.mark.skipif(connection.vendor != "postgresql", reason="a server that ends")


@pytest.fixture
def short_lock_timeout() -> Iterator[None]:
    """Let connections wait for a lock only briefly."""
    if connection.vendor != "sqlite":  # its tests lock no file
        yield
        return
    options = connection.settings_dict["OPTIONS"]
    before = options["timeout"]
    options["timeout"] = 0.05
    yield
    options["timeout"] = before


@contextlib.contextmanager
def locked_database_file() -> Iterator[None]:
    """Lock the file, as a writer does."""
    writer = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        writer.execute("ROLLBACK")
        writer.close()


@contextlib.contextmanager
def database_refusing_changes() -> Iterator[None]:
    """Lock SQLite's file, or make PostgreSQL read-only for this thread's connection."""
    if connection.vendor == "sqlite":
        connection.close()  # the next one waits for locks as the settings say
        with locked_database_file():
            yield
        return
    execute("SET default_transaction_read_only = on")
    try:
        yield
    finally:
        execute("SET default_transaction_read_only = off")


def wait_until_ready(live: Live, client: httpx.Client) -> None:
    wait_until(lambda: client.get("/readyz").status_code == 200)
    assert db_health.down_since() is None


def logged_events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The logged events about the database, and exceptions."""
    return [
        record.msg["event"] if isinstance(record.msg, dict) else record.getMessage()
        for record in caplog.records
        if "database." in str(record.msg) or record.exc_info
    ]


@on_sqlite
def test_locked_sqlite_file_rejects_abort_and_keeps_pages_readable(
    short_lock_timeout: None, live: Live, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    with locked_database_file():
        for _ in range(3):
            answer = submit_abort(client, run)
        addresses = ["/", factories.address(run), factories.address(run.stage)]
        pages = [client.get(address) for address in addresses]
        assert client.get("/readyz").status_code == 503
    assert answer.status_code == 503
    assert "has accepted no changes since" in answer.text
    assert "Nothing was saved and nothing was sent to Northflank." in answer.text
    assert [page.status_code for page in pages] == [200] * 3
    assert not Abort.objects.exists()
    assert not live.sandbox.abort_request_counts[run.run_id]
    wait_until_ready(live, client)
    assert logged_events(caplog) == ["database.down", "database.up"]
    assert submit_abort(client, run).status_code == 200


@on_sqlite
def test_write_at_the_start_waits_for_locks_and_a_probe_does_not(transactional_db: None) -> None:
    with CaptureQueriesContext(connection) as queries:
        db_health.test_write()
    assert not [query for query in queries if "busy_timeout" in query["sql"]]
    with CaptureQueriesContext(connection) as queries:
        assert db_health.probe()
    assert "busy_timeout = 0" in queries[0]["sql"]


@on_sqlite
def test_page_of_locked_sqlite_file_records_the_use_of_its_session_later(
    transactional_db: None, client: Client, viewer: User
) -> None:
    client.force_login(viewer)
    past = age_last_use()
    with locked_database_file():
        assert client.get("/health/").status_code == 200
    assert Session.objects.get().last_used_at == past
    client.get("/health/")
    assert Session.objects.get().last_used_at > past


@pytest.mark.parametrize("kind", ["run", "stage"])
def test_page_whose_view_cannot_be_recorded_is_shown_with_notice(
    transactional_db: None, short_lock_timeout: None, client: Client, viewer: User, kind: str
) -> None:
    run = factories.run(factories.stage(), "r-1")
    watched = run if kind == "run" else run.stage
    client.force_login(viewer)
    with database_refusing_changes():
        for _ in range(2):  # the first meets the outage, the second knows of it
            page = client.get(factories.address(watched))
            assert page.status_code == 200
            select_one(parse_html(page), "[data-database-outage]")
        assert db_health.outage_cause() is OutageCause.NO_CHANGES
    watched.refresh_from_db()
    assert watched.last_viewed_at is None
    assert db_health.probe()
    client.get(factories.address(watched))
    watched.refresh_from_db()
    assert watched.last_viewed_at is not None


def test_views_of_open_and_cached_pages_are_not_recorded_in_an_outage(
    transactional_db: None, short_lock_timeout: None
) -> None:
    run = factories.run(factories.stage(), "r-1")
    with database_refusing_changes():
        watchers.keep_alive("run", [run.pk], timezone.now())
    assert db_health.down_since() is not None
    with CaptureQueriesContext(connection) as queries:
        watchers.watch_run(run, timezone.now())
        watchers.watch_stage(run.stage, timezone.now())
    assert len(queries) == 0
    assert Run.objects.get().last_viewed_at is None


def test_fault_of_the_record_of_a_view_is_raised(transactional_db: None) -> None:
    run = factories.run(factories.stage(), "r-1")
    with table_renamed("dashboard_run"), pytest.raises(DatabaseError):
        watchers.watch_run(run, timezone.now())
    assert db_health.down_since() is None


@on_sqlite
def test_unwaiting_block_disables_lock_timeout_temporarily(
    transactional_db: None,
) -> None:
    def busy_timeout() -> int:
        with connection.cursor() as cursor:
            return int(cursor.execute("PRAGMA busy_timeout").fetchone()[0])

    before = busy_timeout()
    with db_health.without_lock_wait():
        assert busy_timeout() == 0
        with locked_database_file(), pytest.raises(OperationalError):
            factories.project("shop")
    assert busy_timeout() == before > 0


@on_sqlite
def test_failed_commit_of_sqlite_has_saved_nothing(rf: RequestFactory) -> None:
    request = rf.post("/api/runs/r-1/abort/")
    request.write_tracker = writes = WriteTracker()  # type: ignore[attr-defined]
    writes.outcome = WriteOutcome.UNKNOWN  # until the commit, which has failed
    assert database_outage.write_outcome(request) is WriteOutcome.NOTHING


@on_sqlite
def test_moved_sqlite_file_returns_503_and_is_logged_once(
    live: Live, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = create_run_in_flight(live)
    client = live.sign_in("manager")
    wait_until_ready(live, client)  # a slow start may have counted as an outage
    caplog.clear()
    with sqlite_folder_renamed():
        answers = [client.get(abort_path(run)) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {503}
    reason = text_of(select_one(parse_html(answers[0]), "[data-reason]"))
    assert reason.startswith("The database has not responded since")
    wait_until_ready(live, client)
    assert client.get(abort_path(run)).status_code == 200
    assert logged_events(caplog) == ["database.down", "database.up"]


@on_sqlite
@pytest.mark.parametrize("poll_interval", [0.05], ids=["brisk"])
def test_database_outage_is_streamed_and_stream_continues(
    live: Live, run: Run, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    with open_stream(live.sign_in("manager")) as stream:
        with sqlite_folder_renamed():
            outage_message = next(message for message in stream if message.event == OUTAGE_EVENT)
            assert "The database has not responded since" in outage_message.data[0]
        wait_until_ready(live, live.sign_in("manager"))
        factories.change(run, status="retrying")
        assert any("run-r-1" in message.parts for message in stream)
    assert not [record for record in caplog.records if record.exc_info]


# --- what is an outage ---------------------------------------------------------------------------


def error_raised_by(work: Callable[[], Any]) -> Exception:
    with pytest.raises((DatabaseError, InterfaceError)) as error, transaction.atomic():
        work()
    return error.value


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_statement_error_is_no_database_outage(db: None) -> None:
    factories.project("shop")
    duplicate_error = error_raised_by(lambda: Project.objects.create(slug="shop", synced_at=ago(0)))
    assert isinstance(duplicate_error, IntegrityError)
    for error in (
        duplicate_error,
        error_raised_by(lambda: execute("SELECT * FROM nowhere")),
        ValueError("no"),
    ):
        assert not db_health.is_outage(error)
        assert not db_health.record_failure(error)
    assert db_health.down_since() is None


@on_postgres
def test_statement_timeout_is_no_database_outage(db: None) -> None:
    error = error_raised_by(lambda: execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(9)"))
    assert not db_health.is_outage(error)


@on_postgres
def test_read_only_database_is_database_outage(db: None) -> None:
    error = error_raised_by(
        lambda: execute("SET LOCAL transaction_read_only = on; UPDATE dashboard_run SET name = ''")
    )
    assert db_health.is_outage(error)


# --- the end of an outage ------------------------------------------------------------------------


def test_success_of_retried_work_ends_database_outage(transactional_db: None) -> None:
    assert db_health.record_failure(OperationalError("gone"))
    assert not db_health.is_available()  # the next probe is due in a second

    async def work() -> None:
        try:
            await db_threads.retry_during_outage(Project.objects.count)
        finally:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(db_threads.abort_executor, connections.close_all)

    asyncio.run(work())
    assert db_health.down_since() is None


# --- what a request has written ------------------------------------------------------------------


def test_writes_tracker_reports_committed_state(transactional_db: None) -> None:
    writes = WriteTracker()
    with connection.execute_wrapper(writes):
        Project.objects.first()
        assert writes.outcome is WriteOutcome.NOTHING
        with transaction.atomic():
            factories.project("shop")
            assert writes.outcome is WriteOutcome.UNKNOWN
        assert writes.outcome is WriteOutcome.ALL
        Project.objects.first()
        assert writes.outcome is WriteOutcome.ALL


@pytest.mark.parametrize("address", ["{public_id}/end/", "end-others/"])
def test_ended_session_counts_as_written(
    transactional_db: None, client: Client, viewer: User, address: str
) -> None:
    session = Session.objects.get(session_key=session_key("viewer"))
    client.force_login(viewer)
    path = f"/account/sessions/{address.format(public_id=session.public_id)}"
    answer = client.post(path)
    assert not Session.objects.filter(pk=session.pk).exists()
    assert database_outage.write_outcome(answer.wsgi_request) is WriteOutcome.ALL


@on_postgres
def test_writes_tracker_after_aborted_transaction_reports_nothing(transactional_db: None) -> None:
    def work() -> None:
        factories.project("shop")
        execute("SELECT pg_terminate_backend(pg_backend_pid())")

    writes = WriteTracker()
    with connection.execute_wrapper(writes):
        assert db_health.is_outage(error_raised_by(work))
    assert writes.outcome is WriteOutcome.NOTHING
    assert not Project.objects.exists()


@on_postgres
def test_writes_tracker_after_lost_commit_reports_unknown(transactional_db: None) -> None:
    def work() -> None:
        factories.project("shop")
        assert connection.connection is not None
        terminate_backend(connection.connection.info.backend_pid)

    writes = WriteTracker()
    with connection.execute_wrapper(writes):
        assert db_health.is_outage(error_raised_by(work))
    assert writes.outcome is WriteOutcome.UNKNOWN


def terminate_backend(backend: int) -> None:
    parameters = connection.get_connection_params()
    arguments = {
        name: parameters[name] for name in parameters.keys() & {"host", "port", "user", "dbname"}
    }
    with psycopg.connect(**arguments, autocommit=True) as server:
        server.execute("SELECT pg_terminate_backend(%s)", [backend])


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (WriteOutcome.NOTHING, "Nothing was saved and nothing was sent to Northflank."),
        (WriteOutcome.ALL, "Your request was saved before the outage"),
        pytest.param(
            WriteOutcome.UNKNOWN, "Your request may or may not have been saved", marks=on_postgres
        ),
    ],
)
def test_api_503_response_reports_what_was_written(
    rf: RequestFactory, outcome: WriteOutcome, text: str
) -> None:
    request = rf.post("/api/runs/r-1/abort/")
    request.write_tracker = writes = WriteTracker()  # type: ignore[attr-defined]
    writes.outcome = outcome
    answer = database_outage.unavailable_response(request)
    assert answer.status_code == 503
    body = json.loads(answer.content)
    assert body["recorded"] is outcome.value
    assert text in answer.content.decode()


def test_form_that_has_no_page_links_to_now(rf: RequestFactory) -> None:
    assert links.form_page_url(rf.post("/no/such/page/")) == "/"
