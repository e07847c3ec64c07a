"""Decode JSON into `models.py`, tolerant of whatever Northflank's documentation leaves open. Pure.

Takes any JSON value and never raises; None means that the answer does not contain the object.
The fields are documented at https://northflank.com/docs/v1/api/project/pipelines
"""

from collections import Counter
from collections.abc import Callable

from dashboard.northflank.models import (
    OMITTED,
    Auth,
    HasId,
    Node,
    Omission,
    Page,
    Pipeline,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
)
from dashboard.northflank.redaction import redact
from dashboard.northflank.values import (
    MAX_ID_LENGTH,
    as_array,
    as_bool,
    as_datetime,
    as_id,
    as_int,
    as_object,
    as_text,
)

# Only for answers that lack `concluded`, which otherwise is the one word for the end of a run.
_CONCLUDED_STATUSES = {"aborted", "success", "failure", "skipped"}
# One of these is in every answer about a release flow.
_FLOW_FIELDS = {"apiVersion", "spec", "status", "paused", "stage", "concurrencyPolicy", "options"}
_UNKNOWN = "unknown"  # Northflank's own word, used where it sent none
# Where a step's main target is named, the best name first.
_TARGET_FIELDS = (
    "jobId", "addonId", "target", "id", "templateId", "name", "serviceId", "clusterId",
)  # fmt: skip


def parse_page[T: HasId](
    body: object, key: str, parse_item: Callable[[object], T | None], *, limit: int
) -> Page[T] | None:
    """Decode one page of a list from the whole body: its first `limit` entries, no more.

    `parse_item` returns None for an entry to omit; of entries with one id the first is kept. None:
    the answer contains no list.
    """
    body = as_object(body)
    entries = _find_items(body.get("data"), key)
    if entries is None:
        return None
    items: dict[str, T] = {}
    omitted: Counter[Omission] = Counter()
    for entry in entries[:limit]:
        item = parse_item(entry)
        if item is None:
            omitted[_omission(entry)] += 1
        elif item.id in items:
            omitted[Omission.DUPLICATE_ID] += 1
        else:
            items[item.id] = item
    if len(entries) > limit:
        omitted[Omission.SURPLUS] = len(entries) - limit
    pagination = as_object(body.get("pagination"))
    return Page(
        items=tuple(items.values()),
        has_next=pagination.get("hasNextPage") is True,
        cursor=as_text(pagination.get("cursor")),
        omitted=omitted,
    )


def _omission(entry: object) -> Omission:
    """Return why an entry cannot be decoded."""
    if not isinstance(entry, dict):
        return Omission.UNREADABLE
    entry_id = entry.get("id")
    if as_id(entry_id) is not None:
        return Omission.UNREADABLE
    is_long = isinstance(entry_id, str) and len(entry_id) > MAX_ID_LENGTH
    return Omission.LONG_ID if is_long else Omission.NO_ID


def _find_items(data: object, key: str) -> list[object] | None:
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


def parse_auth(data: object) -> Auth:
    """Decode the owner and the role of the token from the answer of /v1/auth."""
    fields = as_object(data)
    restrictions = as_object(fields.get("projectRestrictions"))
    is_restricted = as_bool(restrictions.get("enabled")) is True
    scopes = as_object(fields.get("permissions")).values()
    return Auth(
        entity_id=as_text(fields.get("entityId")),
        entity_type=as_text(fields.get("entityType")),
        token_kind=as_text(fields.get("tokenKind")),
        role=as_text(as_object(fields.get("role")).get("name")),
        permissions=tuple(
            permission
            for scope in scopes
            for value in as_array(scope)
            if (permission := as_text(value)) is not None
        ),
        restriction_mode=as_text(restrictions.get("restrictionMode")) if is_restricted else None,
        restricted_projects=tuple(
            project_id
            for value in as_array(restrictions.get("projects"))
            if is_restricted and (project_id := as_id(value)) is not None
        ),
        expires_at=as_datetime(fields.get("expiresAt")),
    )


def parse_project(data: object) -> Project | None:
    """Decode a project of a list."""
    fields = as_object(data)
    if (project_id := as_id(fields.get("id"))) is None:
        return None
    return Project(id=project_id, name=as_text(fields.get("name")))


def parse_pipeline(data: object) -> Pipeline | None:
    """Decode a pipeline of a list."""
    fields = as_object(data)
    if (pipeline_id := as_id(fields.get("id"))) is None:
        return None
    description = fields.get("description")
    return Pipeline(
        id=pipeline_id,
        name=as_text(fields.get("name")),
        description=None
        if not isinstance(description, str | None)
        else as_text(description, multiline=True) or "",
    )


def parse_pipeline_name(data: object) -> str | None:
    """Decode the name of a pipeline read by itself; that answer has no id."""
    return as_text(as_object(data).get("name"))


