"""What Northflank's documentation leaves open, and what one answer shows of it. Pure.

Only for `manage.py check_upstream`. Each observation is a question of QUESTIONS and a short text
without ids, names or values of the account. Questions that are a choice of the sandbox have its
name and its values, so that the sandbox can be set to behave alike (docs/sandbox.md).
"""

import re
from collections.abc import Iterator

from dashboard.northflank import responses
from dashboard.northflank.http import Answer
from dashboard.northflank.redaction import MAX_NODES
from dashboard.northflank.values import as_array, as_datetime, as_object

type Observation = tuple[str, str]

QUESTIONS = {
    "run-order": "order of runs in a list",
    "timestamps": "form of the times of runs",
    "updated-at": "updatedAt of runs that ended after their creation",
    "concluded-by-status": "statuses seen, and whether such runs have concluded",
    "missing-fields": "optional fields that runs lack",
    "last-cursor": "cursor on the last page",
    "status-filter": "runs filtered by status",
    "concluded-filter": "runs filtered by concluded",
    "history": "how far back the runs go",
    "stage-spelling": "spelling of the stage in a path",
    "stage-without-flow": "runs of a stage without a release flow",
    "pipeline-stages": "stages in the answer for a pipeline",
    "step-times": "unit of the times of steps",
    "steps-without-response": "steps without a response",
    "refs": "values in refs",
    "response-data": "values in a step's response.data",
    "unknown-run": "answer for a run that does not exist",
    "no-access": "answer for what the role may not see",
    "rate-limit-headers": "headers of the rate limit",
    "counted-requests": "requests that the rate limit counts",
    "retry-after": "Retry-After of a 429",
    "429-body": "body of a 429",
}

_MIN_MILLISECONDS = 1e11  # as seconds it would be the year 5138
_TIMESTAMP_FORMS = {
    "0000-00-00 00:00:00.000Z": "space",
    "0000-00-00T00:00:00.000Z": "T",
    "0000-00-00 00:00:00Z": "no-fraction",
}
_PLAIN_FORM = re.compile(r"[0TZ:.+ -]{1,40}")
_OPTIONAL_FIELDS = ("name", "startedAt", "concludedAt")
_STATUS = re.compile(r"[a-z_]{1,30}")


def load(answer: Answer) -> dict[str, object]:
    """Return the JSON object of an answer, empty if it has none."""
    try:
        return as_object(responses.load_json(answer.body))
    except (ValueError, RecursionError):
        return {}


def from_any(answer: Answer) -> Iterator[Observation]:
    """Yield what the answer to any request shows."""
    has_headers = any(name.startswith("x-ratelimit-") for name in answer.headers)
    yield "rate-limit-headers", "present" if has_headers else "absent"
    body = load(answer)
    pagination = as_object(body.get("pagination"))
    if pagination.get("hasNextPage") is False:
        cursor = pagination.get("cursor", ...)
        names = {"Ellipsis": "omitted", "None": "null", "": "empty"}
        yield "last-cursor", names.get(str(cursor), "present")
    if answer.status == 403:
        yield "no-access", "403"
    if answer.status == 429:
        yield "retry-after", "present" if "retry-after" in answer.headers else "absent"
        has_error = isinstance(body.get("error"), dict)
        yield "429-body", "error" if has_error else "no-wrapper" if body else "text"


def from_runs(answer: Answer) -> Iterator[Observation]:
    """Yield what one page of runs shows."""
    runs = [as_object(run) for run in as_array(as_object(load(answer).get("data")).get("runs"))]
    times = [time for run in runs if (time := as_datetime(run.get("createdAt"))) is not None]
    if len(set(times)) > 1:
        if times == sorted(times, reverse=True):
            yield "run-order", "newest-first"
        else:
            yield "run-order", "oldest-first" if times == sorted(times) else "shuffled"
    for run in runs:
        yield from _from_run_fields(run)
        yield from _from_end(run)


def _from_run_fields(run: dict[str, object]) -> Iterator[Observation]:
    for field in ("createdAt", "updatedAt", "startedAt", "concludedAt"):
        if isinstance(text := run.get(field), str):
            form = re.sub(r"[0-9]", "0", text)
            if _PLAIN_FORM.fullmatch(form):
                yield "timestamps", _TIMESTAMP_FORMS.get(form, form)
    status, concluded = run.get("status"), run.get("concluded")
    if isinstance(status, str) and _STATUS.fullmatch(status) and isinstance(concluded, bool):
        yield "concluded-by-status", f"{status} {'concluded' if concluded else 'in flight'}"
    state = "concluded" if concluded is True else "in flight"
    for field in _OPTIONAL_FIELDS:
        # A run in flight has no end, and may not have started.
        if run.get(field) is None and (concluded is True or field == "name"):
            yield "missing-fields", f"{field} ({state})"


def _from_end(run: dict[str, object]) -> Iterator[Observation]:
    created, updated, concluded = (
        as_datetime(run.get(field)) for field in ("createdAt", "updatedAt", "concludedAt")
    )
    if created is None or updated is None or concluded is None or concluded <= created:
        return  # it does not show which of both times the last change has
    if run.get("concluded") is True:
        before_end = "created" if updated == created else "before the end"
        yield "updated-at", "exact" if updated >= concluded else before_end


def from_run(answer: Answer) -> Iterator[Observation]:
    """Yield what a run with its steps shows."""
    run = as_object(load(answer).get("data"))
    yield from _describe_values("refs", as_object(run.get("refs")))
    steps = list(_walk(run.get("spec")))
    without = sum(not as_object(step.get("response")) for step in steps)
    state = "concluded" if run.get("concluded") is True else "in flight"
    yield "steps-without-response", f"{without} of {len(steps)} ({state})"
    for step in steps:
        response = as_object(step.get("response"))
        for field in ("startTime", "endTime"):
            time = response.get(field)
            if isinstance(time, int | float) and not isinstance(time, bool):
                yield "step-times", "milliseconds" if time > _MIN_MILLISECONDS else "seconds"
        yield from _describe_values("response-data", as_object(response.get("data")))


def _walk(root: object) -> Iterator[dict[str, object]]:
    """Yield a step and all steps inside it, MAX_NODES at most."""
    pending = [root]
    for _ in range(MAX_NODES):
        if not pending:
            return
        step = as_object(pending.pop())
        if step:
            yield step
            pending.extend(as_array(as_object(step.get("spec")).get("steps")))


def _describe_values(question: str, values: dict[str, object]) -> Iterator[Observation]:
    for value in values.values():
        yield question, _type_name(value)


def from_pipeline(answer: Answer) -> Iterator[Observation]:
    """Yield what a single pipeline shows."""
    stages = as_object(load(answer).get("data")).get("stages")
    if isinstance(stages, list):
        kinds = sorted({_type_name(stage) for stage in stages})
        yield "pipeline-stages", f"array of {len(stages)} ({', '.join(kinds) or 'empty'})"
    else:
        yield "pipeline-stages", "absent" if stages is None else _type_name(stages)


def from_unknown_run(answer: Answer) -> Iterator[Observation]:
    """Yield what the answer for a run that does not exist shows."""
    error = as_object(load(answer).get("error"))
    fields = [field for field in ("message", "status", "id", "details") if field in error]
    yield "unknown-run", f"{answer.status} with {', '.join(fields) or 'no error object'}"


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "flag", int: "number", float: "number", str: "text", dict: "object"}
    return names.get(type(value), "array")
