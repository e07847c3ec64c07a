"""Response bodies as Northflank's API sends them.

Shapes: https://northflank.com/docs/v1/api/project/pipelines/get-release-flow-run
"""

from typing import Any

Json = dict[str, Any]

RUN_ID = "5b0c7c1e-0d55-4f0e-9a55-6f5b3f1f2a01"


def run(run_id: str = RUN_ID, **fields: Any) -> Json:
    """Return a run as in lists; a field given as `...` is omitted."""
    body = {
        "id": run_id,
        "name": "Nightly 42",
        "status": "running",
        "concluded": False,
        "startedAt": "2026-03-02 08:15:03.120Z",
        "createdAt": "2026-03-02 08:15:01.004Z",
        "updatedAt": "2026-03-02 08:16:40.551Z",
    } | fields
    return {field: value for field, value in body.items() if value is not ...}


def detail(run_id: str = RUN_ID, *, steps: list[Any] | None = None, **fields: Any) -> Json:
    """Return a run as in its detail response."""
    spec = workflow(*(steps if steps is not None else [job_run()]))
    return run(run_id, **({"apiVersion": "v1.2", "spec": spec} | fields))


def workflow(*steps: Any, **spec: Any) -> Json:
    """Return a Workflow node that contains the steps."""
    return {"kind": "Workflow", "spec": {"type": "sequential", "steps": list(steps)} | spec}


def job_run(job_id: str = "migrate", **fields: Any) -> Json:
    """Return a JobRun node in progress."""
    return {
        "kind": "JobRun",
        "condition": "success",
        "spec": {"jobId": job_id},
        "response": {
            "status": "waiting",
            "retries": {"attempts": 2, "maxAttempts": 3, "timestamp": 1760000190},
            "startTime": 1760000190,
        },
    } | fields


def data(value: Any) -> Json:
    """Wrap the data of a single object."""
    return {"data": value}


def page(key: str, *items: Any, has_next: bool = False) -> Json:
    """Wrap a page of a list."""
    pagination = {"hasNextPage": has_next, "count": len(items)}
    return {"data": {key: list(items)}, "pagination": pagination}


def error(message: str, **fields: Any) -> Json:
    """Return an error body."""
    return {"error": {"message": message} | fields}
