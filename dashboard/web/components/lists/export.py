"""Downloads of whole lists as CSV or JSON, streamed in chunks to bound memory.

Chunks are read by descending key, starting at the newest row, so that a row created during the
export neither appears in it nor shifts the others.
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec
from django.db.models import Model, QuerySet
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone

from dashboard.db.threads import run_in_db_thread
from dashboard.web.components.lists.record_pages import RecordFilter

# Rows; larger chunks are no faster and block a database thread that new aborts wait for.
CHUNK_SIZE = 250
CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
# Where a spreadsheet would begin a formula: https://owasp.org/www-community/attacks/CSV_Injection
# One that separates columns by “;” or tabs, as Excel does in many countries, begins a cell there
# and at line breaks: the quotes around our cell are not at the start of one of its cells.
_FORMULA = re.compile(r"""(?<![^;\t\r\n])(?=(?:[^\S\t\r\n]|")*[=+\-@＝＋－＠])|^(?=[\t\r\n])""")

# By name, in the order of CSV: the path of an attribute, or what computes the value.
type Columns[T] = dict[str, str | Callable[[T], Any]]


def respond[T: Model](
    name: str,
    extension: str,
    record_filter: RecordFilter,
    records: QuerySet[T],
    columns: Columns[T],
) -> HttpResponseBase:
    """Return a file of all matching records, named by `name` and the date.

    `extension` is csv or json. With warnings about the filter the answer is a 400: a page can show
    which parameters it ignored, but a file would pass for the requested data.
    """
    if record_filter.warnings:
        text = "\n".join(map(str, record_filter.warnings))
        return HttpResponse(f"{text}\n", status=400, content_type="text/plain; charset=utf-8")
    return StreamingHttpResponse(
        stream(extension, record_filter, records, columns),
        content_type=CONTENT_TYPES[extension],
        headers={
            "Content-Disposition": f'attachment; filename="{_file_name(name, extension)}"',
            "X-Accel-Buffering": "no",  # else nginx buffers the stream
        },
    )


def respond_with(name: str, rows: Sequence[Mapping[str, Any]]) -> HttpResponse:
    """Return a CSV file of a few rows, at least one, named by `name` and the date."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(rows[0])
    writer.writerows(map(_cell, row.values()) for row in rows)
    headers = {"Content-Disposition": f'attachment; filename="{_file_name(name, "csv")}"'}
    return HttpResponse(text.getvalue(), content_type=CONTENT_TYPES["csv"], headers=headers)


def _file_name(name: str, extension: str) -> str:
    return f"{name}-{timezone.localdate().isoformat()}.{extension}"


def stream[T: Model](
    extension: str,
    record_filter: RecordFilter,
    records: QuerySet[T],
    columns: Columns[T],
    chunk_size: int = CHUNK_SIZE,
) -> AsyncIterator[bytes]:
    """Yield each matching record: as CSV (RFC 4180) with a header, or in one JSON array.

    Times are ISO 8601 in UTC. At most `chunk_size` rows are in memory at once.
    """
    getters = [
        (name, attrgetter(column) if isinstance(column, str) else column)
        for name, column in columns.items()
    ]

    def record(row: T) -> dict[str, Any]:
        values = ((name, get(row)) for name, get in getters)
        return {
            name: utc_text(value) if isinstance(value, datetime) else value
            for name, value in values
        }

    def encode_csv(rows: list[T], is_first: bool) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if is_first:
            writer.writerow(columns)
        writer.writerows(map(_cell, record(row).values()) for row in rows)
        return text.getvalue().encode()

    def encode_json(rows: list[T], is_first: bool) -> bytes:
        records = [msgspec.json.encode(record(row)) for row in rows]
        separator = b"[" if is_first else b",\n" if records else b""
        return separator + b",\n".join(records)

    encode, suffix = (encode_csv, b"") if extension == "csv" else (encode_json, b"]\n")

    def next_chunk(before_pk: int | None) -> tuple[bytes, int | None]:
        """Return the chunk and the key of its last row; the key is None after the last chunk."""
        rows = list(record_filter.matching(records, before_pk)[:chunk_size])
        chunk = encode(rows, before_pk is None)
        last_pk = rows[-1].pk if len(rows) == chunk_size else None
        for row in rows:
            # They refer to their row: until garbage is collected, 30 MB of earlier chunks would
            # remain.
            vars(row).pop("_prefetched_objects_cache", None)
        return chunk, last_pk

    async def chunks() -> AsyncIterator[bytes]:
        chunk, last_pk = await run_in_db_thread(next_chunk, None)
        yield chunk
        while last_pk is not None:
            chunk, last_pk = await run_in_db_thread(next_chunk, last_pk)
            yield chunk
        yield suffix

    return chunks()


def utc_text(when: datetime) -> str:
    """Return a time as ISO 8601 in UTC, with milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds")


def _cell(value: Any) -> Any:
    """Return a cell: objects as JSON, and an apostrophe before what would be a formula."""
    if isinstance(value, dict):
        # The same value to a program; a spreadsheet finds no separator before a formula.
        return msgspec.json.encode(value).decode().replace(";", r"\u003b")
    return _FORMULA.sub("'", value) if isinstance(value, str) else value
