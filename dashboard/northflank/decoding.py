"""Decode JSON into `models.py`, tolerant of what Northflank's documentation leaves open. Pure.

Takes any JSON object and never raises; None means that the answer does not contain the object.
Only the fields named here are kept: of arguments their names, of the output of a step its id, of a
build's its branch and commit, too. The rest of a run may hold secrets anywhere: values of
arguments, trigger tokens, outputs of steps, environments, webhook URLs.
The fields are documented at https://northflank.com/docs/v1/api/project/pipelines
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from dashboard.northflank.models import (
    OMITTED,
    Auth,
    Entry,
    Node,
    Page,
    Pipeline,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
)
from dashboard.northflank.secrets_in_texts import redact_secrets
from dashboard.northflank.values import (
    Json,
    as_array,
    as_bool,
    as_datetime,
    as_id,
    as_int,
    as_object,
    as_text,
)
from dashboard.northflank.work_decoding import parse_work_ref

# Of a tree of steps: everything behind this module may walk it recursively.
MAX_DEPTH = 50
MAX_NODES = 2000
MAX_RELEASED = 20  # commits or builds that stand for what a run has released
MAX_ARGUMENTS = 50

# Only these: a value may be a reference, or anything that somebody entered.
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BUILD = re.compile(r"[a-z0-9-]{1,60}")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}")

_UNKNOWN = "unknown"  # Northflank's own word, used where it sent none


def parse_page[T: Entry](
    body: Json, key: str, parse_item: Callable[[Json], T | None], *, limit: int
) -> Page[T] | None:
    """Decode one page of a list from the whole body: its first `limit` entries, no more.

    `parse_item` returns None for an entry to omit; of entries with one id the first is kept. None:
    the answer contains no list.
    """
    data = body.get("data")
    if not isinstance(data, dict):
        return None
    # The API's description has `runs` optional, and no other list.
    entries = data.get(key) if data or key != "runs" else []
    if not isinstance(entries, list):
        return None
    items: dict[str, T] = {}
    for entry in entries[:limit]:
        if (item := parse_item(as_object(entry))) is not None:
            items.setdefault(item.id, item)
    pagination = as_object(body.get("pagination"))
    return Page(
        items=tuple(items.values()),
        has_next=pagination.get("hasNextPage") is True,
        omitted=len(entries) - len(items),
    )


def parse_auth(fields: Json) -> Auth:
    """Decode the owner and the role of the token from the answer of /v1/auth."""
    restrictions = as_object(fields.get("projectRestrictions"))
    is_restricted = as_bool(restrictions.get("enabled")) is True
    permissions = [
        as_text(permission)
        for scope in as_object(fields.get("permissions")).values()
        for permission in as_array(scope)
    ]
    projects = map(as_id, as_array(restrictions.get("projects")) if is_restricted else [])
    return Auth(
        entity_id=as_text(fields.get("entityId")),
        entity_type=as_text(fields.get("entityType")),
        token_kind=as_text(fields.get("tokenKind")),
        role=as_text(as_object(fields.get("role")).get("name")),
        permissions=tuple(filter(None, permissions)),
        restriction_mode=as_text(restrictions.get("restrictionMode")) if is_restricted else None,
        restricted_projects=tuple(filter(None, projects)),
        expires_at=as_datetime(fields.get("expiresAt")),
    )


def parse_project(fields: Json) -> Project | None:
    """Decode a project of a list."""
    project_id = as_id(fields.get("id"))
    return Project(project_id, as_text(fields.get("name"))) if project_id else None


def parse_pipeline(fields: Json) -> Pipeline | None:
    """Decode a pipeline of a list."""
    if (pipeline_id := as_id(fields.get("id"))) is None:
        return None
    description = as_text(fields.get("description"), multiline=True) or ""
    return Pipeline(pipeline_id, as_text(fields.get("name")), description)


def parse_release_flow(fields: Json) -> ReleaseFlow | None:
    """Decode a release flow; None where the answer has no steps."""
    if "spec" not in fields:
        return None
    fields = as_object(fields.get("options")) | fields  # which repeats them, in older answers alone
    return ReleaseFlow(
        paused=as_bool(fields.get("paused")),
        concurrency_policy=as_text(fields.get("concurrencyPolicy")),
    )


def parse_run(fields: Json) -> Run | None:
    """Decode a run; None where it has no id, or does not say whether it has concluded."""
    run_id, concluded = as_id(fields.get("id")), as_bool(fields.get("concluded"))
    if run_id is None or concluded is None:
        return None
    return Run(
        id=run_id,
        name=as_text(fields.get("name")),
        description=as_text(fields.get("description"), multiline=True),
        status=as_text(fields.get("status")) or _UNKNOWN,
        concluded=concluded,
        created_at=as_datetime(fields.get("createdAt")),
        started_at=as_datetime(fields.get("startedAt")),
        concluded_at=as_datetime(fields.get("concludedAt")),
        updated_at=as_datetime(fields.get("updatedAt")),
    )


def parse_run_detail(fields: Json) -> RunDetail | None:
    """Decode a run with its steps; None as by `parse_run`."""
    if (run := parse_run(fields)) is None:
        return None
    root = as_object(fields.get("spec"))
    if as_text(root.get("kind")) is None:
        return RunDetail(run, None)
    decoder = _StepDecoder(as_object(fields.get("refs")))
    node = decoder.decode(root, depth=1)
    names = list(filter(None, map(as_text, as_object(fields.get("arguments")))))
    node = replace(node, argument_names=tuple(map(redact_secrets, names[:MAX_ARGUMENTS])))
    return RunDetail(run, node, decoder.release_key)


class _StepDecoder:
    """Walks one run's steps; counts those it has kept, and collects what they released."""

    def __init__(self, refs: Json) -> None:
        self._refs = refs  # outputs of the steps
        self._build_steps: dict[str, Json] = {}  # those decoded so far, by their ref
        self._node_count = 0
        self._commits: set[str] = set()
        self._builds: set[str] = set()

    @property
    def release_key(self) -> str | None:
        """The commits that its steps have built, or else the builds; None: none, or too many."""
        kind, ids = ("commit", self._commits) if self._commits else ("build", self._builds)
        return " ".join([kind, *sorted(ids)]) if 0 < len(ids) <= MAX_RELEASED else None

    def decode(self, fields: Json, depth: int) -> Node:
        self._node_count += 1
        spec = as_object(fields.get("spec"))
        inner = as_object(spec.get("spec"))
        subject = as_object(inner.get("data"))
        response = as_object(fields.get("response"))
        error = as_object(response.get("error"))
        retries = as_object(response.get("retries"))
        settings = as_object(fields.get("settings"))
        kind = _text(fields, "kind") or _UNKNOWN
        ref = _text(fields, "ref")
        branch, commit, build = _contents(kind, spec, as_object(response.get("data")))
        if response.get("status") == "success":
            self._commits.update(filter(None, [commit]))
            self._builds.update(filter(None, [build if kind == "Release" else None]))
        if kind == "Build" and ref:
            self._build_steps[ref] = fields
        iterations = spec.get("iterations")
        return Node(
            kind=kind,
            ref=ref,
            label=ref or _label(kind, spec, subject),
            status=_text(response, "status"),
            error_code=as_int(error.get("code")),
            error_message=_text(error, "message", multiline=True),
            attempts=as_int(retries.get("attempts")),
            max_attempts=as_int(retries.get("maxAttempts", settings.get("maxAttempts"))),
            next_attempt_at=as_datetime(retries.get("nextAttempt")),
            started_at=as_datetime(response.get("startTime")),
            ended_at=as_datetime(response.get("endTime")),
            # A Condition is one; other steps have one.
            condition=_text(inner, "type") if kind == "Condition" else _text(fields, "condition"),
            # A Condition holds it further in.
            timeout_seconds=as_int(fields.get("timeoutDuration", subject.get("timeoutDuration"))),
            parallel=spec.get("type") == "parallel",
            skip=as_bool(fields.get("skipNodeExecution")) is True,
            steps=tuple(self._decode_inner(as_array(spec.get("steps")), depth + 1)),
            target_kind=_text(spec, "kind"),
            required_approvals=as_int(spec.get("amount")),
            # Their values are arguments.
            iterations=len(iterations) if isinstance(iterations, list) else None,
            branch=branch,
            commit=commit,
            build=build,
            work=parse_work_ref(fields, self._refs, self._build_steps),
            attempt_started_at=as_datetime(retries.get("timestamp")),
        )

    def _decode_inner(self, steps: list[object], depth: int) -> Iterator[Node]:
        for step in steps:
            if not isinstance(step, dict):
                continue
            if depth > MAX_DEPTH or self._node_count >= MAX_NODES:
                yield self.decode({"kind": OMITTED}, depth)
                return
            yield self.decode(step, depth)


