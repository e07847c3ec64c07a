"""Hypothesis strategies for answers of Northflank, from the types of its official Python SDK.

Optional fields are absent, null or present; enumerations also have values that the SDK lacks, and
objects fields that it lacks.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints
from urllib.parse import quote

from hypothesis import strategies as st
from northflank import _types as sdk

from dashboard.models.catalog import StageName
from dashboard.northflank import WorkRef
from tests.support import payloads
from tests.support.payloads import Json

type Place = tuple[str, str, str]  # project, pipeline and stage

TEXTS = st.text(max_size=20)
IDS = st.from_regex(r"[a-z][a-z0-9-]{0,38}", fullmatch=True) | st.text(
    st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
).filter(lambda text: text not in {".", ".."})
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=4,
)
NEW_FIELDS = st.dictionaries(st.sampled_from(["new", "x-new"]), ANYTHING)
JOB, JOB_RUN, SERVICE, BUILD = "migrate", "job-run-1", "api", "build-1"
# What steps have started; these have answers in each project.
WORKS = (
    WorkRef("job_run", "job", JOB, JOB_RUN),
    WorkRef("build", "job", JOB, BUILD),
    WorkRef("build", "service", SERVICE, BUILD),
)


@st.composite
def times(draw: st.DrawFn) -> str:
    """A time of the last days, in one of the forms that Northflank's documentation shows."""
    seconds = draw(st.integers(-600_000, 600))
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    text = at.isoformat(
        draw(st.sampled_from(" T")), draw(st.sampled_from(["seconds", "milliseconds"]))
    )
    return text.replace("+00:00", "Z")


@st.composite
def unix_seconds(draw: st.DrawFn) -> int:
    return int(datetime.now(UTC).timestamp()) + draw(st.integers(-600_000, 600))


# --- objects, by their types ----------------------------------------------------------------------


