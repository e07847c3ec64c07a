"""Check what the API token can read, what is missing, and what to do about it.

Read-only, and without the database: the token may be one that no process uses yet. The requests of
a check, about a dozen, count as those of another client of the account.
"""

import contextlib
import re
from collections.abc import Awaitable, Collection, Iterator, Sequence
from typing import NamedTuple

from dashboard.models.catalog import StageName
from dashboard.northflank import (
    Auth,
    Call,
    NorthflankClient,
    NorthflankError,
    NotFound,
    RateLimited,
    Unreachable,
)
from dashboard.texts import local_time
from dashboard.upstream import access_hint

_MAX_PROJECTS = 3  # whose pipelines are listed, until one has some
_MAX_PIPELINES = 2  # whose stages are listed, until one has runs
_ACCESS = ("list projects", "list pipelines", "read runs", "read release flows", "abort runs")
_NOT_TRIED = "not tried"
_NETWORK_HINT = (
    "Check NORTHFLANK_API_BASE_URL and the network: names, proxy, firewall, certificates."
)
_HINTS = {
    "unreachable": _NETWORK_HINT,
    "timeout": _NETWORK_HINT,
    "unexpected_response": _NETWORK_HINT,
    "not_found": "Check NORTHFLANK_TEAM_ID and NORTHFLANK_API_BASE_URL.",
}
_NO_PROJECT_HINT = (
    "The token has access to no project. Check to which projects its role is limited, and "
    "NORTHFLANK_TEAM_ID if it belongs to an organisation."
)


class Report(NamedTuple):
    """What the check has found, as lines for a person.

    Exit status 0: all could be read; 1: something could not, or is missing; 2: no project could.
    """

    lines: list[str]
    exit_status: int


async def check(
    token: str,
    base_url: str,
    team_id: str,
    project_ids: Collection[str],
    *,
    timeout_seconds: float = 15,
) -> Report:
    """Return the report on a token; `project_ids` as in the setting NORTHFLANK_PROJECTS.

    `timeout_seconds` bounds each request. Raises no NorthflankError.
    """
    calls = list[Call]()
    async with NorthflankClient(
        token,
        base_url=base_url,
        team_id=team_id or None,
        on_call=calls.append,
        timeout_seconds=timeout_seconds,
    ) as client:
        checks = _Checks(client)
        with contextlib.suppress(NorthflankError):
            await checks.run(project_ids)
    return Report(list(checks.lines(calls)), checks.exit_status)


