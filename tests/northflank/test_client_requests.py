"""Requests of the client: methods, paths, queries, headers."""

import tomllib
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dashboard.northflank import (
    AccessDenied,
    LogLine,
    NorthflankClient,
    NotFound,
    WorkRef,
)
from dashboard.northflank.http import USER_AGENT
from tests.support import payloads
from tests.support.scripted_server import ScriptedServer, respond_with

pytestmark = pytest.mark.anyio

FLOW = "/v1/projects/shop/pipelines/main/release-flows/staging"
Call = Callable[[NorthflankClient], Awaitable[object]]

JOB_RUN = WorkRef("job_run", "job", "db", "r1")
BUILD = WorkRef("build", "service", "api", "b1")


async def read_log(client: NorthflankClient, ref: WorkRef) -> list[LogLine]:
    since, until = datetime(2026, 3, 2, 8, tzinfo=UTC), datetime(2026, 3, 2, 9, tzinfo=UTC)
    return await client.read_log("shop", ref, since=since, until=until, max_lines=50)


ROUTES: list[tuple[str, str, Call]] = [
    ("GET", "/v1/auth", lambda client: client.get_auth()),
    ("GET", "/v1/projects", lambda client: client.list_projects()),
    ("GET", "/v1/projects/shop/pipelines", lambda client: client.list_pipelines("shop")),
    (
        "GET",
        "/v1/projects/shop/pipelines/main",
        lambda client: client.check_pipeline("shop", "main"),
    ),
    ("GET", FLOW, lambda client: client.get_release_flow("shop", "main", "staging")),
    ("GET", f"{FLOW}/runs", lambda client: client.list_runs("shop", "main", "staging")),
    ("GET", f"{FLOW}/runs/r1", lambda client: client.get_run("shop", "main", "staging", "r1")),
    (
        "POST",
        f"{FLOW}/runs/r1/abort",
        lambda client: client.abort_run("shop", "main", "staging", "r1"),
    ),
    ("GET", "/v1/projects/shop/jobs/db/runs/r1", lambda client: client.get_work("shop", JOB_RUN)),
    ("GET", "/v1/projects/shop/jobs/db/runs", lambda client: client.list_works("shop", JOB_RUN)),
    (
        "DELETE",
        "/v1/projects/shop/jobs/db/runs/r1",
        lambda client: client.abort_work("shop", JOB_RUN),
    ),
    (
        "GET",
        "/v1/projects/shop/services/api/build/b1",
        lambda client: client.get_work("shop", BUILD),
    ),
    (
        "GET",
        "/v1/projects/shop/services/api/build",
        lambda client: client.list_works("shop", BUILD),
    ),
    (
        "DELETE",
        "/v1/projects/shop/services/api/build/b1",
        lambda client: client.abort_work("shop", BUILD),
    ),
    ("GET", "/v1/projects/shop/jobs/db/logs", lambda client: read_log(client, JOB_RUN)),
    ("GET", "/v1/projects/shop/services/api/build-logs", lambda client: read_log(client, BUILD)),
]


# Has all that any of these responses requires.
ANSWER = payloads.data(
    {
        "id": "r1",
        "name": "Main",
        "concluded": False,
        "spec": {},
        "projects": [],
        "pipelines": [],
        "runs": [],
        "builds": [],
        "logs": [],
    }
)


@pytest.mark.parametrize(("method", "path", "call"), ROUTES)
async def test_client_request_has_method_and_path_of_endpoint(
    client: NorthflankClient, server: ScriptedServer, method: str, path: str, call: Call
) -> None:
    server.enqueue(respond_with(ANSWER))
    await call(client)
    assert (server.request.method, server.request.path) == (method, path)


