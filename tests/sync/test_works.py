"""Job runs and builds that steps wait for, read from Northflank and stored."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from django.utils import timezone

from dashboard.models import RateBudget, Run, Upstream, Work
from dashboard.northflank import NorthflankError, WorkRef
from dashboard.northflank import Work as ApiWork
from dashboard.sync import works
from dashboard.upstream.connection import Connection
from tests.support import factories, payloads
from tests.support.abort_answers import run_with_answers

pytestmark = pytest.mark.usefixtures("closing_connections")

REF = WorkRef("job_run", "job", "migrate", "r1")
JOB_RUN: dict[str, Any] = {
    "id": "r1", "runName": "migrate-5f", "status": "RUNNING", "concluded": False,
    "startedAt": "2026-03-02T08:00:00Z",
}  # fmt: skip
RATE_LIMIT = {
    "x-ratelimit-limit": "1000", "x-ratelimit-remaining": "900", "x-ratelimit-reset": "3000"
}  # fmt: skip


@pytest.fixture
def run() -> Run:
    return factories.run(factories.stage())


def read(run: Run, status: int = 200, body: Any = None) -> tuple[Work | None, str, list[str]]:
    """Read the work of a run; return its row, the cause of an error, and the requests' paths."""
    paths: list[str] = []
    result: list[Any] = []

    def answer(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.path)
        content = payloads.data(JOB_RUN) if body is None else body
        return httpx.Response(status, json=content, headers=RATE_LIMIT)

    async def read_work(connection: Connection) -> None:
        try:
            result.append((await works.read_work(connection, run, "db", REF), ""))
        except NorthflankError as error:
            result.append((None, error.cause))
        assert not connection.outage or status == 429

    run_with_answers(answer, read_work)
    return (*result[0], paths)


def test_named_job_run_is_read_by_one_request_and_stored(run: Run) -> None:
    row, _, paths = read(run)
    assert paths == ["/v1/projects/shop/jobs/migrate/runs/r1"]
    assert row is not None
    assert row == Work.objects.get(run=run)
    assert (row.step_key, row.name, row.status) == ("db", "migrate-5f", "RUNNING")


def test_named_job_run_that_northflank_lacks_is_not_stored(run: Run) -> None:
    row, cause, _ = read(run, 404, payloads.error("No such run"))
    assert (row, cause) == (None, "")
    assert not Work.objects.exists()


@pytest.mark.parametrize(
    ("status", "cause"), [(401, "forbidden"), (403, "forbidden"), (500, "server_error")]
)
def test_error_of_a_job_run_is_no_outage(run: Run, status: int, cause: str) -> None:
    Upstream.objects.create(pk=1)
    assert read(run, status, payloads.error("no"))[1] == cause
    assert Upstream.objects.get().error == ""


def test_rate_limit_of_a_job_run_is_recorded(run: Run) -> None:
    read(run)
    assert RateBudget.objects.get().remaining == 900


def test_429_for_a_job_run_pauses_the_account(run: Run) -> None:
    RateBudget.objects.create(
        pk=1, limit=1000, remaining=900, resets_at=timezone.now() + timedelta(hours=1),
        synced_at=timezone.now(),
    )  # fmt: skip
    assert read(run, 429, payloads.error("slow down"))[1] == "rate_limited"
    assert RateBudget.objects.get().refusals == 1


def store(run: Run, seconds: int, **changes: Any) -> Work:
    fields = {"id": "r1", "name": "migrate-5f", "status": "RUNNING", "concluded": False}
    work = ApiWork(**fields | {"started_at": None, "ended_at": None} | changes)
    requested_at = timezone.now() + timedelta(seconds=seconds)
    return works.store(run.pk, "db", REF, work, requested_at=requested_at)


def test_only_a_change_of_a_job_run_is_a_new_version_of_its_run(run: Run) -> None:
    versions = []
    for seconds, status in enumerate(["RUNNING", "RUNNING", "FAILED"]):
        store(run, seconds, status=status)
        versions.append(Run.objects.get(pk=run.pk).version)
    assert run.version < versions[0] == versions[1] < versions[2]


def test_what_was_read_earlier_changes_nothing(run: Run) -> None:
    store(run, 1, status="FAILED")
    assert store(run, 0, status="RUNNING").status == "FAILED"
