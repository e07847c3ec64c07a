"""Any answers of the types of Northflank's Python SDK: nothing is lost, and all pages stay up."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from logging import ERROR
from urllib.parse import urlencode

import httpx
import pytest
from django.contrib.auth.models import Group, User
from django.core.cache import cache
from django.db import connection
from django.urls import reverse
from django.utils import timezone
from hypothesis import HealthCheck, Phase, given, settings

from dashboard.accounts import permissions
from dashboard.models import Pipeline, Project, Run
from dashboard.northflank import NorthflankClient
from dashboard.server import process
from dashboard.sync import run_reader
from dashboard.web.http import links
from tests.support import api, factories, live_runs, paged_server
from tests.support.live import Live, run_live
from tests.support.outage_invariants import recorded_errors
from tests.support.paged_server import PagedServer
from tests.support.sdk_answers import WORKS, Account, accounts
from tests.support.services import EXHAUSTIVE
from tests.support.table_cleanup import empty_database
from tests.support.world import World

ROUNDS = 5  # the newest runs, and each page of older ones


@pytest.mark.live
@settings(
    max_examples=300 if EXHAUSTIVE else 3,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # each example takes a second
    suppress_health_check=[*HealthCheck],  # drawing takes less time than the pages
)
@given(account=accounts())
def test_all_that_northflank_has_is_mirrored_and_shown(
    transactional_db: None, caplog: pytest.LogCaptureFixture, account: Account
) -> None:
    caplog.clear()
    with northflank(account) as live:
        live.run(lambda: process.fetch_team(live.connection, repeats=False))
        World(live).sync(ROUNDS)
        live.run(lambda: read_what_is_read_seldom(live.connection.client, account))
        assert recorded_errors() == []
        assert_all_is_mirrored(account)
        browser = live.sign_in("manager")
        assert_pages_are_up(live, browser)
        if (run := Run.objects.with_stage().in_flight().order_by("pk").first()) is not None:
            assert live_runs.submit_abort(browser, run).status_code == 200
            live_runs.reconcile(live)
            World(live).sync()
            assert_pages_are_up(live, browser)
    assert [record.getMessage() for record in caplog.records if record.levelno >= ERROR] == []


@contextmanager
def northflank(account: Account) -> Iterator[Live]:
    """A dashboard that has read nothing yet, with the account as its Northflank."""
    empty_database(connection)
    cache.clear()
    user = User.objects.create_user("manager")
    user.groups.add(Group.objects.get(name=permissions.RELEASE_MANAGERS))
    server = PagedServer()
    server.pages = account.pages
    with run_live() as live:
        live.run(server.__aenter__)
        paged_server.connect(live, server)
        try:
            yield live
        finally:
            live.run(live.connection.client.aclose)
            live.run(lambda: server.__aexit__(None, None, None))


async def read_what_is_read_seldom(nf: NorthflankClient, account: Account) -> None:
    for project, pipeline in account.pipelines:
        await nf.check_pipeline(project, pipeline)
    now = timezone.now()
    for project, ref in product(account.projects, WORKS):
        assert (await nf.get_work(project, ref)).id == ref.id
        await nf.list_works(project, ref)
        await nf.read_log(project, ref, since=now, until=now, max_lines=5)


def assert_all_is_mirrored(account: Account) -> None:
    assert set(Project.objects.values_list("slug", flat=True)) == account.projects
    pipelines = Pipeline.objects.values_list("project__slug", "slug")
    assert set(pipelines) == account.pipelines
    place = "stage__pipeline__project__slug", "stage__pipeline__slug", "stage__name"
    mirrored = Run.objects.values_list(*place, "run_id", "status", "concluded")
    assert {((*row[:3],), *row[3:]) for row in mirrored} == {
        (place, run_id, run["status"], run["concluded"])
        for (place, run_id), run in account.runs.items()
    }
    assert not Run.objects.exclude(removed_at=None).exists()


def assert_pages_are_up(live: Live, browser: httpx.Client) -> None:
    addresses = ["/", "/board/", "/health/", "/api/runs/"]
    addresses += map(links.pipeline_url, Pipeline.objects.select_related("project"))
    for run in Run.objects.with_stage():
        addresses += [factories.address(run.stage), factories.address(run)]
        project, pipeline, stage = run_reader.place(run.stage)
        place = urlencode({"project": project, "pipeline": pipeline, "stage": stage, "log": 5})
        addresses.append(f"{reverse('api_run', args=[run.run_id])}?{place}")
        log = browser.get(factories.address(run, "run_logs"))
        assert log.status_code == 200
        assert "Unexpected response" not in log.text
    secret = api.create_token_secret(User.objects.get(username="manager"))
    with api.client(live, secret) as client:
        for address in addresses:
            answer = (client if address.startswith("/api/") else browser).get(address)
            assert answer.status_code == 200, address
