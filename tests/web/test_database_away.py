"""While the database is away nothing is blanked or sent twice, and all goes on by itself."""

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
    transaction,
)
from django.test import RequestFactory
from django.urls import reverse

from dashboard.db import health as db_health
from dashboard.models import Abort, Project, Run
from dashboard.web.http import database_outage, sign_in
from dashboard.web.http.database_outage import Kept, Writes
from tests.support import factories
from tests.support.databases import moved
from tests.support.flights import ago, eventually, in_flight, path, press
from tests.support.html import one, parsed, words
from tests.support.live import Live
from tests.support.stream import listening

on_sqlite = pytest.mark.skipif(connection.vendor != "sqlite", reason="a file that is locked")
on_postgres = pytest.mark.skipif(connection.vendor != "postgresql", reason="a server that ends")


@pytest.fixture
def impatient() -> Iterator[None]:
    """Connections that wait for a lock for a moment only."""
    options = connection.settings_dict["OPTIONS"]
    before = options["timeout"]
    options["timeout"] = 0.05
    yield
    options["timeout"] = before


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """The file is locked by somebody who writes."""
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def is_back(live: Live, person: httpx.Client) -> None:
    eventually(lambda: person.get("/readyz").status_code == 200)
    assert db_health.away_since() is None


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log was told of the database, and of mistakes."""
    return [
        record.msg["event"] if isinstance(record.msg, dict) else record.getMessage()
        for record in caplog.records
        if "database." in str(record.msg) or record.exc_info
    ]


@on_sqlite
def test_a_locked_file_is_told_once_and_what_is_read_is_read_as_ever(
    impatient: None, live: Live, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = in_flight(live)
    person = live.person("manager")
    with locked():
        for _ in range(3):
            refused = press(person, run)
        page = person.get("/")
        assert person.get("/readyz").status_code == 503
    assert refused.status_code == 503
    assert "has not answered since" in refused.text
    assert "Nothing was written and nothing was sent to Northflank." in refused.text
    assert page.status_code == 200
    assert not Abort.objects.exists()
    assert not live.sandbox.abort_posts[run.run_id]
    is_back(live, person)
    assert events(caplog) == ["database.away", "database.back"]
    assert press(person, run).status_code == 200


@on_sqlite
def test_a_thread_that_need_not_wait_waits_for_no_lock_and_then_as_before(
    transactional_db: None,
) -> None:
    def patience() -> int:
        with connection.cursor() as cursor:
            return int(cursor.execute("PRAGMA busy_timeout").fetchone()[0])

    before = patience()
    with db_health.unwaiting():
        assert patience() == 0
        with locked(), pytest.raises(OperationalError):
            factories.project("shop")
    assert patience() == before > 0


@on_sqlite
def test_a_file_that_was_moved_away_and_back_is_told_once(
    live: Live, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    run = in_flight(live)
    person = live.person("manager")
    with moved():
        answers = [person.get(path(run)) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {503}
    said = words(one(parsed(answers[0]), "[data-why]"))
    assert said.startswith("The database has not answered since")
    is_back(live, person)
    assert person.get(path(run)).status_code == 200
    assert events(caplog) == ["database.away", "database.back"]


@on_sqlite
@pytest.mark.parametrize("beat", [0.05], ids=["brisk"])
def test_an_open_page_is_told_and_its_stream_goes_on(
    live: Live, run: Run, manager: User, caplog: pytest.LogCaptureFixture
) -> None:
    with listening(live.person("manager")) as stream:
        with moved():
            away = next(message for message in stream if message.event == "away")
            assert "The database has not answered since" in away.data[0]
        is_back(live, live.person("manager"))
        factories.change(run, status="retrying")
        assert any("run-r-1" in message.parts for message in stream)
    assert not [record for record in caplog.records if record.exc_info]


# --- what is an outage ---------------------------------------------------------------------------


def error_of(work: Callable[[], Any]) -> Exception:
    with pytest.raises((DatabaseError, InterfaceError)) as raised, transaction.atomic():
        work()
    return raised.value


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_what_is_wrong_with_a_statement_is_no_outage(db: None) -> None:
    factories.project("shop")
    twice = error_of(lambda: Project.objects.create(slug="shop", seen_at=ago(0)))
    assert isinstance(twice, IntegrityError)
    for error in (twice, error_of(lambda: execute("SELECT * FROM nowhere")), ValueError("no")):
        assert not db_health.is_outage(error)
        assert not db_health.failed(error)
    assert db_health.away_since() is None


@on_postgres
def test_a_statement_that_took_too_long_is_no_outage(db: None) -> None:
    slow = error_of(lambda: execute("SET LOCAL statement_timeout = 1; SELECT pg_sleep(9)"))
    assert not db_health.is_outage(slow)


@on_postgres
def test_a_database_that_takes_no_writes_is_one(db: None) -> None:
    error = error_of(
        lambda: execute("SET LOCAL transaction_read_only = on; UPDATE dashboard_run SET name = ''")
    )
    assert db_health.is_outage(error)


# --- what a request has left ---------------------------------------------------------------------


def test_what_a_request_left_in_the_database_is_known(transactional_db: None) -> None:
    writes = Writes()
    with connection.execute_wrapper(writes):
        Project.objects.first()
        assert writes.kept is Kept.NOTHING
        with transaction.atomic():
            factories.project("shop")
            assert writes.kept is Kept.NOT_KNOWN
        assert writes.kept is Kept.ALL
        Project.objects.first()
        assert writes.kept is Kept.ALL


def test_what_is_no_ones_business_is_no_writing(transactional_db: None, client: Any) -> None:
    writes = Writes()
    with connection.execute_wrapper(writes):
        client.session.save()
    assert writes.kept is Kept.NOTHING


@on_postgres
def test_a_transaction_that_breaks_off_leaves_nothing(transactional_db: None) -> None:
    def work() -> None:
        factories.project("shop")
        execute("SELECT pg_terminate_backend(pg_backend_pid())")

    writes = Writes()
    with connection.execute_wrapper(writes):
        assert db_health.is_outage(error_of(work))
    assert writes.kept is Kept.NOTHING
    assert not Project.objects.exists()


@on_postgres
def test_a_commit_without_an_answer_leaves_nobody_knows_what(transactional_db: None) -> None:
    def work() -> None:
        factories.project("shop")
        assert connection.connection is not None
        end(connection.connection.info.backend_pid)

    writes = Writes()
    with connection.execute_wrapper(writes):
        assert db_health.is_outage(error_of(work))
    assert writes.kept is Kept.NOT_KNOWN


def end(backend: int) -> None:
    known = connection.get_connection_params()
    given = {name: known[name] for name in known.keys() & {"host", "port", "user", "dbname"}}
    with psycopg.connect(**given, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s)", [backend])


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (Kept.NOTHING, "Nothing was written and nothing was sent to Northflank."),
        (Kept.ALL, "What you sent was written down before that"),
        (Kept.NOT_KNOWN, "Whether it was written down will be seen"),
    ],
)
def test_a_machine_is_told_what_was_written(rf: RequestFactory, kept: Kept, told: str) -> None:
    request = rf.post("/api/runs/r-1/abort/")
    request._writes = writes = Writes()  # type: ignore[attr-defined]
    writes.kept = kept
    answer = database_outage.answer(request)
    assert answer.status_code == 503
    body = json.loads(answer.content)
    assert body["written"] is kept.value
    assert told in answer.content.decode()


@pytest.mark.parametrize("form", ["abort", "dismiss"])
def test_a_form_that_no_view_saw_leads_to_its_run(rf: RequestFactory, db: None, form: str) -> None:
    run = factories.run(factories.stage(), "r-1")
    assert sign_in.page_about(rf.post(factories.address(run, form))) == factories.address(run)


def test_a_search_that_no_view_saw_leads_to_itself(rf: RequestFactory) -> None:
    again = reverse("look_again", args=["r-1"])
    assert sign_in.page_about(rf.post(again)) == reverse("find_run", args=["r-1"])
    assert sign_in.page_about(rf.post("/no/such/page/")) == "/"
