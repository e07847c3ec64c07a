"""Job runs, builds and logs over HTTP: what steps have started, and what it writes."""

import json
import re
from datetime import datetime
from typing import Any

import httpx
import pytest

from dashboard.sandbox import Options, parse_fault
from dashboard.sandbox.secret_lines import LOGGED_SECRETS
from tests.support.sandbox import NOW, SandboxServer
from tests.support.sandbox_paths import flow

CHECKOUT = flow("shop", "checkout", "production")
MIGRATE = "/projects/shop/jobs/migrate"
FRONT = "/projects/shop/services/front"

type Json = dict[str, Any]


def waiting_flow(name: str) -> str:
    return flow("shop", name, "production")


@pytest.fixture
def jobs_server(sandbox_server: SandboxServer) -> SandboxServer:
    """The scenario whose pipelines each wait for another kind of job or build."""
    return open_scenario(sandbox_server, "jobs-and-builds")


def open_scenario(server: SandboxServer, name: str, **choices: str) -> SandboxServer:
    names = {name.replace("_", "-"): value for name, value in choices.items()}
    server.clock.now = NOW
    server.configure(Options(scenario=name, choices=names, history_hours=4))
    return server


def waiting_run(server: SandboxServer, path: str) -> Json:
    """Return the detail of the oldest run in flight."""
    runs = server.get(f"{path}/runs?concluded=false").json()["data"]["runs"]
    data: Json = server.get(f"{path}/runs/{runs[-1]['id']}").json()["data"]
    return data


def last_step(run: Json) -> Json:
    step: Json = run["spec"]["spec"]["steps"][-1]
    return step


def job_run(server: SandboxServer, path: str) -> Json:
    """Return the newest run of a job."""
    data: Json = server.get(f"{path}/runs?per_page=1").json()["data"]["runs"][0]
    return data


def stuck_migration(server: SandboxServer) -> tuple[Json, str]:
    """Return the stuck run and the path of its job run."""
    run = waiting_run(server, CHECKOUT)
    return run, f"{MIGRATE}/runs/{run['refs']['migrate']['id']}"


