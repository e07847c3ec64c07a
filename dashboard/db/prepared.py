"""Queries that are composed once and executed many times, with new parameters each time.

The ORM takes about twenty times as long to compose a query as the database to answer it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connection
from django.db.models import (
    BigIntegerField,
    Case,
    Expression,
    Field,
    Func,
    Q,
    QuerySet,
    TextField,
    Value,
    When,
)
from django.db.models.functions import Cast, Concat
from django.db.models.sql.compiler import SQLCompiler

type Rows = tuple[tuple[Any, ...], ...]


class Parameter(Expression):
    """A value that is given at each execution, under a name; `offset` is added to a time."""

    def __init__(
        self, name: str, output_field: "Field[Any, Any]", offset: timedelta = timedelta()
    ) -> None:
        super().__init__(output_field=output_field)
        self.name, self.offset = name, offset

    def as_sql(self, compiler: SQLCompiler, connection: Any) -> Any:
        return "%s", (self,)

    def resolve(self, values: Mapping[str, Any]) -> Any:
        """Return the value as the database expects it."""
        value = values[self.name]
        if isinstance(value, datetime):
            return connection.ops.adapt_datetimefield_value(value + self.offset)
        return value


# Not Django's aggregates, which can't be composed without being executed.
class Count(Func):
    """The number of selected rows."""

    template = "COUNT(*)"
    output_field = BigIntegerField()


class Max(Func):
    """The highest value of an expression in the selected rows."""

    function = "MAX"


class Min(Func):
    """The lowest value of an expression in the selected rows."""

    function = "MIN"


class Sum(Func):
    """The sum of an expression in the selected rows."""

    function = "SUM"
    output_field = BigIntegerField()


def count_if(condition: Q) -> Sum:
    """Return the number of selected rows that meet a condition."""
    return Sum(Case(When(condition, then=1), default=0))


class Texts(Func):
    """An expression's texts in all selected rows as one text, in no certain order."""

    function = "GROUP_CONCAT"
    output_field = TextField()

    def as_postgresql(self, compiler: SQLCompiler, connection: Any) -> Any:
        return self.as_sql(compiler, connection, template="STRING_AGG(%(expressions)s, ',')")


def joined(*fields: str) -> Concat:
    """Return the texts of some fields, each followed by a slash."""
    parts = [part for field in fields for part in (Cast(field, TextField()), Value("/"))]
    return Concat(*parts, output_field=TextField())


class PreparedQuery:
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
        self._sql = " ".join(["SELECT * FROM (SELECT 1) AS one", *joins])
        self._parameters = parameters

    def fetch(self, **values: Any) -> Rows:
        """Return the rows of all parts, each combined with each, as the database's own types."""
        parameters = [
            parameter.resolve(values) if isinstance(parameter, Parameter) else parameter
            for parameter in self._parameters
        ]
        with connection.cursor() as cursor:
            cursor.execute(self._sql, parameters)
            return tuple(cursor.fetchall())
