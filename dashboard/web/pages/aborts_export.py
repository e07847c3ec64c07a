"""Export the abort log as CSV or JSON, streamed in chunks to bound memory.

Chunks are read by descending key, starting at the newest abort, so that an abort created during
the export neither appears in it nor shifts the others.
"""

import csv
import io
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

import msgspec

from dashboard.aborts import messages as abort_messages
from dashboard.aborts import timeline as abort_timeline
from dashboard.db.threads import run_in_db_thread
from dashboard.models import Abort
from dashboard.web.components.aborts import abort_log
from dashboard.web.components.aborts.abort_log import AbortFilter
from dashboard.web.http import links

# Aborts; larger chunks are no faster and block a database thread that new aborts wait for.
CHUNK_SIZE = 250
# Prefixes that make a spreadsheet treat a cell as a formula:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

type Encoder = Callable[[list[Abort], bool], bytes]  # arguments: aborts, is the first chunk


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One event of an abort's timeline; `event_type` is machine-readable, `text` is for people."""

    at: str
    event_type: str
    detail: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """An exported abort. Field order is CSV column order; times are ISO 8601 in UTC."""

    id: int
    requested_at: str | None
    username: str
    via: str
    token: str
    address: str
    reason: str
    project: str
    pipeline: str
    stage: str
    run_id: str
    run_name: str
    run_url: str
    state: str
    sent_at: str | None
    send_count: int
    answered_at: str | None
    answer_status: int | None
    answer: str
    error_id: str
    outcome: str
    settled_at: str | None
    duration_seconds: float | None  # from the request until the abort settled; None: still open
    message: str
    retry_of: int | None
    bulk_abort: int | None
    timeline: list[TimelineEvent]  # JSON only


COLUMNS = [field.name for field in fields(Record) if field.name != "timeline"]


def as_csv(
    abort_filter: AbortFilter, base_url: str, *, chunk_size: int = CHUNK_SIZE
) -> AsyncIterator[bytes]:
    """Yield the matching aborts as CSV (RFC 4180) with a header row.

    `base_url` is the dashboard's address without a trailing slash. At most `chunk_size` aborts are
    in memory at once.
    """

    def encode(aborts: list[Abort], is_first: bool) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        if is_first:
            writer.writerow(COLUMNS)
        for abort in aborts:
            record = _record(abort, base_url)
            writer.writerow(_escape_formula(getattr(record, name)) for name in COLUMNS)
        return text.getvalue().encode()

    return _stream(abort_filter, encode, b"", chunk_size)


def as_json(
    abort_filter: AbortFilter, base_url: str, *, chunk_size: int = CHUNK_SIZE
) -> AsyncIterator[bytes]:
    """Yield the matching aborts as one JSON array with the CSV's names, plus each timeline.

    `base_url` is the dashboard's address without a trailing slash. At most `chunk_size` aborts are
    in memory at once.
    """

    def encode(aborts: list[Abort], is_first: bool) -> bytes:
        records = [msgspec.json.encode(_record(abort, base_url)) for abort in aborts]
        separator = b"[" if is_first else b",\n" if records else b""
        return separator + b",\n".join(records)

    return _stream(abort_filter, encode, b"]\n", chunk_size)


async def _stream(
    abort_filter: AbortFilter, encode: Encoder, suffix: bytes, chunk_size: int
) -> AsyncIterator[bytes]:
    chunk, last_pk = await run_in_db_thread(_encode_chunk, abort_filter, None, encode, chunk_size)
    yield chunk
    while last_pk is not None:
        chunk, last_pk = await run_in_db_thread(
            _encode_chunk, abort_filter, last_pk, encode, chunk_size
        )
        yield chunk
    yield suffix


def _encode_chunk(
    abort_filter: AbortFilter, before_pk: int | None, encode: Encoder, chunk_size: int
) -> tuple[bytes, int | None]:
    """Return the next chunk and the key of its last abort; the key is None after the last chunk."""
    aborts = list(
        abort_log.with_details(abort_log.matching_aborts(abort_filter, before_pk))[:chunk_size]
    )
    return encode(aborts, before_pk is None), aborts[-1].pk if len(aborts) == chunk_size else None


def _record(abort: Abort, base_url: str) -> Record:
    run, stage = abort.run, abort.run.stage
    events = list(abort.events.all())
    lines = abort_timeline.entries(abort, events)
    return Record(
        id=abort.pk,
        requested_at=_utc(abort.requested_at),
        username=abort.username,
        via=abort.via,
        token=abort.token_name,
        address=abort.client_address or "",
        reason=abort.reason,
        project=stage.pipeline.project.slug,
        pipeline=stage.pipeline.slug,
        stage=stage.name,
        run_id=run.run_id,
        run_name=run.name,
        run_url=base_url + links.run_url(abort.run),
        state=abort_log.category_key(abort),
        sent_at=_utc(abort.sent_at),
        send_count=abort.send_count,
        answered_at=_utc(abort.answered_at),
        answer_status=abort.answer_status,
        answer=abort.answer,
        error_id=abort.error_id,
        outcome=abort.outcome,
        settled_at=_utc(abort.settled_at),
        duration_seconds=None
        if abort.duration_seconds is None
        else round(abort.duration_seconds, 3),
        message=abort_messages.describe(abort, run).plain_text,
        retry_of=abort.retry_of_id,
        bulk_abort=abort.bulk_abort_id,
        timeline=[
            TimelineEvent(_utc(line.at) or "", event.event_type, event.detail, line.text)
            for event, line in zip(events, lines, strict=True)
        ],
    )


def _utc(when: datetime | None) -> str | None:
    return when.astimezone(UTC).isoformat(timespec="milliseconds") if when else None


def _escape_formula(value: Any) -> Any:
    """Prefix a cell with an apostrophe if a spreadsheet would treat it as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
