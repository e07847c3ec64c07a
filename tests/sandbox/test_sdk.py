"""The official Python client against the sandbox: its requests get valid responses."""

import asyncio
from typing import Any

import msgspec
import pytest
from northflank import ApiCallError, ApiClient, AsyncApiClient
from northflank._types import GetJobBuildResponse, GetJobRunResponse

from dashboard.sandbox import Options
from tests.support.sandbox import TOKEN, SandboxServer

STAGE: dict[str, Any] = {
    "project_id": "payments",
    "pipeline_id": "billing-api",
    "stage": "development",
}
HISTORY = 450
"""About as many runs as that stage has."""


@pytest.fixture
def client(sandbox_server: SandboxServer) -> ApiClient:
    return ApiClient(api_token=TOKEN, base_url=sandbox_server.url)


def test_catalog_lists_are_readable(client: ApiClient) -> None:
    assert client.list.teams().data["teams"][0]["id"] == "acme"
    projects = client.list.projects().data["projects"]
    assert "payments" in [project["id"] for project in projects]
    assert client.get.project(project_id="payments").data["services"]
    pipelines = client.list.pipelines(project_id="payments").data["pipelines"]
    assert [pipeline["id"] for pipeline in pipelines] == ["billing-api", "ledger"]
    pipeline = client.get.pipeline(project_id="payments", pipeline_id="ledger").data
    assert pipeline["name"] == "Ledger"


def test_release_flow_has_spec_policy_and_paused(client: ApiClient) -> None:
    flow = client.get.release_flow(**STAGE).data
    assert flow["spec"]["kind"] == "Workflow"
    assert flow["concurrencyPolicy"] == "allow"
    assert flow["paused"] is False


def test_all_runs_are_listed_over_pages(client: ApiClient) -> None:
    runs = client.list.release_flow_runs.all(**STAGE, per_page=100).data["runs"]
    assert len({run["id"] for run in runs}) == len(runs) > HISTORY


def test_filtered_runs_over_small_pages_match_all_runs(client: ApiClient) -> None:
    failed = client.list.release_flow_runs.all(**STAGE, per_page=37, status="failure").data["runs"]
    all_runs = client.list.release_flow_runs.all(**STAGE, per_page=100).data["runs"]
    assert failed == [run for run in all_runs if run["status"] == "failure"]


def test_runs_are_filtered_by_status_and_concluded(client: ApiClient) -> None:
    running = client.list.release_flow_runs(**STAGE, concluded=False).data["runs"]
    assert not any(run["concluded"] for run in running)
    failed = client.list.release_flow_runs(**STAGE, status="failure", concluded=True).data["runs"]
    assert {run["status"] for run in failed} == {"failure"}


def test_run_is_started_and_aborted(client: ApiClient, sandbox_server: SandboxServer) -> None:
    started = client.run.release_flow(**STAGE, data={"name": "Demo run"}).data
    assert (started["name"], started["concluded"]) == ("Demo run", False)
    run = STAGE | {"run_id": started["id"]}
    sandbox_server.clock.now += 30
    assert client.get.release_flow_run(**run).data["status"] == "running"
    aborting = client.abort.release_flow_run(**run).data
    assert (aborting["status"], aborting["concluded"]) == ("aborting", False)
    sandbox_server.clock.now += 6
    aborted = client.get.release_flow_run(**run).data
    assert (aborted["status"], aborted["concluded"]) == ("aborted", True)
    assert sandbox_server.sandbox.abort_request_counts == {started["id"]: 1}


# --- jobs, builds and logs -------------------------------------------------------------------

SHOP = {"project_id": "shop"}


@pytest.fixture
def jobs_client(sandbox_server: SandboxServer, client: ApiClient) -> ApiClient:
    sandbox_server.configure(Options(scenario="jobs-and-builds"))
    return client


def test_job_run_is_listed_read_and_aborted(
    jobs_client: ApiClient, sandbox_server: SandboxServer
) -> None:
    job: dict[str, Any] = SHOP | {"job_id": "migrate"}
    runs = jobs_client.get.job.runs.all(**job, per_page=100).data["runs"]
    concluded = [run for run in runs if run["concludedAt"]]  # a required text in the client's types
    assert len(msgspec.convert(concluded, list[GetJobRunResponse])) > 100
    run = job | {"run_id": runs[0]["id"]}
    assert jobs_client.get.job.run(**run).data == runs[0]
    assert jobs_client.abort.job.run(**run).data == {}
    sandbox_server.clock.now += 3
    ended = jobs_client.get.job.run(**run).data
    assert (ended["status"], ended["concluded"]) == ("FAILED", True)


@pytest.mark.parametrize(
    ("kind", "id"), [("service", "front"), ("job", "thumbnails")], ids=["service", "job"]
)
def test_build_is_listed_read_and_aborted(
    jobs_client: ApiClient, sandbox_server: SandboxServer, kind: str, id: str
) -> None:
    get, abort = getattr(jobs_client.get, kind), getattr(jobs_client.abort, kind)
    builds = get.builds(**SHOP, **{f"{kind}_id": id}).data["builds"]
    assert len(msgspec.convert(builds, list[GetJobBuildResponse])) == 50
    build = SHOP | {f"{kind}_id": id, "build_id": builds[0]["id"]}
    assert get.build(**build).data == builds[0]
    assert abort.build(**build).data == {}
    sandbox_server.clock.now += 3
    ended = get.build(**build).data
    assert (ended["status"], ended["concluded"]) == ("ABORTED", True)


# --- errors ----------------------------------------------------------------------------------


def test_api_error_has_status_message_id_and_details(client: ApiClient) -> None:
    with pytest.raises(ApiCallError) as raised:
        client.list.release_flow_runs(**STAGE, status="nope")
    assert raised.value.status == 400
    assert raised.value.message == "Invalid query"
    assert raised.value.id
    assert "status" in raised.value.details


def test_path_value_with_slash_is_not_split(client: ApiClient) -> None:
    with pytest.raises(ApiCallError) as raised:
        client.get.project(project_id="payments/pipelines")
    assert (raised.value.status, raised.value.message) == (404, "Project not found")


def test_request_above_rate_limit_is_429(client: ApiClient, sandbox_server: SandboxServer) -> None:
    sandbox_server.configure(Options(rate_limit=2))
    for _ in range(2):
        client.list.projects()
    with pytest.raises(ApiCallError) as raised:
        client.list.projects()
    assert raised.value.status == 429


def test_async_client_lists_starts_and_aborts(sandbox_server: SandboxServer) -> None:
    async def drive() -> tuple[Any, Any, Any]:
        client = AsyncApiClient(api_token=TOKEN, base_url=sandbox_server.url)
        everything = await client.list.release_flow_runs.all(**STAGE, per_page=100)
        started = await client.run.release_flow(**STAGE, data={})
        aborting = await client.abort.release_flow_run(**STAGE, run_id=started.data["id"])
        return everything.data["runs"], started.data, aborting.data

    runs, started, aborting = asyncio.run(drive())
    assert len(runs) > HISTORY
    assert "name" not in started
    assert aborting["status"] == "aborting"
