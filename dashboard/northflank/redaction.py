"""Redaction: what is kept of a run's raw response. Pure.

Of a run an allow-list is kept, enough for the pages and without secrets. Specs are largely
undocumented, differ by kind, and new kinds will come; whatever may contain a secret (`arguments`,
trigger tokens, `refs`, outputs in `response.data`, webhook and import URLs, environments, files,
credentials, message bodies) cannot be listed completely, but what a page shows of a step can. The
price is that a new harmless field is missing until it is named here.

The kept tree is also bounded, so everything behind this module may walk it recursively.
"""

import math
from collections.abc import Iterable

from dashboard.northflank.models import OMITTED
from dashboard.northflank.secrets_in_texts import redact_secrets
from dashboard.northflank.values import as_object, clean

MAX_DEPTH = 50
MAX_NODES = 2000

_RUN_FIELDS = (
    "id", "status", "concluded", "createdAt", "startedAt", "concludedAt", "updatedAt", "apiVersion",
)  # fmt: skip
_NODE_FIELDS = ("kind", "ref", "condition", "timeoutDuration", "skipNodeExecution")
_RETRY_FIELDS = ("attempts", "maxAttempts", "timestamp", "nextAttempt", "initialCheckTime")
_SPEC_FIELDS = (
    "type", "kind", "id", "name", "projectId", "jobId", "addonId", "branch", "sha", "pullRequestId",
    "backupType", "templateType", "templateId", "amount",
)  # fmt: skip
_TARGET_FIELDS = ("id", "type", "branch", "build")
# Of a Condition's or Action's `data`: which thing it is about, never what it does to it.
_SUBJECT_FIELDS = (
    "id", "projectId", "serviceId", "jobId", "addonId", "buildId", "backupId", "importId", "runId",
    "clusterId", "timeoutDuration",
)  # fmt: skip


def redact(run_data: dict[str, object]) -> dict[str, object]:
    """Return what may be stored and shown of a run in its detail form, cleaned and bounded."""
    run = as_object(run_data)
    result = _pick_scalars(run, _RUN_FIELDS)
    for field in ("name", "description"):
        if isinstance(value := run.get(field), str):
            result[field] = clean(value, multiline=field == "description")
    _set_if_any(
        result,
        "options",
        _pick_scalars(as_object(run.get("options")), ("concurrencyPolicy", "paused")),
    )
    if isinstance(root := run.get("spec"), dict):
        result["spec"] = _StepRedactor().redact_node(root, depth=1)
    return result


class _StepRedactor:
    """Walks one run's steps; counts the nodes it has kept."""

    def __init__(self) -> None:
        self._node_count = 0

    def redact_node(self, node: dict[str, object], depth: int) -> dict[str, object]:
        self._node_count += 1
        spec = as_object(node.get("spec"))
        result = _pick_scalars(node, _NODE_FIELDS)
        result_spec = _redact_spec(spec)
        if isinstance(steps := spec.get("steps"), list):
            result_spec["steps"] = self._redact_steps(steps, depth + 1)
        _set_if_any(result, "spec", result_spec)
        _set_if_any(result, "settings", _redact_settings(as_object(node.get("settings"))))
        _set_if_any(result, "response", _redact_response(as_object(node.get("response"))))
        return result

    def _redact_steps(self, steps: list[object], depth: int) -> list[dict[str, object]]:
        result: list[dict[str, object]] = []
        for step in steps:
            if not isinstance(step, dict):
                continue
            if depth > MAX_DEPTH or self._node_count >= MAX_NODES:
                result.append({"kind": OMITTED})
                break
            result.append(self.redact_node(step, depth))
        return result


def _redact_spec(spec: dict[str, object]) -> dict[str, object]:
    result = _pick_scalars(spec, _SPEC_FIELDS)
    for field in ("target", "origin"):
        _set_if_any(result, field, _pick_scalars(as_object(spec.get(field)), _TARGET_FIELDS))
    inner = as_object(spec.get("spec"))
    result_inner = _pick_scalars(inner, ("type",))
    _set_if_any(result_inner, "data", _pick_scalars(as_object(inner.get("data")), _SUBJECT_FIELDS))
    _set_if_any(result, "spec", result_inner)
    if isinstance(iterations := spec.get("iterations"), list):
        result["iterations"] = len(iterations)  # the values are arguments
    return result


def _redact_settings(settings: dict[str, object]) -> dict[str, object]:
    result = _pick_scalars(settings, ("maxAttempts",))
    _set_if_any(
        result, "backoff", _pick_scalars(as_object(settings.get("backoff")), ("type", "delay"))
    )
    return result


def _redact_response(response: dict[str, object]) -> dict[str, object]:
    result = _pick_scalars(response, ("status", "startTime", "endTime"))
    error = as_object(response.get("error"))
    result_error = _pick_scalars(error, ("code",))
    if isinstance(message := error.get("message"), str):
        # The one free text of a step. A failed message or import quotes the URL it tried, and
        # those are credentials.
        result_error["message"] = redact_secrets(clean(message, multiline=True))
    _set_if_any(result, "error", result_error)
    _set_if_any(result, "retries", _pick_scalars(as_object(response.get("retries")), _RETRY_FIELDS))
    return result


def _pick_scalars(source: dict[str, object], fields: Iterable[str]) -> dict[str, object]:
    """Return the named fields that hold one storable value; an object or array never passes."""
    result: dict[str, object] = {}
    for field in fields:
        value = source.get(field)
        if isinstance(value, str):
            result[field] = redact_secrets(clean(value))
        elif _is_storable(value):
            result[field] = value
    return result


def _is_storable(value: object) -> bool:
    # JSON in PostgreSQL has neither NaN nor Infinity; Python does not print giant integers.
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 2**63


def _set_if_any(target: dict[str, object], field: str, value: dict[str, object]) -> None:
    if value:
        target[field] = value
