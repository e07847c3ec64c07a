"""Queries and updates that are composed once and executed many times, with new parameters.

The ORM takes about twenty times as long to compose a query as the database to answer it.
"""

import copy
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connection, transaction
from django.db.models import (
    BigIntegerField,
    DateTimeField,
    Expression,
    Field,
    Model,
    QuerySet,
)
from django.db.models.query import ModelIterable
from django.db.models.sql import UpdateQuery
from django.db.models.sql.compiler import SQLCompiler

from dashboard.db import postgresql

type Rows = tuple[tuple[Any, ...], ...]


class Parameter(Expression):
    """A value that is given at each execution, under a name; `offset` is added to a time."""

    def __init__(
        self, name: str, output_field: "Field[Any, Any]", offset: timedelta = timedelta()
    ) -> None:
        super().__init__(output_field=output_field)
        self.name, self.offset = name, offset

    def __sub__(self, age: Any) -> Any:
        return Parameter(self.name, self.output_field, self.offset - age)

    def as_sql(self, compiler: SQLCompiler, connection: Any) -> Any:
        return "%s", (self,)

    def resolve(self, values: Mapping[str, Any]) -> Any:
        """Return the value as the database expects it."""
        value = values[self.name]
        if self.offset:
            value += self.offset
        return self.output_field.get_db_prep_save(value, connection)


class Keys(Expression):
    """A list that is given at each execution, of keys or other values of a field.

    `filter(pk__in=Keys("runs"))`; `filter(run_id__in=Keys("run_ids", TextField()))`.
    """

    def __init__(self, name: str, output_field: "Field[Any, Any] | None" = None) -> None:
        super().__init__(output_field=output_field or BigIntegerField())
        self.name = name

    def as_sql(self, compiler: SQLCompiler, connection: Any) -> Any:
        return "(SELECT value FROM json_each(%s))", (self,)

    def as_postgresql(self, compiler: SQLCompiler, connection: Any) -> Any:
        return f"(SELECT unnest(%s::{self.output_field.db_type(connection)}[]))", (self,)

    def resolve(self, values: Mapping[str, Any]) -> Any:
        """Return the keys as the database expects them."""
        keys = list(values[self.name])
        return json.dumps(keys) if connection.vendor == "sqlite" else keys


NOW = Parameter("now", DateTimeField())
type Time = datetime | Parameter


