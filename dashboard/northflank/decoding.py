"""From decoded JSON to `models.py`, at the border: tolerant of everything section 11 leaves open.

Takes any JSON value and never raises; None says that the answer does not hold the thing at all.
The pages these fields come from: https://northflank.com/docs/v1/api/project/pipelines
"""

from collections.abc import Callable

from dashboard.northflank.models import (
    OMITTED,
    Auth,
    Node,
    Page,
    Pipeline,
    PipelineDetail,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
    Team,
)
from dashboard.northflank.reading import flag, identifier, integer, mapping, moment, sequence, text
from dashboard.northflank.redaction import redact

# Only for answers that lack `concluded`, which otherwise is the one word for the end of a run.
_CONCLUDED = {"aborted", "success", "failure", "skipped"}
# One of these is in every answer that tells of a release flow.
_FLOW = {"apiVersion", "spec", "status", "paused", "stage", "concurrencyPolicy", "options"}
_UNKNOWN = "unknown"  # Northflank's own word, used where it sent none
# Where a step's main target is named, in the order of telling.
_TARGETS = ("jobId", "addonId", "target", "id", "templateId", "name", "serviceId", "clusterId")


def page[T](
    body: object, key: str, item: Callable[[object], T | None], *, most: int
) -> Page[T] | None:
    """Decode one page of a list from the whole body: its first `most` items, and no more of them.

    `item` returns None for an item that cannot be read. None: the answer holds no list.
    """
    body = mapping(body)
    sent = _items(body.get("data"), key)
    if sent is None:
        return None
    taken = sent[:most]
    items = tuple(read for each in taken if (read := item(each)) is not None)
    pagination = mapping(body.get("pagination"))
    return Page(
        items=items,
        has_next=pagination.get("hasNextPage") is True,
        cursor=text(pagination.get("cursor")),
        left_out=len(taken) - len(items),
        surplus=len(sent) - len(taken),
    )


def _items(data: object, key: str) -> list[object] | None:
    if isinstance(data, list):
        return data
    if not isinstance(data, dict):
        return None
    if key in data:
        return data[key] if isinstance(data[key], list) else None
    # Sibling lists come under keys of other kinds (workflows as "pipelines"): the only array it is.
    arrays = [value for value in data.values() if isinstance(value, list)]
    if len(arrays) == 1:
        return arrays[0]
    # The API's description has `runs` optional, and no other list.
    return [] if key == "runs" and not data else None


def auth(data: object) -> Auth:
    """Decode what /v1/auth says of the token."""
    sent = mapping(data)
    scopes = mapping(sent.get("permissions"))
    return Auth(
        token_kind=text(sent.get("tokenKind")),
        id=text(sent.get("id")),
        name=text(sent.get("name")),
        entity_id=text(sent.get("entityId")),
        entity_type=text(sent.get("entityType")),
        org_id=text(sent.get("orgId")),
        role=text(mapping(sent.get("role")).get("name")),
        permissions=tuple(
            read
            for scope in scopes.values()
            for each in sequence(scope)
            if (read := text(each)) is not None
        ),
        created_at=moment(sent.get("createdAt")),
        expires_at=moment(sent.get("expiresAt")),
    )


def team(data: object) -> Team | None:
    """Decode a team of a list."""
    sent = mapping(data)
    if (team_id := identifier(sent.get("id"))) is None:
        return None
    return Team(
        id=team_id,
        name=text(sent.get("name")) or team_id,
        description=text(sent.get("description"), lines=True),
        created_at=moment(sent.get("createdAt")),
    )


def project(data: object) -> Project | None:
    """Decode a project of a list."""
    sent = mapping(data)
    if (project_id := identifier(sent.get("id"))) is None:
        return None
    return Project(
        id=project_id,
        name=text(sent.get("name")) or project_id,
        description=text(sent.get("description"), lines=True),
        lifecycle_status=text(sent.get("lifecycleStatus")),
    )


def pipeline(data: object) -> Pipeline | None:
    """Decode a pipeline of a list."""
    sent = mapping(data)
    if (pipeline_id := identifier(sent.get("id"))) is None:
        return None
    return Pipeline(
        id=pipeline_id,
        name=text(sent.get("name")) or pipeline_id,
        description=text(sent.get("description"), lines=True),
        created_at=moment(sent.get("createdAt")),
        updated_at=moment(sent.get("updatedAt")),
    )


def pipeline_detail(data: object) -> PipelineDetail:
    """Decode a pipeline read by itself."""
    sent = mapping(data)
    # `stages` is untyped in every source: a name may stand bare, or in an object.
    named = [
        text(each) or text(mapping(each).get("name")) or text(mapping(each).get("stage"))
        for each in sequence(sent.get("stages"))
    ] + [text(mapping(each).get("stage")) for each in sequence(sent.get("nfObjects"))]
    return PipelineDetail(
        name=text(sent.get("name")),
        description=text(sent.get("description"), lines=True),
        stages_named=tuple(dict.fromkeys(name for name in named if name is not None)),
    )


