"""The API's routes: which function answers a request."""

import re
from collections.abc import Callable
from urllib.parse import unquote

from . import job_api
from .api import Call
from .errors import not_found
from .serializers import Json

type Handler = Callable[[Call], Json]

_PIPELINE = "/projects/{project}/pipelines/{pipeline}"
_FLOW = _PIPELINE + "/release-flows/{stage}"
_JOB = "/projects/{project}/(?P<kind>jobs)/{workload}"
_WORKLOAD = "/projects/{project}/(?P<kind>jobs|services)/{workload}"


def _route(method: str, path: str, handler: Handler) -> tuple[str, re.Pattern[str], Handler]:
    """Return a route; those of projects exist with and without a team in the path."""
    team = r"(?:/teams/(?P<team>[^/]+))?" if path.startswith("/projects") else ""
    pattern = re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path)
    return method, re.compile(f"/v1{team}{pattern}"), handler


ROUTES = (
    _route("GET", "/auth", Call.get_auth),
    _route("GET", "/login", Call.login),
    _route("GET", "/teams", Call.list_teams),
    _route("GET", "/projects", Call.list_projects),
    _route("GET", "/projects/{project}", Call.get_project),
    _route("GET", "/projects/{project}/pipelines", Call.list_pipelines),
    _route("GET", _PIPELINE, Call.get_pipeline),
    _route("GET", _FLOW, Call.get_release_flow),
    _route("GET", _FLOW + "/runs", Call.list_runs),
    _route("POST", _FLOW + "/runs", Call.start_run),
    _route("GET", _FLOW + "/runs/{run}", Call.get_run),
    _route("POST", _FLOW + "/runs/{run}/abort", Call.abort_run),
    _route("GET", _JOB + "/runs", job_api.list_job_runs),
    _route("GET", _JOB + "/runs/{child}", job_api.get_job_run),
    _route("DELETE", _JOB + "/runs/{child}", job_api.abort_job_run),
    _route("GET", _WORKLOAD + "/build", job_api.list_builds),
    _route("GET", _WORKLOAD + "/build/{child}", job_api.get_build),
    _route("DELETE", _WORKLOAD + "/build/{child}", job_api.abort_build),
    _route("GET", _JOB + "/logs", job_api.read_logs),
    _route("GET", _WORKLOAD + "/build-logs", job_api.read_build_logs),
)


def find_route(method: str, path: str) -> tuple[Handler, dict[str, str]]:
    """Return the function that answers a request, whose name faults select, and its parameters.

    The path is still percent-encoded: an encoded slash is part of a value, not a separator.
    """
    for route_method, pattern, handler in ROUTES:
        if route_method == method and (match := pattern.fullmatch(path)):
            return handler, {name: unquote(v) for name, v in match.groupdict().items() if v}
    return _unknown_route, {}


def _unknown_route(call: Call) -> Json:
    not_found("Route")
