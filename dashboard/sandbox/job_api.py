"""The calls about job runs, builds and logs: each function answers one, or raises an ApiError."""

from functools import partial

from .api import Call
from .children import Child
from .errors import ApiError, not_found
from .logs import Line, select_lines
from .serializers import Json, format_time, release_number


def list_job_runs(call: Call) -> Json:
    return call.page("runs", _list_children(call, "JobRun"), partial(_serialize_job_run, call))


def get_job_run(call: Call) -> Json:
    return {"data": _serialize_job_run(call, _find_child(call, "JobRun"))}


def abort_job_run(call: Call) -> Json:
    return _abort(call, "JobRun")


def list_builds(call: Call) -> Json:
    return call.page("builds", _list_children(call, "Build"), partial(_serialize_build, call))


def get_build(call: Call) -> Json:
    return {"data": _serialize_build(call, _find_child(call, "Build"))}


def abort_build(call: Call) -> Json:
    return _abort(call, "Build")


def read_logs(call: Call) -> Json:
    return _read_lines(call, "JobRun", "runId")


def read_build_logs(call: Call) -> Json:
    return _read_lines(call, "Build", "buildId")


def _read_lines(call: Call, kind: str, id_name: str) -> Json:
    children = [c for c in _list_children(call, kind) if call.query.get(id_name, c.id) == c.id]
    lines = select_lines(call.query, call.now, children)
    return {"data": [_serialize_line(line) for line in lines]}


def _list_children(call: Call, kind: str) -> list[Child]:
    workload = call.params["kind"], call.params["workload"]
    return call.world.list_children(call.find_project().id, kind, workload, call.now)


def _find_child(call: Call, kind: str) -> Child:
    children = (c for c in _list_children(call, kind) if c.id == call.params["child"])
    return next(children, None) or not_found("Job run" if kind == "JobRun" else "Build")


def _abort(call: Call, kind: str) -> Json:
    child = _find_child(call, kind)
    if call.now < child.concluded_at:
        child.run.child_aborts.setdefault(child.id, call.now)
    elif call.choices["abort-concluded"] != "200":
        raise ApiError(int(call.choices["abort-concluded"]), "It has already concluded")
    return {"data": {}}


def _serialize_job_run(call: Call, child: Child) -> Json:
    is_concluded = call.now >= child.concluded_at
    status = "FAILED" if child.error or child.is_cut_short else "SUCCESS"
    status = status if is_concluded else "RUNNING"
    counts = {"active": "RUNNING", "failed": "FAILED", "succeeded": "SUCCESS"}
    data: Json = {key: int(status == counted) for key, counted in counts.items()}
    data |= {"id": child.id, "runName": child.name, "status": status, "concluded": is_concluded}
    data |= {"completions": int(is_concluded), "backoffLimit": 0}
    data |= {"startedAt": f"{format_time(child.started_at)[:19]}Z", "concludedAt": None}
    if is_concluded:
        data["concludedAt"] = f"{format_time(child.concluded_at)[:19]}Z"
    return data


def _serialize_build(call: Call, child: Child) -> Json:
    is_concluded, elapsed = call.now >= child.concluded_at, call.now - child.started_at
    status = "PENDING" if elapsed < 2 else "CLONING" if elapsed < 5 else "BUILDING"
    if is_concluded:
        status = "ABORTED" if child.is_cut_short else "FAILURE" if child.error else "SUCCESS"
    data: Json = {"id": child.id, "branch": "main", "sha": f"{release_number(child.run):040x}"}
    data |= {"status": status, "concluded": is_concluded, "success": status == "SUCCESS"}
    data |= {"message": child.error if status == "FAILURE" else None}
    data |= {"createdAt": format_time(child.started_at)}
    data |= {"registry": {"uri": f"registry.example/{child.step.workload[1]}:{child.id}"}}
    return data | ({"buildConcludedAt": int(child.concluded_at)} if is_concluded else {})


def _serialize_line(line: Line) -> Json:
    """Serialize a line; about half of them have the prefix of a container runtime."""
    text = line.text
    if int(line.time / 2) % 2:
        text = f"{format_time(line.time - 0.002).removesuffix('Z')}190216Z stdout F {text}"
    return {"containerId": line.container, "log": text, "ts": format_time(line.time)}
