"""Check what the API token can read, what is missing, and what to do about it.

Read-only, and without the database: the token may be one that no process uses yet. The requests of
a check count as those of another client of the account.
"""

import re
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from functools import partial

from dashboard.models.catalog import StageName
from dashboard.northflank import (
    Auth,
    Call,
    NorthflankClient,
    NorthflankError,
    NotFound,
    Page,
    RateLimit,
    RateLimited,
    Run,
    Unreachable,
)
from dashboard.texts import local_time
from dashboard.upstream import access_hint, budget_store

MAX_REQUESTS = 20
_MAX_REQUESTS_PER_CALL = 4  # the client repeats a failed read once, and tries both spellings
_MAX_PROJECTS = 3  # whose pipelines are listed, until one has some
_MAX_PIPELINES = 2  # whose stages are listed, until one has runs
_STAGES = (StageName.PRODUCTION, StageName.STAGING, StageName.DEVELOPMENT)
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


@dataclass
class Report:
    """What the check has found, in words for a person."""

    base_url: str
    team_id: str
    # By `/v1/auth`: kind, owner, role, projects, expiry; empty without an answer.
    token: dict[str, str] = field(default_factory=dict)
    permissions: list[str] = field(default_factory=list)  # of the token, as sent
    # What the token may do, by what was tried: "yes", "no (<cause>)" or "not tried …".
    access: dict[str, str] = field(default_factory=dict)
    projects: list[str] | None = None  # ids, of the first page; None: they could not be read
    has_more_projects: bool = False  # there are further pages
    missing_projects: list[str] = field(default_factory=list)  # of NORTHFLANK_PROJECTS
    pipelines: dict[str, list[str]] = field(default_factory=dict)  # ids by project
    stages: dict[str, str] = field(default_factory=dict)  # runs by “project / pipeline / stage”
    errors: list[str] = field(default_factory=list)  # messages for a person
    hint: str = ""  # what to check
    stopped: str = ""  # why the check ended early; empty: it did not
    request_count: int = 0
    rate_limit: RateLimit | None = None  # by the last answer that had one

    @property
    def exit_status(self) -> int:
        """0: all could be read; 1: something could not, or is missing; 2: no project could."""
        if self.projects is None:
            return 2
        return 1 if self.errors or self.missing_projects else 0


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
    report, calls = Report(base_url, team_id), list[Call]()
    async with NorthflankClient(
        token,
        base_url=base_url,
        team_id=team_id or None,
        on_call=calls.append,
        timeout_seconds=timeout_seconds,
    ) as client:
        checks = _Checks(client, calls, report)
        try:
            await checks.run(project_ids)
        except _Stopped as reason:
            report.stopped = str(reason)
    report.errors = [str(failure) for failure in checks.failures]
    report.hint = _find_hint(checks.failures, report.projects)
    report.request_count = len(calls)
    report.rate_limit = _last_rate_limit(calls)
    return report


class _Stopped(Exception):
    """No further request can or may be sent; the text says why, for a person."""


