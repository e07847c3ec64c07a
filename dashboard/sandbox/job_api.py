"""The calls about job runs, builds and logs: each function answers one, or raises an ApiError."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from hashlib import blake2b

from .api import Call
from .children import Child
from .choices import Choices
from .errors import ApiError, not_found
from .logs import Line, read_child, read_service, select_lines
from .names import release_number
from .serializers import Json, format_time


def list_job_runs(call: Call) -> Json:
    children = _list_children(call, "JobRun")
    return call.page("runs", children, lambda c: _serialize_job_run(c, call.now, call.choices))


def get_job_run(call: Call) -> Json:
    return {"data": _serialize_job_run(_find_child(call, "JobRun"), call.now, call.choices)}


def abort_job_run(call: Call) -> Json:
    return _abort(call, _find_child(call, "JobRun"))


def list_builds(call: Call) -> Json:
    children = _list_children(call, "Build")
    return call.page("builds", children, lambda child: _serialize_build(child, call.now))


def get_build(call: Call) -> Json:
    return {"data": _serialize_build(_find_child(call, "Build"), call.now)}


def abort_build(call: Call) -> Json:
    return _abort(call, _find_child(call, "Build"))


def read_logs(call: Call) -> Json:
    children = _list_children(call, "JobRun")
    if call.params["kind"] == "jobs":
        return _read_children(call, children, call.query.get("runId"))
    return _read_lines(call, partial(read_service, call.params["workload"]))


def read_build_logs(call: Call) -> Json:
    return _read_children(call, _list_children(call, "Build"), call.query.get("buildId"))


def _read_children(call: Call, children: list[Child], child_id: str | None) -> Json:
    def read(since: float, until: float) -> Iterator[Line]:
        for child in children:
            if child_id in {None, child.id}:
                yield from read_child(child, since, until)

    return _read_lines(call, read)


def _read_lines(call: Call, read: Callable[[float, float], Iterable[Line]]) -> Json:
    lines = select_lines(call.query, call.now, read)
    if not lines and call.choices["no-lines"] == "404":
        not_found("Logs")
    if call.choices["log-order"] == "shuffled":
        lines.sort(key=lambda line: blake2b(repr(line).encode()).digest())
    data, shape = [_serialize_line(line) for line in lines], call.choices["log-shape"]
    return {"data": data if shape == "list" else {shape: data}}


def _list_children(call: Call, kind: str) -> list[Child]:
    workload = call.params["kind"], call.params["workload"]
    return call.world.list_children(call.find_project().id, kind, workload, call.now)


def _find_child(call: Call, kind: str) -> Child:
    children = (c for c in _list_children(call, kind) if c.id == call.params["child"])
    return next(children, None) or not_found("Job run" if kind == "JobRun" else "Build")


def _abort(call: Call, child: Child) -> Json:
    if call.now < child.concluded_at:
        child.abort(call.now)
    elif call.choices["abort-concluded"] != "200":
        raise ApiError(int(call.choices["abort-concluded"]), "It has already concluded")
    return {"data": {}}


def _serialize_job_run(child: Child, now: float, choices: Choices) -> Json:
    is_concluded = now >= child.concluded_at
    status = ("SUCCESS" if child.succeeds else "FAILED") if is_concluded else "RUNNING"
    counts = {"active": "RUNNING", "failed": "FAILED", "succeeded": "SUCCESS"}
    data: Json = {key: int(status == counted) for key, counted in counts.items()}
    data |= {"id": child.id, "runName": child.name, "status": status, "concluded": is_concluded}
    data |= {"completions": int(is_concluded), "backoffLimit": 0}
    data |= {"startedAt": _format_second(child.started_at)}
    if is_concluded:
        data["concludedAt"] = _format_second(child.concluded_at)
    elif choices["concluded-at"] != "absent":
        data["concludedAt"] = None if choices["concluded-at"] == "null" else ""
    return data


def _format_second(timestamp: float) -> str:
    return f"{format_time(timestamp)[:19]}Z"


def _serialize_build(child: Child, now: float) -> Json:
    is_concluded, elapsed = now >= child.concluded_at, now - child.started_at
    status = "PENDING" if elapsed < 2 else "CLONING" if elapsed < 5 else "BUILDING"
    if is_concluded:
        status = "ABORTED" if child.is_cut_short else "FAILURE" if child.error else "SUCCESS"
    data: Json = {"id": child.id, "branch": "main", "sha": f"{release_number(child.run):040x}"}
    data |= {"status": status, "concluded": is_concluded, "success": status == "SUCCESS"}
    data |= {"pullRequestId": None, "message": child.error if status == "FAILURE" else None}
    data |= {"createdAt": format_time(child.started_at)}
    data |= {"registry": {"uri": f"registry.example/{child.step.workload[1]}:{child.id}"}}
    return data | ({"buildConcludedAt": int(child.concluded_at)} if is_concluded else {})


def _serialize_line(line: Line) -> Json:
    """Serialize a line; about half of them have the prefix of a container runtime."""
    text = line.text
    if int(line.time / 2) % 2:
        text = f"{format_time(line.time - 0.002).removesuffix('Z')}190216Z stdout F {text}"
    return {"containerId": line.container, "log": text, "ts": format_time(line.time)}
