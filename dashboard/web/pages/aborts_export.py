"""The audit for spreadsheets and programs: every act that matches, written a few at a time.

However many there are, few are in memory: they are read by their keys, downwards from the newest
at the start, so that an act that comes meanwhile neither appears nor shifts the others.
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
from dashboard.db.threads import in_database
from dashboard.models import Abort
from dashboard.web.components import abort_log
from dashboard.web.components.abort_log import AuditFilter

AT_ONCE = 250  # acts; more are no faster, and hold a thread that aborts wait for
# What a spreadsheet takes for the beginning of a formula:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

type Encode = Callable[[list[Abort], bool], bytes]  # acts, whether they are the first


@dataclass(frozen=True, slots=True)
class Event:
    """A line of an act's trail; `what` is for programs, `text` for people."""

    at: str
    what: str
    detail: str
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """An act as it is exported, in the order of the CSV's columns. Times are ISO 8601 in UTC."""

    id: int
    requested_at: str | None
    who: str
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
    sendings: int
    answered_at: str | None
    answer_status: int | None
    answer: str
    error_id: str
    outcome: str
    settled_at: str | None
    seconds: float | None  # from the press until nothing more was to come
    story: str
    retry_of: int | None
    batch: int | None
    trail: list[Event]  # in the JSON only


COLUMNS = [field.name for field in fields(Record) if field.name != "trail"]


def as_csv(asked: AuditFilter, site: str, *, at_once: int = AT_ONCE) -> AsyncIterator[bytes]:
    """Write the acts as CSV (RFC 4180), with a row of names; `site` is this dashboard's address.

    So many acts `at_once` are in memory.
    """

    def encode(acts: list[Abort], first: bool) -> bytes:
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\r\n")
        if first:
            lines.writerow(COLUMNS)
        for abort in acts:
            record = _record(abort, site)
            lines.writerow(_cell(getattr(record, name)) for name in COLUMNS)
        return text.getvalue().encode()

    return _written(asked, encode, b"", at_once)


def as_json(asked: AuditFilter, site: str, *, at_once: int = AT_ONCE) -> AsyncIterator[bytes]:
    """Write the acts as one JSON array, each with its trail; names as in the CSV.

    So many acts `at_once` are in memory.
    """

    def encode(acts: list[Abort], first: bool) -> bytes:
        told = [msgspec.json.encode(_record(abort, site)) for abort in acts]
        before = b"[" if first else b",\n" if told else b""
        return before + b",\n".join(told)

    return _written(asked, encode, b"]\n", at_once)


async def _written(
    asked: AuditFilter, encode: Encode, end: bytes, at_once: int
) -> AsyncIterator[bytes]:
    part, last = await in_database(_read, asked, None, encode, at_once)
    yield part
    while last is not None:
        part, last = await in_database(_read, asked, last, encode, at_once)
        yield part
    yield end


def _read(
    asked: AuditFilter, before: int | None, encode: Encode, at_once: int
) -> tuple[bytes, int | None]:
    """Return the next acts, written, and the key of the last one; None: there are no more."""
    acts = list(abort_log.told(abort_log.acts(asked, before))[:at_once])
    return encode(acts, before is None), acts[-1].pk if len(acts) == at_once else None


def _record(abort: Abort, site: str) -> Record:
    run, stage = abort.run, abort.run.stage
    events = list(abort.events.all())
    lines = abort_timeline.lines(abort, events)
    return Record(
        id=abort.pk,
        requested_at=_utc(abort.requested_at),
        who=abort.username,
        via=abort.via,
        token=abort.token_name,
        address=abort.client_address or "",
        reason=abort.reason,
        project=stage.pipeline.project.slug,
        pipeline=stage.pipeline.slug,
        stage=stage.name,
        run_id=run.run_id,
        run_name=run.name,
        run_url=site + abort_log.run_url(abort),
        state=abort_log.kind(abort),
        sent_at=_utc(abort.sent_at),
        sendings=abort.sendings,
        answered_at=_utc(abort.answered_at),
        answer_status=abort.answer_status,
        answer=abort.answer,
        error_id=abort.error_id,
        outcome=abort.outcome,
        settled_at=_utc(abort.settled_at),
        seconds=None if abort.seconds is None else round(abort.seconds, 3),
        story=abort_messages.of(abort, run).sentence,
        retry_of=abort.retry_of_id,
        batch=abort.batch_id,
        trail=[
            Event(_utc(line.at) or "", event.what, event.detail, line.text)
            for event, line in zip(events, lines, strict=True)
        ],
    )


def _utc(when: datetime | None) -> str | None:
    return when.astimezone(UTC).isoformat(timespec="milliseconds") if when else None


def _cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: it gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
