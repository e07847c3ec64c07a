"""The client of Northflank's API: one method per endpoint, and lists of several pages.

Nothing of HTTP leaks out: callers get `models.py` or an exception of `errors.py`.
Reference: https://northflank.com/docs/v1/api. What it leaves open is tolerated in `decoding.py`.
"""

import asyncio
import logging
import re
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from time import monotonic
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

import httpx

from dashboard.northflank import decoding, responses
from dashboard.northflank.errors import NotFound, ServerError, UnexpectedResponse, Unreachable
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
from dashboard.northflank.responses import RateLimit
from dashboard.northflank.values import as_id

BASE_URL = "https://api.northflank.com"
USER_AGENT = "northflank-dashboard/0.1.0"
MAX_PER_PAGE = 100

_RETRY_PAUSE = 0.2  # seconds
# A full page of runs is some 100 KB, one with the longest names and descriptions 3 MB. What is read
# takes some five times as much memory until it is decoded.
_MAX_RESPONSE_BYTES = 5 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024  # of an error's body; the status matters most
# Marks a cursor of ours; Northflank's are opaque, so none is ever parsed.
_PAGE_NUMBER_PREFIX = "page:"
# The request cannot have arrived. After any other error it counts as sent: better to doubt an abort
# that failed than to repeat one that worked.
_NOT_SENT_ERRORS = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One request that was sent, for budgets and metrics: contains no id and no secret."""

    method: str
    route: str  # "GET run"
    status: int | None  # None: no response came
    seconds: float
    rate_limit: RateLimit | None


@dataclass(frozen=True, slots=True)
class Answer:
    """One response as received, for comparison with the documentation.

    It contains ids and secrets: neither store nor print it.
    """

    route: str  # "GET run"
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes  # decompressed; empty for an error whose body cannot be read


class NorthflankClient:
    """A client of Northflank's API. One per process: its connections are reused.

    Every method raises NorthflankError. Reads are retried once, after a short pause, when they fail
    on the way or with a 5xx; a POST only if its connection never opened: it cannot have arrived.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = BASE_URL,
        team_id: str | None = None,
        on_call: Callable[[Call], None] | None = None,
        on_answer: Callable[[Answer], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_seconds: float = 15,
        max_response_bytes: int = _MAX_RESPONSE_BYTES,
    ) -> None:
        """Raise ValueError for a token, base URL or team id that can never work.

        `on_call` is called after every request that was sent, failed ones included; `on_answer`
        with every response that was received whole, before it is decoded.
        `timeout_seconds` bounds a whole call with its retry, `max_response_bytes` each response,
        decompressed. `transport` replaces the network in tests.
        """
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ValueError(
                "The API token is empty or contains a space, a line break or another invalid "
                "character."
            )
        url = _parse_base_url(base_url)
        # Organisation tokens must name the team, as a part of each project's route.
        self._team_path = ("teams", team_id) if team_id else ()
        if team_id and as_id(team_id) is None:
            raise ValueError(f"The team id {team_id[:50]!r} is not a valid ID.")
        self._base_url = str(url).rstrip("/")
        self._token = token
        self._on_call = on_call
        self._on_answer = on_answer
        self._timeout_seconds = timeout_seconds
        self._max_response_bytes = max_response_bytes
        self._http = httpx.AsyncClient(
            transport=transport,
            # Self-hosters may need a proxy or their own CA, which the environment names (httpx
            # reads no netrc by itself). The sandbox on loopback is never behind a proxy.
            # No transport with retries: giving httpx one switches the proxies off.
            trust_env=not _is_loopback(url.host),
            verify=url.scheme == "https",  # reading the CAs takes longer than many requests
            timeout=httpx.Timeout(
                connect=timeout_seconds / 3,
                read=timeout_seconds,
                write=timeout_seconds,
                pool=timeout_seconds / 3,
            ),
            # Each abort that a slow Northflank has yet to answer holds a connection; the next one
            # must not wait for it.
            limits=httpx.Limits(
                max_connections=100, max_keepalive_connections=5, keepalive_expiry=20
            ),
            follow_redirects=False,  # a redirect would carry the token elsewhere
            headers={
                "Authorization": f"Bearer {token}",
                "Accept": "application/json",
                "Accept-Encoding": "gzip",
                "User-Agent": USER_AGENT,
            },
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

        Older servers may ignore `status` and `concluded`: check each run.
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
        """Return one run with its steps."""
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
        def parse(body: object, status: int) -> Page[T]:
            responses.unwrap(body, status)
            page = decoding.parse_page(body, key, parse_item, limit=int(query["per_page"]))
            if page is None:
                raise responses.unexpected("no list found", status)
            if page.omitted and not page.items:
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
        status, body = await self._request_json(method, route, path, query, deadline)
        try:
            return parse(body, status)
        except UnexpectedResponse as error:
            # Without its frames, which keep the JSON: up to forty times the size of the answer, for
            # as long as the failure is handled.
            failure = error.with_traceback(None)
        finally:
            del body
        raise failure

    async def _request_json(
        self,
        method: str,
        route: str,
        path: tuple[str, ...],
        query: dict[str, str] | None,
        deadline: float | None,
    ) -> tuple[int, object]:
        """Return status and decoded JSON of one request, retried once where that is safe."""
        request = self._http.build_request(method, self._url(path), params=query)
        seconds = self._timeout_seconds
        if deadline is not None:
            seconds = min(seconds, max(deadline - monotonic(), 0.0))
        try:
            # httpx's own timeouts start anew with every byte; this one bounds the whole.
            async with asyncio.timeout(seconds):
                try:
                    return await self._send_once(request, f"{method} {route}", deadline)
                except (Unreachable, ServerError) as failure:
                    is_unsent = isinstance(failure, Unreachable) and not failure.may_have_arrived
                    if (method != "GET" and not is_unsent) or _is_expired(deadline):
                        raise
                await asyncio.sleep(_RETRY_PAUSE)
                return await self._send_once(request, f"{method} {route}", deadline)
        except TimeoutError as error:
            raise _timeout_error(seconds, may_have_arrived=True) from error

    async def _send_once(
        self, request: httpx.Request, route: str, deadline: float | None
    ) -> tuple[int, object]:
        # The process may have been suspended since the caller decided to send this.
        if _is_expired(deadline):
            raise Unreachable(
                "The deadline for sending the request has passed.",
                may_have_arrived=False,
                cause="timeout",
            )
        started, is_sent = monotonic(), True
        status: int | None = None
        rate_limit: RateLimit | None = None
        try:
            response = await self._http.send(request, stream=True)
            try:
                status = response.status_code
                rate_limit = responses.parse_rate_limit(response.headers)
                body = await self._read_body(response)
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            failure = self._unreachable(error)
            is_sent = failure.may_have_arrived
            raise failure from error
        finally:
            if is_sent:
                elapsed = monotonic() - started
                self._report_call(Call(request.method, route, status, elapsed, rate_limit))
        if self._on_answer is not None:
            self._on_answer(Answer(route, status, dict(response.headers), body))
        return status, responses.decode(status, response.headers, body, token=self._token)

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        may_have_arrived = not isinstance(error, _NOT_SENT_ERRORS)
        if isinstance(error, httpx.TimeoutException):
            return _timeout_error(self._timeout_seconds, may_have_arrived=may_have_arrived)
        if may_have_arrived:
            text = "The connection to Northflank was lost before it responded."
        else:
            text = "Northflank is unreachable."
        return Unreachable(text, may_have_arrived=may_have_arrived)

    async def _read_body(self, response: httpx.Response) -> bytes:
        """Return the body, decompressed; an empty one for an error whose body cannot be read."""
        try:
            return await self._decompress_body(response)
        except (httpx.HTTPError, UnexpectedResponse):
            if response.is_success:
                raise
            return b""  # the status is enough

    async def _decompress_body(self, response: httpx.Response) -> bytes:
        status = response.status_code
        max_bytes = self._max_response_bytes if response.is_success else _MAX_ERROR_BYTES
        # httpx would unpack each chunk whole, and a chunk can unpack to a thousand times its size.
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity", "gzip"}:
            raise responses.unexpected("compression that was not requested", status)
        decompressor = zlib.decompressobj(wbits=31) if encoding == "gzip" else None
        body = bytearray()
        async for chunk in cast("httpx.AsyncByteStream", response.stream):
            try:
                body += (
                    decompressor.decompress(chunk, max_bytes + 1 - len(body))
                    if decompressor
                    else chunk
                )
            except zlib.error as error:
                raise responses.unexpected("corrupt gzip data", status) from error
            if len(body) > max_bytes:
                raise responses.unexpected(f"larger than {max_bytes:,} bytes", status)
        return bytes(body)

    def _url(self, path: tuple[str, ...]) -> str:
        # Ids come from people's URLs. An empty one would address the list, a dot the parent.
        if not all(as_id(part) for part in path):
            raise NotFound("Not a valid Northflank ID.")
        return "/".join([self._base_url, "v1", *(quote(part, safe="") for part in path)])

    def _report_call(self, call: Call) -> None:
        if self._on_call is None:
            return
        try:
            self._on_call(call)
        except Exception:
            # An error in the bookkeeping must not turn an accepted abort into a failed one.
            log.exception("on_call raised an exception.")


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


def _is_expired(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline


def _timeout_error(seconds: float, *, may_have_arrived: bool) -> Unreachable:
    return Unreachable(
        f"Northflank did not respond within {round(seconds, 1):g} seconds.",
        may_have_arrived=may_have_arrived,
        cause="timeout",
    )


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


def _parse_base_url(base_url: str) -> httpx.URL:
    try:
        url = httpx.URL(base_url.strip())
        is_valid = (
            url.scheme in {"http", "https"}
            and url.host
            and not (url.userinfo or url.query or url.fragment)
        )
    except httpx.InvalidURL:
        is_valid = False
    if not is_valid:
        raise ValueError(
            "The base URL must look like https://api.northflank.com: http or https and a host, "
            "without user, query or fragment."
        )
    return url


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