def _contents(kind: str, spec: Json, data: Json) -> tuple[str | None, str | None, str | None]:
    """Return branch, commit and build of what a step builds or deploys; None: not named."""
    origin = as_object(spec.get("origin"))
    if kind == "Build":
        # Of what was asked for, and of what came of it.
        sources = [data, spec]
    elif kind == "Release":
        sources = [origin]
    else:
        return None, None, None
    branch, commit = (
        next((text for source in sources if (text := _named(source, name, pattern))), None)
        for name, pattern in (("branch", _BRANCH), ("sha", _COMMIT))
    )
    build = _named(origin, "build", _BUILD)
    return branch, commit, build if build != "latest" else None


def _named(fields: Json, name: str, pattern: re.Pattern[str]) -> str | None:
    text = as_text(fields.get(name)) or ""
    return text if pattern.fullmatch(text) else None


def _text(fields: Json, name: str, *, multiline: bool = False) -> str | None:
    # A failed message or import quotes the URL it tried, and those are credentials.
    text = as_text(fields.get(name), multiline=multiline)
    return None if text is None else redact_secrets(text)


def _label(kind: str, spec: Json, subject: Json) -> str:
    """Return what a person would call a step without a ref: its kind and its main target."""
    if kind == OMITTED:
        return "More steps, not shown"
    names = (
        _text(fields, field)
        # The best name first. A Condition or Action has the kind of its subject in `kind`, and its
        # id further in.
        for fields, field in (
            *((spec, "jobId"), (spec, "addonId"), (as_object(spec.get("target")), "id")),
            *((spec, "id"), (spec, "templateId"), (spec, "name")),
            *((subject, field) for field in ("jobId", "addonId", "id", "serviceId", "clusterId")),
        )
    )
    target = next(filter(None, names), None)
    return " ".join(filter(None, (kind, _text(spec, "kind"), target)))
