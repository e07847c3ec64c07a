"""What is kept of a run's raw answer: enough for the pages, and no secret. Pure.

An allow-list: only what is named here survives. Specs are largely undocumented, differ by kind, and
new kinds will come; whatever may hold a secret (`arguments`, trigger tokens, `refs`, outputs in
`response.data`, webhook and import URLs, environments, files, credentials, message bodies) cannot
be listed completely, but what a page shows of a step can. The price is that a new harmless field
is missing until it is named here.

The kept tree is also bounded, so everything behind this module may walk it recursively.
"""

import math
from collections.abc import Iterable

from dashboard.northflank.models import OMITTED
from dashboard.northflank.reading import clean, mapping, without_url_secrets

MAX_DEPTH = 50
MAX_NODES = 2000

_RUN = (
    "id", "status", "concluded", "createdAt", "startedAt", "concludedAt", "updatedAt", "apiVersion",
)  # fmt: skip
_NODE = ("kind", "ref", "condition", "timeoutDuration", "skipNodeExecution")
_RETRIES = ("attempts", "maxAttempts", "timestamp", "nextAttempt", "initialCheckTime")
_SPEC = (
    "type", "kind", "id", "name", "projectId", "jobId", "addonId", "branch", "sha", "pullRequestId",
    "backupType", "templateType", "templateId", "amount",
)  # fmt: skip
_TARGET = ("id", "type", "branch", "build")
# Of a Condition's or Action's `data`: which thing it is about, never what it does to it.
_SUBJECT = (
    "id", "projectId", "serviceId", "jobId", "addonId", "buildId", "backupId", "importId", "runId",
    "clusterId", "timeoutDuration",
)  # fmt: skip


def redact(run_data: dict[str, object]) -> dict[str, object]:
    """Return what may be stored and shown of a run in its detail form, cleaned and bounded."""
    run = mapping(run_data)
    kept = _scalars(run, _RUN)
    for field in ("name", "description"):
        if isinstance(value := run.get(field), str):
            kept[field] = clean(value, lines=field == "description")
    _keep(kept, "options", _scalars(mapping(run.get("options")), ("concurrencyPolicy", "paused")))
    if isinstance(root := run.get("spec"), dict):
        kept["spec"] = _Tree().node(root, depth=1)
    return kept


class _Tree:
    """Walks one run's steps; counts the nodes it has kept."""

    def __init__(self) -> None:
        self._nodes = 0

    def node(self, node: dict[str, object], depth: int) -> dict[str, object]:
        self._nodes += 1
        spec = mapping(node.get("spec"))
        kept = _scalars(node, _NODE)
        kept_spec = _spec(spec)
        if isinstance(steps := spec.get("steps"), list):
            kept_spec["steps"] = self._steps(steps, depth + 1)
        _keep(kept, "spec", kept_spec)
        _keep(kept, "settings", _settings(mapping(node.get("settings"))))
        _keep(kept, "response", _response(mapping(node.get("response"))))
        return kept

    def _steps(self, steps: list[object], depth: int) -> list[dict[str, object]]:
        kept: list[dict[str, object]] = []
        for step in steps:
            if not isinstance(step, dict):
                continue
            if depth > MAX_DEPTH or self._nodes >= MAX_NODES:
                kept.append({"kind": OMITTED})
                break
            kept.append(self.node(step, depth))
        return kept


def _spec(spec: dict[str, object]) -> dict[str, object]:
    kept = _scalars(spec, _SPEC)
    for field in ("target", "origin"):
        _keep(kept, field, _scalars(mapping(spec.get(field)), _TARGET))
    inner = mapping(spec.get("spec"))
    kept_inner = _scalars(inner, ("type",))
    _keep(kept_inner, "data", _scalars(mapping(inner.get("data")), _SUBJECT))
    _keep(kept, "spec", kept_inner)
    if isinstance(iterations := spec.get("iterations"), list):
        kept["iterations"] = len(iterations)  # the values are arguments
    return kept


def _settings(settings: dict[str, object]) -> dict[str, object]:
    kept = _scalars(settings, ("maxAttempts",))
    _keep(kept, "backoff", _scalars(mapping(settings.get("backoff")), ("type", "delay")))
    return kept


def _response(response: dict[str, object]) -> dict[str, object]:
    kept = _scalars(response, ("status", "startTime", "endTime"))
    error = mapping(response.get("error"))
    kept_error = _scalars(error, ("code",))
    if isinstance(message := error.get("message"), str):
        # The one free text of a step. A failed message or import quotes the URL it tried, and
        # those are credentials.
        kept_error["message"] = without_url_secrets(clean(message, lines=True))
    _keep(kept, "error", kept_error)
    _keep(kept, "retries", _scalars(mapping(response.get("retries")), _RETRIES))
    return kept


def _scalars(sent: dict[str, object], fields: Iterable[str]) -> dict[str, object]:
    """Return the named fields that hold one storable value; an object or array never passes."""
    kept: dict[str, object] = {}
    for field in fields:
        value = sent.get(field)
        if isinstance(value, str):
            kept[field] = without_url_secrets(clean(value))
        elif _storable(value):
            kept[field] = value
    return kept


def _storable(value: object) -> bool:
    # JSON in PostgreSQL knows neither NaN nor Infinity; Python will not print giant integers.
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 2**63


def _keep(kept: dict[str, object], field: str, value: dict[str, object]) -> None:
    if value:
        kept[field] = value
