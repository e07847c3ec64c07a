"""What the API answers, field by field: of this its answers and its OpenAPI document are made.

A contract: fields are added, never renamed or removed.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, NotRequired, TypedDict

from msgspec import Meta

from dashboard.models.abort_lifecycle import AbortState
from dashboard.models.bulk_aborts import Via
from dashboard.models.catalog import StageName
from dashboard.models.works import Work
from dashboard.runs.overdue import OverdueReason
from dashboard.web.api.queries import Place

type Time = Annotated[datetime, Meta(tz=True)]


def about(text: str = "", among: Iterable[str] = ()) -> Meta:
    """Say what a field is, and among which values."""
    return Meta(description=text or None, extra_json_schema={"enum": [*among]} if among else None)


class Overdue(TypedDict):
    """What takes longer than typical, and how much longer."""

    severity: Annotated[str, about("critical: a person has to act", ["warning", "critical"])]
    reason: Annotated[str, about("which part", [reason.name.lower() for reason in OverdueReason])]


class Abort(TypedDict):
    """An abort in its current state."""

    id: int
    state: Annotated[str, about("502: refused; 503: not_sent; 504: unknown, requested", AbortState)]
    message: Annotated[str, about("the state as a sentence")]
    username: str
    via: Annotated[str, about("where it was requested", Via.values)]
    token: Annotated[str, about("name of the API token used, or empty")]
    reason: str
    requested_at: Time
    sent_at: Time | None
    send_count: int
    responded_at: Time | None
    response: Annotated[str, about("by Northflank")]
    response_status: Annotated[int | None, about("HTTP status by Northflank")]
    error_id: Annotated[str, about("by Northflank, for its support")]
    retry_at: Annotated[Time | None, about("of one that was not sent: when to try again")]
    outcome: Annotated[str, about("status with which the run ended; empty if unknown")]
    settled_at: Annotated[Time | None, about("since when nothing more is expected")]


class TimedText(TypedDict):
    """A line of a timeline or a log."""

    at: Time
    text: str


class AbortWithTimeline(Abort):
    """An abort and what has become of it."""

    timeline: list[TimedText]


class Run(TypedDict):
    """A run, as of `synced_at`."""

    run_id: str
    name: str
    project: str
    pipeline: str
    stage: Annotated[str, about(among=StageName.values)]
    status: Annotated[str, about("as Northflank spells it")]
    concluded: Annotated[bool, about("only this means the end")]
    in_flight: bool
    step: Annotated[str, about("the current one as of its last read, perhaps before `synced_at`")]
    step_number: int | None
    step_count: int | None
    failed_step: Annotated[str | None, about("where it failed; null if not read, or not failed")]
    failure: Annotated[str | None, about("why it failed")]
    overdue: Overdue | None
    needs_attention: bool
    created_at: Time
    started_at: Time | None
    concluded_at: Time | None
    synced_at: Annotated[Time, about("when it was read from Northflank")]
    removed_at: Annotated[Time | None, about("since when Northflank no longer lists it")]
    url: Annotated[str, about("its page; a path only, if `BASE_URL` is not set")]
    abort: Annotated[Abort | None, about("the latest")]
    may_abort: NotRequired[Annotated[bool, about("may this token; always, but in commands")]]


class WaitingFor(TypedDict):
    """A job run or build that a run waits for or failed in, as last read when somebody looked."""

    kind: Annotated[str, about(among=Work.Kind.values)]
    name: Annotated[str, about("empty, as all but its id, until it is read")]
    id: Annotated[str | None, about("null: no step names it")]
    status: str
    silent_since: Annotated[Time | None, about("of its last line, until it ends")]
    probable: Annotated[bool, about("no step names it; it started at that time")]
    started_at: Time | None
    ended_at: Time | None


class LeftRunning(TypedDict):
    """A job run or build that still ran after the abort of its run, as last read."""

    kind: Annotated[str, about(among=Work.Kind.values)]
    id: str
    name: str
    status: str
    running: bool
    started_at: Time | None
    ended_at: Time | None
    synced_at: Time
    error: Annotated[str, about("why it could not be read")]
    aborts: Annotated[list[AbortWithTimeline], about("its own")]


class Acknowledgement(TypedDict):
    """“I have this run.”"""

    username: str
    acknowledged_at: Time
    ended_at: Time | None
    taken_over_by: str


class Dismissal(TypedDict):
    """Who took a removed run off the list."""

    username: str
    dismissed_at: Time
    restored_at: Time | None
    restored_by: Annotated[str, about("empty: Northflank listed the run again")]


class Log(TypedDict):
    """The log of what a run waits for."""

    lines: Annotated[list[TimedText], about("the newest last")]
    problem: Annotated[str, about("why lines are missing")]
    read_at: Time | None
    next_read_at: Annotated[Time | None, about("until then requests get the same lines")]


class Behind(TypedDict):
    """How far what last succeeded in a stage is behind the stage before it."""

    stage: Annotated[str, about("the stage before", StageName.values)]
    releases: Annotated[int | None, about("number that is lacking; null: unknown")]
    or_more: Annotated[bool, about("there may be more than `releases`")]


class RunWithHistory(Run):
    """A run and all that happened to it."""

    behind: Annotated[Behind | None, about("of its stage; null: it is not behind")]
    waiting_for: WaitingFor | None
    aborts: Annotated[list[AbortWithTimeline], about("of the run itself, newest first")]
    left_running: list[LeftRunning]
    acknowledgements: Annotated[list[Acknowledgement], about("oldest first")]
    dismissals: Annotated[list[Dismissal], about("oldest first")]
    log: Annotated[Log | None, about("with `?log=` only, if what it waits for has one")]


class Coverage(TypedDict):
    """How much has been read of the stages asked for."""

    stages: int
    unread: int
    failing: Annotated[int, about("of the unread: could not be read")]
    unlisted: Annotated[int, about("lists of projects, pipelines or stages not read yet")]
    message: str


class RunList(TypedDict):
    """Runs in flight."""

    runs: list[Run]
    next: Annotated[str | None, about("address of the next part, like `url`")]
    complete: Annotated[bool, about("false: runs may be missing")]
    coverage: Coverage


class AbortResult(TypedDict):
    """An abort, and its run."""

    joined: Annotated[bool, about("the request has joined an abort that was open already")]
    abort: Abort
    run: Run


class Error(TypedDict):
    """Why a request has failed."""

    code: str
    message: str


class ErrorBody(TypedDict):
    """An error, with more fields by its code."""

    error: Error
    places: NotRequired[Annotated[list[Place], about("`ambiguous_run`: where there is such a run")]]
    run: NotRequired[Annotated[Run, about("the run that was not aborted, or not removed")]]
    joined: NotRequired[bool]
    abort: NotRequired[Abort]
    recorded: NotRequired[
        Annotated[bool | None, about("`database_outage`: does the request count? null: unknown")]
    ]
