"""The client of Northflank's API: one method per endpoint, and lists of several pages.

Nothing of HTTP leaks out: callers get `models.py` or an exception of `errors.py`. A request goes
through `http.py`, `responses.py` and `decoding.py`, which tolerates what the reference leaves open:
https://northflank.com/docs/v1/api
"""

from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Self

from dashboard.northflank import decoding, responses
from dashboard.northflank.errors import NotFound, UnexpectedResponse
from dashboard.northflank.http import MAX_RESPONSE_BYTES, Answer, Call, HttpClient, Transport
from dashboard.northflank.models import (
    Auth,
    HasId,
    Omission,
    Page,
    Pipeline,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
)
from dashboard.northflank.values import as_id

BASE_URL = "https://api.northflank.com"
MAX_PER_PAGE = 100  # Northflank's own limit

# Marks a cursor of ours; Northflank's are opaque, so none is ever parsed.
_PAGE_NUMBER_PREFIX = "page:"


class NorthflankClient:
    """A client of Northflank's API. One per process: its connections are reused.

    Every method raises NorthflankError. Reads are retried once, after a short pause, when they fail
    on the way or with a 5xx; a POST only if its connection never opened: it cannot have arrived.
    A list is read by pages of at most MAX_PER_PAGE entries; `cursor` is that of the page before.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = BASE_URL,
        team_id: str | None = None,
        on_call: Callable[[Call], None] | None = None,
        on_answer: Callable[[Answer], None] | None = None,
        transport: Transport | None = None,
        timeout_seconds: float = 15,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
    ) -> None:
        """Raise ValueError for a token, base URL or team id that can never work.

        `on_call` is called after every request that was sent, failed ones included; `on_answer`
        with every response that was received whole, before it is decoded.
        `timeout_seconds` bounds a whole call with its retry, `max_response_bytes` each response,
        decompressed. `transport` replaces the network in tests.
        """
        # Organisation tokens must name the team, as a part of each project's route.
        self._team_path = ("teams", team_id) if team_id else ()
        if team_id and as_id(team_id) is None:
            raise ValueError(f"The team id {team_id[:50]!r} is not a valid ID.")
        self._http = HttpClient(
            token,
            base_url,
            on_call=on_call,
            on_answer=on_answer,
            transport=transport,
            timeout_seconds=timeout_seconds,
            max_response_bytes=max_response_bytes,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def get_auth(self) -> Auth:
        """Return whose token this is; raises NotFound where the API has no such endpoint yet."""
        # https://northflank.com/docs/v1/api/get-current-authentication-info
        return await self._request_object("GET", "auth", ("auth",), decoding.parse_auth)

    async def list_projects(
        self, *, cursor: str | None = None, per_page: int = MAX_PER_PAGE
    ) -> Page[Project]:
        """Return one page of the projects that the token can see."""
        # https://northflank.com/docs/v1/api/projects/list-projects
        path = (*self._team_path, "projects")
        query = _paging_query(None, cursor, per_page)
        return await self._request_page("projects", path, decoding.parse_project, query)

    async def list_pipelines(
        self, project_id: str, *, cursor: str | None = None, per_page: int = MAX_PER_PAGE
    ) -> Page[Pipeline]:
        """Return one page of a project's pipelines."""
        # https://northflank.com/docs/v1/api/project/pipelines/list-pipelines
        path = (*self._team_path, "projects", project_id, "pipelines")
        query = _paging_query(None, cursor, per_page)
        return await self._request_page("pipelines", path, decoding.parse_pipeline, query)

    async def check_pipeline(self, project_id: str, pipeline_id: str) -> None:
        """Raise NotFound unless the token can read the pipeline."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-pipeline
        path = (*self._team_path, "projects", project_id, "pipelines", pipeline_id)
        await self._request_object("GET", "pipeline", path, decoding.parse_pipeline_name)

    async def get_release_flow(self, project_id: str, pipeline_id: str, stage: str) -> ReleaseFlow:
        """Return what a stage runs; raises NotFound where it has no release flow."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-release-flow
        path = self._flow_path(project_id, pipeline_id, stage)
        return await self._request_object("GET", "release-flow", path, decoding.parse_release_flow)

    async def list_runs(
        self,
        project_id: str,
        pipeline_id: str,
        stage: str,
        *,
        status: str | None = None,
        concluded: bool | None = None,
        page: int | None = None,
        cursor: str | None = None,
        per_page: int = MAX_PER_PAGE,
    ) -> Page[Run]:
        """Return one page of a stage's runs, in no particular order.

        Without a release flow: NotFound or an empty page, which is undocumented.
        `page` counts from 1, for a page without a cursor. Older servers may ignore `status` and
        `concluded`: check each run.
        """
        # https://northflank.com/docs/v1/api/project/pipelines/list-release-flow-runs
        query = _paging_query(page, cursor, per_page)
        if status is not None:
            query["status"] = status
        if concluded is not None:
            query["concluded"] = "true" if concluded else "false"
        path = (*self._flow_path(project_id, pipeline_id, stage), "runs")
        return await self._request_page("runs", path, decoding.parse_listed_run, query)

    async def get_run(
        self, project_id: str, pipeline_id: str, stage: str, run_id: str
    ) -> RunDetail:
        """Return one run with its steps; raises NotFound where Northflank has it no longer."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-release-flow-run
        path = (*self._flow_path(project_id, pipeline_id, stage), "runs", run_id)
        return await self._request_object("GET", "run", path, _run_parser(run_id))

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
        path = (*self._flow_path(project_id, pipeline_id, stage), "runs", run_id, "abort")
        detail = await self._request_object(
            "POST", "abort", path, _run_parser(run_id), deadline=deadline
        )
        if detail.run.id != run_id:
            raise responses.unexpected("it describes another run", 200)
        return detail

    def _flow_path(self, project_id: str, pipeline_id: str, stage: str) -> tuple[str, ...]:
        pipeline_path = (*self._team_path, "projects", project_id, "pipelines", pipeline_id)
        return (*pipeline_path, "release-flows", stage)

    async def _request_page[T: HasId](
        self,
        key: str,
        path: tuple[str, ...],
        parse_item: Callable[[object], T | None],
        query: dict[str, str],
    ) -> Page[T]:
        is_first = "cursor" not in query and query.get("page", "1") == "1"

        def parse(body: object, status: int) -> Page[T]:
            responses.unwrap(body, status)
            page = decoding.parse_page(body, key, parse_item, limit=int(query["per_page"]))
            if page is None:
                raise responses.unexpected("no list found", status)
            # On a later page it is the rest of a list that could be read.
            if is_first and page.omitted and not page.items:
                raise responses.unexpected("no readable entry in the list", status)
            return page

        page = await self._request("GET", key, path, parse, query=query)
        if page.has_next and page.cursor is None and page.items:
            # Another page, and no cursor to it: the official client then counts on, and so do we.
            number = int(query.get("page", "1")) + 1
            return replace(page, cursor=f"{_PAGE_NUMBER_PREFIX}{number}")
        return page

    async def _request_object[T](
        self,
        method: str,
        route: str,
        path: tuple[str, ...],
        parse: Callable[[object], T | None],
        *,
        deadline: float | None = None,
    ) -> T:
        """Return the object that `parse` finds in the response; UnexpectedResponse if none."""

        def parse_data(body: object, status: int) -> T:
            result = parse(responses.unwrap(body, status))
            if result is None:
                raise responses.unexpected("required fields are missing", status)
            return result

        return await self._request(method, route, path, parse_data, deadline=deadline)

    async def _request[T](
        self,
        method: str,
        route: str,
        path: tuple[str, ...],
        parse: Callable[[object, int], T],
        *,
        query: dict[str, str] | None = None,
        deadline: float | None = None,
    ) -> T:
        """Return what `parse` makes of the JSON and status of an answer."""
        status, body = await self._http.request_json(
            method, route, path, query=query, deadline=deadline
        )
        try:
            return parse(body, status)
        except UnexpectedResponse as error:
            # Without its frames, which keep the JSON: up to forty times the size of the answer, for
            # as long as the failure is handled.
            failure = error.with_traceback(None)
        finally:
            del body
        raise failure


async def fetch_all_pages[T: HasId](
    fetch_page: Callable[[str | None], Awaitable[Page[T]]], *, max_pages: int = 50
) -> Page[T]:
    """Return all pages as one: their items, each id once, in the order they came.

    Stops early at `max_pages`, at a repeated cursor and at a page without new items: a server that
    miscounts must not use up the rate limit. The result then has `has_next`.
    """
    items: dict[str, T] = {}
    previous_cursors: set[str] = set()
    cursor: str | None = None
    omitted: Counter[Omission] = Counter()
    has_next = False
    for _ in range(max_pages):
        page = await fetch_page(cursor)
        count_before = len(items)
        omitted.update(page.omitted)
        has_next = page.has_next
        for item in page.items:
            items.setdefault(item.id, item)
        is_repeated = bool(page.items) and len(items) == count_before
        cursor = page.cursor
        if not page.has_next or cursor is None or cursor in previous_cursors or is_repeated:
            break
        previous_cursors.add(cursor)
    return Page(tuple(items.values()), has_next, None, omitted)


async def find_release_flow(
    client: NorthflankClient,
    project_id: str,
    pipeline_id: str,
    stage: str,
    *,
    prefer_capitalised: bool = False,
) -> tuple[ReleaseFlow, str] | None:
    """Return a stage's release flow and the spelling of the stage that worked; None: no flow.

    Whether the path takes `development` or `Development` is undocumented: after a 404 the other
    spelling is tried.
    """
    spellings = [stage.lower(), stage.capitalize()]
    if prefer_capitalised:
        spellings.reverse()
    for spelling in spellings:
        try:
            return await client.get_release_flow(project_id, pipeline_id, spelling), spelling
        except NotFound:
            continue
    return None


def _run_parser(run_id: str) -> Callable[[object], RunDetail | None]:
    return partial(decoding.parse_run_detail, requested_id=run_id)


def _paging_query(page: int | None, cursor: str | None, per_page: int) -> dict[str, str]:
    query = {"per_page": str(max(1, min(per_page, MAX_PER_PAGE)))}
    # Both together are undocumented: the cursor, which is exact, wins.
    if cursor is not None and cursor.startswith(_PAGE_NUMBER_PREFIX):
        query["page"] = cursor.removeprefix(_PAGE_NUMBER_PREFIX)
    elif cursor is not None:
        query["cursor"] = cursor
    elif page is not None:
        query["page"] = str(page)
    return query
