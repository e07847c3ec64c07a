"""The backend for SQLite: converted statements, kept and not."""

import pytest
from django.db import connection
from django.db.backends.sqlite3.base import SQLiteCursorWrapper

from dashboard.db.sqlite3 import base

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's backend"),
]


def fetch(statement: str, parameters: object) -> list[tuple[object, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def test_statement_is_executed_again_with_other_parameters() -> None:
    statement = "SELECT %s, '100 %%s', '%%'"
    for value in (1, "a", None, "%s", 2):
        assert fetch(statement, [value]) == [(value, "100 %s", "%")]


def test_statement_with_named_parameters_is_executed() -> None:
    for names in ({"a": 1, "b": 2}, {"a": 3, "b": 4}):
        assert fetch("SELECT %(a)s, %(b)s, '100 %%'", names) == [(*names.values(), "100 %")]


def test_statement_without_parameters_is_executed_as_it_is() -> None:
    assert fetch("SELECT '%s %%'", None) == [("%s %%",)]


def test_statement_is_executed_for_many_rows() -> None:
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE numbers (number INTEGER)")
        cursor.executemany("INSERT INTO numbers VALUES (%s)", [(1,), (2,)])
        cursor.executemany("INSERT INTO numbers VALUES (%(n)s)", [{"n": 3}])
    assert fetch("SELECT sum(number) FROM numbers", []) == [(6,)]


def test_conversion_is_kept() -> None:
    assert connection.settings_dict["ENGINE"] == "dashboard.db.sqlite3"
    statement = "SELECT %s, 'a statement of its own'"
    fetch(statement, [1])
    before = base.convert.cache_info()
    fetch(statement, [2])
    after = base.convert.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)


@pytest.mark.parametrize("statement", ["%s", "%%s", "%%%s", "a%%", "%s%s%%s", ""])
def test_converted_statement_equals_that_of_django(statement: str) -> None:
    with connection.cursor() as cursor:
        django_cursor = SQLiteCursorWrapper(cursor.connection)
    assert base.convert(statement) == django_cursor.convert_query(statement)


def test_more_statements_than_are_kept_have_their_results() -> None:
    kept = base.convert.cache_info().maxsize
    assert kept is not None
    for number in [*range(kept + 10), 0]:
        assert fetch(f"SELECT %s, {number}", [number]) == [(number, number)]
