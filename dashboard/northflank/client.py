"""Northflank's API, one method per endpoint; the only module that imports httpx.

Nothing of HTTP leaks out: callers see `models.py` or an exception of `errors.py`.
Reference: https://northflank.com/docs/v1/api. What it leaves open is tolerated in `decoding.py`.
"""

import asyncio
import logging
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address
from time import monotonic
from types import TracebackType
from typing import Self, cast
from urllib.parse import quote

import httpx

from dashboard.northflank import answers, decoding, ratelimit
from dashboard.northflank.errors import NotFound, ServerError, UnexpectedResponse, Unreachable
from dashboard.northflank.models import (
    Auth,
    Page,
    Pipeline,
    Project,
    ReleaseFlow,
    Run,
    RunDetail,
)
from dashboard.northflank.ratelimit import RateLimit
from dashboard.northflank.reading import as_id

BASE_URL = "https://api.northflank.com"
USER_AGENT = "northflank-dashboard/0.1.0"
MAX_PER_PAGE = 100

_RETRY_PAUSE = 0.2  # seconds
# A full page of runs is some 100 KB, one with the longest names and descriptions 3 MB. What is read
# takes some five times as much memory until it is decoded.
_MAX_RESPONSE_BYTES = 5 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024  # of an error's body; the status says most
_PAGE_NUMBER_PREFIX = (
    "page:"  # marks a cursor of ours; Northflank's are opaque, so none is ever parsed
)
# The request cannot have arrived. Anything else is taken to have been sent: better to doubt an
# abort that failed than to repeat one that worked.
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
    """One request that was sent, for budgets and metrics: no id and no secret in it."""

    method: str
    route: str  # "GET run"
    status: int | None  # None: no answer came
    seconds: float
    rate_limit: RateLimit | None