def lines(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200
    return [line["log"] for line in answer.json()["data"]]


def times(answer: httpx.Response) -> list[float]:
    return [datetime.fromisoformat(line["ts"]).timestamp() for line in answer.json()["data"]]


# --- job runs --------------------------------------------------------------------------------


def test_job_run_has_the_documented_fields(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "stuck-production")
    _, path = stuck_migration(sandbox_server)
    data = sandbox_server.get(path).json()["data"]
    started_at = data.pop("startedAt")
    assert re.fullmatch(r"[\d-]+T[\d:]+Z", started_at)
    assert datetime.fromisoformat(started_at).timestamp() == pytest.approx(NOW - 18 * 60, abs=1)
    assert re.fullmatch(r"migrate-[0-9a-f]{24}", data.pop("runName"))
    assert data == {
        "id": path.rpartition("/")[2], "status": "RUNNING", "concluded": False,
        "concludedAt": None, "active": 1, "failed": 0, "succeeded": 0, "completions": 0,
        "backoffLimit": 0,
    }  # fmt: skip


def test_job_runs_are_listed_in_pages_newest_first(jobs_server: SandboxServer) -> None:
    first = jobs_server.get(f"{MIGRATE}/runs?per_page=2").json()
    query = f"per_page=2&cursor={first['pagination']['cursor']}"
    second = jobs_server.get(f"{MIGRATE}/runs?{query}").json()
    starts = [run["startedAt"] for page in (first, second) for run in page["data"]["runs"]]
    assert len(set(starts)) == 4
    assert starts == sorted(starts, reverse=True)
    assert second["data"] == jobs_server.get(f"{MIGRATE}/runs?per_page=2&page=2").json()["data"]


def test_ended_job_run_is_success_or_failed(jobs_server: SandboxServer) -> None:
    mails = "/projects/shop/jobs/send-mails/runs?per_page=3"
    second, first, before = jobs_server.get(mails).json()["data"]["runs"]
    assert [run["status"] for run in (before, first, second)] == ["SUCCESS", "FAILED", "FAILED"]
    assert first["concludedAt"] <= second["startedAt"]


@pytest.mark.parametrize(
    "path",
    [
        *(f"{MIGRATE}/runs/nope", f"{MIGRATE}/build/nope", f"{FRONT}/build/nope"),
        *("/projects/shop/jobs/nope/runs", "/projects/shop/jobs/nope/logs"),
        *("/projects/shop/services/nope/logs", "/projects/shop/services/nope/build-logs"),
        *("/projects/nope/jobs/migrate/runs", f"{FRONT}/runs"),
    ],
)
def test_unknown_job_service_run_or_build_is_404(jobs_server: SandboxServer, path: str) -> None:
    answer = jobs_server.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["status"] == 404


# --- what a step names ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["silent", "chatty", "retrying", "survivor", "argument"])
def test_job_step_names_its_run_in_refs_and_response(jobs_server: SandboxServer, name: str) -> None:
    run = waiting_run(jobs_server, waiting_flow(name))
    step = last_step(run)
    created = run["refs"][step["ref"]]
    assert created == step["response"]["data"]
    job = step["spec"]["jobId"].replace("${args.JOB}", "nightly-import")
    data = jobs_server.get(f"/projects/shop/jobs/{job}/runs/{created['id']}").json()["data"]
    assert data["runName"] == created["runName"]


@pytest.mark.parametrize("name", ["build", "build-of-job"])
def test_build_step_names_its_build_in_refs(jobs_server: SandboxServer, name: str) -> None:
    run = waiting_run(jobs_server, waiting_flow(name))
    step = last_step(run)
    created, kind = run["refs"][step["ref"]], step["spec"]["type"]
    path = f"/projects/shop/{kind}s/{step['spec']['id']}/build/{created['id']}"
    data = jobs_server.get(path).json()["data"]
    assert (data["status"], data["concluded"]) == ("BUILDING", False)
    assert (data["branch"], data["sha"]) == (created["branch"], created["sha"])


@pytest.mark.parametrize(("name", "key"), [("condition", "runId"), ("build-condition", "buildId")])
def test_condition_names_what_a_step_has_begun(
    jobs_server: SandboxServer, name: str, key: str
) -> None:
    run = waiting_run(jobs_server, waiting_flow(name))
    beginning, condition = run["spec"]["spec"]["steps"]
    assert beginning["response"]["status"] == "success"
    assert condition["spec"]["spec"]["data"][key] == f"${{refs.{beginning['ref']}.id}}"
    assert beginning["ref"] in run["refs"]


@pytest.mark.parametrize(
    ("name", "job", "count"), [("one-match", "reindex", 1), ("several-matches", "count", 2)]
)
def test_unnamed_job_runs_match_by_time(
    jobs_server: SandboxServer, name: str, job: str, count: int
) -> None:
    run = waiting_run(jobs_server, waiting_flow(name))
    assert set(run["refs"]) == {"build"}
    runs = jobs_server.get(f"/projects/shop/jobs/{job}/runs").json()["data"]["runs"]
    assert [run["concluded"] for run in runs].count(False) == count


# --- aborts -----------------------------------------------------------------------------------


def test_migration_outlives_the_abort_of_its_run(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "stuck-production")
    run, path = stuck_migration(sandbox_server)
    sandbox_server.post(f"{CHECKOUT}/runs/{run['id']}/abort")
    sandbox_server.clock.now += 600
    assert waiting_run(sandbox_server, CHECKOUT)["id"] != run["id"]
    assert sandbox_server.get(path).json()["data"]["status"] == "RUNNING"
    sandbox_server.clock.now += 600
    assert sandbox_server.get(path).json()["data"]["status"] == "FAILED"


def test_other_job_runs_end_with_the_abort_of_their_run(jobs_server: SandboxServer) -> None:
    run = waiting_run(jobs_server, waiting_flow("silent"))
    path = f"/projects/shop/jobs/clean-up/runs/{run['refs']['clean-up']['id']}"
    jobs_server.post(f"{waiting_flow('silent')}/runs/{run['id']}/abort")
    jobs_server.clock.now += 6
    assert jobs_server.get(path).json()["data"]["status"] == "FAILED"
    [last] = lines(jobs_server.get("/projects/shop/jobs/clean-up/logs?lineLimit=1"))
    assert last.endswith("Received SIGTERM, stopping")


def test_aborted_job_run_fails_while_its_step_waits_on(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "stuck-production")
    run, path = stuck_migration(sandbox_server)
    answer = sandbox_server.request("DELETE", path)
    assert (answer.status_code, answer.json()) == (200, {"data": {}})
    assert sandbox_server.get(path).json()["data"]["status"] == "RUNNING"
    sandbox_server.clock.now += 3
    assert sandbox_server.get(path).json()["data"]["status"] == "FAILED"
    assert waiting_run(sandbox_server, CHECKOUT)["id"] == run["id"]
    assert sandbox_server.sandbox.abort_request_counts == {path.rpartition("/")[2]: 1}


def test_aborted_build_is_aborted(jobs_server: SandboxServer) -> None:
    build = jobs_server.get(f"{FRONT}/build").json()["data"]["builds"][0]
    path = f"{FRONT}/build/{build['id']}"
    assert jobs_server.request("DELETE", path).json() == {"data": {}}
    jobs_server.clock.now += 3
    data = jobs_server.get(path).json()["data"]
    assert (data["status"], data["buildConcludedAt"]) == ("ABORTED", NOW + 3)


@pytest.mark.parametrize("status", ["200", "404", "409"])
def test_abort_of_ended_job_run_answers_as_chosen(
    sandbox_server: SandboxServer, status: str
) -> None:
    open_scenario(sandbox_server, "jobs-and-builds", abort_concluded=status)
    ended = job_run(sandbox_server, "/projects/shop/jobs/send-mails")
    path = f"/projects/shop/jobs/send-mails/runs/{ended['id']}"
    assert sandbox_server.request("DELETE", path).status_code == int(status)
    assert sandbox_server.get(path).json()["data"] == ended


@pytest.mark.parametrize(("fault", "status"), [("reset", "RUNNING"), ("reset-after", "FAILED")])
def test_reset_faults_apply_to_job_runs(
    sandbox_server: SandboxServer, fault: str, status: str
) -> None:
    open_scenario(sandbox_server, "stuck-production")
    _, path = stuck_migration(sandbox_server)
    sandbox_server.sandbox.faults = [parse_fault(f"{fault}:0.01@abort-")]
    with pytest.raises(httpx.TransportError):
        sandbox_server.request("DELETE", path)
    sandbox_server.clock.now += 3
    assert sandbox_server.get(path).json()["data"]["status"] == status


# --- logs -------------------------------------------------------------------------------------


def test_last_line_of_silent_job_says_what_it_waits_for(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "stuck-production")
    _, path = stuck_migration(sandbox_server)
    query = f"runId={path.rpartition('/')[2]}&queryType=range&lineLimit=1&direction=backward"
    answer = sandbox_server.get(f"{MIGRATE}/logs?{query}&duration=3600")
    assert "waiting for lock on table orders held by pid 4121" in lines(answer)[0]
    assert NOW - times(answer)[0] > 17 * 60
    assert lines(sandbox_server.get(f"{MIGRATE}/logs?{query}&duration=600")) == []


def test_chatty_job_writes_every_two_seconds(jobs_server: SandboxServer) -> None:
    path = "/projects/shop/jobs/copy-orders/logs?lineLimit=3"
    assert times(jobs_server.get(path)) == [NOW, NOW - 2, NOW - 4]
    jobs_server.clock.now += 2
    assert times(jobs_server.get(path)) == [NOW + 2, NOW, NOW - 2]


def test_failed_job_run_ends_with_its_error(jobs_server: SandboxServer) -> None:
    failed = job_run(jobs_server, "/projects/shop/jobs/send-mails")
    path = f"/projects/shop/jobs/send-mails/logs?lineLimit=3&runId={failed['id']}"
    [status, rollback, error] = lines(jobs_server.get(path))
    assert "lock timeout" in error
    assert status.endswith("exit status 1")
    assert rollback.endswith("ROLLBACK")


def test_forward_lines_are_the_oldest_of_the_span(jobs_server: SandboxServer) -> None:
    span = "startTime=2027-01-15T07:55:00.000Z&endTime=2027-01-15T07:56:00.000Z"
    path = f"/projects/shop/jobs/copy-orders/logs?{span}&lineLimit=1000"
    forward = jobs_server.get(f"{path}&direction=forward").json()["data"]
    assert jobs_server.get(f"{path}&direction=backward").json()["data"] == forward[::-1]
    assert (forward[0]["ts"], forward[-1]["ts"]) == (
        *("2027-01-15T07:55:00.000Z", "2027-01-15T07:56:00.000Z"),
    )
    assert len(forward) == 31


@pytest.mark.parametrize(
    "span",
    [
        "endTime=2027-01-15T07:56:00.000Z&duration=60",
        "startTime=2027-01-15T07:55:00Z&endTime=2027-01-15T07:56:00Z",
    ],
)
def test_span_has_a_start_an_end_or_a_duration(jobs_server: SandboxServer, span: str) -> None:
    answer = jobs_server.get(f"/projects/shop/jobs/copy-orders/logs?{span}")
    assert (times(answer)[-1], times(answer)[0]) == (NOW - 300, NOW - 240)


@pytest.mark.parametrize(("name", "job"), [("silent", "clean-up"), ("chatty", "copy-orders")])
def test_written_lines_remain_after_an_abort(
    jobs_server: SandboxServer, name: str, job: str
) -> None:
    run = waiting_run(jobs_server, waiting_flow(name))
    span = "endTime=2027-01-15T08:00:00Z&duration=7200&lineLimit=1000"
    path = f"/projects/shop/jobs/{job}/logs?{span}&runId={run['refs'][job]['id']}"
    before = jobs_server.get(path).json()
    jobs_server.post(f"{waiting_flow(name)}/runs/{run['id']}/abort")
    jobs_server.clock.now += 60
    assert jobs_server.get(path).json() == before


def test_lines_without_run_id_are_those_of_all_runs(jobs_server: SandboxServer) -> None:
    answer = jobs_server.get("/projects/shop/jobs/count/logs?lineLimit=1000")
    assert len({line["containerId"] for line in answer.json()["data"]}) >= 2
    assert times(answer) == sorted(times(answer), reverse=True)


def test_lines_are_selected_by_their_text(jobs_server: SandboxServer) -> None:
    path = "/projects/shop/jobs/copy-orders/logs?textIncludes=447500"
    assert len(lines(jobs_server.get(path))) == 1


def test_some_lines_have_the_prefix_of_a_container_runtime(jobs_server: SandboxServer) -> None:
    texts = lines(jobs_server.get("/projects/shop/jobs/copy-orders/logs?lineLimit=20"))
    prefixed = [text for text in texts if re.match(r"[\d-]+T[\d:.]{18}Z stdout F copied", text)]
    assert 0 < len(prefixed) < len(texts)


def test_builds_have_logs(jobs_server: SandboxServer) -> None:
    build = jobs_server.get(f"{FRONT}/build").json()["data"]["builds"][0]
    path = f"{FRONT}/build-logs?lineLimit=1&buildId={build['id']}"
    assert "npm" in lines(jobs_server.get(path))[0]
    assert lines(jobs_server.get(f"{FRONT}/build-logs?buildId=nope")) == []


def test_logs_hold_every_planted_secret(sandbox_server: SandboxServer) -> None:
    open_scenario(sandbox_server, "stuck-production")
    run, path = stuck_migration(sandbox_server)
    query = f"runId={path.rpartition('/')[2]}&duration=3600"
    text = "\n".join(lines(sandbox_server.get(f"{MIGRATE}/logs?{query}")))
    environment = run["spec"]["spec"]["steps"][1]["spec"]["runtimeEnvironment"]
    known = run["arguments"]["DB_PASSWORD"], environment["API_KEY"]
    assert all(secret in text for secret in (*LOGGED_SECRETS, *known))


@pytest.mark.parametrize(
    "query",
    [
        *("lineLimit=1001", "lineLimit=-1", "direction=up", "startTime=soon", "duration=x"),
    ],
)
def test_invalid_log_query_is_400_with_details(jobs_server: SandboxServer, query: str) -> None:
    answer = jobs_server.get(f"{MIGRATE}/logs?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]["details"]


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        *(("read-logs", f"{MIGRATE}/logs"), ("read-build-logs", f"{FRONT}/build-logs")),
        *(("list-job-runs", f"{MIGRATE}/runs"), ("get-job-run", f"{MIGRATE}/runs/x")),
        *(("list-builds", f"{FRONT}/build"), ("get-build", f"{FRONT}/build/x")),
    ],
)
def test_fault_with_name_of_a_call_applies_to_it_only(
    jobs_server: SandboxServer, name: str, path: str
) -> None:
    jobs_server.sandbox.faults = [parse_fault(f"403@{name}")]
    assert jobs_server.get(path).status_code == 403
    assert jobs_server.get("/projects/shop").status_code == 200
    assert jobs_server.get(f"{waiting_flow('silent')}/runs").status_code == 200


@pytest.mark.parametrize("log", ["before\0after", "half \ud83d of a pair", None, {"level": "info"}])
def test_field_fault_replaces_each_line(jobs_server: SandboxServer, log: object) -> None:
    jobs_server.sandbox.faults = [parse_fault(f"field:log={json.dumps(log)}@read-logs")]
    answer = jobs_server.get("/projects/shop/jobs/copy-orders/logs?lineLimit=2")
    assert [line["log"] for line in json.loads(answer.content)["data"]] == [log] * 2
