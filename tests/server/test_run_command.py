"""`manage.py run RUN`: what the run waits for and, with --log, its newest lines."""

import io
import json
from collections.abc import Iterator

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from dashboard.management.cli.command import shell_account
from dashboard.models import AccessEvent, Run
from dashboard.models.accounts.access import AccessKind
from tests.support import factories, live_runs
from tests.support.live import Live


@pytest.fixture
def scenario() -> str:
    return "jobs-and-builds"


@pytest.fixture
def run(live: Live, settings: Settings) -> Iterator[Run]:
    """A run that waits for a silent job run, while a worker reads."""
    settings.SANDBOX = False
    settings.NORTHFLANK_API_TOKEN = live.connection.token
    settings.NORTHFLANK_API_BASE_URL = live.upstream_url
    with live.ticking():
        yield live_runs.waiting_run(live, "silent")


def output_of(run: Run, *options: str) -> str:
    output = io.StringIO()
    call_command("run", run.run_id, *options, stdout=output, stderr=io.StringIO())
    return output.getvalue()


def test_run_is_printed_with_its_log(run: Run) -> None:
    assert "waiting for lock on table orders" in output_of(run, "--log")
    text = output_of(run)
    assert "Waits for job run clean-up-" in text
    assert "Last line of its log: " in text
    assert "waiting for lock" not in text


def test_read_log_is_recorded_with_the_system_account(run: Run) -> None:
    output_of(run, "--log")
    event = AccessEvent.objects.get(kind=AccessKind.LOGS_OPENED)
    assert event.username == ""
    assert run.run_id in event.detail
    assert event.detail.endswith(f", by manage.py run as {shell_account()}.")


def test_log_is_part_of_json(run: Run) -> None:
    answer = json.loads(output_of(run, "--log", "2", "--json"))
    assert len(answer["log"]["lines"]) == 2
    assert answer["waiting_for"]["status"] == "RUNNING"


def test_run_without_a_log_is_printed_without_one(run: Run) -> None:
    other = factories.run(factories.stage())
    assert json.loads(output_of(other, "--log", "--json"))["log"] is None


@pytest.mark.parametrize("count", ["0", "1001", "x"])
def test_number_of_lines_is_checked(run: Run, count: str) -> None:
    with pytest.raises(CommandError, match="from 1 to 1000"):
        output_of(run, "--log", count)


def test_logs_of_the_embedded_sandbox_are_on_its_pages(run: Run, settings: Settings) -> None:
    settings.SANDBOX = True
    with pytest.raises(CommandError, match="open the run’s page"):
        output_of(run, "--log")