class NorthflankClient:
    """A connection to Northflank's API. One per process: its connections are reused.

    Every method raises NorthflankError. Reads are repeated once, briefly, when they fail on the way
    or with a 5xx; a POST only if its connection never opened, so that it cannot have arrived.
    """

    def __init__(
        self,
        token: str,
        *,
        base_url: str = BASE_URL,
        team_id: str | None = None,
        on_call: Callable[[Call], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        timeout_seconds: float = 15,
        max_response_bytes: int = _MAX_RESPONSE_BYTES,
    ) -> None:
        """Raise ValueError for a token, base URL or team id that can never work.

        `observe` is told of every request that was sent, also of failed ones. `timeout_seconds`
        bounds a whole call, a repetition included, `max_answer_bytes` each answer, unpacked.
        `transport` is the seam for tests.
        """
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise ValueError(
                "The API token is empty or holds a space, a line break or another character "
                "that a token cannot have."
            )
        url = _parse_base_url(base_url)
        # Organisation tokens must name the team, as a part of each project's route.
        self._team_path = ("teams", team_id) if team_id else ()
        if team_id and as_id(team_id) is None:
            raise ValueError(f"The team id {team_id[:50]!r} is no id.")
        self._base_url = str(url).rstrip("/")
        self._token = token
        self._on_call = on_call
        self._timeout_seconds = timeout_seconds
        self._max_response_bytes = max_response_bytes
        self._http = httpx.AsyncClient(
            transport=transport,
            # Self-hosters may need a proxy or their own CA, which the environment names (httpx
            # reads no netrc by itself). The sandbox on loopback is never behind a proxy.
            # No transport with retries: giving httpx one switches the proxies off.
            trust_env=not _is_loopback(url.host),
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
        """Return whose token this is; raises NotFound where the API is too old to tell."""
        # https://northflank.com/docs/v1/api/get-current-authentication-info
        return decoding.parse_auth(await self._request_data("GET", "auth", ("auth",)))

    async def list_projects(
        self, *, page: int | None = None, cursor: str | None = None, per_page: int = MAX_PER_PAGE
    ) -> Page[Project]:
        """Return one page of the projects that the token can see."""
        # https://northflank.com/docs/v1/api/projects/list-projects
        return await self._get_page(
            "projects",
            (*self._team_path, "projects"),
            decoding.parse_project,
            _paging_query(page, cursor, per_page),
        )

    async def list_pipelines(
        self,
        project_id: str,
        *,
        page: int | None = None,
        cursor: str | None = None,
        per_page: int = MAX_PER_PAGE,
    ) -> Page[Pipeline]:
        """Return one page of a project's pipelines."""
        # https://northflank.com/docs/v1/api/project/pipelines/list-pipelines
        return await self._get_page(
            "pipelines",
            (*self._team_path, "projects", project_id, "pipelines"),
            decoding.parse_pipeline,
            _paging_query(page, cursor, per_page),
        )

    async def check_pipeline(self, project_id: str, pipeline_id: str) -> None:
        """Raise NotFound unless the token can read the pipeline."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-pipeline
        path = (*self._team_path, "projects", project_id, "pipelines", pipeline_id)
        if not decoding.is_pipeline(await self._request_data("GET", "pipeline", path)):
            raise UnexpectedResponse(
                "Northflank's answer tells nothing of the pipeline.", http_status=200
            )

    async def get_release_flow(self, project_id: str, pipeline_id: str, stage: str) -> ReleaseFlow:
        """Return what a stage runs; raises NotFound where it has no release flow."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-release-flow
        path = self._flow_path(project_id, pipeline_id, stage)
        flow = decoding.parse_release_flow(await self._request_data("GET", "release-flow", path))
        if flow is None:
            raise UnexpectedResponse(
                "Northflank's answer tells nothing of the release flow.", http_status=200
            )
        return flow

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
        """Return one page of a stage's runs, in no promised order.

        Older servers may ignore `status` and `concluded`: look at each run.
        """
        # https://northflank.com/docs/v1/api/project/pipelines/list-release-flow-runs
        query = _paging_query(page, cursor, per_page)
        if status is not None:
            query["status"] = status
        if concluded is not None:
            query["concluded"] = "true" if concluded else "false"
        path = (*self._flow_path(project_id, pipeline_id, stage), "runs")
        return await self._get_page("runs", path, decoding.parse_listed_run, query)

    async def get_run(
        self, project_id: str, pipeline_id: str, stage: str, run_id: str
    ) -> RunDetail:
        """Return one run with its steps."""
        # https://northflank.com/docs/v1/api/project/pipelines/get-release-flow-run
        path = (*self._flow_path(project_id, pipeline_id, stage), "runs", run_id)
        detail = decoding.parse_run_detail(
            await self._request_data("GET", "run", path), requested_id=run_id
        )
        if detail is None:
            raise UnexpectedResponse(
                "Northflank's answer tells nothing of the run.", http_status=200
            )
        return detail

    async def abort_run(
        self,
        project_id: str,
        pipeline_id: str,
        stage: str,
        run_id: str,
        *,
        deadline: float | None = None,
    ) -> RunDetail:
        """Ask Northflank to abort the run, and return it as it now stands.

        The abort takes effect later, so expect `aborting` before the run has concluded. Sent once;
        when no answer comes back (Unreachable with `sent`), or one that does not tell how this run
        stands (UnexpectedAnswer: perhaps a proxy's), the run may be aborted nevertheless. From
        `until` on, by time.monotonic, nothing is sent any more and no answer is waited for.
        """
        # https://northflank.com/docs/v1/api/project/pipelines/abort-release-flow-run
        path = (*self._flow_path(project_id, pipeline_id, stage), "runs", run_id, "abort")
        data = await self._request_data("POST", "abort", path, deadline=deadline)
        detail = decoding.parse_run_detail(data, requested_id=run_id)
        if detail is None:
            raise UnexpectedResponse(
                "Northflank's answer tells nothing of the run.", http_status=200
            )
        if detail.run.id != run_id:
            raise UnexpectedResponse("Northflank answered with another run.", http_status=200)
        return detail

    def _flow_path(self, project_id: str, pipeline_id: str, stage: str) -> tuple[str, ...]:
        return (
            *self._team_path,
            "projects",
            project_id,
            "pipelines",
            pipeline_id,
            "release-flows",
            stage,
        )

    async def _get_page[T](
        self,
        key: str,
        path: tuple[str, ...],
        parse_item: Callable[[object], T | None],
        query: dict[str, str],
    ) -> Page[T]:
        status, body = await self._request("GET", key, path, query=query)
        answers.unwrap(body, status)
        page = decoding.parse_page(body, key, parse_item, limit=int(query["per_page"]))
        if page is None:
            raise UnexpectedResponse("Northflank's answer holds no list.", http_status=status)
        if page.unreadable_count and not page.items:
            raise UnexpectedResponse(
                "Nothing in Northflank's list can be read.", http_status=status
            )
        if page.has_next and page.cursor is None and page.items:
            # Another page, and no cursor to it: the official client then counts on, and so do we.
            number = int(query.get("page", "1")) + 1
            return replace(page, cursor=f"{_PAGE_NUMBER_PREFIX}{number}")
        return page

    async def _request_data(
        self,
        method: str,
        route: str,
        path: tuple[str, ...],
        *,
        deadline: float | None = None,
    ) -> object:
        status, payload = await self._request(method, route, path, deadline=deadline)
        return answers.unwrap(payload, status)

    async def _request(
        self,
        method: str,
        route: str,
        path: tuple[str, ...],
        *,
        query: dict[str, str] | None = None,
        deadline: float | None = None,
    ) -> tuple[int, object]:
        """Send one request, again if that is safe, and return the status and the decoded JSON."""
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
        # A process may have stood still since it was decided to send this.
        if _is_expired(deadline):
            raise Unreachable(
                "It was too late to send it.", may_have_arrived=False, cause="timeout"
            )
        started, is_sent = monotonic(), True
        status: int | None = None
        rate_limit: RateLimit | None = None
        try:
            response = await self._http.send(request, stream=True)
            try:
                status, rate_limit = (
                    response.status_code,
                    ratelimit.parse_rate_limit(response.headers),
                )
                body = await self._read_body(response)
            finally:
                await response.aclose()
        except _NOT_SENT_ERRORS as error:
            is_sent = False
            if isinstance(error, httpx.TimeoutException):
                raise _timeout_error(self._timeout_seconds, may_have_arrived=False) from error
            raise Unreachable("Northflank cannot be reached.", may_have_arrived=False) from error
        except httpx.TimeoutException as error:
            raise _timeout_error(self._timeout_seconds, may_have_arrived=True) from error
        except httpx.HTTPError as error:
            raise Unreachable(
                "The connection to Northflank broke before it had answered.", may_have_arrived=True
            ) from error
        finally:
            if is_sent:
                elapsed = monotonic() - started
                self._report_call(Call(request.method, route, status, elapsed, rate_limit))
        return status, answers.decode(status, response.headers, body, token=self._token)

    async def _read_body(self, response: httpx.Response) -> bytes:
        """Return the body, unpacked, within the limit; of an error as much as can be had."""
        try:
            return await self._decompress_body(response)
        except (httpx.HTTPError, UnexpectedResponse):
            if response.is_success:
                raise
            return b""  # the status says enough

    async def _decompress_body(self, response: httpx.Response) -> bytes:
        max_bytes = self._max_response_bytes if response.is_success else _MAX_ERROR_BYTES
        # httpx would unpack each chunk whole, and a chunk can unpack to a thousand times its size.
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in {"", "identity", "gzip"}:
            raise UnexpectedResponse(
                "Northflank's answer is packed in a way that was not asked for.",
                http_status=response.status_code,
            )
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
                raise UnexpectedResponse(
                    "Northflank's answer is damaged: it cannot be unpacked.",
                    http_status=response.status_code,
                ) from error
            if len(body) > max_bytes:
                raise UnexpectedResponse(
                    f"Northflank's answer is larger than {max_bytes:,} bytes.",
                    http_status=response.status_code,
                )
        return bytes(body)

    def _url(self, path: tuple[str, ...]) -> str:
        # Ids come from people's URLs. An empty one would address the list, a dot the parent.
        if not all(as_id(part) for part in path):
            raise NotFound("Northflank cannot know this: it is no id.")
        return "/".join([self._base_url, "v1", *(quote(part, safe="") for part in path)])

    def _report_call(self, call: Call) -> None:
        if self._on_call is None:
            return
        try:
            self._on_call(call)
        except Exception:
            # Keeping count must not turn an accepted abort into a failed one.
            log.exception("An observer of Northflank calls failed.")


def _is_expired(deadline: float | None) -> bool:
    return deadline is not None and monotonic() >= deadline


def _timeout_error(seconds: float, *, may_have_arrived: bool) -> Unreachable:
    return Unreachable(
        f"Northflank did not answer within {round(seconds, 1):g} seconds.",
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