def release_flow(data: object) -> ReleaseFlow | None:
    """Decode a release flow; None where the answer has no field that a flow has."""
    sent = mapping(data)
    if not _FLOW & sent.keys():
        return None
    options = mapping(sent.get("options"))
    paused = flag(sent.get("paused"))
    return ReleaseFlow(
        status=text(sent.get("status")) or _UNKNOWN,
        paused=paused if paused is not None else flag(options.get("paused")) or False,
        concurrency_policy=text(sent.get("concurrencyPolicy"))
        or text(options.get("concurrencyPolicy")),
        stage=text(sent.get("stage")),
        created_at=moment(sent.get("createdAt")),
        updated_at=moment(sent.get("updatedAt")),
    )


def run(data: object, *, asked: str | None = None) -> Run | None:
    """Decode a run; `asked` is the id it was asked by, for an answer that does not repeat it."""
    sent = mapping(data)
    run_id = identifier(sent.get("id")) or asked
    if run_id is None:
        return None
    status = text(sent.get("status")) or _UNKNOWN
    concluded = flag(sent.get("concluded"))
    return Run(
        id=run_id,
        name=text(sent.get("name")),
        description=text(sent.get("description"), lines=True),
        status=status,
        concluded=concluded if concluded is not None else status in _CONCLUDED,
        created_at=moment(sent.get("createdAt")),
        started_at=moment(sent.get("startedAt")),
        concluded_at=moment(sent.get("concludedAt")),
        updated_at=moment(sent.get("updatedAt")),
    )


def listed_run(data: object) -> Run | None:
    """Decode a run of a list; None where it has no id, or tells nothing of how the run stands."""
    return run(data) if _tells_how_it_stands(mapping(data)) else None


def run_detail(data: object, *, asked: str | None = None) -> RunDetail | None:
    """Decode a run in its detail form; None where the answer tells nothing of how a run stands."""
    sent = mapping(data)
    if asked is not None and not _tells_how_it_stands(sent):
        return None
    decoded = run(sent, asked=asked)
    if decoded is None:
        return None
    raw = redact(sent)
    return RunDetail(run=decoded, steps=tree(raw.get("spec")), raw=raw)


def _tells_how_it_stands(sent: dict[str, object]) -> bool:
    return text(sent.get("status")) is not None or flag(sent.get("concluded")) is not None


def tree(kept: object) -> Node | None:
    """Decode a tree of steps as `redact` kept it: bounded, so recursion is safe here."""
    return _node(kept) if isinstance(kept, dict) else None


def _node(sent: dict[str, object]) -> Node:
    spec = mapping(sent.get("spec"))
    inner = mapping(spec.get("spec"))
    response = mapping(sent.get("response"))
    error = mapping(response.get("error"))
    retries = mapping(response.get("retries"))
    settings = mapping(sent.get("settings"))
    kind = text(sent.get("kind")) or _UNKNOWN
    ref = text(sent.get("ref"))
    timeout = integer(sent.get("timeoutDuration"))
    max_attempts = integer(retries.get("maxAttempts"))
    if timeout is None:  # a Condition holds it further in
        timeout = integer(mapping(inner.get("data")).get("timeoutDuration"))
    return Node(
        kind=kind,
        ref=ref,
        label=ref or _label(kind, spec),
        status=text(response.get("status")),
        error_code=integer(error.get("code")),
        error_message=text(error.get("message"), lines=True),
        attempts=integer(retries.get("attempts")),
        max_attempts=max_attempts
        if max_attempts is not None
        else integer(settings.get("maxAttempts")),
        next_attempt_at=moment(retries.get("nextAttempt")),
        started_at=moment(response.get("startTime")),
        ended_at=moment(response.get("endTime")),
        # A Condition is one; other steps have one.
        condition=text(inner.get("type") if kind == "Condition" else sent.get("condition")),
        timeout_seconds=timeout,
        parallel=spec.get("type") == "parallel",
        skip=sent.get("skipNodeExecution") in ("true", True),
        steps=tuple(_node(mapping(step)) for step in sequence(spec.get("steps"))),
        about=text(spec.get("kind")),
        approvals=integer(spec.get("amount")),
        iterations=integer(spec.get("iterations")),
    )


def _label(kind: str, spec: dict[str, object]) -> str:
    if kind == OMITTED:
        return "Further steps, not shown"
    # A Condition or Action says what it concerns in `kind`, and which one further in.
    of = text(spec.get("kind"))
    subject = mapping(mapping(spec.get("spec")).get("data"))
    for field in _TARGETS:
        value = spec.get(field)
        target = text(mapping(value).get("id")) or text(value) or text(subject.get(field))
        if target is not None:
            return " ".join(part for part in (kind, of, target) if part)
    return f"{kind} {of}" if of else kind
