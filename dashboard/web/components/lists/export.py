"""Downloads of whole lists as CSV or JSON, streamed in chunks to bound memory.

Chunks are read by descending key, starting at the newest row, so that a row created during the
export neither appears in it nor shifts the others.
"""

import csv
import io
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from django.db.models import Model
from django.http import StreamingHttpResponse
from django.utils import timezone

from dashboard.db.threads import run_in_db_thread

# Rows; larger chunks are no faster and block a database thread that new aborts wait for.
CHUNK_SIZE = 250
# Prefixes that make a spreadsheet treat a cell as a formula:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

# Returns the rows with keys below the first argument (None: all), newest first, at most the second.
type Load[T] = Callable[[int | None, int], list[T]]
type Encode[T] = Callable[[list[T], bool], bytes]  # arguments: rows, is the first chunk


def stream_csv[T: Model](
    load: Load[T], columns: Sequence[str], record: Callable[[T], object], chunk_size: int
) -> AsyncIterator[bytes]:
    """Yield rows as CSV (RFC 4180) with a header; cells are attributes of each row's `record`."""

    def encode(rows: list[T], is_first: bool) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if is_first:
            writer.writerow(columns)
        for row in rows:
            values = record(row)
            writer.writerow(_escape_formula(getattr(values, name)) for name in columns)
        return text.getvalue().encode()

    return _stream(load, encode, b"", chunk_size)


def stream_json[T: Model](
    load: Load[T], record: Callable[[T], object], chunk_size: int
) -> AsyncIterator[bytes]:
    """Yield rows as one JSON array of their records."""

    def encode(rows: list[T], is_first: bool) -> bytes:
        records = [msgspec.json.encode(record(row)) for row in rows]
        separator = b"[" if is_first else b",\n" if records else b""
        return separator + b",\n".join(records)

    return _stream(load, encode, b"]\n", chunk_size)


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
    return encode(rows, before_pk is None), rows[-1].pk if len(rows) == chunk_size else None


def download(name: str, extension: str, content: AsyncIterator[bytes]) -> StreamingHttpResponse:
    """Return a file named by `name` and the date; `extension` is csv or json."""
    file_name = f"{name}-{timezone.localdate().isoformat()}.{extension}"
    content_types = {"csv": "text/csv; charset=utf-8", "json": "application/json"}
    return StreamingHttpResponse(
        content,
        content_type=content_types[extension],
        headers={
            "Cache-Control": "no-store",
            "Content-Disposition": f'attachment; filename="{file_name}"',
            "X-Accel-Buffering": "no",  # else nginx buffers the stream
        },
    )


def utc_text(when: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC, with milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds") if when else None


def _escape_formula(value: Any) -> Any:
    """Prefix a cell with an apostrophe if a spreadsheet would treat it as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
