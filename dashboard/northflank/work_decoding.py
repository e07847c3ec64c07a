"""Decode what a step waits for: job runs, builds and their logs. Pure; as tolerant as `decoding`.

Of the outputs of steps only the ids of job runs and builds are kept: they may hold secrets.
"""

import json
import re

from dashboard.northflank.models import BUILD, JOB_RUN, LogLine, Work, WorkRef
from dashboard.northflank.secrets_in_texts import redact_secrets
from dashboard.northflank.values import (
    Json,
    as_array,
    as_bool,
    as_datetime,
    as_id,
    as_object,
    as_text,
)

_REFERENCE = re.compile(r"\$\{refs\.([^.${}]+)\.([A-Za-z]+)\}")
_UNKNOWN = "unknown"


def parse_work_ref(step: Json, refs: Json, builds: dict[str, Json]) -> WorkRef | None:
    """Return the job run or build that a step has started or waits for; None: neither.

    `refs` are the outputs of the run's steps by their ref, `builds` the fields of its Build steps
    by theirs. The id is taken from a typed condition, else from the step's output. References are
    resolved; what cannot be resolved counts as not named.
    """
    kind, spec = step.get("kind"), as_object(step.get("spec"))
    if kind == "Condition":
        condition = as_object(as_object(spec.get("spec")).get("data"))
        if spec.get("kind") == "JobRun":
            job_id = _resolve(condition.get("jobId"), refs)
            return _ref(JOB_RUN, "job", job_id, _resolve(condition.get("runId"), refs))
        if spec.get("kind") == "Build":
            return _awaited_build(condition.get("buildId"), refs, builds)
    elif kind == "JobRun":
        return _ref(JOB_RUN, "job", _resolve(spec.get("jobId"), refs), _created_id(step, refs))
    elif kind == "Build":
        return _build_ref(spec, _created_id(step, refs), refs)
    return None


def _awaited_build(build_id: object, refs: Json, builds: dict[str, Json]) -> WorkRef | None:
    """Return the build that a condition waits for: it does not say whose, but its step does."""
    found = _REFERENCE.fullmatch(build_id) if isinstance(build_id, str) else None
    name = (
        found[1]
        if found
        else next((ref for ref in builds if as_object(refs.get(ref)).get("id") == build_id), "")
    )
    step = builds.get(name)
    if step is None:
        return None
    return _build_ref(as_object(step.get("spec")), _created_id(step, refs), refs)


def _build_ref(spec: Json, build_id: str | None, refs: Json) -> WorkRef | None:
    owner_kind = "job" if spec.get("type") == "job" else "service"
    branch, commit = (_resolve(spec.get(name), refs) for name in ("branch", "sha"))
    return _ref(BUILD, owner_kind, _resolve(spec.get("id"), refs), build_id, branch, commit)


def _ref(
    kind: str,
    owner_kind: str,
    owner_id: str | None,
    work_id: str | None,
    branch: str | None = None,
    commit: str | None = None,
) -> WorkRef | None:
    return WorkRef(kind, owner_kind, owner_id, work_id, branch, commit) if owner_id else None


def _created_id(step: Json, refs: Json) -> str | None:
    """Return the id of what a step has created, from the outputs of the run or its own."""
    ref = as_text(step.get("ref"))
    output = as_object(as_object(step.get("response")).get("data"))
    return (as_id(as_object(refs.get(ref)).get("id")) if ref else None) or as_id(output.get("id"))


def _resolve(value: object, refs: Json) -> str | None:
    """Return an id, or what a reference to another step's output stands for; None: unknown."""
    text = as_id(value)
    if text is None or "${" not in text:
        return text
    found = _REFERENCE.fullmatch(text)
    return as_id(as_object(refs.get(found[1])).get(found[2])) if found else None


def parse_job_run(fields: Json) -> Work | None:
    """Decode a job run; None where it has no id, or does not say whether it has concluded."""
    job_run_id, concluded = as_id(fields.get("id")), as_bool(fields.get("concluded"))
    if job_run_id is None or concluded is None:
        return None
    return Work(
        id=job_run_id,
        name=as_text(fields.get("runName")) or job_run_id,
        status=as_text(fields.get("status")) or _UNKNOWN,
        concluded=concluded,
        started_at=as_datetime(fields.get("startedAt")),
        ended_at=as_datetime(fields.get("concludedAt")),
    )


def parse_build(fields: Json) -> Work | None:
    """Decode a build; None where it has no id, the only field that Northflank always sends."""
    if (build_id := as_id(fields.get("id"))) is None:
        return None
    ended_at = as_datetime(fields.get("buildConcludedAt"))
    concluded = as_bool(fields.get("concluded"))
    if concluded is None:
        concluded = ended_at is not None
    return Work(
        id=build_id,
        name=build_id,
        status=as_text(fields.get("status")) or _UNKNOWN,
        concluded=concluded,
        started_at=as_datetime(fields.get("createdAt")),
        ended_at=ended_at,
        branch=_public(fields.get("branch")),
        commit=_public(fields.get("sha")),
    )


def _public(value: object) -> str | None:
    text = as_text(value)
    return None if text is None else redact_secrets(text)


def parse_log(body: Json) -> list[LogLine] | None:
    """Decode the lines of a log in the order sent; None: the answer contains no list of lines.

    Takes the documented list and two wrappers that Northflank's Python client accepts as well, with
    its other names of the fields. A line that is no text is shown as JSON would.
    """
    data = body.get("data")
    if isinstance(data, dict):
        data = data.get("logs", data.get("data"))
    if not isinstance(data, list):
        return None
    return [_log_line(as_object(entry)) for entry in as_array(data)]


def _log_line(fields: Json) -> LogLine:
    text = next((fields[name] for name in ("log", "message", "line") if name in fields), "")
    times = (as_datetime(fields.get(name)) for name in ("ts", "timestamp", "time"))
    # What is no text is shown as sent: Northflank does not say what a line can be.
    if not isinstance(text, str):
        text = json.dumps(text, ensure_ascii=False)
    return LogLine(next(filter(None, times), None), text)
