"""The client of Northflank's API: one method per endpoint, and lists of several pages.

Nothing of HTTP leaks out: callers get `models.py` or an exception of `errors.py`.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial

from dashboard.northflank import decoding, responses
from dashboard.northflank.errors import AccessDenied, NotFound
from dashboard.northflank.http import HttpClient
from dashboard.northflank.models import (
    BUILD,
    JOB_RUN,
    Auth,
    Entry,
    LogLine,
    Page,
    Pipeline,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
    Work,
    WorkRef,
)
from dashboard.northflank.secret_values import SecretValues, secret_values
from dashboard.northflank.values import Json
from dashboard.northflank.work_decoding import parse_build, parse_job_run, parse_log

MAX_PER_PAGE = 100  # Northflank's own limit
MAX_LOG_LINES = 1000  # Northflank's own limit

_PARSERS = {JOB_RUN: parse_job_run, BUILD: parse_build}
# The rights that these calls need, as two editions of Northflank's documentation spell them.
LOG_RIGHT = "Deployment > View Instance Logs (or View Observability)"
_READ_RIGHTS = {JOB_RUN: "Jobs > General > Read", BUILD: "Services > General > Read"}
_ABORT_RIGHTS = {
    JOB_RUN: "Jobs > Deployment > Deploy Build (or Jobs > General > Update)",
    BUILD: "Services > Deployment > Deploy Build (or Services > General > Update)",
}


class NorthflankClient(HttpClient):
    """A client of Northflank's API.

    Every method raises NorthflankError. Reads are retried once, after a short pause, when they fail
    on the way or with a 5xx; a POST only if its connection never opened: it cannot have arrived.
    A list is read by pages of at most MAX_PER_PAGE entries, numbered from 1. A stage is given by
    its name.
    """

    _spell: Callable[[str], str] | None = None  # a stage as it is in paths; None: not known yet

    async def get_auth(self) -> Auth:
        """Return whose token this is; raises NotFound where the API has no such endpoint yet."""
        # https://northflank.com/docs/v1/api/get-current-authentication-info
        return await self._request_object("GET", "auth", ("auth",), decoding.parse_auth)

    async def list_projects(self, page: int = 1) -> Page[Project]:
        """Return one page of the projects that the token can see."""
        # https://northflank.com/docs/v1/api/projects/list-projects
        return await self._request_page("projects", self._path(), decoding.parse_project, page)

    async def list_pipelines(self, project_id: str, page: int = 1) -> Page[Pipeline]:
        """Return one page of a project's pipelines."""
        # https://northflank.com/docs/v1/api/project/pipelines/list-pipelines
        path = self._path(project_id, "pipelines")
        return await self._request_page("pipelines", path, decoding.parse_pipeline, page)

    async def check_pipeline(self, project_id: str, pipeline_id: str) -> None:
        """Raise NotFound unless the token can read the pipeline."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-pipeline
        path = self._path(project_id, "pipelines", pipeline_id)
        await self._request_object("GET", "pipeline", path, lambda data: "name" in data or None)

    async def get_release_flow(self, project_id: str, pipeline_id: str, stage: str) -> ReleaseFlow:
        """Return what a stage runs; raises NotFound where it has no release flow."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-release-flow
        path = partial(self._flow_path, project_id, pipeline_id)
        parse = decoding.parse_release_flow
        return await self._in_stage(
            stage, lambda name: self._request_object("GET", "release-flow", path(name), parse)
        )

    async def list_runs(
        self,
        project_id: str,
        pipeline_id: str,
        stage: str,
        *,
        concluded: bool | None = None,
        page: int = 1,
        per_page: int = MAX_PER_PAGE,
    ) -> Page[Run]:
        """Return one page of a stage's runs, in no particular order.

        Without a release flow: NotFound or an empty page, which is undocumented. Older servers may
        ignore `concluded`: check each run.
        """
        # https://northflank.com/docs/v1/api/project/pipelines/list-release-flow-runs
        path = partial(self._flow_path, project_id, pipeline_id)
        query = {} if concluded is None else {"concluded": "true" if concluded else "false"}
        return await self._in_stage(
            stage,
            lambda name: self._request_page(
                "runs", (*path(name), "runs"), decoding.parse_run, page, per_page, **query
            ),
        )

    async def get_run(
        self, project_id: str, pipeline_id: str, stage: str, run_id: str
    ) -> RunDetail:
        """Return one run with its steps; raises NotFound where Northflank has it no longer."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-release-flow-run
        path = partial(self._flow_path, project_id, pipeline_id)
        parse = decoding.parse_run_detail
        return await self._in_stage(
            stage,
            lambda name: self._request_object("GET", "run", (*path(name), "runs", run_id), parse),
        )

    async def abort_run(
        self,
        project_id: str,
        pipeline_id: str,
        stage: str,
        run_id: str,
        *,
        deadline: float | None = None,
    ) -> RunDetail:
        """Ask Northflank to abort the run, and return its state as of the response.

        The abort takes effect later: expect `aborting` before the run has concluded. It is sent
        once. Where no response comes (Unreachable with `may_have_arrived`), or none about this run
        (UnexpectedResponse, perhaps from a proxy), the run may be aborted all the same. At
        `deadline`, a time of time.monotonic, sending and waiting end.
        """
        # https://northflank.com/docs/v1/api/project/pipelines/abort-release-flow-run
        path = partial(self._flow_path, project_id, pipeline_id)
        parse = decoding.parse_run_detail
        detail = await self._in_stage(
            stage,
            lambda name: self._request_object(
                "POST", "abort", (*path(name), "runs", run_id, "abort"), parse, deadline=deadline
            ),
        )
        if detail.run.id != run_id:
            raise responses.unexpected("it describes another run")
        return detail

    async def get_secret_values(
        self, project_id: str, pipeline_id: str, stage: str, run_id: str
    ) -> SecretValues:
        """Return the values of a run that no line of its logs may show; raises NotFound."""
        path = partial(self._flow_path, project_id, pipeline_id)
        return await self._in_stage(
            stage,
            lambda name: self._request_object(
                "GET", "run", (*path(name), "runs", run_id), secret_values
            ),
        )

    async def get_work(self, project_id: str, ref: WorkRef) -> Work:
        """Return the job run or build that `ref`, which has an id, names; raises NotFound."""
        # https://northflank.com/docs/v1/api/project/jobs/get-run-details
        # https://northflank.com/docs/v1/api/project/services/get-service-build
        with _own_right(_READ_RIGHTS[ref.kind]):
            return await self._request_object(
                "GET", ref.kind, self._work_path(project_id, ref), _PARSERS[ref.kind]
            )

    async def list_works(self, project_id: str, ref: WorkRef) -> Page[Work]:
        """Return the first page of all job runs of the job, or builds of the owner, of `ref`.

        In no particular order; whether the newest come first is undocumented.
        """
        # https://northflank.com/docs/v1/api/project/jobs/get-job-runs
        # https://northflank.com/docs/v1/api/project/services/list-service-builds
        key = "runs" if ref.kind == JOB_RUN else "builds"
        with _own_right(_READ_RIGHTS[ref.kind]):
            return await self._request_page(
                key, self._works_path(project_id, ref), _PARSERS[ref.kind], 1, route=f"{ref.kind}s"
            )

    async def abort_work(
        self, project_id: str, ref: WorkRef, *, deadline: float | None = None
    ) -> None:
        """Ask Northflank to abort the job run or build that `ref`, which has an id, names.

        It is sent once; as for `abort_run`, without a response it may be aborted all the same. Its
        status tells when it has ended: a job run has none that means aborted.
        """
        # https://northflank.com/docs/v1/api/project/jobs/abort-job-run
        # https://northflank.com/docs/v1/api/project/services/abort-service-build
        with _own_right(_ABORT_RIGHTS[ref.kind]):
            await self.request_json(
                "DELETE",
                f"abort-{ref.kind}",
                self._work_path(project_id, ref),
                deadline=deadline,
            )

    async def read_log(
        self, project_id: str, ref: WorkRef, *, since: datetime, until: datetime, max_lines: int
    ) -> list[LogLine]:
        """Return the newest lines of a job run or build between two times, in the order sent.

        At most `max_lines`, up to MAX_LOG_LINES. Raises NotFound where there is no such job run or
        build; some answer so where there are no lines.
        """
        # https://northflank.com/docs/v1/api/project/jobs/get-job-logs
        # https://northflank.com/docs/v1/api/project/services/get-service-build-logs
        is_build = ref.kind == BUILD
        path = self._path(
            project_id, f"{ref.owner_kind}s", ref.owner_id, "build-logs" if is_build else "logs"
        )
        # Northflank's own defaults are undocumented.
        query = {
            "queryType": "range",
            "direction": "backward",
            "lineLimit": str(max_lines),
            "startTime": _milliseconds(since),
            "endTime": _milliseconds(until),
            ("buildId" if is_build else "runId"): ref.id or "",
        }
        with _own_right(LOG_RIGHT):
            body = await self.request_json("GET", "logs", path, query=query)
        lines = parse_log(body)
        if lines is None:
            raise responses.unexpected("no lines found")
        return lines[:max_lines]

    def _works_path(self, project_id: str, ref: WorkRef) -> tuple[str, ...]:
        return self._path(
            project_id,
            f"{ref.owner_kind}s",
            ref.owner_id,
            "runs" if ref.kind == JOB_RUN else "build",
        )

    def _work_path(self, project_id: str, ref: WorkRef) -> tuple[str, ...]:
        return (*self._works_path(project_id, ref), ref.id or "")

    def _path(self, *parts: str) -> tuple[str, ...]:
        return (*self._team_path, "projects", *parts)

    def _flow_path(self, project_id: str, pipeline_id: str, stage: str) -> tuple[str, ...]:
        return self._path(project_id, "pipelines", pipeline_id, "release-flows", stage)

    async def _in_stage[T](self, stage: str, request: Callable[[str], Awaitable[T]]) -> T:
        """Send a request with the stage as it is in paths: `production` or `Production`.

        Which is undocumented. Until one of them has been answered, the other is tried after a 404.
        """
        if self._spell is not None:
            return await request(self._spell(stage))
        spell: Callable[[str], str] = str.lower
        try:
            answer = await request(spell(stage))
        except NotFound:
            spell = str.capitalize
            answer = await request(spell(stage))
        if not isinstance(answer, Page) or answer.items:  # any stage may have an empty list
            self._spell = spell
        return answer

    async def _request_page[T: Entry](
        self,
        key: str,
        path: tuple[str, ...],
        parse_item: Callable[[Json], T | None],
        number: int,
        per_page: int = MAX_PER_PAGE,
        *,
        route: str = "",
        **query: str,
    ) -> Page[T]:
        paging = {"per_page": str(per_page), "page": str(number)}
        body = await self.request_json("GET", route or key, path, query=paging | query)
        page = decoding.parse_page(body, key, parse_item, limit=per_page)
        if number > 1 and not (page and body["data"]):
            # The pages before it count. As an entry is missing, this list removes nothing.
            return Page((), has_next=False, omitted=1)
        if page is None:
            raise responses.unexpected("no list found")
        # On a later page it is the rest of a list that could be read.
        if number == 1 and page.omitted and not page.items:
            raise responses.unexpected("no readable entry in the list")
        return page

    async def _request_object[T](
        self,
        method: str,
        route: str,
        path: tuple[str, ...],
        parse: Callable[[Json], T | None],
        *,
        deadline: float | None = None,
    ) -> T:
        """Return the object that `parse` finds in the response; UnexpectedResponse if none."""
        body = await self.request_json(method, route, path, deadline=deadline)
        data = body.get("data")
        result = parse(data) if isinstance(data, dict) else None
        if result is None:
            raise responses.unexpected("required fields are missing")
        return result


@contextmanager
def _own_right(right: str) -> Iterator[None]:
    """Have a 401 or 403 name the right that the token lacks.

    A 401 is no sign of a bad token here: for a missing right on logs, Northflank was met with one.
    """
    try:
        yield
    except AccessDenied as error:
        raise AccessDenied(
            f"The API token lacks the permission {right}.", http_status=error.http_status
        ) from error


def _milliseconds(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


async def fetch_all_pages[T: Entry](
    fetch_page: Callable[[int], Awaitable[Page[T]]], *, max_pages: int = 50
) -> Page[T]:
    """Return all pages as one: their items, each id once, in the order they came.

    Stops early at `max_pages` and at a page that only repeats: a server that miscounts must not use
    up the rate limit. The result then has `has_next`.
    """
    items: dict[str, T] = {}
    omitted, has_next = 0, True
    for number in range(1, max_pages + 1):
        page = await fetch_page(number)
        has_next = page.has_next
        omitted += page.omitted
        count_before = len(items)
        for item in page.items:
            items.setdefault(item.id, item)
        is_repeated = bool(page.items) and len(items) == count_before
        if not has_next or is_repeated:
            break
    return Page(tuple(items.values()), has_next, omitted)