@pytest.mark.parametrize(("method", "path", "call"), ROUTES)
async def test_client_request_has_team_except_for_auth(
    server: ScriptedServer, method: str, path: str, call: Call
) -> None:
    server.enqueue(respond_with(ANSWER))
    async with NorthflankClient("TKN", base_url=server.url, team_id="my team") as client:
        await call(client)
    team_path = path if path == "/v1/auth" else path.replace("/v1/", "/v1/teams/my%20team/")
    assert server.request.path == team_path


async def test_client_request_quotes_ids_in_path(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(payloads.data(payloads.detail())))
    await client.get_run("a/b", "c?d#e", "ü %2F", "../x")
    assert server.request.path == (
        "/v1/projects/a%2Fb/pipelines/c%3Fd%23e/release-flows/%C3%BC%20%252f/runs/..%2Fx"
    )


@pytest.mark.parametrize("id", ["", ".", "..", "a\x00b", "\ud800", "x" * 256])
async def test_client_request_with_invalid_id_raises_not_found_unsent(
    client: NorthflankClient, server: ScriptedServer, id: str
) -> None:
    with pytest.raises(NotFound) as refusal:
        await client.abort_run("shop", "main", "staging", id)
    assert refusal.value.http_status is None
    assert server.requests == []


async def test_client_request_has_filter_and_page_in_query(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(ANSWER))
    await client.list_runs("p", "l", "s", concluded=True, page=3, per_page=50)
    assert server.request.query == "per_page=50&page=3&concluded=true"


@pytest.mark.parametrize(("ref", "id_name"), [(JOB_RUN, "runId=r1"), (BUILD, "buildId=b1")])
async def test_log_request_names_span_limit_and_work(
    client: NorthflankClient, server: ScriptedServer, ref: WorkRef, id_name: str
) -> None:
    server.enqueue(respond_with(ANSWER))
    await read_log(client, ref)
    assert server.request.query == (
        "queryType=range&direction=backward&lineLimit=50&startTime=2026-03-02T08%3A00%3A00.000Z"
        f"&endTime=2026-03-02T09%3A00%3A00.000Z&{id_name}"
    )


@pytest.mark.parametrize("status", [401, 403])
async def test_missing_right_to_logs_is_named_and_no_bad_token(
    client: NorthflankClient, server: ScriptedServer, status: int
) -> None:
    server.enqueue(respond_with(payloads.error("no"), status=status))
    with pytest.raises(AccessDenied, match=r"View Instance Logs .*View Observability") as error:
        await read_log(client, JOB_RUN)
    assert error.value.cause == "forbidden"


async def test_client_request_has_token_and_user_agent(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    await client.list_projects()
    headers = server.request.headers
    assert headers["authorization"] == "Bearer TKN"
    assert headers["accept"] == "application/json"
    assert headers["user-agent"] == USER_AGENT


def test_user_agent_has_version_of_pyproject() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert f"{project['name']}/{project['version']}" == USER_AGENT


async def test_abort_request_has_empty_body(
    client: NorthflankClient, server: ScriptedServer
) -> None:
    server.enqueue(respond_with(payloads.data(payloads.detail("r1"))))
    await client.abort_run("p", "l", "s", "r1")
    assert server.request.body == b""
    assert server.request.headers["content-length"] == "0"


async def test_client_reuses_connections(client: NorthflankClient, server: ScriptedServer) -> None:
    for _ in range(3):
        await client.list_projects()
    assert (len(server.requests), server.connections) == (3, 1)


async def test_client_with_path_in_base_url_keeps_it(server: ScriptedServer) -> None:
    async with NorthflankClient("TKN", base_url=f"{server.url}/gateway/") as client:
        await client.list_projects()
    assert server.request.path == "/gateway/v1/projects"


async def test_client_uses_proxy_of_environment_except_for_loopback(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with NorthflankClient("TKN", base_url="http://api.example") as client:
        await client.list_projects()
    assert server.request.path == "http://api.example/v1/projects"
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with NorthflankClient("TKN", base_url=server.url) as client:
        await client.list_projects()
    assert len(server.requests) == 2
