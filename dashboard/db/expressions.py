"""Expressions of selected rows for queries that are composed once (db/prepared.py)."""

from typing import Any

from django.db.models import (
    BigIntegerField,
    Case,
    FloatField,
    Func,
    Q,
    TextField,
    Value,
    When,
)
from django.db.models.functions import Cast, Concat, Length
from django.db.models.sql.compiler import SQLCompiler


# Not Django's aggregates, which can't be composed without being executed.
class Count(Func):
    """The number of selected rows."""

    template = "COUNT(*)"
    output_field = BigIntegerField()


class Max(Func):
    """The highest value of an expression in the selected rows."""

    function = "MAX"


class Sum(Func):
    """The sum of an expression in the selected rows."""

    function = "SUM"
    output_field = BigIntegerField()


def count_if(condition: Q) -> Sum:
    """Return the number of selected rows that meet a condition."""
    return Sum(Case(When(condition, then=1), default=0))


class Days(Func):
    """A time as a number of days, so that the database can subtract one from another."""

    function = "JULIANDAY"
    output_field = FloatField()

    def as_postgresql(self, compiler: SQLCompiler, connection: Any) -> Any:
        template = "(EXTRACT(EPOCH FROM %(expressions)s) / 86400)::double precision"
        return self.as_sql(compiler, connection, template=template)


class Texts(Func):
    """An expression's texts in all selected rows as one text, in no certain order."""

    function = "GROUP_CONCAT"
    output_field = TextField()

    def as_postgresql(self, compiler: SQLCompiler, connection: Any) -> Any:
        return self.as_sql(compiler, connection, template="STRING_AGG(%(expressions)s, ',')")


def joined(*fields: str) -> Concat:
    """Return the texts of some fields as one text, which differs for different texts."""
    texts = [Cast(field, TextField()) for field in fields]
    # Each after its length, since a text may contain any separator.
    parts = [part for text in texts for part in (Cast(Length(text), TextField()), Value(":"), text)]
    return Concat(*parts, output_field=TextField())
