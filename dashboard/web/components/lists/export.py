"""Downloads of whole lists as CSV or JSON, streamed in chunks to bound memory.

Chunks are read by descending key, starting at the newest row, so that a row created during the
export neither appears in it nor shifts the others.
"""

import csv
import io
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db.models import Model
from django.http import HttpResponse, HttpResponseBase, StreamingHttpResponse
from django.utils import timezone

from dashboard.db.threads import run_in_db_thread
from dashboard.texts.rich_text import Message
from dashboard.web.components.lists.record_pages import Load

# Rows; larger chunks are no faster and block a database thread that new aborts wait for.
CHUNK_SIZE = 250
CONTENT_TYPES = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
# Where a spreadsheet would begin a formula: https://owasp.org/www-community/attacks/CSV_Injection
# One that separates columns by “;” or tabs, as Excel does in many countries, begins a cell there
# and at line breaks: the quotes around our cell are not at the start of one of its cells.
_FORMULA = re.compile(r"""(?<![^;\t\r\n])(?=(?:[^\S\t\r\n]|")*[=+\-@＝＋－＠])|^(?=[\t\r\n])""")

type Encode[T] = Callable[[list[T], bool], bytes]  # arguments: rows, is the first chunk


def respond(
    name: str, extension: str, warnings: Iterable[Message], content: AsyncIterator[bytes]
) -> HttpResponseBase:
    """Return a file named by `name` and the date; `extension` is csv or json.

    With warnings about the filter the answer is a 400: a page can show which parameters it ignored,
    but a file would pass for the requested data.
    """
    if warnings:
        text = "\n".join(map(str, warnings))
        return HttpResponse(f"{text}\n", status=400, content_type="text/plain; charset=utf-8")
    file_name = f"{name}-{timezone.localdate().isoformat()}.{extension}"
    return StreamingHttpResponse(
        content,
        content_type=CONTENT_TYPES[extension],
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{file_name}"',
            "X-Accel-Buffering": "no",  # else nginx buffers the stream
        },
    )


def stream[T: Model](
    extension: str,
    load: Load[T],
    record: Callable[[T], object],
    columns: Sequence[str],
    chunk_size: int = CHUNK_SIZE,
) -> AsyncIterator[bytes]:
    """Yield the `record` of each row: as CSV (RFC 4180) with a header, or as one JSON array.

    The cells of CSV are the attributes that `columns` names; JSON has all. At most `chunk_size`
    rows are in memory at once.
    """

    def encode_csv(rows: list[T], is_first: bool) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if is_first:
            writer.writerow(columns)
        for row in rows:
            values = record(row)
            writer.writerow(_cell(getattr(values, name)) for name in columns)
        return text.getvalue().encode()

    def encode_json(rows: list[T], is_first: bool) -> bytes:
        records = [msgspec.json.encode(record(row)) for row in rows]
        separator = b"[" if is_first else b",\n" if records else b""
        return separator + b",\n".join(records)

    if extension == "csv":
        return _stream(load, encode_csv, b"", chunk_size)
    return _stream(load, encode_json, b"]\n", chunk_size)


async def _stream[T: Model](
    load: Load[T], encode: Encode[T], suffix: bytes, chunk_size: int
) -> AsyncIterator[bytes]:
    last_pk: int | None = None
    is_first = True
    while is_first or last_pk is not None:
        chunk, last_pk = await run_in_db_thread(_encode_chunk, load, encode, last_pk, chunk_size)
        is_first = False
        yield chunk
    yield suffix


def _encode_chunk[T: Model](
    load: Load[T], encode: Encode[T], before_pk: int | None, chunk_size: int
) -> tuple[bytes, int | None]:
    """Return the next chunk and the key of its last row; the key is None after the last chunk."""
    rows = load(before_pk, chunk_size)
    chunk = encode(rows, before_pk is None)
    last_pk = rows[-1].pk if len(rows) == chunk_size else None
    for row in rows:
        # They refer to their row: until garbage is collected, 30 MB of earlier chunks would remain.
        vars(row).pop("_prefetched_objects_cache", None)
    return chunk, last_pk


def utc_text(when: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC, with milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds") if when else None


def _cell(value: Any) -> Any:
    """Return a cell: objects as JSON, and an apostrophe before what would be a formula."""
    if isinstance(value, dict):
        # The same value to a program; a spreadsheet finds no separator before a formula.
        return msgspec.json.encode(value).decode().replace(";", r"\u003b")
    return _FORMULA.sub("'", value) if isinstance(value, str) else value