class _Checks:
    """The requests of one check, the most telling first, and what they have found."""

    def __init__(self, client: NorthflankClient) -> None:
        self.client = client
        self.failures: list[NorthflankError] = []  # those not expected
        self.access = dict.fromkeys(_ACCESS, _NOT_TRIED)  # what the token may do
        self.token = ""
        self.projects: list[str] | None = None  # ids, of the first page; None: not read
        self.is_missing = False  # a project of NORTHFLANK_PROJECTS is not listed
        self.content: list[str] = []  # lines about projects, pipelines and stages

    @property
    def exit_status(self) -> int:
        if self.projects is None:
            return 2
        return 1 if self.failures or self.is_missing else 0

    async def run(self, wanted: Collection[str]) -> None:
        """Send the requests; raises NorthflankError if no further one can or may be sent."""
        # An API older than `/v1/auth` answers 404.
        auth = await self.send(self.client.get_auth(), is_optional=True)
        self.token = _describe_token(auth) if auth else ""
        right = _describe_abort_permission(auth.permissions if auth else ())
        self.access["abort runs"] = f"{_NOT_TRIED}; {right}"
        if (page := await self.send(self.client.list_projects(), "list projects")) is None:
            return
        self.projects = [project.id for project in page.items]
        more = "+" if page.has_next else ""
        self.content.append(f"Projects: {len(self.projects)}{more}; {', '.join(self.projects)}")
        missing = [id_ for id_ in wanted if id_ not in self.projects and not page.has_next]
        self.is_missing = bool(missing)
        self.content += (f"  {id_}, of NORTHFLANK_PROJECTS, is not among them" for id_ in missing)
        found = [project_id for project_id in self.projects if not wanted or project_id in wanted]
        for project_id in found[:_MAX_PROJECTS]:
            pipelines = await self.send(self.client.list_pipelines(project_id), "list pipelines")
            if pipelines is None:
                self.content.append(f"  {project_id}: its pipelines cannot be read")
                continue
            ids = [pipeline.id for pipeline in pipelines.items]
            self.content.append(f"  {project_id}: {len(ids)} pipelines; {', '.join(ids)}")
            for pipeline_id in ids[:_MAX_PIPELINES]:
                for stage in StageName.values[::-1]:
                    await self.check_stage(project_id, pipeline_id, stage)
                if self.has_run:
                    return
            if ids:
                return

    async def check_stage(self, project_id: str, pipeline_id: str, stage: str) -> None:
        """List a stage's runs; of the first stage that has some, read the flow and a run."""
        path = project_id, pipeline_id, stage
        page = await self.send(self.client.list_runs(*path), "read runs", is_optional=True)
        found = "no runs: no release flow, or no permission"
        if page:
            in_flight_count = sum(not run.concluded for run in page.items)
            more = "+" if page.has_next else ""
            found = f"{len(page.items)}{more} runs, {in_flight_count} in flight"
        self.content.append(f"  {' / '.join(path)}: {found}")
        if page and page.items and not self.has_run:
            await self.send(self.client.get_release_flow(*path), "read release flows")
            await self.send(self.client.get_run(*path, page.items[0].id), "read runs")

    @property
    def has_run(self) -> bool:
        return self.access["read release flows"] != _NOT_TRIED

    async def send[T](
        self, request: Awaitable[T], access: str = "", *, is_optional: bool = False
    ) -> T | None:
        """Return the result of a request; None if it failed.

        `access` names what its success shows of the token's permissions. Of an optional object
        NotFound is no error, and shows nothing. Raises the error of a 429, a refused token, and of
        a request without an answer: no further one would be answered, or it would prolong a pause.
        """
        try:
            result = await request
        except NorthflankError as failure:
            if is_optional and isinstance(failure, NotFound):
                return None
            if access and self.access[access] != "yes":
                self.access[access] = f"no ({failure.cause})"
            self.failures.append(failure)
            is_last = isinstance(failure, Unreachable | RateLimited)
            if is_last or failure.cause == "unauthorised":
                raise
            return None
        if access:
            self.access[access] = "yes"
        return result

    def lines(self, calls: Sequence[Call]) -> Iterator[str]:
        """Yield what was found; `calls` are the requests that were sent."""
        if self.projects is None:
            yield "The projects cannot be read."
        elif self.exit_status:
            yield "Something cannot be read, or is missing."
        elif self.has_run:
            yield "All that was tried can be read."
        else:
            yield "All that was tried can be read, but there was no run to try."
        yield from (f"  {error}" for error in self.failures)
        if hint := self._hint():
            yield hint
        limit = next((call.rate_limit for call in reversed(calls) if call.rate_limit), None)
        rest = f"{limit.remaining} of {limit.limit} an hour are left" if limit else "no rate limit"
        yield f"Requests: {len(calls)}; {rest}"
        if self.token:
            yield f"Token: {self.token}"
        if self.projects is not None:
            yield "May:"
            yield from (f"  {name:24}{result}" for name, result in self.access.items())
        yield from self.content

    def _hint(self) -> str:
        """Return what to check for the first failure that has a hint, or if there is no project."""
        for failure in self.failures:
            if hint := access_hint.describe(failure.cause):
                return hint
            if self.projects is None and failure.cause in _HINTS:
                return _HINTS[failure.cause]
        return _NO_PROJECT_HINT if self.projects == [] else ""


def _describe_token(auth: Auth) -> str:
    projects = "all"
    if auth.restriction_mode is not None:
        word = {"in": "only", "notIn": "all but"}.get(auth.restriction_mode, auth.restriction_mode)
        projects = f"{word} {', '.join(auth.restricted_projects) or 'none'}"
    facts = {
        "kind": auth.token_kind,
        "owner": f"{auth.entity_type or ''} {auth.entity_id or ''}".strip(),
        "role": auth.role,
        "projects": projects,
        "expires": local_time.format_full(auth.expires_at) if auth.expires_at else "never",
    }
    return ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact)


def _describe_abort_permission(permissions: Sequence[str]) -> str:
    """Return whether `/v1/auth` lists the right to abort; how it spells rights is undocumented."""
    if not permissions:
        return "/v1/auth lists no permissions"
    right = {"pipelines", "general", "update"}
    words = (set(re.findall(r"[a-z]+", permission.lower())) for permission in permissions)
    is_listed = any(right <= found for found in words)
    return f"/v1/auth {'lists' if is_listed else 'does not list'} Pipelines > General > Update"
