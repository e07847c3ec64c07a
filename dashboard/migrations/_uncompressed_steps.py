"""The steps of runs as 0001 has them: JSON, which an older version reads and writes.

For 0003 and 0004; between them both versions serve, each with a column of its own.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
from django.db import transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from dashboard.db import compressed_json

BATCH = 500  # runs a transaction

type _Rows = list[tuple[Any, ...]]

# In the order of keys: each run is read once, whatever is written meanwhile.
_HAS_STEPS = "steps IS NOT NULL AND CAST(steps AS text) <> 'null'"


def exist(database: BaseDatabaseWrapper) -> bool:
    """Return whether the columns of the older version are there."""
    with database.cursor() as cursor:
        columns = database.introspection.get_table_description(cursor, "dashboard_run")
    return "steps" in {column.name for column in columns}


def compress(database: BaseDatabaseWrapper) -> None:
    """Compress the steps of all runs that have none yet, in batches, beside live traffic."""
    condition = f"compressed_steps IS NULL AND steps_removed_at IS NULL AND {_HAS_STEPS}"
    for rows in _batches(database, "id, CAST(steps AS text)", condition):
        values = [(compressed_json.compress(msgspec.json.decode(text)), key) for key, text in rows]
        with transaction.atomic(database.alias), database.cursor() as cursor:
            cursor.executemany(
                "UPDATE dashboard_run SET compressed_steps = %s"
                " WHERE id = %s AND compressed_steps IS NULL",
                values,
            )


def read_again_where_different(database: BaseDatabaseWrapper, at: datetime) -> int:
    """Have the sync read the runs whose steps differ from the compressed ones; return how many.

    Both versions have read these while they served side by side, and it is not known which was
    last.
    """
    count = 0
    columns = "id, CAST(steps AS text), compressed_steps"
    for rows in _batches(database, columns, f"compressed_steps IS NOT NULL AND {_HAS_STEPS}"):
        time = database.ops.adapt_datetimefield_value(at)
        keys = [
            (time, key)
            for key, text, compressed in rows
            if msgspec.json.decode(text) != compressed_json.decompress(compressed)
        ]
        count += len(keys)
        with transaction.atomic(database.alias), database.cursor() as cursor:
            cursor.executemany(
                "UPDATE dashboard_run SET next_detail_sync_at = %s WHERE id = %s", keys
            )
    return count


def drop(database: BaseDatabaseWrapper) -> None:
    """Drop the columns that only the older version uses."""
    with transaction.atomic(database.alias), database.cursor() as cursor:
        for column in ("steps", "raw"):
            cursor.execute(f"ALTER TABLE dashboard_run DROP COLUMN {column}")


def _batches(database: BaseDatabaseWrapper, columns: str, condition: str) -> Iterator[_Rows]:
    last_key = 0
    while True:
        with database.cursor() as cursor:
            cursor.execute(
                f"SELECT {columns} FROM dashboard_run WHERE id > %s AND {condition}"
                " ORDER BY id LIMIT %s",
                [last_key, BATCH],
            )
            rows: _Rows = cursor.fetchall()
        if not rows:
            return
        yield rows
        last_key = rows[-1][0]