def objects(shape: Any, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    """Return objects of a type of the SDK; `fixed` are the values of some fields."""
    required, optional = {}, {}
    for name, hint in get_type_hints(shape, vars(sdk), include_extras=True).items():
        if name in fixed:
            continue
        if get_origin(hint) is NotRequired:
            optional[name] = st.none() | _values(get_args(hint)[0], name)
        else:
            required[name] = _values(hint, name)
    known = st.fixed_dictionaries(required | fixed, optional=optional)
    return st.builds(lambda new, fields: new | fields, NEW_FIELDS, known)


def _values(hint: Any, name: str) -> st.SearchStrategy[Any]:
    """Return values of a field, by its type; a time and a tree of steps by its name."""
    arguments = get_args(hint)
    if name == "spec" and get_origin(hint) is dict:
        return STEPS
    if name == "refs":
        return REFS
    if name.endswith("At") and hint is str:
        return times()
    if hasattr(hint, "__required_keys__"):  # a TypedDict
        return objects(hint)
    if get_origin(hint) is Literal:
        return st.sampled_from([*arguments, "not-in-the-sdk"])
    if get_origin(hint) is Union:
        return st.one_of(*(_values(argument, name) for argument in arguments))
    if get_origin(hint) is list:
        return st.lists(_values(arguments[0], name), max_size=2)
    if get_origin(hint) is dict:
        return st.dictionaries(TEXTS, _values(arguments[1], ""), max_size=2)
    return {str: TEXTS, bool: st.booleans(), Any: ANYTHING, type(None): st.none()}.get(
        hint, NUMBERS
    )


# --- steps, which the SDK leaves open -------------------------------------------------------------

STATUSES = (
    *("waiting", "invalid", "failure", "retrying", "success", "aborted", "aborting", "skipped"),
    *("async_wait", "approval_wait", "unknown", "not-in-the-sdk"),
)
RESPONSES = st.fixed_dictionaries(
    {"status": st.just("waiting") | st.sampled_from(STATUSES)},
    optional={
        "error": st.none() | st.fixed_dictionaries({"code": NUMBERS, "message": TEXTS}),
        "retries": st.fixed_dictionaries(
            {"attempts": NUMBERS, "maxAttempts": NUMBERS, "timestamp": unix_seconds()}
        ),
        "startTime": st.none() | unix_seconds(),
        "endTime": st.none() | unix_seconds(),
        "data": ANYTHING | st.just({"id": JOB_RUN}) | st.just({"id": BUILD}),
    },
)
REFS = st.fixed_dictionaries(
    {}, optional={"job": st.just({"id": JOB_RUN}), "build": st.just({"id": BUILD})}
)
_SPECS: list[tuple[str, st.SearchStrategy[Any]]] = [
    ("JobRun", st.just({"jobId": JOB})),
    ("Build", st.sampled_from([{"id": SERVICE, "type": "service"}, {"id": JOB, "type": "job"}])),
    ("Condition", st.just({"kind": "JobRun", "spec": {"data": {"jobId": JOB, "runId": JOB_RUN}}})),
    ("Approval", st.fixed_dictionaries({"amount": NUMBERS})),
    ("NotInTheSdk", ANYTHING),
]


def _steps(kind: str, spec: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return st.fixed_dictionaries(
        {"kind": st.just(kind)},
        optional={
            "spec": spec,
            "ref": st.sampled_from(["job", "build"]) | TEXTS,
            "response": st.none() | RESPONSES,
            "condition": st.none() | st.just("success"),
            "timeoutDuration": NUMBERS | st.just("${args.X}"),
            "skipNodeExecution": st.sampled_from(["true", "false"]),
        },
    )


def _workflows(steps: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    order = st.sampled_from(["sequential", "parallel"])
    inner = st.fixed_dictionaries({"type": order, "steps": st.lists(steps, max_size=3)})
    return _steps("Workflow", inner)


STEPS = st.recursive(
    st.one_of(*(_steps(kind, spec) for kind, spec in _SPECS)), _workflows, max_leaves=5
)


# --- an account: all that the dashboard reads -----------------------------------------------------


@dataclass
class Account:
    """What Northflank has, and its answers, as by `PagedServer.pages`."""

    pages: dict[str, list[Any]] = field(default_factory=dict)
    pipelines: set[tuple[str, str]] = field(default_factory=set)
    projects: set[str] = field(default_factory=set)
    runs: dict[tuple[Place, str], Json] = field(default_factory=dict)  # by place and id


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """An account with each route that the dashboard reads, and the abort of each run."""
    account = Account()
    account.pages["GET /v1/auth"] = [payloads.data(draw(objects(sdk.GetAuthResponse)))]
    projects = draw(_unique(sdk.ListProjectsResponseProject, max_size=2))
    account.pages["GET /v1/projects"] = draw(_pages("projects", projects))
    for project in projects:
        _add_project(draw, account, project["id"])
    return account


def _add_project(draw: st.DrawFn, account: Account, project: str) -> None:
    path = f"GET /v1/projects/{quote(project, safe='')}"
    account.projects.add(project)
    pipelines = draw(_unique(sdk.ListPipelinesResponsePipeline, max_size=2))
    account.pages[f"{path}/pipelines"] = draw(_pages("pipelines", pipelines))
    for pipeline in pipelines:
        account.pipelines.add((project, pipeline["id"]))
        path_of_pipeline = f"{path}/pipelines/{quote(pipeline['id'], safe='')}"
        account.pages[path_of_pipeline] = [payloads.data(draw(objects(sdk.GetPipelineResponse)))]
        for stage in draw(st.sets(st.sampled_from(StageName.values), min_size=1, max_size=2)):
            _add_flow(draw, account, (project, pipeline["id"], stage))
    for ref in WORKS:
        shape, key, routes = _WORK_ROUTES[ref.kind]
        work = objects(shape, id=st.just(ref.id))
        owner = f"{path}/{ref.owner_kind}s/{ref.owner_id}"
        account.pages[f"{owner}/{routes}"] = draw(_pages(key, [draw(work)]))
        account.pages[f"{owner}/{routes}/{ref.id}"] = [payloads.data(draw(work))]
        logs = "logs" if ref.kind == "job_run" else "build-logs"
        account.pages[f"{owner}/{logs}"] = [payloads.data(draw(LOGS))]


# The type, the name of the list, and the route of what is of a kind.
_WORK_ROUTES = {
    "job_run": (sdk.GetJobRunResponse, "runs", "runs"),
    "build": (sdk.GetJobBuildResponse, "builds", "build"),
}
LOGS = st.lists(
    st.fixed_dictionaries({"log": ANYTHING, "ts": times()}, optional={"containerId": TEXTS}),
    max_size=3,
)


def _add_flow(draw: st.DrawFn, account: Account, place: Place) -> None:
    project, pipeline, stage = place
    route = (
        f"/v1/projects/{quote(project, safe='')}/pipelines/{quote(pipeline, safe='')}"
        f"/release-flows/{stage.lower()}"
    )
    account.pages[f"GET {route}"] = [payloads.data(draw(objects(sdk.GetReleaseFlowResponse)))]
    runs = draw(_unique(sdk.ListReleaseFlowRunsResponseRun, max_size=4, min_size=0))
    account.pages[f"GET {route}/runs"] = draw(_pages("runs", runs))
    if not runs and draw(st.booleans()):  # the only list that is optional
        account.pages[f"GET {route}/runs"] = [payloads.data({})]
    if draw(st.booleans()):  # else it ignores the filter
        in_flight = [run for run in runs if not run["concluded"]]
        account.pages[f"GET {route}/runs?concluded=false"] = draw(_pages("runs", in_flight))
    details = objects(sdk.AbortReleaseFlowRunResponse)  # the type of both
    for run in runs:
        account.runs[place, run["id"]] = run
        path = f"{route}/runs/{quote(run['id'], safe='')}"
        account.pages[f"GET {path}"] = [payloads.data(draw(details) | run)]
        same = {"id": run["id"]}
        account.pages[f"POST {path}/abort"] = [payloads.data(draw(details) | same)]


def _unique(shape: Any, max_size: int, min_size: int = 1) -> st.SearchStrategy[list[Json]]:
    entries = objects(shape, id=IDS)
    return st.lists(
        entries, min_size=min_size, max_size=max_size, unique_by=lambda entry: entry["id"]
    )


@st.composite
def _pages(draw: st.DrawFn, key: str, entries: list[Json]) -> list[Json]:
    """Any split of a list into pages, empty ones included, perhaps with an odd one at the end."""
    cuts = sorted(draw(st.lists(st.integers(0, len(entries)), max_size=2)))
    bodies = [
        payloads.page(key, *entries[a:b], has_next=True)
        for a, b in pairwise([0, *cuts, len(entries)])
    ]
    if draw(st.booleans()):
        bodies.append(payloads.data(draw(st.sampled_from([{}, None, {key: None}, {key: []}]))))
    else:
        bodies[-1]["pagination"]["hasNextPage"] = False
    return [body | draw(NEW_FIELDS) for body in bodies]
