"""Northflank's objects as dataclasses; `decoding.py` makes them. No rules, no I/O.

All times are aware and in UTC. Statuses, kinds and policies are kept as sent, even unknown ones.
"""

from dataclasses import dataclass
from datetime import datetime

JOB_RUN, BUILD = "job_run", "build"  # kinds of work that a step can wait for
OMITTED = "Omitted"  # kind of the node in place of steps that were not kept


@dataclass(frozen=True, slots=True)
class Auth:
    """The team or organisation that the token belongs to, and what its role may do."""

    entity_id: str | None  # its slug
    entity_type: str | None  # team, org
    token_kind: str | None = None  # api, session, workload
    role: str | None = None  # its name
    permissions: tuple[str, ...] = ()  # of all scopes, as sent: their words are not documented
    restriction_mode: str | None = None  # in, notIn; None: the role is not limited to projects
    restricted_projects: tuple[str, ...] = ()
    expires_at: datetime | None = None  # None: never, or not sent


@dataclass(frozen=True, slots=True)
class Project:
    """A project the token can see."""

    id: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline, as lists show it."""

    id: str
    name: str | None
    description: str


@dataclass(frozen=True, slots=True)
class ReleaseFlow:
    """What a stage runs."""

    paused: bool | None  # Git and webhook triggers start nothing; None: not sent
    concurrency_policy: str | None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a release flow."""

    id: str
    name: str | None
    description: str | None
    status: str
    concluded: bool
    created_at: datetime | None
    started_at: datetime | None
    concluded_at: datetime | None
    updated_at: datetime | None


@dataclass(frozen=True, slots=True)
class WorkRef:
    """The job run or build that a step has started, or waits for, as far as the step names it."""

    kind: str  # JOB_RUN or BUILD
    owner_kind: str  # whose it is: job or service
    owner_id: str
    id: str | None  # None: the step does not name it
    branch: str | None = None  # of a build, as asked for
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A job run or a build."""

    id: str
    name: str  # its id, if it has no other
    status: str
    concluded: bool
    started_at: datetime | None  # of a build: when it was created
    ended_at: datetime | None
    branch: str | None = None  # of a build
    commit: str | None = None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of a log, as received: it may hold anything, secrets included."""

    at: datetime | None  # about when Northflank received it
    text: str


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a run, with the steps inside it.

    A node of kind OMITTED stands for steps that were too many or nested too deeply to keep.
    """

    kind: str
    ref: str | None
    label: str  # what a person would call it
    status: str | None  # None: not started, or just started
    error_code: int | None
    error_message: str | None
    attempts: int | None
    max_attempts: int | None
    next_attempt_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    condition: str | None  # it waits until: success, running; None: it starts and goes on
    timeout_seconds: int | None
    parallel: bool  # its steps start all at once
    skip: bool  # its definition excludes it from execution
    steps: tuple["Node", ...]
    target_kind: str | None = None  # what a Condition or an Action concerns: Service, Build, Job
    required_approvals: int | None = None  # how many an Approval needs
    iterations: int | None = None  # of a LoopWorkflow
    # What a Build has built, or a Release has deployed.
    branch: str | None = None
    commit: str | None = None  # 40 hexadecimal digits
    build: str | None = None  # its id
    work: WorkRef | None = None
    attempt_started_at: datetime | None = None
    argument_names: tuple[str, ...] = ()  # of the root: those of the run's arguments


@dataclass(frozen=True, slots=True)
class RunDetail:
    """One run with its steps."""

    run: Run
    root: Node | None  # the root of the tree
    release_key: str | None = None  # “commit” or “build” and the ids that its steps name, sorted


type Entry = Project | Pipeline | Run | Work  # of a list


@dataclass(frozen=True, slots=True)
class Page[T: Entry]:
    """One page of a list."""

    items: tuple[T, ...]
    has_next: bool
    omitted: int = 0  # entries without a valid id or with that of another, or that cannot be read

    @property
    def is_complete(self) -> bool:
        """Whether this is the end of the list and no entry was omitted."""
        return not (self.has_next or self.omitted)
