"""Statements that PostgreSQL plans once for each connection."""

import pytest
from django.contrib.auth.models import User
from django.db import ProgrammingError, connection, transaction
from django.db.backends.signals import connection_created
from django.db.models import TextField
from django.utils import timezone

from dashboard.db import postgresql
from dashboard.db.prepared import NOW, Parameter, PreparedModels, PreparedQuery

SUM = "SELECT %s + value, '100 %%' FROM (SELECT 1 AS value) AS single"

pytestmark = pytest.mark.skipif(
    connection.vendor != "postgresql", reason="SQLite keeps no plans of its own"
)


def planned() -> int:
    """Return how many times statements of this connection were executed by a generic plan."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(sum(generic_plans), 0) FROM pg_prepared_statements")
        return int(cursor.fetchone()[0])


@pytest.mark.django_db(transaction=True)
def test_statement_is_planned_once_for_all_parameters() -> None:
    connection.close()
    assert postgresql.fetch(SUM, [1]) == [(2, "100 %")]
    assert postgresql.fetch(SUM, [2]) == [(3, "100 %")]
    assert planned() == 2


@pytest.mark.django_db(transaction=True)
def test_prepared_queries_and_models_are_planned_once() -> None:
    ada = User.objects.create(username="ada")
    users = User.objects.filter(username=Parameter("name", TextField()))
    connection.close()
    assert PreparedQuery(users.values_list("pk")).fetch(name="ada") == [(ada.pk,)]
    assert PreparedModels(users).fetch(name="ada") == [ada]
    assert planned() == 2


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("plan_once", "plans"), [(False, 0), (True, 1)])
def test_query_with_a_time_is_planned_once_only_on_request(plan_once: bool, plans: int) -> None:
    users = User.objects.filter(date_joined__gt=NOW)
    connection.close()
    query = PreparedQuery(users.values_list("pk"), plan_once=plan_once)
    assert query.fetch(now=timezone.now()) == []
    assert planned() == plans


@pytest.mark.django_db
def test_statement_in_a_transaction_is_left_to_the_caller() -> None:
    with transaction.atomic():
        assert postgresql.fetch(SUM, [1]) is None


@pytest.mark.django_db(transaction=True)
def test_statement_after_a_change_of_columns_is_left_to_the_caller_once() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMPORARY TABLE planned (value integer)")
        cursor.execute("INSERT INTO planned VALUES (1)")
    assert postgresql.fetch("SELECT * FROM planned WHERE value = %s", [1]) == [(1,)]
    with connection.cursor() as cursor:
        # As by another process: psycopg follows the statements of its own connection.
        cursor.execute("DO $$ BEGIN ALTER TABLE planned ADD COLUMN other integer; END $$")

    assert postgresql.fetch("SELECT * FROM planned WHERE value = %s", [1]) is None
    assert postgresql.fetch(SUM, [1]) == [(2, "100 %")]


@pytest.mark.django_db(transaction=True)
def test_statement_after_all_plans_were_dropped_is_left_to_the_caller_once() -> None:
    assert postgresql.fetch(SUM, [1]) == [(2, "100 %")]
    with connection.cursor() as cursor:
        cursor.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")

    assert postgresql.fetch(SUM, [1]) is None
    assert postgresql.fetch(SUM, [1]) == [(2, "100 %")]


@pytest.mark.django_db(transaction=True)
def test_other_error_is_raised() -> None:
    with pytest.raises(ProgrammingError):
        postgresql.fetch("SELECT %s FROM missing", [1])
    assert postgresql.fetch(SUM, [1]) == [(2, "100 %")]


@pytest.mark.django_db(transaction=True)
def test_connection_through_a_pooler_has_no_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler sends a number of its own when a connection opens."""
    connection.ensure_connection()
    info = type(connection.connection.info)
    monkeypatch.setattr(info, "backend_pid", property(lambda _: 7))
    connection.close()

    assert postgresql.fetch(SUM, [1]) is None
    with connection.cursor() as cursor:
        cursor.execute("SHOW plan_cache_mode")
        assert cursor.fetchone() == ("auto",)

    monkeypatch.undo()
    connection.close()
    assert postgresql.fetch(SUM, [1]) == [(2, "100 %")]


def test_plans_are_registered() -> None:
    assert any("postgresql" in str(key) for (key, _), *_ in connection_created.receivers)
