"""The calls of the API: each method of a call answers one of them, or raises an ApiError.

Where Northflank's documentation leaves a behaviour open, a choice decides.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from .catalog import STAGES, TEAM, Pipeline, Project, ReleaseFlow
from .choices import Choices
from .errors import NO_ACCESS, ApiError, not_found
from .runs import Run
from .serializers import (
    CREATED_AT,
    Json,
    format_time,
    serialize_pipeline,
    serialize_pipeline_detail,
    serialize_project,
    serialize_project_detail,
    serialize_release_flow,
    serialize_run,
    serialize_run_detail,
)
from .world import World

STATUSES = (
    *("pending", "queued", "running", "waiting", "retrying", "async_wait", "approval_wait"),
    *("aborting", "aborted", "success", "failure", "skipped", "unknown"),
)

DEFAULT_PER_PAGE = 50
MAX_PER_PAGE = 100


@dataclass(frozen=True)
class Call:
    """One request: what it asks, of which world, and when."""

    world: World
    choices: Choices
    now: float
    params: Mapping[str, str]
    """The path's parameters, decoded."""
    query: Mapping[str, str]
    body: bytes

    # --- catalog -----------------------------------------------------------------------------

    def get_auth(self) -> Json:
        role = {"name": "Release manager", "roleId": "release-manager", "roleType": "team"}
        permissions = ["Projects > Manage > Read", "Pipelines > General > Read"]
        data: Json = {
            "tokenKind": "api",
            "id": "sandbox-token",
            "name": "Sandbox token",
            "role": role,
        }
        data |= {"entityId": TEAM.id, "entityUid": f"{TEAM.id}-uid", "entityType": "team"}
        data |= {"permissions": {"projectScope": [*permissions, "Pipelines > General > Update"]}}
        restrictions = {"enabled": False, "projects": [], "restrictionMode": "in"}
        data |= {"projectRestrictions": restrictions, "expiresAt": None}
        return {"data": data | {"createdAt": format_time(CREATED_AT)}}

    def login(self) -> Json:
        """Answer the login of the command line client, which only checks the status."""
        return {"data": {"entityId": TEAM.id, "entityType": "team"}}

    def list_teams(self) -> Json:
        team = {"id": TEAM.id, "name": TEAM.name, "uid": f"{TEAM.id}-uid"}
        return self.page("teams", [TEAM], lambda _: team | {"createdAt": format_time(CREATED_AT)})

    def list_projects(self) -> Json:
        self._check_team()
        return self.page("projects", self.world.projects, serialize_project)

    def get_project(self) -> Json:
        return {"data": serialize_project_detail(self.find_project())}

    def list_pipelines(self) -> Json:
        pipelines = self.find_project().pipelines
        return self.page("pipelines", pipelines, lambda p: serialize_pipeline(p, self.choices))

    def get_pipeline(self) -> Json:
        return {"data": serialize_pipeline_detail(self._find_pipeline())}

    def get_release_flow(self) -> Json:
        flow = self._find_flow()
        latest = next(self.world.list_runs(flow, self.now), None)
        status = latest.status(self.now) if latest else "unknown"
        return {"data": serialize_release_flow(flow, status, self.choices)}

    # --- runs --------------------------------------------------------------------------------

    def list_runs(self) -> Json:
        runs: Iterable[Run] = ()
        self._check_stage()
        has_flow = self.params["stage"].capitalize() in self._find_pipeline().flows
        if has_flow or self.choices["stage-without-flow"] == "404":
            runs = self.world.list_runs(self._find_flow(), self.now)
        return self.page(
            *("runs", runs, lambda run: serialize_run(run, self.now, self.choices)),
            matches=self._run_filter(),
        )

    def get_run(self) -> Json:
        return self._run_data(self._find_run())

    def start_run(self) -> Json:
        try:
            fields = json.loads(self.body or b"{}")
        except ValueError:
            raise ApiError(400, "The body is not JSON") from None
        return self._run_data(self.world.start_run(self._find_flow(), self.now, fields))

    def abort_run(self) -> Json:
        run = self._find_run()
        unchanged_data = self._run_data(run)
        if self.now >= run.concluded_at:
            status_choice = self.choices["abort-concluded"]
            if status_choice != "200":
                raise ApiError(int(status_choice), "The run has already concluded")
            return unchanged_data
        answer_choice = self.choices["abort-answer"]
        seconds = 0 if answer_choice == "aborted" else float(self.choices["abort-seconds"])
        self.world.abort_run(run.flow, run.id, self.now, seconds)
        return unchanged_data if answer_choice == "unchanged" else self._run_data(run)

    # --- lookups -----------------------------------------------------------------------------

    def _check_team(self) -> None:
        """Raise an ApiError for any team other than the sandbox's."""
        if self.params.get("team", TEAM.id) != TEAM.id:
            raise ApiError(403, NO_ACCESS)

    def find_project(self) -> Project:
        self._check_team()
        return self.world.find_project(self.params["project"])

    def _find_pipeline(self) -> Pipeline:
        return self.world.find_pipeline(self.find_project().id, self.params["pipeline"])

    def _check_stage(self) -> None:
        stage, spelling = self.params["stage"], self.choices["stage-spelling"]
        spellings = {"lower": stage.lower(), "capitalised": stage.capitalize(), "any": stage}
        if stage.capitalize() not in STAGES or stage != spellings[spelling]:
            not_found("Stage")

    def _find_flow(self) -> ReleaseFlow:
        pipeline = self._find_pipeline()
        self._check_stage()
        return self.world.find_flow(self.params["project"], pipeline.id, self.params["stage"])

    def _find_run(self) -> Run:
        return self.world.find_run(self._find_flow(), self.params["run"], self.now)

    def _run_data(self, run: Run) -> Json:
        return {"data": serialize_run_detail(run, self.now, self.choices)}

    # --- lists -------------------------------------------------------------------------------

    def _run_filter(self) -> Callable[[Run], bool]:
        status, concluded = self.query.get("status"), self.query.get("concluded")
        for name, values in {"status": STATUSES, "concluded": ("true", "false")}.items():
            if self.query.get(name, values[0]) not in values:
                rule = f"must be one of {', '.join(values)}"
                raise ApiError(400, "Invalid query", {name: [rule]})

        def matches(run: Run) -> bool:
            is_concluded = "true" if self.now >= run.concluded_at else "false"
            return concluded in {None, is_concluded} and status in {None, run.status(self.now)}

        return matches

    def page(
        self,
        key: str,
        items: Iterable[Any],
        serialize: Callable[[Any], Json],
        matches: Callable[[Any], bool] = lambda _: True,
    ) -> Json:
        """Return the requested page of a list of items with an `id`.

        The cursor refers to the last item of a page, not to a position, so that runs created in
        between shift nothing. It is looked up before filtering, since the item may have changed and
        no longer match.
        """
        per_page = min(self._parse_positive("per_page", DEFAULT_PER_PAGE), MAX_PER_PAGE)
        page_number = self._parse_positive("page", 1)
        if self.choices["run-order"] == "oldest-first":
            items = reversed(list(items))
        elif self.choices["run-order"] == "shuffled":
            items = sorted(items, key=lambda item: blake2b(item.id.encode()).digest())
        remaining = iter(items)
        if cursor := self.query.get("cursor"):
            # `page` together with `cursor` is undocumented; the cursor wins.
            if not any(f"after-{item.id}" == cursor for item in remaining):
                raise ApiError(400, "Invalid cursor", {"cursor": ["is unknown or has expired"]})
            page_number = 1
        start = (page_number - 1) * per_page
        matching = filter(matches, remaining)
        candidates = list(itertools.islice(matching, start, start + per_page + 1))
        page_items = candidates[:per_page]
        pagination: Json = {"hasNextPage": len(candidates) > per_page, "count": len(page_items)}
        if pagination["hasNextPage"]:
            pagination["cursor"] = f"after-{page_items[-1].id}"
        return {"data": {key: [serialize(item) for item in page_items]}, "pagination": pagination}

    def _parse_positive(self, name: str, default: int) -> int:
        text = self.query.get(name, str(default))
        # At most nine digits: Python refuses to parse thousands of them.
        if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text):
            raise ApiError(400, "Invalid query", {name: ["must be a positive whole number"]})
        return int(text)