def parse_release_flow(data: object) -> ReleaseFlow | None:
    """Decode a release flow; None where the answer has no field that a flow has."""
    fields = as_object(data)
    if not _FLOW_FIELDS & fields.keys():
        return None
    options = as_object(fields.get("options"))
    paused = options.get("paused") if fields.get("paused") is None else fields["paused"]
    return ReleaseFlow(
        paused=False if paused is None else as_bool(paused),
        concurrency_policy=as_text(fields.get("concurrencyPolicy"))
        or as_text(options.get("concurrencyPolicy")),
    )


def parse_run(data: object, *, requested_id: str | None = None) -> Run | None:
    """Decode a run; `requested_id` stands in for the id in an answer without one."""
    fields = as_object(data)
    run_id = as_id(fields.get("id")) or requested_id
    if run_id is None:
        return None
    status = as_text(fields.get("status")) or _UNKNOWN
    concluded = as_bool(fields.get("concluded"))
    return Run(
        id=run_id,
        name=as_text(fields.get("name")),
        description=as_text(fields.get("description"), multiline=True),
        status=status,
        concluded=concluded if concluded is not None else status in _CONCLUDED_STATUSES,
        created_at=as_datetime(fields.get("createdAt")),
        started_at=as_datetime(fields.get("startedAt")),
        concluded_at=as_datetime(fields.get("concludedAt")),
        updated_at=as_datetime(fields.get("updatedAt")),
    )


def parse_listed_run(data: object) -> Run | None:
    """Decode a run of a list; None where it has no id, or neither status nor concluded."""
    return parse_run(data) if _has_status(as_object(data)) else None


def parse_run_detail(data: object, *, requested_id: str | None = None) -> RunDetail | None:
    """Decode a run with its steps; None where it has neither status nor concluded."""
    fields = as_object(data)
    if not _has_status(fields):
        return None
    run = parse_run(fields, requested_id=requested_id)
    if run is None:
        return None
    raw = redact(fields)
    return RunDetail(run=run, root=parse_steps(raw.get("spec")), raw=raw)


def _has_status(fields: dict[str, object]) -> bool:
    return as_text(fields.get("status")) is not None or as_bool(fields.get("concluded")) is not None


def parse_steps(redacted_root: object) -> Node | None:
    """Decode a tree of steps as `redact` kept it: bounded, so recursion is safe here.

    None if no step in it has a readable kind or status.
    """
    root = _parse_node(redacted_root) if isinstance(redacted_root, dict) else None
    return root if root is not None and _is_readable(root) else None


def _is_readable(node: Node) -> bool:
    return node.kind != _UNKNOWN or node.status is not None or any(map(_is_readable, node.steps))


def _parse_node(fields: dict[str, object]) -> Node:
    spec = as_object(fields.get("spec"))
    inner = as_object(spec.get("spec"))
    response = as_object(fields.get("response"))
    error = as_object(response.get("error"))
    retries = as_object(response.get("retries"))
    settings = as_object(fields.get("settings"))
    kind = as_text(fields.get("kind")) or _UNKNOWN
    ref = as_text(fields.get("ref"))
    timeout = as_int(fields.get("timeoutDuration"))
    max_attempts = as_int(retries.get("maxAttempts"))
    if timeout is None:  # a Condition holds it further in
        timeout = as_int(as_object(inner.get("data")).get("timeoutDuration"))
    return Node(
        kind=kind,
        ref=ref,
        label=ref or _step_label(kind, spec),
        status=as_text(response.get("status")),
        error_code=as_int(error.get("code")),
        error_message=as_text(error.get("message"), multiline=True),
        attempts=as_int(retries.get("attempts")),
        max_attempts=max_attempts
        if max_attempts is not None
        else as_int(settings.get("maxAttempts")),
        next_attempt_at=as_datetime(retries.get("nextAttempt")),
        started_at=as_datetime(response.get("startTime")),
        ended_at=as_datetime(response.get("endTime")),
        # A Condition is one; other steps have one.
        condition=as_text(inner.get("type") if kind == "Condition" else fields.get("condition")),
        timeout_seconds=timeout,
        parallel=spec.get("type") == "parallel",
        skip=fields.get("skipNodeExecution") in ("true", True),
        steps=tuple(_parse_node(as_object(step)) for step in as_array(spec.get("steps"))),
        target_kind=as_text(spec.get("kind")),
        required_approvals=as_int(spec.get("amount")),
        iterations=as_int(spec.get("iterations")),
    )


def _step_label(kind: str, spec: dict[str, object]) -> str:
    if kind == OMITTED:
        return "More steps, not shown"
    # A Condition or Action has the kind of its subject in `kind`, and its id further in.
    target_kind = as_text(spec.get("kind"))
    subject = as_object(as_object(spec.get("spec")).get("data"))
    for field in _TARGET_FIELDS:
        value = spec.get(field)
        target = (
            as_text(as_object(value).get("id")) or as_text(value) or as_text(subject.get(field))
        )
        if target is not None:
            return " ".join(part for part in (kind, target_kind, target) if part)
    return f"{kind} {target_kind}" if target_kind else kind