class _PreparedSelect:
    """A queryset with a `Parameter` for each later value.

    With `plan_once`, PostgreSQL plans it once for each connection although it has a time among its
    parameters: none that decides which rows of a long history are selected.
    """

    def __init__(self, queryset: "QuerySet[Any, Any]", *, plan_once: bool = False) -> None:
        self._compiler = queryset.query.get_compiler(DEFAULT_DB_ALIAS)
        try:
            self._sql, self._parameters = _with_literals(*self._compiler.as_sql())
        except EmptyResultSet:
            self._sql = ""  # whatever the parameters, it selects no row
            return
        self._execute = _execute_planned if plan_once else _execution(self._parameters)
        columns = [column for column, *_ in self._compiler.select]
        self._converters = self._compiler.get_converters(columns)
        _forget_query(self._compiler)

    def _fetch_unconverted(self, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows as the database's own types."""
        if not self._sql:
            return []
        return self._execute(self._sql, _resolve(self._parameters, values))


class PreparedQuery(_PreparedSelect):
    """A queryset that selects values (`values_list`), with a `Parameter` for each later value."""

    def fetch(self, **values: Any) -> list[tuple[Any, ...]]:
        """Return the rows."""
        rows = self._fetch_unconverted(values)
        if not rows:
            return []
        converted = self._compiler.apply_converters(rows, self._converters)
        return [tuple(row) for row in converted]


class PreparedModels[M: Model](_PreparedSelect):
    """A queryset that selects instances of a model, with a `Parameter` for each later value.

    Related objects come with `select_related`, but not with `prefetch_related`. Django's own code
    builds the instances, by names that are not part of its API: its exact version is pinned.
    """

    def __init__(self, queryset: "QuerySet[M]") -> None:
        super().__init__(queryset)
        self._model, self._fetch_mode = queryset.model, queryset._fetch_mode  # type: ignore[attr-defined]

    def fetch(self, **values: Any) -> list[M]:
        """Return the instances."""
        rows = self._fetch_unconverted(values)
        if not rows:
            return []
        compiler = copy.copy(self._compiler)
        compiler.connection = connection  # this thread's
        compiler.execute_sql = lambda **_: [rows]
        compiler.get_converters = lambda _columns: self._converters
        # What Django needs of a queryset to build instances.
        queryset: Any = SimpleNamespace(
            db=DEFAULT_DB_ALIAS,
            model=self._model,
            query=SimpleNamespace(get_compiler=lambda using: compiler),
            _fetch_mode=self._fetch_mode,
            _known_related_objects={},
        )
        return list(ModelIterable(queryset))


class CombinedQuery:
    """Several querysets of few rows, composed as one statement.

    They select values (`values_list`) and contain a `Parameter` where a value is given later.
    """

    def __init__(self, querysets: "Iterable[QuerySet[Any, Any]]") -> None:
        joins: list[str] = []
        parameters: list[Any] = []
        for number, queryset in enumerate(querysets):
            try:
                sql, values = queryset.query.sql_with_params()
            except EmptyResultSet:
                continue  # whatever the parameters, it selects no row
            joins.append(f"LEFT JOIN ({sql}) AS part{number} ON TRUE")
            parameters += values
        sql = " ".join(["SELECT * FROM (SELECT 1) AS one", *joins])
        self._sql, self._parameters = _with_literals(sql, parameters)

    def fetch(self, **values: Any) -> Rows:
        """Return the rows of all parts, each combined with each, as the database's own types."""
        return tuple(_execute_planned(self._sql, _resolve(self._parameters, values)))


def _forget_query(compiler: SQLCompiler) -> None:
    """Free what was needed to compose the statement, and not to convert its rows."""
    for name in ("query", "where", "having", "qualify"):
        setattr(compiler, name, None)


class PreparedUpdate:
    """An update of a queryset's rows, with a `Parameter` for each later value.

    `returning` are the fields of which `fetch` returns the values. Related rows are neither
    selected nor updated.
    """

    def __init__(
        self, queryset: "QuerySet[Any, Any]", *, returning: Iterable[str] = (), **fields: Any
    ) -> None:
        update: Any = queryset.query.chain(UpdateQuery)
        update.add_update_values(fields)
        self._compiler = update.get_compiler(DEFAULT_DB_ALIAS)
        options = queryset.model._meta
        returned = [options.get_field(name) for name in returning]
        self._compiler.returning_fields = returned
        self._sql, self._parameters = _with_literals(*self._compiler.as_sql())
        columns = [field.get_col(options.db_table) for field in returned]
        self._converters = self._compiler.get_converters(columns)
        _forget_query(self._compiler)

    def execute(self, **values: Any) -> int:
        """Update the rows and return their number."""
        with transaction.mark_for_rollback_on_error(), connection.cursor() as cursor:
            cursor.execute(self._sql, _resolve(self._parameters, values))
            updated: int = cursor.rowcount
        return updated

    def fetch(self, **values: Any) -> list[tuple[Any, ...]]:
        """Update the rows, and return their values of `returning`, as updated."""
        with transaction.mark_for_rollback_on_error():
            rows = _execute(self._sql, _resolve(self._parameters, values))
        return [tuple(row) for row in self._compiler.apply_converters(rows, self._converters)]


class PreparedInsert[M: Model]:
    """An insert of instances of a model with all their fields, which sends no signals."""

    def __init__(self, model: type[M]) -> None:
        quote: Callable[[Any], str] = connection.ops.quote_name
        options = model._meta
        fields: list[Any] = [
            field
            for field in options.concrete_fields
            if not field.primary_key and not field.generated
        ]
        self._fields, columns = fields, ", ".join(quote(field.column) for field in fields)
        # Names of the model, and no value.
        self._start = f"INSERT INTO {quote(options.db_table)} ({columns}) VALUES "  # noqa: S608
        self._row = f"({', '.join(['%s'] * len(self._fields))})"
        self._end = f" RETURNING {quote(options.pk.column)}"

    def execute(self, *instances: M) -> None:
        """Insert the instances, which get their keys."""
        values = [
            field.get_db_prep_save(field.pre_save(instance, True), connection)
            for instance in instances
            for field in self._fields
        ]
        sql = self._start + ", ".join([self._row] * len(instances)) + self._end
        with transaction.mark_for_rollback_on_error():
            rows = _execute(sql, values)
        for instance, (pk,) in zip(instances, rows, strict=True):
            instance.pk = pk
            instance._state.adding, instance._state.db = False, DEFAULT_DB_ALIAS


def parameters(model: type[Model], names: Iterable[str]) -> dict[str, Any]:
    """Return a parameter for each of these fields of a model, by the field's name."""
    return {name: Parameter(name, model._meta.get_field(name)) for name in names}  # type: ignore[arg-type]


def update_row(model: type[Model], key: int, **fields: Any) -> None:
    """Set fields of one row; the update is composed once for each model and set of fields."""
    _row_update(model, tuple(fields)).execute(row_key=key, **fields)


@cache
def _row_update(model: type[Model], names: tuple[str, ...]) -> PreparedUpdate:
    row = model._default_manager.filter(pk=Parameter("row_key", BigIntegerField()))
    return PreparedUpdate(row, **parameters(model, names))


def _with_literals(sql: str, values: Iterable[Any]) -> tuple[str, list[Parameter | Keys]]:
    """Return a statement with all values in its text, except parameters.

    If a value decides whether SQLite may use a partial index, it prepares the statement again at
    each execution, which takes longer than to execute it.
    """
    connection.ensure_connection()
    editor = connection.schema_editor()
    texts, parameters = sql.split("%s"), []
    statement = texts[0]
    for value, text in zip(values, texts[1:], strict=True):
        if isinstance(value, (Parameter, Keys)):
            parameters.append(value)
            statement += "%s"
        else:
            statement += editor.quote_value(value).replace("%", "%%")
        statement += text
    return statement, parameters


def _resolve(parameters: Iterable[Parameter | Keys], values: Mapping[str, Any]) -> list[Any]:
    return [parameter.resolve(values) for parameter in parameters]


def _execution(parameters: Iterable[Parameter | Keys]) -> Callable[[str, list[Any]], list[Any]]:
    """Return how to execute a statement with these parameters.

    With a time among them, PostgreSQL plans it at each execution: of a time that it does not know,
    it assumes that a third of all rows are later.
    """
    has_time = any(isinstance(parameter.output_field, DateTimeField) for parameter in parameters)
    return _execute if has_time else _execute_planned


def _execute_planned(sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    """Return the rows, by a plan for all parameters where that is possible."""
    rows = postgresql.fetch(sql, parameters)
    return _execute(sql, parameters) if rows is None else rows


def _execute(sql: str, parameters: list[Any]) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows
