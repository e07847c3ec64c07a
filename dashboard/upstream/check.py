"""Check what the API token can read, and how Northflank's answers differ from the documentation.

Read-only. It changes neither the mirror nor the recorded outage: the token may be one that no
process uses yet.
"""

import re
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from dashboard.models.catalog import StageName
from dashboard.northflank import (
    Auth,
    Difference,
    NorthflankClient,
    NorthflankError,
    Page,
    Pipeline,
    Project,
    RateLimit,
    ReleaseFlow,
    Run,
    open_questions,
)
from dashboard.northflank.open_questions import Observation
from dashboard.upstream import access_hint
from dashboard.upstream.check_client import CheckClient, NoFurtherRequest, Outcome

MAX_PROJECTS = 3  # whose pipelines are listed, until one has some
MAX_PIPELINES = 2  # whose stages are listed, until one has runs
UNKNOWN_RUN = "00000000-0000-0000-0000-000000000000"
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
# Causes of a failure that are an answer to what is asked.
NOT_FOUND = ("not_found",)
REFUSED = ("not_found", "rejected")


@dataclass(frozen=True, slots=True)
class TokenReport:
    """The token by `/v1/auth`; empty texts were not sent."""

    kind: str  # api, session, workload
    owner: str  # "team acme"
    role: str
    permissions: list[str]  # as sent
    projects: str  # "all", or the ids that its role includes or excludes
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class StageReport:
    """A stage whose runs were requested."""

    project: str  # id, as the next
    pipeline: str
    stage: str
    run_count: int | None  # on the first page; None: it could not be read
    in_flight_count: int
    has_more: bool  # there are further pages
    error: str  # cause; not_found: no release flow


@dataclass
class Report:
    """What the check has found; `observations` and `differences` name nothing of the account."""

    base_url: str
    team_id: str
    token: TokenReport | None = None  # None: no answer, or an API without `/v1/auth`
    # What the token may do, by what was tried: "yes", "no (<cause>)" or "not tried …".
    access: dict[str, str] = field(default_factory=dict)
    projects: list[str] | None = None  # ids, of the first page; None: they could not be read
    has_more_projects: bool = False  # there are further pages
    missing_projects: list[str] = field(default_factory=list)  # of NORTHFLANK_PROJECTS
    pipelines: dict[str, list[str]] = field(default_factory=dict)  # ids by project
    stages: list[StageReport] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)  # messages for a person
    hint: str = ""  # what to check
    stopped: str = ""  # why the check ended early; empty: it did not
    database_note: str = ""  # why requests are not counted in the rate budget; empty: they are
    request_count: int = 0
    slowest_seconds: float = 0.0
    rate_limit: RateLimit | None = None  # by the last answer that had one
    rate_limit_headers: dict[str, str] = field(default_factory=dict)  # of the last answer, as sent
    observations: dict[str, list[str]] = field(default_factory=dict)  # by open question
    differences: list[Difference] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """0: all as documented; 1: something differs; 2: the projects could not be read."""
        if self.projects is None:
            return 2
        return 1 if self.errors or self.differences or self.missing_projects else 0


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
    client = CheckClient(token, base_url, team_id, timeout_seconds)
    checks = _Checks(client, Report(base_url, team_id), project_ids)
    try:
        await client.load_budget()
        await checks.run()
    except NoFurtherRequest as reason:
        checks.report.stopped = str(reason)
    finally:
        await client.aclose()
    return checks.finish()


@dataclass(frozen=True, slots=True)
class _StageRuns:
    """A stage, by its path, and the answer to the request for its runs."""

    path: tuple[str, str, str]
    outcome: Outcome[Page[Run]]

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.outcome.result.items if self.outcome.result is not None else ()


@dataclass
class _Checks:
    """The requests of one check, the most telling first."""

    client: CheckClient
    report: Report
    project_ids: Collection[str]
    observations: dict[str, set[str]] = field(default_factory=dict)
    spelling: Callable[[str], str] | None = None  # of stages in paths; None: not known yet

    async def run(self) -> None:
        await self.check_auth()
        projects = await self.check_projects()
        pipelines = await self.check_pipelines(projects)
        if not pipelines:
            return
        stages = await self.check_stages(pipelines)
        fullest = max(stages, key=lambda stage: len(stage.runs))
        if fullest.runs and fullest.outcome.result is not None:
            await self.check_run_details(fullest)
            await self.check_filters(fullest.path, fullest.outcome.result)
            await self.check_spelling(fullest)
        await self.check_pipeline(*fullest.path[:2])
        await self.check_stage_without_flow(stages)
        if fullest.outcome.result is not None:
            await self.check_history(fullest.path, fullest.outcome.result)
        await self.check_counting()

    def finish(self) -> Report:
        """Return the report, with all that was collected."""
        client, report = self.client, self.report
        report.errors = [str(failure) for failure in client.failures]
        report.hint = _find_hint(client.failures, report.projects)
        report.database_note = client.database_note
        report.request_count = client.request_count
        report.slowest_seconds = client.slowest_seconds
        report.rate_limit = client.rate_limit
        report.rate_limit_headers = client.rate_limit_headers
        report.observations = {
            question: sorted(self.observations[question])
            for question in open_questions.QUESTIONS
            if question in self.observations
        }
        report.differences = sorted(
            client.differences.values(),
            key=lambda difference: (difference.route, difference.field, difference.problem),
        )
        return report

    async def check_auth(self) -> None:
        access = self.report.access
        for name in ("list projects", "list pipelines", "read runs", "read release flows"):
            access[name] = "not tried"
        access["abort runs"] = "not tried"
        # An API older than `/v1/auth` answers 404.
        outcome = await self.send(lambda nf: nf.get_auth(), expected=NOT_FOUND)
        if outcome.failure is not None and outcome.failure.cause == "unauthorised":
            raise NoFurtherRequest(str(outcome.failure))
        if outcome.result is not None:
            self.report.token = _describe_token(outcome.result, self.client.without_token)
        access["abort runs"] = f"not tried; {_describe_abort_permission(outcome.result)}"

    async def check_projects(self) -> list[Project]:
        outcome = await self.send(lambda nf: nf.list_projects(), "list projects")
        if outcome.result is None:
            raise NoFurtherRequest(str(outcome.failure))
        page = outcome.result
        ids = [project.id for project in page.items]
        self.report.projects = list(map(self.client.without_token, ids))
        self.report.has_more_projects = page.has_next
        if not page.has_next:
            self.report.missing_projects = [
                project_id for project_id in self.project_ids if project_id not in ids
            ]
        return [
            project
            for project in page.items
            if not self.project_ids or project.id in self.project_ids
        ]

    async def check_pipelines(self, projects: list[Project]) -> list[tuple[str, Pipeline]]:
        for project_id in [project.id for project in projects[:MAX_PROJECTS]]:
            page = await self.request_pipelines(project_id)
            if page is not None:
                self.report.pipelines[self.client.without_token(project_id)] = [
                    self.client.without_token(pipeline.id) for pipeline in page.items
                ]
                if page.items:
                    return [(project_id, pipeline) for pipeline in page.items]
        return []

    async def request_pipelines(self, project_id: str) -> Page[Pipeline] | None:
        outcome = await self.send(lambda nf: nf.list_pipelines(project_id), "list pipelines")
        return outcome.result

    async def check_stages(self, pipelines: list[tuple[str, Pipeline]]) -> list[_StageRuns]:
        """List the runs of all stages of a pipeline, and of another one if it has no run."""
        stages: list[_StageRuns] = []
        for project_id, pipeline in pipelines[:MAX_PIPELINES]:
            for stage in (StageName.PRODUCTION, StageName.STAGING, StageName.DEVELOPMENT):
                found = await self.list_runs(project_id, pipeline.id, stage)
                stages.append(found)
                place = map(self.client.without_token, (project_id, pipeline.id, stage))
                self.report.stages.append(_describe_stage(*place, found=found))
            if any(found.runs for found in stages):
                break
        return stages

    async def list_runs(self, project_id: str, pipeline_id: str, stage: str) -> _StageRuns:
        """List a stage's runs by both spellings of the stage, until one is known to work."""
        spellings = [stage.lower(), stage.capitalize()]
        if self.spelling:
            spellings = [self.spelling(stage)]
        for segment in spellings:
            path = project_id, pipeline_id, segment
            outcome = await self.request_runs(path)
            if outcome.result is not None:
                self.spelling = str.lower if segment.islower() else str.capitalize
            if not outcome.is_not_found:
                break
        return _StageRuns(path, outcome)

    async def request_runs(self, path: tuple[str, str, str]) -> Outcome[Page[Run]]:
        outcome = await self.send(lambda nf: nf.list_runs(*path), "read runs", expected=NOT_FOUND)
        if outcome.result is not None and outcome.answer is not None:
            self.observe(open_questions.from_runs(outcome.answer))
        return outcome

    async def check_run_details(self, stage: _StageRuns) -> None:
        """Read a run in flight, one that has concluded (at best a failure), and an unknown one."""
        in_flight = sorted(
            (run for run in stage.runs if not run.concluded),
            key=lambda run: run.started_at is None,  # the steps of a started run show more
        )
        concluded = sorted(
            (run for run in stage.runs if run.concluded), key=lambda run: run.status == "success"
        )
        for run_id in [run.id for run in (*in_flight[:1], *concluded[:1])]:
            await self.check_run(stage.path, run_id)
        await self.send(lambda nf: nf.get_release_flow(*stage.path), "read release flows")
        unknown = await self.send(lambda nf: nf.get_run(*stage.path, UNKNOWN_RUN), expected=REFUSED)
        if unknown.answer is not None:
            self.observe(open_questions.from_unknown_run(unknown.answer))

    async def check_run(self, path: tuple[str, str, str], run_id: str) -> None:
        outcome = await self.send(lambda nf: nf.get_run(*path, run_id), "read runs")
        if outcome.result is not None and outcome.answer is not None:
            self.observe(open_questions.from_run(outcome.answer))

    async def check_filters(self, path: tuple[str, str, str], page: Page[Run]) -> None:
        """Find out whether the filters of runs have an effect; older servers may ignore them."""
        await self.check_filter(
            "concluded-filter",
            lambda nf: nf.list_runs(*path, concluded=False),
            lambda run: not run.concluded,
            page,
        )
        status = page.items[0].status
        await self.check_filter(
            "status-filter",
            lambda nf: nf.list_runs(*path, status=status),
            lambda run: run.status == status,
            page,
        )

    async def check_filter(
        self,
        question: str,
        request: Callable[[NorthflankClient], Awaitable[Page[Run]]],
        matches: Callable[[Run], bool],
        unfiltered: Page[Run],
    ) -> None:
        if all(matches(run) for run in unfiltered.items):
            return  # no answer could show it
        outcome = await self.send(request, expected=REFUSED)
        if outcome.result is not None:
            is_honoured = all(matches(run) for run in outcome.result.items)
            self.observe([(question, "honoured" if is_honoured else "ignored")])
        elif outcome.answer is not None:
            self.observe([(question, f"refused ({outcome.answer.status})")])

    async def check_spelling(self, stage: _StageRuns) -> None:
        """Find out whether both spellings of a stage work."""
        project_id, pipeline_id, segment = stage.path
        if not segment.islower():
            self.observe([("stage-spelling", "capitalised")])  # the other one was tried first
            return
        other = segment.capitalize()
        outcome = await self.send(
            lambda nf: nf.list_runs(project_id, pipeline_id, other, per_page=1), expected=REFUSED
        )
        self.observe([("stage-spelling", "any" if outcome.result is not None else "lower")])

    async def check_pipeline(self, project_id: str, pipeline_id: str) -> None:
        outcome = await self.send(lambda nf: nf.check_pipeline(project_id, pipeline_id))
        if outcome.failure is None and outcome.answer is not None:
            self.observe(open_questions.from_pipeline(outcome.answer))

    async def check_stage_without_flow(self, stages: list[_StageRuns]) -> None:
        """Find out how the list of runs answers where there is no release flow."""
        for stage in stages:
            if not stage.runs and (stage.outcome.result is not None or stage.outcome.is_not_found):
                flow = await self.request_flow(stage.path)
                if flow.is_not_found:
                    answer = "404" if stage.outcome.is_not_found else "empty-list"
                    self.observe([("stage-without-flow", answer)])
                return

    async def request_flow(self, path: tuple[str, str, str]) -> Outcome[ReleaseFlow]:
        return await self.send(lambda nf: nf.get_release_flow(*path), expected=NOT_FOUND)

    async def check_history(self, path: tuple[str, str, str], page: Page[Run]) -> None:
        """Find out how far back the runs of a stage go, as far as two pages show it."""
        times = [run.created_at for run in page.items if run.created_at is not None]
        if page.has_next:
            self.observe([("history", f"more than {len(page.items)} runs")])
            following = await self.send(lambda nf: nf.list_runs(*path, cursor=page.cursor))
            if following.answer is not None:
                self.observe(open_questions.from_runs(following.answer))
        elif times:
            days = (datetime.now(UTC) - min(times)).days
            self.observe([("history", f"{len(page.items)} runs, the oldest {days} days old")])

    async def check_counting(self) -> None:
        """Find out whether the rate limit counts `/v1/auth`; other clients may disturb it."""
        before = self.client.rate_limit
        await self.send(lambda nf: nf.get_auth(), expected=NOT_FOUND)
        after = self.client.rate_limit
        if before is not None and after is not None:
            used = before.remaining - after.remaining
            answers = {0: "not /v1/auth", 1: "/v1/auth too"}
            self.observe([("counted-requests", answers.get(used, "unclear"))])

    async def send[T](
        self,
        request: Callable[[NorthflankClient], Awaitable[T]],
        access: str = "",
        *,
        expected: Collection[str] = (),
    ) -> Outcome[T]:
        """Send one request; `access` names what its success shows of the token's permissions."""
        try:
            outcome = await self.client.send(request, expected=expected)
        finally:
            if self.client.last_answer is not None:
                self.observe(open_questions.from_any(self.client.last_answer))
        if access:
            self.note_access(access, outcome.failure)
        return outcome

    def note_access(self, access: str, failure: NorthflankError | None) -> None:
        if failure is None:
            self.report.access[access] = "yes"
        elif self.report.access[access] != "yes":
            # Northflank may answer 404 to a token that may not see something.
            word = "unclear" if failure.cause == "not_found" else "no"
            self.report.access[access] = f"{word} ({failure.cause})"

    def observe(self, observations: Iterable[Observation]) -> None:
        for question, text in observations:
            self.observations.setdefault(question, set()).add(text)


def _describe_token(auth: Auth, clean: Callable[[str], str]) -> TokenReport:
    projects = "all"
    if auth.restriction_mode is not None:
        word = {"in": "only", "notIn": "all but"}.get(auth.restriction_mode, auth.restriction_mode)
        projects = f"{word} {', '.join(auth.restricted_projects) or 'none'}"
    return TokenReport(
        kind=clean(auth.token_kind or ""),
        owner=clean(f"{auth.entity_type or ''} {auth.entity_id or ''}".strip()),
        role=clean(auth.role or ""),
        permissions=list(map(clean, auth.permissions)),
        projects=clean(projects),
        expires_at=auth.expires_at,
    )


def _describe_stage(project: str, pipeline: str, stage: str, *, found: _StageRuns) -> StageReport:
    page, failure = found.outcome.result, found.outcome.failure
    return StageReport(
        project,
        pipeline,
        stage,
        run_count=len(page.items) if page is not None else None,
        in_flight_count=sum(not run.concluded for run in found.runs),
        has_more=page is not None and page.has_next,
        error=failure.cause if failure is not None else "",
    )


def _describe_abort_permission(auth: Auth | None) -> str:
    """Return whether `/v1/auth` lists the right to abort; how it spells rights is undocumented."""
    if auth is None or not auth.permissions:
        return "/v1/auth lists no permissions"
    right = {"pipelines", "general", "update"}
    words = (set(re.findall(r"[a-z]+", permission.lower())) for permission in auth.permissions)
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