@dataclass
class _Checks:
    """The requests of one check, the most telling first."""

    client: NorthflankClient
    calls: list[Call]  # sent so far
    report: Report
    failures: list[NorthflankError] = field(default_factory=list)  # those not expected

    async def run(self, project_ids: Collection[str]) -> None:
        await self.check_auth()
        projects = await self.check_projects(project_ids)
        for project_id, pipeline_id in await self.check_pipelines(projects):
            for stage in _STAGES:
                await self.check_stage(project_id, pipeline_id, stage)
            if self.has_tried("read release flows"):
                break  # there was a run

    async def check_auth(self) -> None:
        access = self.report.access
        for name in ("list projects", "list pipelines", "read runs", "read release flows"):
            access[name] = "not tried"
        access["abort runs"] = "not tried"
        # An API older than `/v1/auth` answers 404.
        answer = await self.send(lambda nf: nf.get_auth(), is_optional=True)
        if isinstance(answer, NorthflankError):
            if answer.cause == "unauthorised":
                raise _Stopped(str(answer))
            permissions = []
        else:
            self.report.token = _describe_token(answer)
            permissions = self.report.permissions = list(answer.permissions)
        access["abort runs"] = f"not tried; {_describe_abort_permission(permissions)}"

    async def check_projects(self, wanted: Collection[str]) -> list[str]:
        """Return the ids of the projects to look into."""
        page = await self.send(lambda nf: nf.list_projects(), "list projects")
        if isinstance(page, NorthflankError):
            raise _Stopped(str(page))
        ids = [project.id for project in page.items]
        self.report.projects, self.report.has_more_projects = ids, page.has_next
        if not page.has_next:
            self.report.missing_projects = [
                wanted_id for wanted_id in wanted if wanted_id not in ids
            ]
        return [project_id for project_id in ids if not wanted or project_id in wanted]

    async def check_pipelines(self, project_ids: list[str]) -> list[tuple[str, str]]:
        """Return some pipelines of the first project that has any, as ids with their project's."""
        for project_id in project_ids[:_MAX_PROJECTS]:
            page = await self.send(
                partial(NorthflankClient.list_pipelines, project_id=project_id), "list pipelines"
            )
            if not isinstance(page, NorthflankError):
                ids = [pipeline.id for pipeline in page.items]
                self.report.pipelines[project_id] = ids
                if ids:
                    return [(project_id, pipeline_id) for pipeline_id in ids[:_MAX_PIPELINES]]
        return []

    async def check_stage(self, project_id: str, pipeline_id: str, stage: str) -> None:
        """List a stage's runs; of the first stage that has some, read the flow and a run."""
        path = project_id, pipeline_id, stage
        found = await self.send(lambda nf: nf.list_runs(*path), "read runs", is_optional=True)
        self.report.stages[f"{project_id} / {pipeline_id} / {stage}"] = _describe_runs(found)
        if isinstance(found, Page) and found.items and not self.has_tried("read release flows"):
            run_id = found.items[0].id
            await self.send(lambda nf: nf.get_release_flow(*path), "read release flows")
            await self.send(lambda nf: nf.get_run(*path, run_id), "read runs")

    async def send[T](
        self,
        request: Callable[[NorthflankClient], Awaitable[T]],
        access: str = "",
        *,
        is_optional: bool = False,
    ) -> T | NorthflankError:
        """Send one request; return its result or failure.

        `access` names what its success shows of the token's permissions. Of an optional object
        NotFound is no error. Raises _Stopped if this request may not be sent, or none can follow:
        at the limit, after a 429, and without an answer.
        """
        if len(self.calls) + _MAX_REQUESTS_PER_CALL > MAX_REQUESTS:
            raise _Stopped(f"{MAX_REQUESTS} requests are the limit of a check.")
        usage = _last_rate_limit(self.calls)
        if usage and usage.remaining <= budget_store.abort_reserve(usage.limit):
            raise _Stopped("The requests left in this hour are reserved for aborts.")
        result: T | NorthflankError
        try:
            result = await request(self.client)
        except NorthflankError as failure:
            result = failure
        if access:
            self.note_access(access, result)
        if isinstance(result, NorthflankError):
            if not (is_optional and isinstance(result, NotFound)):
                self.failures.append(result)
            # No further request would be answered, or it would prolong a pause.
            if isinstance(result, Unreachable | RateLimited):
                raise _Stopped(str(result))
        return result

    def has_tried(self, access: str) -> bool:
        return self.report.access[access] != "not tried"

    def note_access(self, access: str, result: object) -> None:
        if not isinstance(result, NorthflankError):
            self.report.access[access] = "yes"
        elif self.report.access[access] != "yes":
            # Northflank may answer 404 to a token that may not see something.
            word = "unclear" if isinstance(result, NotFound) else "no"
            self.report.access[access] = f"{word} ({result.cause})"


def _last_rate_limit(calls: list[Call]) -> RateLimit | None:
    return next((call.rate_limit for call in reversed(calls) if call.rate_limit), None)


def _describe_token(auth: Auth) -> dict[str, str]:
    projects = "all"
    if auth.restriction_mode is not None:
        word = {"in": "only", "notIn": "all but"}.get(auth.restriction_mode, auth.restriction_mode)
        projects = f"{word} {', '.join(auth.restricted_projects) or 'none'}"
    return {
        "kind": auth.token_kind or "",
        "owner": f"{auth.entity_type or ''} {auth.entity_id or ''}".strip(),
        "role": auth.role or "",
        "projects": projects,
        "expires": local_time.format_full(auth.expires_at) if auth.expires_at else "never",
    }


def _describe_runs(found: Page[Run] | NorthflankError) -> str:
    if isinstance(found, NotFound):
        return "no release flow"
    if isinstance(found, NorthflankError):
        return f"cannot be read ({found.cause})"
    more = "+" if found.has_next else ""
    in_flight_count = sum(not run.concluded for run in found.items)
    return f"{len(found.items)}{more} runs, {in_flight_count} in flight"


def _describe_abort_permission(permissions: list[str]) -> str:
    """Return whether `/v1/auth` lists the right to abort; how it spells rights is undocumented."""
    if not permissions:
        return "/v1/auth lists no permissions"
    right = {"pipelines", "general", "update"}
    words = (set(re.findall(r"[a-z]+", permission.lower())) for permission in permissions)
    is_listed = any(right <= found for found in words)
    return f"/v1/auth {'lists' if is_listed else 'does not list'} Pipelines > General > Update"


def _find_hint(failures: list[NorthflankError], projects: list[str] | None) -> str:
    """Return what to check for the first failure that has a hint, or if there is no project."""
    for failure in failures:
        if hint := access_hint.describe(failure.cause):
            return hint
        if projects is None and failure.cause in _HINTS:
            return _HINTS[failure.cause]
    return _NO_PROJECT_HINT if projects == [] else ""
